#!/bin/bash
# Asterisk: the number of somebody who withholds it stands in ARI like any other, with nothing beside it.
#
# Software: Asterisk 22.10.1 (Debian forky: asterisk 1:22.10.1+dfsg+~cs6.17.60671434-1), ARI, with
#           res_pjsip_caller_id and `trust_id_inbound = yes`, as trunks have it.
# Expected: the carrier tells a withheld number in P-Asserted-Identity, marked `Privacy: id` (RFC 3325), or
#           in Remote-Party-ID with `privacy=full`, for Asterisk to know and the callee not to. So `caller`
#           in ARI has no number then, or "anonymous", or a field says that it is withheld, as telephones
#           that Asterisk calls are told.
# Happens:  `caller.number` and `caller.name` hold both, and a channel has no field for the mark, which
#           only the dialplan function CALLERID(num-pres) knows. An application that logs the number, looks
#           it up or tells it to a voice agent does so for people who asked that nobody is told. In tests
#           it is not seen: from an endpoint that is not trusted the same call has "anonymous".
# Way out:  before Stasis(): Set(CALLERID(all)=Anonymous <anonymous>) where ${CALLERID(num-pres):0:6} is
#           "prohib"; or ask for the variable CALLERID(num-pres) over ARI.
#
# Needs Debian (amd64) and Python 3.11. Exit code 0: seen as described; 1: no longer so; 2: could not be
# tried.
#
# Seen:
#   Asterisk 22.10.1
#   the call comes with           trusted  caller.name  caller.number  CALLERID(num-pres)
#   From with number and name     yes      Jane         +493023125002  allowed_not_screened
#   P-Asserted-Id., Privacy: id   yes      Jane         +493023125002  prohib_not_screened
#   Remote-Party-ID, full         yes      Jane         +493023125002  prohib_passed_screen
#   P-Asserted-Id., Privacy: id   no       Anonymous    anonymous      allowed_not_screened
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
        pbx_config func_callerid res_http_websocket res_websocket_client res_stasis res_stasis_answer \
        res_stasis_playback res_stasis_recording res_stasis_snoop res_stasis_device_state res_ari \
        res_ari_model res_ari_channels res_ari_events app_stasis
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
[line](!)
type = endpoint
context = line
disallow = all
allow = ulaw
[trusted](line)
trust_id_inbound = yes
[trusted]
type = identify
endpoint = trusted
match = 127.0.0.2
[other](line)
[other]
type = identify
endpoint = other
match = 127.0.0.3
END
printf '[line]\nexten => service,1,Stasis(service)\n' >etc/extensions.conf
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

HTTP, SIP = (int(each) for each in sys.argv[1:])
NAME = {"Authorization": "Basic " + base64.b64encode(b"me:password-of-this-script").decode()}
SDP = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=audio 9 RTP/AVP 0\r\n"
)
HIDDEN = '"Anonymous" <sip:anonymous@anonymous.invalid>'
JANE = '"Jane" <sip:+493023125002@carrier.example>'
ASSERTED = (HIDDEN, f"P-Asserted-Identity: {JANE}", "Privacy: id")
REMOTE = (HIDDEN, f"Remote-Party-ID: {JANE};party=calling;privacy=full;screen=yes")
CALLS = (
    ("From with number and name", "127.0.0.2", (JANE,)),
    ("P-Asserted-Id., Privacy: id", "127.0.0.2", ASSERTED),
    ("Remote-Party-ID, full", "127.0.0.2", REMOTE),
    ("P-Asserted-Id., Privacy: id", "127.0.0.3", ASSERTED),
)
EXPECTED = [
    ("Jane", "+493023125002", "allowed_not_screened"),
    ("Jane", "+493023125002", "prohib_not_screened"),
    ("Jane", "+493023125002", "prohib_passed_screen"),
    ("Anonymous", "anonymous", "allowed_not_screened"),
]


def ask(method: str, path: str) -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{HTTP}/ari/{path}", method=method, headers=NAME)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read() or b"null")


def wait(events: ClientConnection, kind: str) -> dict[str, Any]:
    while (event := json.loads(events.recv(timeout=15)))["type"] != kind:
        pass
    return event["channel"]


def invite(number: int, source: str, caller: str, *more: str) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sip:
        sip.bind((source, 0))
        here = f"{source}:{sip.getsockname()[1]}"
        lines = (
            f"INVITE sip:service@127.0.0.1:{SIP} SIP/2.0",
            f"Via: SIP/2.0/UDP {here};branch=z9hG4bK{number}",
            f"From: {caller};tag={number}",
            f"To: <sip:service@127.0.0.1:{SIP}>",
            *(f"Call-ID: {number}@carrier", "CSeq: 1 INVITE", "Max-Forwards: 70"),
            *(f"Contact: <sip:carrier@{here}>", *more),
            *("Content-Type: application/sdp", f"Content-Length: {len(SDP)}", "", SDP),
        )
        sip.sendto("\r\n".join(lines).encode(), ("127.0.0.1", SIP))


row = "{:<29} {:<8} {:<12} {:<14} {}"
print(row.format("the call comes with", "trusted", "caller.name", "caller.number", "CALLERID(num-pres)"))
seen, fields = [], set()
with connect(f"ws://127.0.0.1:{HTTP}/ari/events?app=service", additional_headers=NAME) as events:
    for number, (what, source, lines) in enumerate(CALLS):
        invite(number, source, *lines)
        channel = wait(events, "StasisStart")
        caller = channel["caller"]["name"], channel["caller"]["number"]
        mark = ask("GET", f"channels/{channel['id']}/variable?variable=CALLERID(num-pres)")["value"]
        print(row.format(what, "yes" if source == "127.0.0.2" else "no", *caller, mark))
        seen.append((*caller, mark))
        # Nothing but the function tells them apart.
        fields.add((*sorted(channel), *sorted(channel["caller"]), "prohib" in json.dumps(channel)))
        ask("DELETE", f"channels/{channel['id']}")
        wait(events, "StasisEnd")
same = seen == EXPECTED and len(fields) == 1 and next(iter(fields))[-1] is False
sys.exit(0 if same else "It behaves differently now.")
PYTHON
asterisk -f >/dev/null 2>&1 &
for _ in $(seq 300); do
    if asterisk -rx 'core waitfullybooted' 2>/dev/null | grep -q 'fully booted'; then break; fi
    sleep 0.1
done
asterisk -V | sed 's/+.*//'
asterisk -rx 'module show like res_pjsip_caller_id' | grep Running >/dev/null ||
    cannot 'res_pjsip_caller_id does not run here.'
venv/bin/python calls.py "$http" "$sip"
