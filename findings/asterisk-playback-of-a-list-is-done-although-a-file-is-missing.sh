#!/bin/bash
# Asterisk: a playback of several files over ARI is "done" although one of them is not there.
#
# Software: Asterisk 22.10.1 (Debian forky: asterisk 1:22.10.1+dfsg+~cs6.17.60671434-1), ARI.
# Expected: PlaybackFinished has the state "failed", as it has for the same file alone, or an event says
#           which one failed, so that a program which has to play a notice (that the call is recorded,
#           what it costs) knows whether the caller heard it.
# Happens:  the state is that of the last file. One that is missing before it (a mistake in its name, a
#           language that has not got it, a machine it was not copied to) is left out: it has
#           its PlaybackStarted and PlaybackContinuing like any other, then the next one begins, and in
#           the end all is "done". Where the last one is missing, all "failed", whatever was heard.
# Way out:  play one file after the other, each with a request of its own, and look at each state; or look
#           whether PlaybackContinuing comes at once.
#
# Needs Debian (amd64) and Python 3.11. Exit code 0: seen as described; 1: no longer so; 2: could not be
# tried.
#
# Seen (each file is 1 s long):
#   Asterisk 22.10.1
#   played                    state     seconds  events before
#   welcome, notice, goodbye  done          3.0  Started Continuing Started Continuing Started
#   welcome, missing, goodbye done          2.0  Started Continuing Started Continuing Started
#   missing, goodbye          done          1.0  Started Continuing Started
#   welcome, missing          failed        1.0  Started Continuing Started
#   missing                   failed        0.0  Started
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
        res_stasis_device_state res_ari res_ari_model res_ari_channels res_ari_events app_stasis \
        format_sln pbx_config
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
printf '[line]\nexten => callee,1,Answer()\n same => n,Wait(60)\n' >etc/extensions.conf
for name in welcome notice goodbye; do head -c 16000 /dev/zero >"run/$name.sln"; done
cat >plays.py <<'PYTHON'
import base64
import json
import sys
import time
import urllib.parse
import urllib.request

from websockets.sync.client import connect

PORT, FOLDER = sys.argv[1:]
NAME = {"Authorization": "Basic " + base64.b64encode(b"me:password-of-this-script").decode()}
EXPECTED = {
    ("welcome", "notice", "goodbye"): ("done", 3),
    ("welcome", "missing", "goodbye"): ("done", 2),
    ("missing", "goodbye"): ("done", 1),
    ("welcome", "missing"): ("failed", 1),
    ("missing",): ("failed", 0),
}


def ask(path: str, **parameters: str) -> dict:
    url = f"http://127.0.0.1:{PORT}/ari/{path}?{urllib.parse.urlencode(parameters)}"
    request = urllib.request.Request(url, method="POST", headers=NAME)
    return json.load(urllib.request.urlopen(request, timeout=10))


row = "{:<25} {:<9} {:>7}  {}"
print(row.format("played", "state", "seconds", "events before"))
seen = {}
with connect(f"ws://127.0.0.1:{PORT}/ari/events?app=service", additional_headers=NAME) as events:
    callee = ask("channels", endpoint="Local/callee@line", app="service", formats="slin")["id"]
    while json.loads(events.recv(timeout=10))["type"] != "StasisStart":
        pass
    for files in EXPECTED:
        media = ",".join(f"sound:{FOLDER}/{name}" for name in files)
        began, told = time.monotonic(), []
        ask(f"channels/{callee}/play", media=media)
        while (event := json.loads(events.recv(timeout=20)))["type"] != "PlaybackFinished":
            if event["type"].startswith("Playback"):
                told.append(event["type"].removeprefix("Playback"))
        state, seconds = event["playback"]["state"], time.monotonic() - began
        seen[files] = state, round(seconds)
        print(row.format(", ".join(files), state, f"{seconds:.1f}", " ".join(told)))
sys.exit(0 if seen == EXPECTED else "It behaves differently now.")
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
venv/bin/python plays.py "$port" "$folder/run"
