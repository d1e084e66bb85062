#!/bin/bash
# Asterisk: `prefix = /pbx` in http.conf puts ARI under //pbx/ari, and `pbx/` under /pbx//ari.
#
# Software: Asterisk 22.10.1 (Debian forky: asterisk 1:22.10.1+dfsg+~cs6.17.60671434-1).
# Expected: a prefix is a path, and slashes at its ends do not matter, or are refused. In the same
#           file "the first character should be an '/'" where a path gets an ACL.
# Happens:  a slash is put before the value and one behind it, whatever there is. No warning; ARI runs,
#           and answers 404 to everybody who asks for /pbx/ari, as clients and proxies write it (many
#           make one slash of two on the way).
# Way out:  `prefix = pbx`; `http show status` shows what came of it.
#
# Needs Debian (amd64). Exit code 0: seen as described; 1: no longer so; 2: could not be tried.
#
# Seen:
#   Asterisk 22.10.1
#   http.conf       http show      /ari  /pbx/ari  //pbx/ari  /pbx//ari  //pbx//ari log
#   -               none            200       404        404        404         404 0 lines
#   prefix = pbx    /pbx            404       200        404        404         404 0 lines
#   prefix = /pbx   //pbx           404       404        200        404         404 0 lines
#   prefix = pbx/   /pbx/           404       404        404        200         404 0 lines
#   prefix = /pbx/  //pbx/          404       404        404        404         200 0 lines
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
    printf 'load = %s.so\n' res_sorcery_config res_http_websocket res_websocket_client res_stasis \
        res_ari res_ari_model res_ari_asterisk
} >etc/modules.conf
cat >etc/ari.conf <<END
[general]
enabled = yes
[me]
type = user
password = password-of-this-script
END
cat >etc/logger.conf <<END
[logfiles]
messages = warning,error
END
port=$(python3 -c "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1])")
write_http() {
    cat >etc/http.conf <<END
[general]
enabled = yes
bindaddr = 127.0.0.1
bindport = $port
$1
END
}
write_http ''
boot() {
    asterisk -f >/dev/null 2>&1 &
    for _ in $(seq 300); do
        if asterisk -rx 'core waitfullybooted' 2>/dev/null | grep -q 'fully booted'; then return; fi
        sleep 0.1
    done
    cannot 'Asterisk does not start here.'
}

status() {  # of ARI's ping below this path, which is sent as it is
    python3 - "$port" "$1/asterisk/ping" <<'PYTHON'
import base64
import http.client
import sys

connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=10)
name = base64.b64encode(b"me:password-of-this-script").decode()
connection.request("GET", sys.argv[2], headers={"Authorization": f"Basic {name}"})
print(connection.getresponse().status)
PYTHON
}

boot
asterisk -V | sed 's/+.*//'
paths='/ari /pbx/ari //pbx/ari /pbx//ari //pbx//ari'
format='%-15s %-13s %5s %9s %10s %10s %11s %s\n'
printf "$format" http.conf 'http show' $paths log
seen=
for prefix in '' pbx /pbx pbx/ /pbx/; do
    line=${prefix:+prefix = $prefix}
    write_http "$line"
    : >run/messages
    asterisk -rx 'module reload http' >/dev/null
    sleep 0.5
    shown=$(asterisk -rx 'http show status' | sed -n 's/^Prefix: *//p')
    shown=${shown:-none}
    row=
    for path in $paths; do row="$row $(status "$path")"; done
    printf "$format" "${line:--}" "$shown" $row "$(wc -l <run/messages) lines"
    seen="$seen$shown$row;"
done
expected='none 200 404 404 404 404;/pbx 404 200 404 404 404;//pbx 404 404 200 404 404;'
expected="$expected/pbx/ 404 404 404 200 404;//pbx/ 404 404 404 404 200;"
[ "$seen" = "$expected" ] || { echo 'It behaves differently now.'; exit 1; }
