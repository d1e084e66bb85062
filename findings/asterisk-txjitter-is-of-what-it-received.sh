#!/bin/bash
# Asterisk: of a channel's RTP statistics, `txjitter` is the jitter of the packets that it received.
#
# Software: Asterisk 22.10.1 (Debian forky: asterisk 1:22.10.1+dfsg+~cs6.17.60671434-1).
# Expected: GET /channels/{id}/rtp_statistics calls `rxjitter` "jitter on received packets" and `txjitter`
#           "jitter on transmitted packets". The first is measured here; the second can only be known from
#           the telephone's RTCP reports, and is 0, as rtt is, where it sends none.
# Happens:  the other way round. A telephone that sends no RTCP at all, and whose packets come unevenly, shows
#           in `txjitter`, and `rxjitter` is 0; what a telephone reports by RTCP stands in `rxjitter`. Who takes
#           `txjitter` for such a report believes in RTCP that never came; who shows `rxjitter` as that of the
#           received packets shows 0 for the worst line.
# Way out:  swap the two.
#
# Needs Debian (amd64). Exit code 0: seen as described; 1: no longer so; 2: could not be tried.
#
# Seen:
#   Asterisk 22.10.1
#   packets               received  rtt  rxjitter  txjitter
#   even                       200    0    0.0 ms    0.1 ms
#   12 ms off                  200    0    0.0 ms   12.0 ms
#   even, RTCP says 100        200    0  100.0 ms    0.4 ms
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
{
    printf '[modules]\nautoload = no\n'
    printf 'load = %s.so\n' res_sorcery_config res_sorcery_memory res_sorcery_astdb res_timing_timerfd res_crypto \
        res_pjproject res_pjsip res_pjsip_session res_pjsip_sdp_rtp res_pjsip_pubsub res_pjsip_endpoint_identifier_anonymous \
        res_rtp_asterisk chan_pjsip codec_ulaw pbx_config app_echo res_http_websocket res_websocket_client \
        res_stasis res_ari res_ari_model res_ari_asterisk res_stasis_answer res_stasis_playback res_stasis_recording \
        res_stasis_snoop res_ari_channels
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
printf '[phones]\nexten => echo,1,Answer()\n same => n,Echo()\n' >etc/extensions.conf
printf '[general]\nrtpstart = 20000\nrtpend = 20200\n' >etc/rtp.conf
printf '[logfiles]\nmessages = warning,error\n' >etc/logger.conf
# Without these some modules do not load.
for file in acl ccss cdr cel features indications pjproject udptl websocket_client; do : >"etc/$file.conf"; done
asterisk -f >/dev/null 2>&1 &
for _ in $(seq 300); do
    if asterisk -rx 'core waitfullybooted' 2>/dev/null | grep -q 'fully booted'; then break; fi
    sleep 0.1
done
asterisk -V | sed 's/+.*//'
python3 - "$http" "$sip" <<'PYTHON'
import base64
import json
import re
import socket
import struct
import sys
import time
import urllib.request

HTTP, SIP = int(sys.argv[1]), int(sys.argv[2])
FRAME = b"\xff" * 160


def ask(path):
    request = urllib.request.Request(f"http://127.0.0.1:{HTTP}/ari/{path}")
    name = base64.b64encode(b"me:password-of-this-script").decode()
    request.add_header("Authorization", f"Basic {name}")
    return json.load(urllib.request.urlopen(request, timeout=10))


def call(number, late_ms, reported_ms):
    """Call, send 200 packets of which every second one is late; what Asterisk has counted.

    With `reported_ms` the telephone says in RTCP that what it receives has this jitter.
    """
    sip = socket.socket(type=socket.SOCK_DGRAM)
    sip.bind(("127.0.0.1", 0))
    sip.settimeout(10)
    rtp = socket.socket(type=socket.SOCK_DGRAM)
    rtp.bind(("127.0.0.1", 0))
    here, sound = sip.getsockname()[1], rtp.getsockname()[1]
    head = (
        f"sip:echo@127.0.0.1:{SIP} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{here};branch=z9hG4bK%s{number}\r\n"
        f"From: <sip:phone@127.0.0.1>;tag={number}\r\nTo: <sip:echo@127.0.0.1>%s\r\n"
        f"Call-ID: {number}@phone\r\nContact: <sip:phone@127.0.0.1:{here}>\r\nMax-Forwards: 70\r\n"
    )
    sdp = (
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
        f"m=audio {sound} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
    )
    invite = "INVITE " + head % ("i", "") + (
        f"CSeq: 1 INVITE\r\nContent-Type: application/sdp\r\nContent-Length: {len(sdp)}\r\n\r\n{sdp}"
    )
    sip.sendto(invite.encode(), ("127.0.0.1", SIP))
    while not (answer := sip.recv(4096).decode()).startswith("SIP/2.0 200"):
        pass
    tag = re.search(r"^To:.*(;tag=\S+)", answer, re.MULTILINE)[1]
    there = int(re.search(r"m=audio (\d+)", answer)[1])
    end = "\r\nContent-Length: 0\r\n\r\n"
    sip.sendto(("ACK " + head % ("a", tag) + "CSeq: 1 ACK" + end).encode(), ("127.0.0.1", SIP))
    began = time.monotonic()
    for count in range(200):
        due = began + count * 0.02 + (late_ms / 1000 if count % 2 else 0)
        time.sleep(max(0, due - time.monotonic()))
        packet = struct.pack("!BBHII", 0x80, 0, count, count * 160, number) + FRAME
        rtp.sendto(packet, ("127.0.0.1", there))
        if reported_ms and count % 50 == 49:
            ssrc = struct.unpack("!I", rtp.recv(400)[8:12])[0]
            report = struct.pack("!BBHIIIIIII", 0x81, 201, 7, number, ssrc, 0, count, reported_ms * 8, 0, 0)
            rtp.sendto(report, ("127.0.0.1", there + 1))
    (channel,) = ask("channels")
    told = ask(f"channels/{channel['id']}/rtp_statistics")
    sip.sendto(("BYE " + head % ("b", tag) + "CSeq: 2 BYE" + end).encode(), ("127.0.0.1", SIP))
    time.sleep(0.5)
    return told


print("packets               received  rtt  rxjitter  txjitter")
seen = []
calls = (("even", 0, 0), ("12 ms off", 12, 0), ("even, RTCP says 100", 0, 100))
for number, (name, late_ms, reported_ms) in enumerate(calls, 1):
    told = call(number, late_ms, reported_ms)
    seen.append(told)
    jitters = [f"{told[each] * 1000:5.1f} ms" for each in ("rxjitter", "txjitter")]
    print(f"{name:<21} {told['rxcount']:>8} {told['rtt']:>4g}  {jitters[0]}  {jitters[1]}")
even, uneven, reported = seen
same = even["rxjitter"] == 0 == uneven["rxjitter"] and reported["rxjitter"] > 0.05
same = same and uneven["txjitter"] > 0.005 > max(even["txjitter"], reported["txjitter"])
sys.exit(0 if same else "It behaves differently now.")
PYTHON
