#!/bin/bash
# Asterisk: in `Stasis( voice-agent )` the spaces belong to the name, and the call finds no application.
#
# Software: Asterisk 22.10.1 (Debian forky: asterisk 1:22.10.1+dfsg+~cs6.17.60671434-1), ARI.
# Expected: spaces round an argument do not matter, as they do not round the `=` and `=>` of the same
#           file.
# Happens:  the name is looked up with its spaces, so the application is "not there" while it runs:
#           STASISSTATUS is FAILED, and the log shows the name in quotes, where one space is easily
#           missed. Arguments keep theirs too: " wait=30 " comes to the application so, and one
#           that compares names does not know it. Quotes are taken off, from the name and from the
#           arguments.
# Way out:  no spaces between the brackets.
#
# Needs Debian (amd64) and Python 3.11. Exit code 0: seen as described; 1: no longer so; 2: could not be
# tried.
#
# Seen:
#   Asterisk 22.10.1
#   Stasis(voice-agent,wait=30,vip)            ['wait=30', 'vip']
#   Stasis(voice-agent, wait=30 , vip )        [' wait=30 ', ' vip ']
#   Stasis("voice-agent","wait=30","vip")      ['wait=30', 'vip']
#   Stasis( voice-agent,wait=30)               FAILED
#   Stasis(voice-agent ,wait=30)               FAILED
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
    printf 'load = %s.so\n' res_sorcery_config res_http_websocket res_websocket_client res_stasis \
        res_stasis_answer res_stasis_playback res_stasis_recording res_stasis_snoop \
        res_stasis_device_state res_ari res_ari_model res_ari_channels res_ari_events app_stasis \
        app_userevent pbx_config
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
exten => 1,1,Stasis(voice-agent,wait=30,vip)
 same => n,Goto(end,s,1)
exten => 2,1,Stasis(voice-agent, wait=30 , vip )
 same => n,Goto(end,s,1)
exten => 3,1,Stasis("voice-agent","wait=30","vip")
 same => n,Goto(end,s,1)
exten => 4,1,Stasis( voice-agent,wait=30)
 same => n,Goto(end,s,1)
exten => 5,1,Stasis(voice-agent ,wait=30)
 same => n,Goto(end,s,1)

[end]
exten => s,1,UserEvent(End,status: ${STASISSTATUS})
END
cat >calls.py <<'PYTHON'
import asyncio
import base64
import json
import sys
import urllib.request
from pathlib import Path

from websockets.asyncio.client import connect

PORT = sys.argv[1]
NAME = {"Authorization": "Basic " + base64.b64encode(b"me:password-of-this-script").decode()}
EXPECTED = ["['wait=30', 'vip']", "[' wait=30 ', ' vip ']", "['wait=30', 'vip']"]
EXPECTED += ["FAILED", "FAILED"]


def request(method: str, path: str) -> None:
    url = f"http://127.0.0.1:{PORT}/ari/{path}"
    urllib.request.urlopen(urllib.request.Request(url, method=method, headers=NAME)).close()


async def main() -> None:
    lines = Path("etc/extensions.conf").read_text().splitlines()
    written = [line.split(",1,", 1)[1] for line in lines if line.startswith("exten => ")]
    seen = []
    url = f"ws://127.0.0.1:{PORT}/ari/events?app=voice-agent"
    async with connect(url, additional_headers=NAME) as events, asyncio.timeout(60):
        for number, words in enumerate(written[:-1], 1):
            query = f"endpoint=Local/{number}@line&app=voice-agent&timeout=20"
            await asyncio.to_thread(request, "POST", f"channels/call-{number}?{query}")
            found = None
            while True:
                event = json.loads(await events.recv())
                kind = event["type"]
                if kind == "StasisStart" and found is None:
                    found = str(event["args"])
                    await asyncio.to_thread(request, "DELETE", f"channels/call-{number}")
                elif kind == "ChannelUserevent" and found is None:
                    found = event["userevent"].get("status")
                elif kind == "ChannelDestroyed" and event["channel"]["id"] == f"call-{number}":
                    break
            seen.append(str(found))
            print(f"{words:<42} {found}")
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
venv/bin/python calls.py "$port"
