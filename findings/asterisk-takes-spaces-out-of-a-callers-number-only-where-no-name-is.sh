#!/bin/bash
# Asterisk: spaces are taken out of a caller's number, but not where a name or brackets stand beside it.
#
# Software: Asterisk 22.10.1 (Debian forky: asterisk 1:22.10.1+dfsg+~cs6.17.60671434-1), ARI, chan_pjsip.
# Expected: the number that a callee is to see is the same number with a name beside it, and what is done
#           to it (spaces, brackets, hyphens and dots of a number as it is written) is done in both forms;
#           or a number that is none is refused.
# Happens:  POST /channels with `callerId=+49 30 23125001` calls as +493023125001. With a name, or only
#           with angle brackets, spaces go to the carrier as %20, brackets and hyphens as they are: it
#           refuses the call, or shows none or another number. A slash turns the bare number into a name,
#           and the call has no number at all. Each is 200, and nothing is logged.
# Way out:  only `+` and digits, whatever the form.
#
# Needs Debian (amd64) and Python 3.11. Exit code 0: seen as described; 1: no longer so; 2: could not be
# tried.
#
# Seen:
#   Asterisk 22.10.1
#   callerId                   From
#   +49 30 23125001            <sip:+493023125001@127.0.0.1>
#   <+49 30 23125001>          <sip:+49%2030%2023125001@127.0.0.1>
#   Office <+49 30 23125001>   "Office" <sip:+49%2030%2023125001@127.0.0.1>
#   (030) 231-25001            <sip:03023125001@127.0.0.1>
#   Office <(030) 231-25001>   "Office" <sip:(030)%20231-25001@127.0.0.1>
#   030/23125001               "030/23125001" <sip:asterisk@127.0.0.1>
#   Office <030/23125001>      "Office" <sip:030/23125001@127.0.0.1>
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
    printf 'load = %s.so\n' res_sorcery_config res_sorcery_memory res_sorcery_astdb res_timing_timerfd \
        res_crypto res_pjproject res_pjsip res_pjsip_session res_pjsip_sdp_rtp res_pjsip_pubsub \
        res_pjsip_endpoint_identifier_ip res_rtp_asterisk chan_pjsip codec_ulaw \
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
carrier=$(free SOCK_DGRAM)
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
aors = trunk
[trunk]
type = aor
contact = sip:127.0.0.1:$carrier
END
printf '[line]\n' >etc/extensions.conf
printf '[general]\nrtpstart = 20000\nrtpend = 20200\n' >etc/rtp.conf
# Without these some modules do not load.
for file in acl ccss cdr cel features indications pjproject udptl websocket_client; do : >"etc/$file.conf"; done
cat >calls.py <<'PYTHON'
import base64
import json
import re
import socket
import sys
import time
import urllib.parse
import urllib.request
from typing import Any

HTTP, CARRIER = (int(each) for each in sys.argv[1:])
NAME = {"Authorization": "Basic " + base64.b64encode(b"me:password-of-this-script").decode()}
CALLS = {
    "+49 30 23125001": "<sip:+493023125001@127.0.0.1>",
    "<+49 30 23125001>": "<sip:+49%2030%2023125001@127.0.0.1>",
    "Office <+49 30 23125001>": '"Office" <sip:+49%2030%2023125001@127.0.0.1>',
    "(030) 231-25001": "<sip:03023125001@127.0.0.1>",
    "Office <(030) 231-25001>": '"Office" <sip:(030)%20231-25001@127.0.0.1>',
    "030/23125001": '"030/23125001" <sip:asterisk@127.0.0.1>',
    "Office <030/23125001>": '"Office" <sip:030/23125001@127.0.0.1>',
}


def ask(method: str, path: str, **parameters: str) -> Any:
    url = f"http://127.0.0.1:{HTTP}/ari/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(urllib.request.Request(url, method=method, headers=NAME), timeout=10) as answer:
        return json.loads(answer.read() or b"null")


def called_from() -> str:
    """Be the carrier: answer that the number is busy; return From."""
    request, there = sip.recvfrom(8192)
    text = request.decode()
    head = "".join(
        f"{line}{';tag=carrier' if line.startswith('To:') else ''}\r\n"
        for line in text.split("\r\n")
        if line.startswith(("Via:", "From:", "To:", "Call-ID:", "CSeq:"))
    )
    sip.sendto(f"SIP/2.0 486 Busy Here\r\n{head}Content-Length: 0\r\n\r\n".encode(), there)
    sip.recvfrom(8192)
    return re.search(r"^From: (.*);tag", text, re.MULTILINE)[1]


sip = socket.socket(type=socket.SOCK_DGRAM)
sip.bind(("127.0.0.1", CARRIER))
sip.settimeout(10)
row = "{:<26} {}"
print(row.format("callerId", "From"))
seen = {}
for caller in CALLS:
    what = {"context": "line", "extension": "s", "timeout": "5", "callerId": caller}
    ask("POST", "channels", endpoint="PJSIP/100@trunk", **what)
    seen[caller] = called_from()
    print(row.format(caller, seen[caller]))
    while ask("GET", "channels"):
        time.sleep(0.05)
sys.exit(0 if seen == CALLS else "It behaves differently now.")
PYTHON
asterisk -f >/dev/null 2>&1 &
for _ in $(seq 300); do
    if asterisk -rx 'core waitfullybooted' 2>/dev/null | grep -q 'fully booted'; then break; fi
    sleep 0.1
done
asterisk -V | sed 's/+.*//'
python3 calls.py "$http" "$carrier"
