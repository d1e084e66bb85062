#!/bin/bash
# Asterisk: after `core stop gracefully` the calls that may go on can be handed to nobody any more.
#
# Software: Asterisk 22.10.1 (Debian forky: asterisk 1:22.10.1+dfsg+~cs6.17.60671434-1), ARI.
# Expected: what its help says: "Causes Asterisk to not accept new calls, and exit when all active calls have
#           terminated normally", so calls that are there end as they would have ended.
# Happens:  what is not accepted is new channels, also those of calls that are there. A caller with a
#           voice agent cannot be transferred: POST /channels is 500 "Allocation failed", Dial() in the
#           dialplan is CHANUNAVAIL, as for a telephone that is off. No media channel can be made for
#           somebody who has just come, and nothing can be played to a bridge.
# Way out:  `core stop when convenient`: all goes on as before, until there is no call.
#
# Needs Debian (amd64) and Python 3.11. Exit code 0: seen as described; 1: no longer so; 2: could not be
# tried.
#
# Seen (one caller in Stasis(), asked for after the command):
#   Asterisk 22.10.1
#   command                    call  POST /channels  externalMedia  bridge play  Dial()       then
#   -                          up               200            200          201  ANSWER       runs
#   core stop when convenient  up               200            200          201  ANSWER       stops
#   core stop gracefully       up               500            500          500  CHANUNAVAIL  stops
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
    printf 'load = %s.so\n' res_sorcery_config res_timing_timerfd res_http_websocket res_websocket_client \
        res_stasis res_stasis_answer res_stasis_playback res_stasis_recording res_stasis_snoop \
        res_stasis_device_state res_ari res_ari_model res_ari_channels res_ari_bridges res_ari_events \
        app_stasis app_dial pbx_config bridge_simple bridge_softmix bridge_holding res_audiosocket \
        chan_audiosocket chan_bridge_media
} >etc/modules.conf
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
exten => caller,1,Answer()
 same => n,Wait(60)
exten => person,1,Answer()
 same => n,Wait(0.5)
exten => transfer,1,Dial(Local/person@line,5,g)
 same => n,Stasis(service,${DIALSTATUS})
END
# Without these some modules do not load.
for file in ccss cdr cel features indications udptl websocket_client; do : >"etc/$file.conf"; done
cat >calls.py <<'PYTHON'
import base64
import json
import socket
import sys
import time
import urllib.error
import urllib.request
from typing import Any

from websockets.sync.client import ClientConnection, connect

PORT, STEP = sys.argv[1:]
NAME = {"Authorization": "Basic " + base64.b64encode(b"me:password-of-this-script").decode()}
MEDIA = "40325ec2-5efd-4bd3-805f-53576e581d13"
EVENTS = f"ws://127.0.0.1:{PORT}/ari/events?app=service"


def ask(method: str, path: str, **body: Any) -> tuple[int, Any]:
    headers = NAME | {"Content-Type": "application/json"}
    data = json.dumps(body).encode() if body else None
    url = f"http://127.0.0.1:{PORT}/ari/{path}"
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, None


def entered(events: ClientConnection, channel: str) -> list[str]:
    """Wait for a channel to enter the application; its arguments."""
    while True:
        event = json.loads(events.recv(timeout=15))
        if event["type"] == "StasisStart" and event["channel"]["id"] == channel:
            return event["args"]


with connect(EVENTS, additional_headers=NAME) as events:
    if STEP == "call":
        ask("POST", "channels", endpoint="Local/caller@line/n", app="service", channelId="caller")
        entered(events, "caller")
        ask("POST", "bridges/room", type="mixing")
        ask("POST", "bridges/room/addChannel", channel="caller")
        sys.exit()
    up = ask("GET", "channels/caller")[1]["state"] == "Up"
    called = ask("POST", "channels", endpoint="Local/person@line/n", app="service", channelId="person")[0]
    with socket.create_server(("127.0.0.1", 0)) as server:
        media = ask(
            "POST",
            "channels/externalMedia",
            app="service",
            channelId="media",
            external_host=f"127.0.0.1:{server.getsockname()[1]}",
            encapsulation="audiosocket",
            transport="tcp",
            format="slin",
            data=MEDIA,
        )[0]
    played = ask("POST", "bridges/room/play", media="sound:a-file")[0]
    for channel in ("person", "media"):
        ask("DELETE", f"channels/{channel}")
    ask("POST", "bridges/room/removeChannel", channel="caller")
    ask("POST", "channels/caller/continue", context="line", extension="transfer", priority=1)
    [dialled] = entered(events, "caller")
    row = f"{called:>14} {media:>14} {played:>12}  {dialled:<12}"
    print("up  " if up else "gone", row, end=" ", flush=True)
    ask("DELETE", "channels/caller")
    ask("DELETE", "bridges/room")
PYTHON
boot() {
    asterisk -f >/dev/null 2>&1 &
    for _ in $(seq 300); do
        if asterisk -rx 'core waitfullybooted' 2>/dev/null | grep -q 'fully booted'; then return; fi
        sleep 0.1
    done
    cannot 'Asterisk does not start here.'
}
try() {  # place a call, give this command (-: none), and see what can still be done for the call
    boot
    venv/bin/python calls.py "$port" call
    # It waits until Asterisk has stopped.
    [ "$1" = - ] || asterisk -rx "$1" >/dev/null 2>&1 &
    sleep 1
    printf '%-26s ' "$1"
    venv/bin/python calls.py "$port" ask
    sleep 3
    if asterisk -rx 'core show version' >/dev/null 2>&1; then echo runs; else echo stops; fi
    asterisk -rx 'core stop now' >/dev/null 2>&1 || true
    wait
}

asterisk -V | sed 's/+.*//'
{
    echo 'command                    call  POST /channels  externalMedia  bridge play  Dial()       then'
    try -
    try 'core stop when convenient'
    try 'core stop gracefully'
} | tee seen
tr -s ' ' <seen | tail -n 3 >rows
printf '%s\n' '- up 200 200 201 ANSWER runs' 'core stop when convenient up 200 200 201 ANSWER stops' \
    'core stop gracefully up 500 500 500 CHANUNAVAIL stops' | cmp -s - rows ||
    { echo 'It behaves differently now.'; exit 1; }
