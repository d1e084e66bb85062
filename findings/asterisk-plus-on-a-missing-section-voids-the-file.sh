#!/bin/bash
# Asterisk: `[name](+)` for a section that is not there voids the file, and the reload says it went well.
#
# Software: Asterisk 22.10.1 (Debian forky: asterisk 1:22.10.1+dfsg+~cs6.17.60671434-1).
# Expected: `(+)` adds to the section of that name, and makes it where there is none yet; or only this
#           section is left out; or the reload says that it failed.
# Happens:  the file is not taken. `dialplan reload` says "Dialplan reloaded." and keeps the old one, so
#           the mistake shows days later: at the next start there is no dialplan at all, not even the
#           sections before the line. In an included file only the rest of that file is lost, and
#           what comes before the line counts. `[general](+)`, appended to an http.conf that has no
#           `[general]`, leaves the server off. One WARNING in the log is all.
# Way out:  add only to sections that stand above in the same file; compare `dialplan show` after a
#           reload with what was written.
#
# Needs Debian (amd64). Exit code 0: seen as described; 1: no longer so; 2: could not be tried.
#
# Seen:
#   Asterisk 22.10.1
#   start, [first-begins](+):
#     says:     fully booted
#     contexts: first-begins first-ends
#     log:      nothing
#   reload, [nowhere](+) in extensions.conf:
#     says:     Dialplan reloaded.
#     contexts: first-begins first-ends
#     log:      WARNING: category 'nowhere' does not exist
#   reload, [nowhere](+) in more.conf, included:
#     says:     Dialplan reloaded.
#     contexts: more-begins third-begins third-ends
#     log:      WARNING: category 'nowhere' does not exist
#   start, [nowhere](+) in extensions.conf:
#     says:     fully booted
#     contexts: none
#     log:      WARNING: category 'nowhere' does not exist
#   http.conf that has [general](+) alone: Server Disabled
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
cat >etc/modules.conf <<END
[modules]
autoload = no
load = pbx_config.so
END
cat >etc/logger.conf <<END
[logfiles]
messages = warning,error
END
cat >etc/extensions.conf <<END
[main-begins]
exten => 100,1,NoOp()
END
port=$(python3 -c "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1])")
cat >etc/http.conf <<END
[general](+)
enabled = yes
bindaddr = 127.0.0.1
bindport = $port
END
boot() {
    asterisk -f >/dev/null 2>&1 &
    for _ in $(seq 300); do
        if asterisk -rx 'core waitfullybooted' 2>/dev/null | grep -q 'fully booted'; then return; fi
        sleep 0.1
    done
    cannot 'Asterisk does not start here.'
}

seen=
look() {
    sleep 0.5  # until it is logged
    contexts=$({ asterisk -rx 'dialplan show' | grep "created by 'pbx_config'" || true; } |
        cut -d "'" -f 2 | sort | xargs)
    contexts=${contexts:-none}
    warnings=$(sed -n "s/.*WARNING.*config.c: .*category 'nowhere'/WARNING: category 'nowhere'/p" \
        run/messages | cut -d , -f 1)
    echo "$1:"
    echo "  says:     ${answer:-nothing}"
    echo "  contexts: $contexts"
    echo "  log:      ${warnings:-nothing}"
    seen="$seen$contexts;"
}
reload() {
    : >run/messages
    answer=$(asterisk -rx 'dialplan reload')
    look "$1"
}
main() {  # an extensions.conf with this line in the middle
    cat >etc/extensions.conf <<END
[$1-begins]
exten => 100,1,NoOp()
$2
exten => 101,1,NoOp()
[$1-ends]
exten => 102,1,NoOp()
END
}

main first '[first-begins](+)'
boot
asterisk -V | sed 's/+.*//'
answer='fully booted'
look 'start, [first-begins](+)'
http=$(asterisk -rx 'http show status' | grep -o 'Server [DE][a-z]*abled')
main second '[nowhere](+)'
reload 'reload, [nowhere](+) in extensions.conf'
main third '#include "more.conf"'
cat >etc/more.conf <<END
[more-begins]
exten => 200,1,NoOp()
[nowhere](+)
exten => 201,1,NoOp()
[more-ends]
exten => 202,1,NoOp()
END
reload 'reload, [nowhere](+) in more.conf, included'
main fourth '[nowhere](+)'
asterisk -rx 'core stop now' >/dev/null
wait
: >run/messages
boot
answer='fully booted'
look 'start, [nowhere](+) in extensions.conf'
echo "http.conf that has [general](+) alone: $http"
ok='first-begins first-ends;first-begins first-ends;more-begins third-begins third-ends;none;'
[ "$seen" = "$ok" ] && [ "$http" = 'Server Disabled' ] || { echo 'It behaves differently now.'; exit 1; }
