#!/bin/bash
# Asterisk: a recording made over ARI is over, and "done", when the telephone sends nothing for 4 s.
#
# Software: Asterisk 22.10.1 (Debian forky: asterisk 1:22.10.1+dfsg+~cs6.17.60671434-1), ARI.
# Expected: POST /channels/{id}/record without limits goes on until it is stopped or the caller hangs up,
#           as long as the call is; a pause, in which a telephone with silence suppression, on mute or
#           on hold sends no packets, is a pause in the file, too.
# Happens:  after 4 s without a packet the recording ends. RecordingFinished has state "done" and no
#           cause, what is said afterwards is not in the file, and `stop` gets 404. Shorter pauses are
#           missing from the file, so it is shorter than the call and times in it are wrong. Nor does
#           TALK_DETECT tell that somebody has stopped speaking who then sends nothing.
# Way out:  record a snoop of the channel (POST /channels/{id}/snoop?spy=in): it has a frame every 20 ms,
#           whatever comes; or have the telephones send silence.
#
# Needs Debian (amd64) and Python 3.11. Exit code 0: seen as described; 1: no longer so; 2: could not be
# tried.
#
# Seen (1 s of tone, a pause, 1 s of tone, then `stop`; ChannelTalkingFinished: how often in the pause,
# with TALK_DETECT(set)=500):
#   Asterisk 22.10.1
#   pause                  RecordingFinished  state    file  stop ChannelTalkingFinished
#   6 s, packets                 after 8.0 s   done   8.0 s   204                      1
#   3 s, no packets              after 5.0 s   done   2.0 s   204                      0
#   6 s, no packets              after 5.0 s   done   1.0 s   404                      0
#   6 s, none, snoop             after 8.0 s   done   8.0 s   204                      0
set -euo pipefail
folder=$(mktemp -d)
trap 'asterisk -rx "core stop now" >/dev/null 2>&1 || true; wait; rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"

# Asterisk is unpacked, not installed: it runs with the loader and the libraries that came with it.
library=$folder/root/usr/lib/x86_64-linux-gnu
asterisk() {
    OPENSSL_CONF=/dev/null "$library/ld-linux-x86-64.so.2" --inhibit-cache \
        --library-path "$library" root/usr/sbin/asterisk -C "$folder/etc/asterisk.conf" "$@"
}
cannot() { echo "$1"; exit 2; }
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m 1 '/debian/$') ||
    cannot 'apt knows no mirror of Debian here.'
mkdir -p apt/lists/partial apt/archives/partial etc run/recording
touch apt/status
keys=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [arch=amd64 signed-by=$keys] $mirror forky main" >apt/sources
cat >apt/conf <<END
Dir::State "$folder/apt";
Dir::State::status "$folder/apt/status";
Dir::Cache "$folder/apt";
Dir::Etc::sourcelist "$folder/apt/sources";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Sandbox::User "$(id -un)";
Acquire::Check-Valid-Until "false";
END
version='1:22.10.1+dfsg+~cs6.17.60671434-1'
{ apt-get -qq -c apt/conf update && apt-get -qq -y -c apt/conf --no-install-recommends \
    --download-only install "asterisk=$version"; } >apt/log 2>&1 ||
    cannot 'The packages cannot be had here.'
for package in apt/archives/*.deb; do dpkg -x "$package" root; done
cat >etc/asterisk.conf <<END
[directories]
astetcdir => $folder/etc
astmoddir => $library/asterisk/modules
astdatadir => $folder/root/usr/share/asterisk
astvarlibdir => $folder/run
astdbdir => $folder/run
astkeydir => $folder/run
astcachedir => $folder/run
astspooldir => $folder/run
astlogdir => $folder/run
astrundir => $folder/run
END
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check websockets==17.4 2>run/pip ||
    cannot 'The packages cannot be had here.'
{
    printf '[modules]\nautoload = no\n'
    printf 'load = %s.so\n' res_sorcery_config res_sorcery_memory res_sorcery_astdb res_timing_timerfd \
        res_crypto res_pjproject res_pjsip res_pjsip_session res_pjsip_sdp_rtp res_pjsip_pubsub \
        res_pjsip_endpoint_identifier_anonymous res_rtp_asterisk chan_pjsip codec_ulaw format_wav \
        func_talkdetect pbx_config res_http_websocket res_websocket_client res_stasis res_stasis_answer \
        res_stasis_playback res_stasis_recording res_stasis_snoop res_stasis_device_state res_ari \
        res_ari_model res_ari_channels res_ari_recordings res_ari_events app_stasis
} >etc/modules.conf
cat >etc/ari.conf <<END
[general]
enabled = yes
[me]
type = user
password = password-of-this-script
END
free() { python3 -c "import socket; s = socket.socket(type=socket.$1); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])"; }
http=$(free SOCK_STREAM)
sip=$(free SOCK_DGRAM)
printf '[general]\nenabled = yes\nbindaddr = 127.0.0.1\nbindport = %s\n' "$http" >etc/http.conf
cat >etc/pjsip.conf <<END
[udp]
type = transport
protocol = udp
bind = 127.0.0.1:$sip
[anonymous]
type = endpoint
context = phones
disallow = all
allow = ulaw
END
printf '[phones]\nexten => service,1,Stasis(service)\n' >etc/extensions.conf
printf '[general]\nrtpstart = 20000\nrtpend = 20200\n' >etc/rtp.conf
# Without these some modules do not load.
for file in acl ccss cdr cel features indications pjproject udptl websocket_client; do : >"etc/$file.conf"; done
cat >calls.py <<'PYTHON'
import base64
import json
import re
import socket
import struct
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import wave
from itertools import count

from websockets.sync.client import connect

HTTP, SIP = int(sys.argv[1]), int(sys.argv[2])
NAME = {"Authorization": "Basic " + base64.b64encode(b"me:password-of-this-script").decode()}
TONE, SILENCE = (b"\x00" * 8 + b"\x80" * 8) * 10, b"\xff" * 160
told: list[dict] = []


def ask(path: str, **parameters: str) -> dict | int:
    url = f"http://127.0.0.1:{HTTP}/ari/{path}?{urllib.parse.urlencode(parameters)}"
    request = urllib.request.Request(url, method="POST", headers=NAME)
    try:
        return json.loads(urllib.request.urlopen(request, timeout=10).read() or "{}")
    except urllib.error.HTTPError as error:
        return error.code


def listen() -> None:
    for message in events:
        told.append({"seen": time.monotonic(), **json.loads(message)})


def came(kind: str) -> list[dict]:
    return [event for event in told if event["type"] == kind]


def comes(kind: str) -> dict:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if found := came(kind):
            return found[-1]
        time.sleep(0.01)
    sys.exit(f"No {kind} came.")


class Phone:
    """Calls, and is in the application then."""

    numbers = count(1)

    def __init__(self) -> None:
        number = next(self.numbers)
        self.sip = socket.socket(type=socket.SOCK_DGRAM)
        self.sip.bind(("127.0.0.1", 0))
        self.sip.settimeout(10)
        self.rtp = socket.socket(type=socket.SOCK_DGRAM)
        self.rtp.bind(("127.0.0.1", 0))
        here = self.sip.getsockname()[1]
        self.head = (
            f"sip:service@127.0.0.1:{SIP} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP 127.0.0.1:{here};branch=z9hG4bK%s{number}\r\n"
            f"From: <sip:phone@127.0.0.1>;tag={number}\r\nTo: <sip:service@127.0.0.1>%s\r\n"
            f"Call-ID: {number}@phone\r\nContact: <sip:phone@127.0.0.1:{here}>\r\nMax-Forwards: 70\r\n"
        )
        sdp = (
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
            f"m=audio {self.rtp.getsockname()[1]} RTP/AVP 0\r\n"
        )
        body = f"Content-Type: application/sdp\r\nContent-Length: {len(sdp)}\r\n\r\n{sdp}"
        told.clear()
        self.say("INVITE", "i", "", 1, body)
        self.channel = comes("StasisStart")["channel"]["id"]
        ask(f"channels/{self.channel}/answer")
        while not (answer := self.sip.recv(4096).decode()).startswith("SIP/2.0 200"):
            pass
        self.tag = re.search(r"^To:.*(;tag=\S+)", answer, re.MULTILINE)[1]
        self.there = ("127.0.0.1", int(re.search(r"m=audio (\d+)", answer)[1]))
        self.say("ACK", "a", self.tag, 1)
        self.packets, self.stamp, self.due = 0, 0, time.monotonic()

    def say(self, method: str, branch: str, tag: str, number: int, body: str = "") -> None:
        rest = body or "Content-Length: 0\r\n\r\n"
        text = f"{method} {self.head % (branch, tag)}CSeq: {number} {method}\r\n{rest}"
        self.sip.sendto(text.encode(), ("127.0.0.1", SIP))

    def send(self, seconds: float, payload: bytes | None) -> None:
        """Send the same for so long; None: nothing."""
        for _ in range(round(seconds * 50)):
            time.sleep(max(0, self.due - time.monotonic()))
            if payload is not None:
                head = struct.pack("!BBHII", 0x80, 0, self.packets, self.stamp, 1)
                self.rtp.sendto(head + payload, self.there)
                self.packets += 1
            self.stamp += 160
            self.due += 0.02


def record(name: str, pause: float, payload: bytes | None, *, snoop: bool = False) -> list:
    """Speak, pause, speak: when it was over, with which state, how long the file is, what `stop`
    got, and how often the end of speech was told."""
    phone = Phone()
    ask(f"channels/{phone.channel}/variable", variable="TALK_DETECT(set)", value="500")
    phone.send(0.5, SILENCE)
    recorded = phone.channel
    if snoop:
        recorded = ask(f"channels/{recorded}/snoop", spy="in", app="service")["id"]
        phone.send(0.2, SILENCE)
    ask(f"channels/{recorded}/record", name=name, format="wav")
    began = time.monotonic()
    phone.send(1, TONE)
    phone.send(pause, payload)
    ends = len(came("ChannelTalkingFinished"))
    phone.send(1, TONE)
    stop = ask(f"recordings/live/{name}/stop")
    over = comes("RecordingFinished")
    phone.say("BYE", "b", phone.tag, 2)
    time.sleep(0.5)
    with wave.open(f"run/recording/{name}.wav") as file:
        seconds = file.getnframes() / file.getframerate()
    status = 204 if stop == {} else stop
    return [round(over["seen"] - began, 1), over["recording"]["state"], seconds, status, ends]


events = connect(f"ws://127.0.0.1:{HTTP}/ari/events?app=service", additional_headers=NAME)
threading.Thread(target=listen, daemon=True).start()
row = "{:<22} {:>17} {:>6} {:>7} {:>5} {:>22}"
print(row.format("pause", "RecordingFinished", "state", "file", "stop", "ChannelTalkingFinished"))
seen = {}
for name, pause, payload, snoop in (
    ("6 s, packets", 6, SILENCE, False),
    ("3 s, no packets", 3, None, False),
    ("6 s, no packets", 6, None, False),
    ("6 s, none, snoop", 6, None, True),
):
    seen[name] = over, state, seconds, stop, ends = record(
        name.replace(" ", "-").replace(",", ""), pause, payload, snoop=snoop
    )
    print(row.format(name, f"after {over:.1f} s", state, f"{seconds:.1f} s", stop, ends))
packets, short, long, way_out = seen.values()
same = packets[0] > 7.5 and packets[2] > 7.5 and packets[4] == 1
same = same and short[0] > 4.5 and short[2] < 3 and short[4] == 0
same = same and 4.5 < long[0] < 6 and long[1:] == ["done", long[2], 404, 0] and long[2] < 1.5
same = same and way_out[0] > 7.5 and way_out[2] > 7.5
sys.exit(0 if same else "It behaves differently now.")
PYTHON
asterisk -f >/dev/null 2>&1 &
for _ in $(seq 300); do
    if asterisk -rx 'core waitfullybooted' 2>/dev/null | grep -q 'fully booted'; then break; fi
    sleep 0.1
done
asterisk -V | sed 's/+.*//'
venv/bin/python calls.py "$http" "$sip"
