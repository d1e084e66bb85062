#!/bin/bash
# Asterisk: the Q.850 cause that a carrier gives in `Reason` is lost when it refuses a call.
#
# Software: Asterisk 22.10.1 (Debian forky: asterisk 1:22.10.1+dfsg+~cs6.17.60671434-1), with
#           res_pjsip_rfc3326, "PJSIP RFC3326 Support".
# Expected: what that module is for, and what it does for BYE and CANCEL: `Reason: Q.850;cause=1` is the
#           call's hangup cause, in the dialplan (HANGUPCAUSE) and over ARI. Carriers put it into their
#           refusals, since many of the telephone network's reasons share one SIP status.
# Happens:  in a refusal it counts for nothing: the cause is made of the status, so a number that does
#           not exist (1), told in a 503, is "congestion" (34), a busy one (17) in a 480 "no answer"
#           (19), and a dialer calls again what it never should, or gives up what it should try. The
#           header is not to be had otherwise either: not from HANGUPCAUSE(...,tech), PJSIP_HEADER()
#           or PJSIP_RESPONSE_HEADER(), not even in a hangup handler of the called channel. Of a BYE
#           the cause is right, but `tech_cause` is then a SIP status that nobody has sent.
# Way out:  have the carrier answer with the status that fits (404, 486); draw no conclusion about the
#           number from 19, 34 or 38.
#
# Needs Debian (amd64) and Python 3.11. Exit code 0: seen as described; 1: no longer so; 2: could not be
# tried.
#
# Seen:
#   Asterisk 22.10.1
#   the carrier sends            Reason                          cause tech_cause
#   503 Service Unavailable      -                                  34        503
#   503 Service Unavailable      Q.850;cause=1                      34        503
#   480 Temporarily Unavailable  Q.850;cause=17                     19        480
#   500 Server Internal Error    Q.850;cause=21;text="rejected"     38        500
#   BYE                          -                                   0          -
#   BYE                          Q.850;cause=1                       1        404
#   BYE                          Q.850;cause=17                     17        486
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
        res_pjsip_rfc3326 res_rtp_asterisk chan_pjsip codec_ulaw pbx_config res_http_websocket \
        res_websocket_client res_stasis res_stasis_answer res_stasis_playback res_stasis_recording \
        res_stasis_snoop res_stasis_device_state res_ari res_ari_model res_ari_channels \
        res_ari_events app_stasis
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
carrier=$(free SOCK_DGRAM)
printf '[general]\nenabled = yes\nbindaddr = 127.0.0.1\nbindport = %s\n' "$http" >etc/http.conf
cat >etc/pjsip.conf <<END
[udp]
type = transport
protocol = udp
bind = 127.0.0.1:$sip
[carrier]
type = endpoint
disallow = all
allow = ulaw
aors = carrier
[carrier]
type = aor
contact = sip:carrier@127.0.0.1:$carrier
END
: >etc/extensions.conf
printf '[general]\nrtpstart = 20000\nrtpend = 20200\n' >etc/rtp.conf
# Without these some modules do not load.
for file in acl ccss cdr cel features indications pjproject udptl websocket_client; do : >"etc/$file.conf"; done
cat >calls.py <<'PYTHON'
import base64
import json
import re
import socket
import sys
import threading
import time
import urllib.parse
import urllib.request

from websockets.sync.client import connect

HTTP, SIP, CARRIER = (int(each) for each in sys.argv[1:])
NAME = {"Authorization": "Basic " + base64.b64encode(b"me:password-of-this-script").decode()}
SDP = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=audio 9 RTP/AVP 0\r\n"
)
carrier = socket.socket(type=socket.SOCK_DGRAM)
carrier.bind(("127.0.0.1", CARRIER))
carrier.settimeout(10)


def receive(method: str) -> str:
    while not (text := carrier.recv(4096).decode()).startswith(method):
        pass
    return text


def answer(request: str, status: str, more: str = "", body: str = "") -> None:
    kept = re.findall(r"^(?:Via|From|Call-ID|CSeq):.*?$", request, re.MULTILINE)
    to = re.search(r"^To:[^\r;]*", request, re.MULTILINE)[0]
    lines = [f"SIP/2.0 {status}", *(each.strip() for each in kept), f"{to};tag=c"]
    lines += [f"Contact: <sip:carrier@127.0.0.1:{CARRIER}>", *([more] if more else [])]
    lines += ["Content-Type: application/sdp"] if body else []
    text = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", body])
    carrier.sendto(text.encode(), ("127.0.0.1", SIP))


def hang_up(invite: str, more: str) -> None:
    """End an answered call."""
    us = re.search(r"^To:[^\r;]*", invite, re.MULTILINE)[0].replace("To:", "From:") + ";tag=c"
    them = re.search(r"^From:[^\r]*", invite, re.MULTILINE)[0].replace("From:", "To:")
    call = re.search(r"^Call-ID:[^\r]*", invite, re.MULTILINE)[0]
    lines = [
        f"BYE sip:asterisk@127.0.0.1:{SIP} SIP/2.0",
        f"Via: SIP/2.0/UDP 127.0.0.1:{CARRIER};branch=z9hG4bK{time.monotonic_ns()}",
        *(us, them, call, "CSeq: 1 BYE", "Max-Forwards: 70", *([more] if more else [])),
    ]
    carrier.sendto(("\r\n".join(lines) + "\r\nContent-Length: 0\r\n\r\n").encode(), ("127.0.0.1", SIP))


def be_called(how: str, reason: str) -> None:
    invite = receive("INVITE")
    more = f"Reason: {reason}" if reason else ""
    if how != "BYE":
        answer(invite, how, more)
        receive("ACK")
    else:
        answer(invite, "200 OK", body=SDP)
        receive("ACK")
        hang_up(invite, more)
        receive("SIP/2.0 200")


CALLS = {
    ("503 Service Unavailable", ""): (34, 503),
    ("503 Service Unavailable", "Q.850;cause=1"): (34, 503),
    ("480 Temporarily Unavailable", "Q.850;cause=17"): (19, 480),
    ("500 Server Internal Error", 'Q.850;cause=21;text="rejected"'): (38, 500),
    ("BYE", ""): (0, None),
    ("BYE", "Q.850;cause=1"): (1, 404),
    ("BYE", "Q.850;cause=17"): (17, 486),
}
row = "{:<28} {:<31} {:>5} {:>10}"
print(row.format("the carrier sends", "Reason", "cause", "tech_cause"))
seen = {}
with connect(f"ws://127.0.0.1:{HTTP}/ari/events?app=service", additional_headers=NAME) as events:
    for how, reason in CALLS:
        calling = threading.Thread(target=be_called, args=(how, reason))
        calling.start()
        query = urllib.parse.urlencode({"endpoint": "PJSIP/carrier", "app": "service", "timeout": 9})
        url = f"http://127.0.0.1:{HTTP}/ari/channels?{query}"
        urllib.request.urlopen(urllib.request.Request(url, method="POST", headers=NAME)).close()
        while (event := json.loads(events.recv(timeout=15)))["type"] != "ChannelDestroyed":
            pass
        calling.join()
        seen[how, reason] = event["cause"], event.get("tech_cause")
        print(row.format(how, reason or "-", event["cause"], event.get("tech_cause") or "-"))
sys.exit(0 if seen == CALLS else "It behaves differently now.")
PYTHON
asterisk -f >/dev/null 2>&1 &
for _ in $(seq 300); do
    if asterisk -rx 'core waitfullybooted' 2>/dev/null | grep -q 'fully booted'; then break; fi
    sleep 0.1
done
asterisk -V | sed 's/+.*//'
asterisk -rx 'module show like rfc3326' | grep Running >/dev/null || cannot 'res_pjsip_rfc3326 does not run here.'
venv/bin/python calls.py "$http" "$sip" "$carrier"
