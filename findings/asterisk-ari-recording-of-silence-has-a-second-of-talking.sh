#!/bin/bash
# Asterisk: a recording over ARI in which nobody spoke has talking_duration 1 and silence_duration 0.
#
# Software: Asterisk 22.10.1 (Debian forky: asterisk 1:22.10.1+dfsg+~cs6.17.60671434-1), ARI.
# Expected: RecordingFinished says how much of a recording with maxSilenceSeconds was speech and how much
#           silence. So a message in which nobody spoke, such as a caller leaves who waits and hangs up, has
#           talking_duration 0, and `duration` is as long as the file.
# Happens:  of such a recording talking_duration is 1 and silence_duration 0: what an empty message must
#           have in a comparison with 0 it never has. Silence at the end counts as neither speech nor
#           silence, nor in `duration`, also where `stop` leaves it in the file: of 3 s of silence
#           1 s is said to be there.
# Way out:  count as empty what has a talking_duration of at most 1; take the length from the file.
#
# Needs Debian (amd64) and Python 3.11. Exit code 0: seen as described; 1: no longer so; 2: could not be
# tried.
#
# Seen:
#   Asterisk 22.10.1
#   heard                                 ended by           file  duration  talking  silence
#   nothing                               its silence       0.2 s         1        1        0
#   nothing                               stop              3.0 s         1        1        0
#   3 s tone, 3 s silence                 stop              6.0 s         4        4        0
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
        pbx_config res_http_websocket res_websocket_client res_stasis res_stasis_answer \
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

    def send(self, seconds: float, payload: bytes) -> None:
        """Send the same for so long."""
        for _ in range(round(seconds * 50)):
            time.sleep(max(0, self.due - time.monotonic()))
            head = struct.pack("!BBHII", 0x80, 0, self.packets, self.stamp, 1)
            self.rtp.sendto(head + payload, self.there)
            self.packets += 1
            self.stamp += 160
            self.due += 0.02


def record(name: str, sound: tuple[tuple[bytes, float], ...], limit: int, *, stop: bool) -> list:
    """Send this: how long the file is, and what the event says of it."""
    phone = Phone()
    phone.send(0.3, SILENCE)
    ask(f"channels/{phone.channel}/record", name=name, format="wav", maxSilenceSeconds=str(limit))
    for payload, seconds in sound:
        phone.send(seconds, payload)
    if stop:
        ask(f"recordings/live/{name}/stop")
    recording = comes("RecordingFinished")["recording"]
    phone.say("BYE", "b", phone.tag, 2)
    time.sleep(0.5)
    with wave.open(f"run/recording/{name}.wav") as file:
        seconds = file.getnframes() / file.getframerate()
    return [seconds, *(recording[f"{each}duration"] for each in ("", "talking_", "silence_"))]


events = connect(f"ws://127.0.0.1:{HTTP}/ari/events?app=service", additional_headers=NAME)
threading.Thread(target=listen, daemon=True).start()
row = "{:<37} {:<16} {:>6} {:>9} {:>8} {:>8}"
print(row.format("heard", "ended by", "file", "duration", "talking", "silence"))
seen = []
for what, sound, limit, stop in (
    ("nothing", ((SILENCE, 4),), 3, False),
    ("nothing", ((SILENCE, 3),), 5, True),
    ("3 s tone, 3 s silence", ((TONE, 3), (SILENCE, 3)), 5, True),
):
    name = f"recording-{len(seen)}"
    seen.append(record(name, sound, limit, stop=stop))
    seconds, *numbers = seen[-1]
    print(row.format(what, "stop" if stop else "its silence", f"{seconds:.1f} s", *numbers))
ended, stopped, spoken = seen
same = ended[0] < 0.5 and ended[1:] == [1, 1, 0]
same = same and stopped[0] > 2.5 and stopped[1:] == [1, 1, 0]
same = same and spoken[0] > 5.5 and 3 <= spoken[1] == spoken[2] <= 4 and spoken[3] == 0
sys.exit(0 if same else "It behaves differently now.")
PYTHON
asterisk -f >/dev/null 2>&1 &
for _ in $(seq 300); do
    if asterisk -rx 'core waitfullybooted' 2>/dev/null | grep -q 'fully booted'; then break; fi
    sleep 0.1
done
asterisk -V | sed 's/+.*//'
venv/bin/python calls.py "$http" "$sip"
