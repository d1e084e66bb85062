#!/bin/bash
# Asterisk: a Local channel whose dialplan says Busy() ends without a cause; only its other half has 17.
#
# Software: Asterisk 22.10.1 (Debian forky: asterisk 1:22.10.1+dfsg+~cs6.17.60671434-1), ARI.
# Expected: a call placed over ARI to Local/EXTENSION@CONTEXT, as dialplans are put before carriers,
#           ends with ChannelDestroyed and the cause of what became of it: 17 for Busy(), 34 for
#           Congestion(), as it is for Hangup(17).
# Happens:  the channel that was asked for (;1) ends with cause 0, "Unknown". 17 and 34 are in
#           ChannelDestroyed of the other half (;2), whose order to the first one is not fixed. Who
#           tells "busy" from "failed" by his own channel's cause never sees a busy callee.
# Way out:  Hangup(17) and Hangup(34) in the dialplan; or take the last `dialstatus` of the `Dial`
#           events, which is right; or the cause of ;2.
#
# Needs Debian (amd64) and Python 3.11. Exit code 0: seen as described; 1: no longer so; 2: could not be
# tried.
#
# Seen:
#   Asterisk 22.10.1
#   dialplan     dialstatus  cause, ;1 cause, ;2
#   busy         BUSY                0        17
#   congestion   CONGESTION          0        34
#   hangup-17    BUSY               17        17
#   hangup-34    CONGESTION         34        34
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
cat >etc/extensions.conf <<END
[line]
exten => busy,1,Busy()
exten => congestion,1,Congestion()
exten => hangup-17,1,Hangup(17)
exten => hangup-34,1,Hangup(34)
END
cat >calls.py <<'PYTHON'
import asyncio
import base64
import json
import sys
import urllib.request

from websockets.asyncio.client import connect

PORT = sys.argv[1]
NAME = {"Authorization": "Basic " + base64.b64encode(b"me:password-of-this-script").decode()}
EXPECTED = {
    "busy": ["BUSY", 0, 17],
    "congestion": ["CONGESTION", 0, 34],
    "hangup-17": ["BUSY", 17, 17],
    "hangup-34": ["CONGESTION", 34, 34],
}


def place(extension: str) -> None:
    query = f"endpoint=Local/{extension}@line&app=service&timeout=20"
    url = f"http://127.0.0.1:{PORT}/ari/channels/{extension}?{query}"
    urllib.request.urlopen(urllib.request.Request(url, method="POST", headers=NAME)).close()


async def main() -> None:
    row = "{:<12} {:<11} {:>9} {:>9}"
    print(row.format("dialplan", "dialstatus", "cause, ;1", "cause, ;2"))
    seen = {}
    url = f"ws://127.0.0.1:{PORT}/ari/events?app=service"
    async with connect(url, additional_headers=NAME) as events, asyncio.timeout(60):
        for extension in EXPECTED:
            await asyncio.to_thread(place, extension)
            status, causes = "", {}
            while len(causes) < 2:
                event = json.loads(await events.recv())
                if event["type"] == "Dial":
                    status = event["dialstatus"]
                elif event["type"] == "ChannelDestroyed":
                    causes[event["channel"]["name"][-2:]] = event["cause"]
            seen[extension] = [status, causes[";1"], causes[";2"]]
            print(row.format(extension, *seen[extension]))
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
