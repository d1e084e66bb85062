#!/bin/bash
# Asterisk: parameters are taken off the caller's number, not off the called one, which is another then.
#
# Software: Asterisk 22.10.1 (Debian forky: asterisk 1:22.10.1+dfsg+~cs6.17.60671434-1), chan_pjsip.
# Expected: carriers write parameters into a number: `;npdi;rn=...` into the called one where numbers are
#           ported (RFC 4694), `;cpc=...` into the caller's. Asterisk knows them to be none of the number,
#           and takes them off both.
# Happens:  off the caller's only. The called one keeps them, in EXTEN and over ARI: the extension of
#           exactly that number is not found (404 where no pattern is beside it), `_+1X.` takes the
#           call, and FILTER(0-9,...), there to keep what callers send out of the dialplan, puts the
#           digits of the routing number behind those that were called.
# Way out:  `ignore_uri_user_options = yes` in the section of `type = global` in pjsip.conf.
#
# Needs Debian (amd64) and Python 3.11. Exit code 0: seen as described; 1: no longer so; 2: could not be
# tried.
#
# Seen (From: sip:+12025550102;cpc=ordinary@carrier.example):
#   Asterisk 22.10.1
#   option  called                            taken by  FILTER(0-9,${EXTEN})    caller
#   no      +12025550101                      number    12025550101             +12025550102
#   no      +12025550101;npdi                 pattern   12025550101             +12025550102
#   no      +12025550101;npdi;rn=+12025550199 pattern   1202555010112025550199  +12025550102
#   yes     +12025550101                      number    12025550101             +12025550102
#   yes     +12025550101;npdi                 number    12025550101             +12025550102
#   yes     +12025550101;npdi;rn=+12025550199 number    12025550101             +12025550102
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
        res_pjsip_endpoint_identifier_ip res_pjsip_caller_id res_rtp_asterisk chan_pjsip codec_ulaw \
        pbx_config func_callerid func_strings res_http_websocket res_websocket_client res_stasis \
        res_stasis_answer res_stasis_playback res_stasis_recording res_stasis_snoop \
        res_stasis_device_state res_ari res_ari_model res_ari_channels res_ari_events app_stasis
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
[carrier]
type = endpoint
context = line
disallow = all
allow = ulaw
[carrier]
type = identify
endpoint = carrier
match = 127.0.0.1
END
cat >etc/extensions.conf <<'END'
[line]
exten => +12025550101,1,Stasis(service,number,${FILTER(0-9,${EXTEN})},${CALLERID(num)})
exten => _+1X.,1,Stasis(service,pattern,${FILTER(0-9,${EXTEN})},${CALLERID(num)})
END
printf '[general]\nrtpstart = 20000\nrtpend = 20200\n' >etc/rtp.conf
# Without these some modules do not load.
for file in acl ccss cdr cel features indications pjproject udptl websocket_client; do : >"etc/$file.conf"; done
cat >calls.py <<'PYTHON'
import base64
import json
import socket
import sys
import urllib.request
from typing import Any

from websockets.sync.client import ClientConnection, connect

HTTP, SIP, OPTION = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
NAME = {"Authorization": "Basic " + base64.b64encode(b"me:password-of-this-script").decode()}
SDP = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=audio 9 RTP/AVP 0\r\n"
)
CALLED = "+12025550101", "+12025550101;npdi", "+12025550101;npdi;rn=+12025550199"
CALLER, RIGHT = "+12025550102", "12025550101"
EXPECTED = {
    "no": [
        ["number", RIGHT, CALLER],
        ["pattern", RIGHT, CALLER],
        ["pattern", "1202555010112025550199", CALLER],
    ],
    "yes": [["number", RIGHT, CALLER]] * 3,
}


def wait(events: ClientConnection, kind: str) -> dict[str, Any]:
    while (event := json.loads(events.recv(timeout=15)))["type"] != kind:
        pass
    return event


def invite(number: str, called: str) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sip:
        sip.bind(("127.0.0.1", 0))
        here = f"127.0.0.1:{sip.getsockname()[1]}"
        lines = (
            f"INVITE sip:{called}@127.0.0.1:{SIP} SIP/2.0",
            f"Via: SIP/2.0/UDP {here};branch=z9hG4bK{number}",
            f"From: <sip:{CALLER};cpc=ordinary@carrier.example>;tag={number}",
            f"To: <sip:{called}@127.0.0.1:{SIP}>",
            *(f"Call-ID: {number}@carrier", "CSeq: 1 INVITE", "Max-Forwards: 70"),
            *(f"Contact: <sip:carrier@{here}>", "Content-Type: application/sdp"),
            *(f"Content-Length: {len(SDP)}", "", SDP),
        )
        sip.sendto("\r\n".join(lines).encode(), ("127.0.0.1", SIP))


seen = []
with connect(f"ws://127.0.0.1:{HTTP}/ari/events?app=service", additional_headers=NAME) as events:
    for number, called in enumerate(CALLED):
        invite(f"{OPTION}{number}", called)
        event = wait(events, "StasisStart")
        print("{:<7} {:<33} {:<9} {:<23} {}".format(OPTION, called, *event["args"]))
        seen.append(event["args"])
        url = f"http://127.0.0.1:{HTTP}/ari/channels/{event['channel']['id']}"
        urllib.request.urlopen(urllib.request.Request(url, method="DELETE", headers=NAME)).close()
        wait(events, "StasisEnd")
sys.exit(0 if seen == EXPECTED[OPTION] else "It behaves differently now.")
PYTHON
boot() {
    asterisk -f >/dev/null 2>&1 &
    for _ in $(seq 300); do
        if asterisk -rx 'core waitfullybooted' 2>/dev/null | grep -q 'fully booted'; then return; fi
        sleep 0.1
    done
    cannot 'Asterisk does not start here.'
}

boot
asterisk -V | sed 's/+.*//'
printf '%-7s %-33s %-9s %-23s %s\n' option called 'taken by' 'FILTER(0-9,${EXTEN})' caller
venv/bin/python calls.py "$http" "$sip" no
asterisk -rx 'core stop now' >/dev/null
wait
printf '[global]\ntype = global\nignore_uri_user_options = yes\n' >>etc/pjsip.conf
boot
venv/bin/python calls.py "$http" "$sip" yes
