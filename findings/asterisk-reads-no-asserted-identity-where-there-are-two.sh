#!/bin/bash
# Asterisk: P-Asserted-Identity with a sip: and a tel: URI, as RFC 3325 has it, is not read at all.
#
# Software: Asterisk 22.10.1 (Debian forky: asterisk 1:22.10.1+dfsg+~cs6.17.60671434-1), chan_pjsip, ARI,
#           with res_pjsip_caller_id and `trust_id_inbound = yes`, as trunks have it.
# Expected: RFC 3325 lets the header have two identities, a sip: and a tel: URI, with a comma between them,
#           or as two headers; networks of the IMS kind send both. The number is that of either.
# Happens:  with the comma neither counts, without a warning: the number is what stands in From, so of whom
#           the network vouches for nothing is left. Where From is anonymous, the caller has no number, and a
#           menu, a CRM or a voice agent does not know a customer whom it knows over another carrier;
#           where it is not, From is taken on trust, and that the caller chose. As two headers the
#           first one counts, and each URI alone is read.
# Way out:  take it from ${PJSIP_HEADER(read,P-Asserted-Identity)} in the dialplan; or have the carrier send
#           one.
#
# Needs Debian (amd64) and Python 3.11. Exit code 0: seen as described; 1: no longer so; 2: could not be
# tried.
#
# Seen (From: "Anonymous" <sip:anonymous@anonymous.invalid>):
#   Asterisk 22.10.1
#   P-Asserted-Identity                                                 caller
#   "Jane" <sip:+493023125002@carrier.example>                          Jane +493023125002
#   <tel:+493023125002>                                                 - +493023125002
#   "Jane" <sip:+493023125002@carrier.example>, <tel:+493023125002>     Anonymous anonymous
#   <tel:+493023125002>, "Jane" <sip:+493023125002@carrier.example>     Anonymous anonymous
#   the same two in two headers                                         - +493023125002
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
        pbx_config res_http_websocket res_websocket_client res_stasis res_stasis_answer \
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
[trunk]
type = endpoint
context = line
disallow = all
allow = ulaw
trust_id_inbound = yes
[trunk]
type = identify
endpoint = trunk
match = 127.0.0.2
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
URI, TEL = '"Jane" <sip:+493023125002@carrier.example>', "<tel:+493023125002>"
CALLS = (
    (URI, (URI,), ("Jane", "+493023125002")),
    (TEL, (TEL,), ("", "+493023125002")),
    (f"{URI}, {TEL}", (f"{URI}, {TEL}",), ("Anonymous", "anonymous")),
    (f"{TEL}, {URI}", (f"{TEL}, {URI}",), ("Anonymous", "anonymous")),
    ("the same two in two headers", (TEL, URI), ("", "+493023125002")),
)


def hang_up(channel: str) -> None:
    url = f"http://127.0.0.1:{HTTP}/ari/channels/{channel}"
    urllib.request.urlopen(urllib.request.Request(url, method="DELETE", headers=NAME), timeout=10).close()


def wait(events: ClientConnection, kind: str) -> dict[str, Any]:
    while (event := json.loads(events.recv(timeout=15)))["type"] != kind:
        pass
    return event["channel"]


def invite(number: int, identities: tuple[str, ...]) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sip:
        sip.bind(("127.0.0.2", 0))
        here = f"127.0.0.2:{sip.getsockname()[1]}"
        lines = (
            f"INVITE sip:service@127.0.0.1:{SIP} SIP/2.0",
            f"Via: SIP/2.0/UDP {here};branch=z9hG4bK{number}",
            f'From: "Anonymous" <sip:anonymous@anonymous.invalid>;tag={number}',
            f"To: <sip:service@127.0.0.1:{SIP}>",
            *(f"Call-ID: {number}@carrier", "CSeq: 1 INVITE", "Max-Forwards: 70"),
            f"Contact: <sip:carrier@{here}>",
            *(f"P-Asserted-Identity: {each}" for each in identities),
            *("Content-Type: application/sdp", f"Content-Length: {len(SDP)}", "", SDP),
        )
        sip.sendto("\r\n".join(lines).encode(), ("127.0.0.1", SIP))


row = "{:<67} {}"
print(row.format("P-Asserted-Identity", "caller"))
same = True
with connect(f"ws://127.0.0.1:{HTTP}/ari/events?app=service", additional_headers=NAME) as events:
    for number, (what, identities, expected) in enumerate(CALLS):
        invite(number, identities)
        channel = wait(events, "StasisStart")
        caller = channel["caller"]["name"], channel["caller"]["number"]
        print(row.format(what, f"{caller[0] or '-'} {caller[1]}"))
        same = same and caller == expected
        hang_up(channel["id"])
        wait(events, "StasisEnd")
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
