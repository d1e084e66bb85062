#!/bin/bash
# Asterisk: a key that follows the last one quickly comes twice over ARI, as ChannelDtmfReceived.
#
# Software: Asterisk 22.10.1 (Debian forky: asterisk 1:22.10.1+dfsg+~cs6.17.60671434-1), ARI, RFC 4733.
# Expected: one event for each key that is pressed, however quickly: RFC 4733 tells them apart by their
#           timestamps, and Q.24 lets pauses be as short as 40 ms.
# Happens:  Asterisk puts off a key whose predecessor ended less than 45 ms ago, as dialling from a
#           memory, or a network that delivers in bursts, makes it. It sends the event when the key
#           comes, and again when it takes it up: "1 2 3 3 4 4". Both have the same digit and
#           duration, and nothing tells them from a key that was pressed twice. A customer number or a
#           PIN that is put together of these events is wrong. What the other channels of the bridge
#           get (here: kind 0x03 of AudioSocket) has each key once.
# Way out:  take the keys from the media channel (AudioSocket from 22.4, 20.14 on; DTMF_END of
#           chan_websocket).
#
# Needs Debian (amd64) and Python 3.11. Exit code 0: seen as described; 1: no longer so; 2: could not be
# tried.
#
# Seen:
#   Asterisk 22.10.1
#   ms a key, pause  pressed     AudioSocket  ChannelDtmfReceived
#   100, 200         1234567890  1234567890   1234567890
#   100,  40         1234567890  1234567890   123344556677889900
#    40,  40         1234567890  1234567890   123344556677889900
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
mkdir -p apt/lists/partial apt/archives/partial etc run
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
        res_pjsip_endpoint_identifier_anonymous res_rtp_asterisk chan_pjsip codec_ulaw pbx_config \
        bridge_simple bridge_softmix res_http_websocket res_websocket_client res_audiosocket \
        chan_audiosocket res_stasis res_stasis_answer res_stasis_playback res_stasis_recording \
        res_stasis_snoop res_stasis_device_state res_ari res_ari_model res_ari_channels \
        res_ari_bridges res_ari_events app_stasis
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
cat >keys.py <<'PYTHON'
import base64
import json
import re
import socket
import struct
import sys
import threading
import time
import urllib.parse
import urllib.request
import uuid

from websockets.sync.client import connect

HTTP, SIP = int(sys.argv[1]), int(sys.argv[2])
NAME = {"Authorization": "Basic " + base64.b64encode(b"me:password-of-this-script").decode()}
PRESSED = "1234567890"
told: list[dict] = []
on_media: list[str] = []


def ask(path: str, **parameters: str) -> dict:
    url = f"http://127.0.0.1:{HTTP}/ari/{path}?{urllib.parse.urlencode(parameters)}"
    request = urllib.request.Request(url, method="POST", headers=NAME)
    return json.loads(urllib.request.urlopen(request, timeout=10).read() or "{}")


def listen() -> None:
    for message in events:
        told.append(json.loads(message))


def comes(kind: str, count: int = 1) -> dict:
    """Wait for the event of this number of a kind."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        found = [event for event in told if event["type"] == kind]
        if len(found) >= count:
            return found[count - 1]
        time.sleep(0.01)
    sys.exit(f"No {kind} came.")


def serve() -> None:
    """Be the AudioSocket server: send silence, and write down the keys."""
    line, _ = server.accept()
    threading.Thread(target=be_silent, args=(line,), daemon=True).start()
    stream = line.makefile("rb")
    while len(head := stream.read(3)) == 3:
        body = stream.read(int.from_bytes(head[1:], "big"))
        if head[0] == 0x03:
            on_media.append(body.decode())


def be_silent(line: socket.socket) -> None:
    try:
        while True:
            line.sendall(b"\x10\x01\x40" + bytes(320))
            time.sleep(0.02)
    except OSError:
        pass


events = connect(f"ws://127.0.0.1:{HTTP}/ari/events?app=service", additional_headers=NAME)
threading.Thread(target=listen, daemon=True).start()
server = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=serve, daemon=True).start()

# The telephone calls; caller and AudioSocket are put into a bridge.
sip = socket.socket(type=socket.SOCK_DGRAM)
sip.bind(("127.0.0.1", 0))
sip.settimeout(10)
rtp = socket.socket(type=socket.SOCK_DGRAM)
rtp.bind(("127.0.0.1", 0))
here = sip.getsockname()[1]
head = (
    f"sip:service@127.0.0.1:{SIP} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{here};branch=z9hG4bK%s\r\n"
    f"From: <sip:phone@127.0.0.1>;tag=1\r\nTo: <sip:service@127.0.0.1>%s\r\nCall-ID: 1@phone\r\n"
    f"Contact: <sip:phone@127.0.0.1:{here}>\r\nMax-Forwards: 70\r\n"
)
sdp = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    f"m=audio {rtp.getsockname()[1]} RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n"
)
body = f"Content-Type: application/sdp\r\nContent-Length: {len(sdp)}\r\n\r\n{sdp}"
sip.sendto(f"INVITE {head % ('i', '')}CSeq: 1 INVITE\r\n{body}".encode(), ("127.0.0.1", SIP))
caller = comes("StasisStart")["channel"]["id"]
ask(f"channels/{caller}/answer")
while not (answer := sip.recv(4096).decode()).startswith("SIP/2.0 200"):
    pass
tag = re.search(r"^To:.*(;tag=\S+)", answer, re.MULTILINE)[1]
there = ("127.0.0.1", int(re.search(r"m=audio (\d+)", answer)[1]))
end = "\r\nContent-Length: 0\r\n\r\n"
sip.sendto(f"ACK {head % ('a', tag)}CSeq: 1 ACK{end}".encode(), ("127.0.0.1", SIP))
bridge = ask("bridges", type="mixing")["id"]
media = ask(
    "channels/externalMedia",
    app="service",
    external_host=f"127.0.0.1:{server.getsockname()[1]}",
    encapsulation="audiosocket",
    transport="tcp",
    format="slin",
    data=str(uuid.uuid4()),
)["id"]
comes("StasisStart", 2)
ask(f"bridges/{bridge}/addChannel", channel=f"{caller},{media}")
comes("ChannelEnteredBridge", 2)

sent = stamp = 0


def send(due: float, kind: int, at: int, payload: bytes) -> None:
    global sent
    time.sleep(max(0, due - time.monotonic()))
    rtp.sendto(struct.pack("!BBHII", 0x80, kind, sent, at, 1) + payload, there)
    sent += 1


def press(key: str, due: float, key_ms: int, pause_ms: int) -> None:
    """Send a key as RFC 4733 has it, and sound (silence) in the pause that follows."""
    global stamp
    for at in range(0, key_ms, 20):
        send(due + at / 1000, 101 if at else 229, stamp, struct.pack("!BBH", int(key), 10, at * 8))
    for _ in range(3):
        send(due + key_ms / 1000, 101, stamp, struct.pack("!BBH", int(key), 138, key_ms * 8))
    stamp += key_ms * 8
    for at in range(0, pause_ms, 20):
        send(due + (key_ms + at) / 1000, 0, stamp, b"\xff" * 160)
        stamp += 160


row = "{:<16} {:<11} {:<12} {}"
print(row.format("ms a key, pause", "pressed", "AudioSocket", "ChannelDtmfReceived"))
seen = {}
for key_ms, pause_ms in ((100, 200), (100, 40), (40, 40)):
    told.clear()
    on_media.clear()
    began = time.monotonic() + 0.1
    for number, key in enumerate(PRESSED):
        press(key, began + number * (key_ms + pause_ms) / 1000, key_ms, pause_ms)
    time.sleep(2)
    keys = [event["digit"] for event in told if event["type"] == "ChannelDtmfReceived"]
    seen[key_ms, pause_ms] = "".join(on_media), "".join(keys)
    print(row.format(f"{key_ms:>3}, {pause_ms:>3}", PRESSED, *seen[key_ms, pause_ms]))
sip.sendto(f"BYE {head % ('b', tag)}CSeq: 2 BYE{end}".encode(), ("127.0.0.1", SIP))
same = all(media == PRESSED for media, _ in seen.values()) and seen[100, 200][1] == PRESSED
same = same and all(len(seen[key_ms, 40][1]) > 14 for key_ms in (100, 40))
sys.exit(0 if same else "It behaves differently now.")
PYTHON
asterisk -f >/dev/null 2>&1 &
for _ in $(seq 300); do
    if asterisk -rx 'core waitfullybooted' 2>/dev/null | grep -q 'fully booted'; then break; fi
    sleep 0.1
done
asterisk -V | sed 's/+.*//'
venv/bin/python keys.py "$http" "$sip"
