#!/bin/bash
# Asterisk: a callee who forwards by 302 sends our outbound call into the context of inbound ones.
#
# Software: Asterisk 22.10.1 (Debian forky: asterisk 1:22.10.1+dfsg+~cs6.17.60671434-1), chan_pjsip, ARI.
# Expected: a 302 (call forwarding at the callee's telephone or his carrier) to a call placed over a trunk
#           is either followed, by calling the new number over the same trunk, or the call fails, and
#           says so (`tech_cause` 302).
# Happens:  Asterisk calls the new number as an extension of the context of the trunk's endpoint, which is
#           the one for calls that come in, whether the call was placed over ARI or by Dial() in another
#           context. There a voice agent, a menu or a queue answers, as it would for a caller: two agents
#           talk with each other, and the new number was never called. The channel that was asked
#           for ends meanwhile; the one that takes its place has another id.
# Way out:  the variable FORWARD_CONTEXT on the channel that is called: a context for such calls, or one that
#           does not exist, and the call fails; or `redirect_method = uri_pjsip` at the endpoint, which
#           calls the new number where the 302 says.
#
# Needs Debian (amd64) and Python 3.11. Exit code 0: seen as described; 1: no longer so; 2: could not be
# tried.
#
# Seen (called: +493023125010, whose carrier answers 302 to +493023125099; Dial() stands in [outbound], which
# has extensions for both, as [inbound], the endpoint's context, has):
#   Asterisk 22.10.1
#   how it was placed            carrier asked goes on in
#   POST /channels               010           inbound
#   with FORWARD_CONTEXT=none    010           -
#   redirect_method = uri_pjsip  010 099       -
#   Dial() in the dialplan       010           inbound
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
        res_pjsip_endpoint_identifier_ip res_rtp_asterisk chan_pjsip codec_ulaw bridge_simple pbx_config \
        app_dial res_http_websocket res_websocket_client res_stasis res_stasis_answer \
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
[line](!)
type = endpoint
context = inbound
disallow = all
allow = ulaw
[trunk](line)
aors = trunk
[trunk]
type = aor
contact = sip:127.0.0.1:$carrier
[follows](line)
aors = follows
redirect_method = uri_pjsip
[follows]
type = aor
contact = sip:127.0.0.1:$carrier
END
cat >etc/extensions.conf <<END
[inbound]
exten => _+X.,1,Stasis(service,inbound)
[outbound]
exten => dial,1,Dial(PJSIP/+493023125010@trunk)
exten => _+X.,1,Stasis(service,outbound)
END
printf '[general]\nrtpstart = 20000\nrtpend = 20200\n' >etc/rtp.conf
# Without these some modules do not load.
for file in acl ccss cdr cel features indications pjproject udptl websocket_client; do : >"etc/$file.conf"; done
cat >calls.py <<'PYTHON'
import base64
import contextlib
import json
import re
import socket
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from websockets.sync.client import connect

HTTP, SIP, CARRIER = (int(each) for each in sys.argv[1:])
NAME = {"Authorization": "Basic " + base64.b64encode(b"me:password-of-this-script").decode()}
NUMBER, FORWARDED = "+493023125010", "+493023125099"
CALLS = (
    ("POST /channels", f"PJSIP/{NUMBER}@trunk", {}),
    ("with FORWARD_CONTEXT=none", f"PJSIP/{NUMBER}@trunk", {"FORWARD_CONTEXT": "none"}),
    ("redirect_method = uri_pjsip", f"PJSIP/{NUMBER}@follows", {}),
    ("Dial() in the dialplan", "Local/dial@outbound/n", {}),
)
EXPECTED = [
    ("010", "inbound"),
    ("010", "-"),
    ("010 099", "-"),
    ("010", "inbound"),
]
told: list[dict[str, Any]] = []
called: list[str] = []


def ask(method: str, path: str, variables: dict[str, str] | None = None, **parameters: str) -> Any:
    url = f"http://127.0.0.1:{HTTP}/ari/{path}?{urllib.parse.urlencode(parameters)}"
    body = json.dumps({"variables": variables or {}}).encode() if method == "POST" else None
    head = NAME | {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, body, head, method=method), timeout=10) as answer:
        return json.loads(answer.read() or b"null")


def listen() -> None:
    for message in events:
        told.append(json.loads(message))


def carry() -> None:
    """Be the carrier: the number is forwarded, where it is forwarded to it is busy."""
    while True:
        request, there = sip.recvfrom(8192)
        text = request.decode()
        if not (called_now := re.match(r"INVITE sip:(\S+?)@", text)):
            continue
        head = "".join(
            f"{line}{';tag=carrier' if line.startswith('To:') else ''}\r\n"
            for line in text.split("\r\n")
            if line.startswith(("Via:", "From:", "To:", "Call-ID:", "CSeq:"))
        )
        called.append(called_now[1])
        status = "302 Moved Temporarily" if called_now[1] == NUMBER else "486 Busy Here"
        contact = f"Contact: <sip:{FORWARDED}@127.0.0.1:{CARRIER}>\r\n"
        sip.sendto(f"SIP/2.0 {status}\r\n{head}{contact}Content-Length: 0\r\n\r\n".encode(), there)


def trunk_ended() -> bool:
    ended = (event["channel"]["name"] for event in told if event["type"] == "ChannelDestroyed")
    return any(name.startswith("PJSIP/") for name in ended)


def place(endpoint: str, variables: dict[str, str]) -> tuple[str, str]:
    """Call: whom the carrier was asked for, and in which context it went on."""
    told.clear()
    called.clear()
    what = {"app": "service", "appArgs": "answered", "formats": "ulaw", "timeout": "5"}
    ask("POST", "channels", variables, endpoint=endpoint, **what)
    end = time.monotonic() + 10
    while not trunk_ended() and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(1)
    entered = [event["args"] for event in told if event["type"] == "StasisStart"]
    while there := ask("GET", "channels"):
        with contextlib.suppress(urllib.error.HTTPError):
            ask("DELETE", f"channels/{there[0]['id']}")
    return " ".join(number[-3:] for number in called), " ".join(args[0] for args in entered) or "-"


sip = socket.socket(type=socket.SOCK_DGRAM)
sip.bind(("127.0.0.1", CARRIER))
threading.Thread(target=carry, daemon=True).start()
events = connect(
    f"ws://127.0.0.1:{HTTP}/ari/events?app=service&subscribeAll=true", additional_headers=NAME
)
threading.Thread(target=listen, daemon=True).start()
time.sleep(0.5)
row = "{:<28} {:<13} {}"
print(row.format("how it was placed", "carrier asked", "goes on in"))
seen = []
for how, endpoint, variables in CALLS:
    seen.append(place(endpoint, variables))
    print(row.format(how, *seen[-1]))
sys.exit(0 if seen == EXPECTED else "It behaves differently now.")
PYTHON
asterisk -f >/dev/null 2>&1 &
for _ in $(seq 300); do
    if asterisk -rx 'core waitfullybooted' 2>/dev/null | grep -q 'fully booted'; then break; fi
    sleep 0.1
done
asterisk -V | sed 's/+.*//'
venv/bin/python calls.py "$http" "$sip" "$carrier"
