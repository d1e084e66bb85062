#!/bin/bash
# Asterisk: ARI takes a number in a JSON body that is 20.0 or "20" for 0, and answers that all went well.
#
# Software: Asterisk 22.10.1 (Debian forky: asterisk 1:22.10.1+dfsg+~cs6.17.60671434-1), ARI.
# Expected: POST /channels with {"timeout": "20"} or 20.0, as a form, a low-code tool or a division in Python
#           makes it, does what 20 does, as `?timeout=20` in the query does; or it is 400.
# Happens:  200, and the value is another one. A number that is text or has a point is 0, which stands for
#           the default or for no limit: a callee is rung for 30 s, whatever was asked for, and a
#           recording that should end after 1 s goes on with the call. An extension that is a number
#           (100) is left out, so the caller goes on at `s`, where somebody else may answer. A list with
#           commas, as the query takes it, is one name.
# Way out:  whole numbers as numbers, all else as text, lists as lists; or parameters in the query.
#
# Needs Debian (amd64) and Python 3.11. Exit code 0: seen as described; 1: no longer so; 2: could not be
# tried.
#
# Seen (timeout: of a callee who does not answer; looked at after 4 s):
#   Asterisk 22.10.1
#   request            parameter                     answer  what comes of it
#   POST channels      {"timeout": 1}                   200  given up
#   POST channels      ?timeout=1                       200  given up
#   POST channels      {"timeout": 1.0}                 200  rings
#   POST channels      {"timeout": "1"}                 200  rings
#   POST record        {"maxDurationSeconds": 1}        201  done
#   POST record        ?maxDurationSeconds=1            201  done
#   POST record        {"maxDurationSeconds": 1.0}      201  goes on
#   POST record        {"maxDurationSeconds": "1"}      201  goes on
#   POST continue      {"extension": "100"}             204  100
#   POST continue      ?extension=100                   204  100
#   POST continue      {"extension": 100}               204  s
#   POST addChannel    {"channel": ["a", "b"]}          204  both
#   POST addChannel    ?channel=a,b                     204  both
#   POST addChannel    {"channel": "a,b"}               400  none
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
    printf 'load = %s.so\n' res_sorcery_config res_timing_timerfd res_http_websocket res_websocket_client \
        res_stasis res_stasis_answer res_stasis_playback res_stasis_recording res_stasis_snoop \
        res_stasis_device_state res_ari res_ari_model res_ari_channels res_ari_bridges res_ari_events \
        res_ari_recordings app_stasis app_milliwatt pbx_config bridge_simple bridge_softmix format_wav
} >etc/modules.conf
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check websockets==17.4 2>run/pip ||
    cannot 'The packages cannot be had here.'
port=$(python3 -c "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1])")
cat >etc/http.conf <<END
[general]
enabled = yes
bindaddr = 127.0.0.1
bindport = $port
END
cat >etc/ari.conf <<END
[general]
enabled = yes
[me]
type = user
password = password-of-this-script
END
cat >etc/extensions.conf <<'END'
[line]
exten => busy,1,Ringing()
 same => n,Wait(60)
exten => tone,1,Answer()
 same => n,Milliwatt()
exten => 100,1,Wait(60)
exten => s,1,Wait(60)
END
# Without these some modules do not load.
for file in ccss cdr cel features indications udptl websocket_client; do : >"etc/$file.conf"; done
mkdir run/recording
cat >types_tried.py <<'PYTHON'
import base64
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

from websockets.sync.client import ClientConnection, connect

PORT = sys.argv[1]
NAME = {"Authorization": "Basic " + base64.b64encode(b"me:password-of-this-script").decode()}
LOOKED_AT_S = 4


def ask(method: str, path: str, body: dict[str, Any] | None = None, **query: Any) -> tuple[int, Any]:
    headers = NAME | {"Content-Type": "application/json"}
    url = f"http://127.0.0.1:{PORT}/ari/{path}?{urllib.parse.urlencode(query)}"
    data = None if body is None else json.dumps(body).encode()
    try:
        request = urllib.request.Request(url, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, None


def called(events: ClientConnection) -> str:
    """Call somebody who answers with a tone, and take the call into the application."""
    call = {"endpoint": "Local/tone@line/n", "app": "service", "formats": "slin"}
    channel = ask("POST", "channels", call)[1]["id"]
    while (event := json.loads(events.recv(timeout=15)))["type"] != "StasisStart":
        pass
    assert event["channel"]["id"] == channel
    return channel


def tried(name: str, value: Any, more: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The parameter as it should be, in the query, and of other types."""
    for each in (value, None, *((float(value), str(value)) if name != "extension" else (int(value),))):
        if each is None:
            yield f"?{name}={value}", {"body": {}, name: value, **more}
        else:
            yield json.dumps({name: each}), {"body": {name: each, **more}}


def ringing(_: ClientConnection) -> Iterator[tuple[str, str, int, str]]:
    for shown, how in tried("timeout", 1, {"endpoint": "Local/busy@line/n", "app": "service"}):
        status, channel = ask("POST", "channels", **how)
        time.sleep(LOOKED_AT_S)
        there = ask("DELETE", f"channels/{channel['id']}")[0] == 204
        yield "channels", shown, status, "rings" if there else "given up"


def recording(events: ClientConnection) -> Iterator[tuple[str, str, int, str]]:
    more = {"format": "wav", "ifExists": "overwrite"}
    for number, (shown, how) in enumerate(tried("maxDurationSeconds", 1, more)):
        channel, name = called(events), f"recording{number}"
        (how["body"] if how["body"] else how)["name"] = name
        status, _ = ask("POST", f"channels/{channel}/record", **how)
        time.sleep(LOOKED_AT_S)
        live = ask("GET", f"recordings/live/{name}")[0] == 200
        ask("DELETE", f"channels/{channel}")
        yield "record", shown, status, "goes on" if live else "done"


def going_on(events: ClientConnection) -> Iterator[tuple[str, str, int, str]]:
    for shown, how in tried("extension", "100", {"context": "line", "priority": 1}):
        channel = called(events)
        status, _ = ask("POST", f"channels/{channel}/continue", **how)
        time.sleep(0.5)
        where = ask("GET", f"channels/{channel}")[1]["dialplan"]["exten"]
        ask("DELETE", f"channels/{channel}")
        yield "continue", shown, status, where


def joining(events: ClientConnection) -> Iterator[tuple[str, str, int, str]]:
    for shown in ('{"channel": ["a", "b"]}', "?channel=a,b", '{"channel": "a,b"}'):
        a, b = called(events), called(events)
        bridge = ask("POST", "bridges", {"type": "mixing"})[1]["id"]
        if shown.startswith("?"):
            status, _ = ask("POST", f"bridges/{bridge}/addChannel", {}, channel=f"{a},{b}")
        else:
            both = f"{a},{b}" if "a,b" in shown else [a, b]
            status, _ = ask("POST", f"bridges/{bridge}/addChannel", {"channel": both})
        time.sleep(0.5)
        inside = len(ask("GET", f"bridges/{bridge}")[1]["channels"])
        for each in (a, b):
            ask("DELETE", f"channels/{each}")
        ask("DELETE", f"bridges/{bridge}")
        yield "addChannel", shown, status, {0: "none", 2: "both"}.get(inside, "one")


EXPECTED = (
    *((200, "given up"), (200, "given up"), (200, "rings"), (200, "rings")),
    *((201, "done"), (201, "done"), (201, "goes on"), (201, "goes on")),
    *((204, "100"), (204, "100"), (204, "s")),
    *((204, "both"), (204, "both"), (400, "none")),
)
row = "{:<18} {:<28} {:>7}  {}"
print(row.format("request", "parameter", "answer", "what comes of it"))
seen = []
with connect(f"ws://127.0.0.1:{PORT}/ari/events?app=service", additional_headers=NAME) as events:
    for trying in (ringing, recording, going_on, joining):
        for request, shown, status, what in trying(events):
            print(row.format(f"POST {request}", shown, status, what))
            seen.append((status, what))
sys.exit(0 if tuple(seen) == EXPECTED else "It behaves differently now.")
PYTHON
asterisk -f >/dev/null 2>&1 &
for _ in $(seq 300); do
    if asterisk -rx 'core waitfullybooted' 2>/dev/null | grep -q 'fully booted'; then break; fi
    sleep 0.1
done
asterisk -V | sed 's/+.*//'
venv/bin/python types_tried.py "$port"
