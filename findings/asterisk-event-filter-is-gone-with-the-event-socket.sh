#!/bin/bash
# Asterisk: an ARI application's eventFilter is gone when its event socket closes, and nothing says so.
#
# Software: Asterisk 22.10.1 (Debian forky: asterisk 1:22.10.1+dfsg+~cs6.17.60671434-1), ARI.
# Expected: PUT /applications/NAME/eventFilter is a setting of the application, as its name says, so a
#           program that puts it once, at its start, is sent only what it asked for from then on.
# Happens:  the filter lives as long as the socket. After the next connect (Asterisk closes a socket whose
#           reader is late, a network blinks) `events_allowed` is empty, every event comes again, and no
#           event or log line tells. Of a plain call most of them are ChannelVarset.
# Way out:  put it after each connect, as this project does.
#
# Needs Debian (amd64) and Python 3.11. Exit code 0: seen as described; 1: no longer so; 2: could not be
# tried.
#
# Seen:
#   Asterisk 22.10.1
#   when                   events_allowed          sent of one call
#   after PUT eventFilter  StasisStart, StasisEnd  StasisEnd, StasisStart
#   after a reconnect      -                       ChannelDestroyed, ChannelDialplan,
#     ChannelHangupRequest, ChannelStateChange, ChannelVarset, Dial, StasisEnd, StasisStart
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
        res_stasis_device_state res_ari res_ari_model res_ari_channels res_ari_applications res_ari_events app_stasis \
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
exten => here,1,Set(COLOUR=green)
 same => n,Answer()
 same => n,Wait(1)
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
ROW = "{:<22} {:<23} {}"


def ask(method: str, path: str, body: object = None) -> object:
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/ari/{path}",
        method=method,
        headers=NAME | {"Content-Type": "application/json"},
        data=None if body is None else json.dumps(body).encode(),
    )
    with urllib.request.urlopen(request) as answer:
        text = answer.read()
    return json.loads(text) if text else None


async def look(events, when: str) -> list[str]:
    """Place a call that sets a variable and ends by itself; the kinds of events that come of it."""
    told = await asyncio.to_thread(ask, "GET", "applications/service")
    allowed = [each["type"] for each in told["events_allowed"]]
    query = "channels/one?endpoint=Local/here@line&app=service&timeout=20"
    await asyncio.to_thread(ask, "POST", query)
    kinds: set[str] = set()
    async with asyncio.timeout(30):
        while "StasisEnd" not in kinds:
            kinds.add(json.loads(await events.recv())["type"])
    print(ROW.format(when, ", ".join(allowed) or "-", ", ".join(sorted(kinds))))
    return sorted(kinds)


async def main() -> None:
    print(ROW.format("when", "events_allowed", "sent of one call"))
    url = f"ws://127.0.0.1:{PORT}/ari/events?app=service"
    only = {"allowed": [{"type": "StasisStart"}, {"type": "StasisEnd"}]}
    async with connect(url, additional_headers=NAME) as events:
        await asyncio.to_thread(ask, "PUT", "applications/service/eventFilter", only)
        filtered = await look(events, "after PUT eventFilter")
    async with connect(url, additional_headers=NAME) as events:
        again = await look(events, "after a reconnect")
    if filtered != ["StasisEnd", "StasisStart"] or "ChannelVarset" not in again:
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
