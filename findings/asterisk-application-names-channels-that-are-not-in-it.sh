#!/bin/bash
# Asterisk: an application of ARI names channels that were never in Stasis() among those that are.
#
# Software: Asterisk 22.10.1 (Debian forky: asterisk 1:22.10.1+dfsg+~cs6.17.60671434-1), ARI.
# Expected: `channel_ids` of GET /applications/NAME are the channels in Stasis(NAME), so that a program
#           which has started again, or tidies up, finds there whom nobody looks after.
# Happens:  it has every channel whose events the application gets. Of a call placed over ARI to a Local
#           channel that is also the other half, though that runs Dial() in the dialplan, and whoever
#           was subscribed to, such as the callee behind it. Who hangs up what is listed and is no call
#           of his cuts off his own callees.
# Way out:  look at each channel: in Stasis are those whose `dialplan.app_name` is "Stasis".
#
# Needs Debian (amd64) and Python 3.11. Exit code 0: seen as described; 1: no longer so; 2: could not be
# tried.
#
# Seen:
#   Asterisk 22.10.1
#   channel                    runs      listed  after subscribing to the callee
#   Local/route@line ;1        Stasis    yes     yes
#   Local/route@line ;2        Dial      yes     yes
#   Local/callee@line ;1       AppDial   no      yes
#   Local/callee@line ;2       Wait      no      no
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
    printf '[modules]\nautoload = no\nload = bridge_simple.so\nload = bridge_builtin_features.so\n'
    printf 'load = %s.so\n' res_sorcery_config res_http_websocket res_websocket_client res_stasis \
        res_stasis_answer res_stasis_playback res_stasis_recording res_stasis_snoop \
        res_stasis_device_state res_ari res_ari_model res_ari_channels res_ari_events res_ari_applications \
        app_stasis app_userevent app_dial pbx_config
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
cat >etc/extensions.conf <<END
[line]
exten => route,1,Answer()
 same => n,Dial(Local/callee@line/n)
exten => callee,1,Answer()
 same => n,Wait(30)
END
cat >look.py <<'PYTHON'
import asyncio
import base64
import json
import sys
import urllib.request
from typing import Any

from websockets.asyncio.client import connect

PORT = sys.argv[1]
NAME = {"Authorization": "Basic " + base64.b64encode(b"me:password-of-this-script").decode()}
CALLEE = "Local/callee@line ;1"
EXPECTED = {
    "Local/route@line ;1": ("Stasis", "yes", "yes"),
    "Local/route@line ;2": ("Dial", "yes", "yes"),
    CALLEE: ("AppDial", "no", "yes"),
    "Local/callee@line ;2": ("Wait", "no", "no"),
}


def ask(method: str, path: str) -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/ari/{path}", method=method, headers=NAME)
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())


def name(channel: dict[str, Any]) -> str:
    """Leave out the number that Asterisk gives it."""
    line, half = channel["name"].split("-")
    return f"{line} {half[-2:]}"


def listed(channels: list[dict[str, Any]]) -> dict[str, str]:
    there = ask("GET", "applications/service")["channel_ids"]
    return {name(each): "yes" if each["id"] in there else "no" for each in channels}


async def main() -> None:
    url = f"ws://127.0.0.1:{PORT}/ari/events?app=service"
    async with connect(url, additional_headers=NAME) as events, asyncio.timeout(60):
        await asyncio.to_thread(ask, "POST", "channels?endpoint=Local/route@line/n&app=service")
        while json.loads(await events.recv())["type"] != "StasisStart":
            pass
        channels: list[dict[str, Any]] = []
        while len(channels) < 4 or "Answer" in {each["dialplan"]["app_name"] for each in channels}:
            await asyncio.sleep(0.1)
            channels = ask("GET", "channels")
        before = listed(channels)
        callee = next(each["id"] for each in channels if name(each) == CALLEE)
        ask("POST", f"applications/service/subscription?eventSource=channel:{callee}")
        after = listed(channels)
    row = "{:<26} {:<9} {:<7} {}"
    print(row.format("channel", "runs", "listed", "after subscribing to the callee"))
    seen = {
        name(each): (each["dialplan"]["app_name"], before[name(each)], after[name(each)])
        for each in sorted(channels, key=lambda each: list(EXPECTED).index(name(each)))
    }
    for which, what in seen.items():
        print(row.format(which, *what))
    if seen != EXPECTED:
        sys.exit("It behaves differently now.")


asyncio.run(main())
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
venv/bin/python look.py "$port"
