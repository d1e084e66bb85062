#!/bin/bash
# Asterisk: a time zone that GotoIfTime() does not know, for a space before it too, is UTC, and nothing says so.
#
# Software: Asterisk 22.10.1 (Debian forky: asterisk 1:22.10.1+dfsg+~cs6.17.60671434-1), its dialplan, with
#           the machine's zoneinfo.
# Expected: what happens to every other field: `GotoIfTime(8:00-18:00, mon-fri,*,*)` has a space in its days,
#           so there is a WARNING, "Invalid day of week ' mon'", the condition is never true, and the
#           first call shows it. Or the space does not matter. Or a zone that is not there means this
#           machine's, as one that is left out does.
# Happens:  the zone is looked for as it is written, with the space, and where there is no such file (a
#           space, a small letter, a slip) the hours are those of UTC. The log is empty. In Berlin an
#           office of 8:00-18:00 is open from 9 or 10 to 19 or 20: tried at noon it is right, and callers
#           of the first hours hear that nobody is there.
# Way out:  no space before the zone, and ${STRFTIME(,ZONE,%z)} with the same name, which is +0000 where
#           there is no such zone.
#
# Needs Debian (amd64) with tzdata. Exit code 0: seen as described; 1: no longer so; 2: could not be tried.
#
# Seen (open: from ten minutes before now to ten minutes after it, as the clock shows it there):
#   Asterisk 22.10.1
#   GotoIfTime(HOURS,...)      open by Berlin's clock  by UTC's clock  log
#   mon-sun,*,*,Europe/Berlin  yes                     no              0 lines
#   mon-sun,*,*, Europe/Berlin no                      yes             0 lines
#   mon-sun,*,*,europe/berlin  no                      yes             0 lines
#   mon-sun,*,*,Europe/Berln   no                      yes             0 lines
#    mon-sun,*,*,Europe/Berlin no                      no              2 lines
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
[ -e /usr/share/zoneinfo/Europe/Berlin ] || cannot 'There is no zoneinfo here.'
printf '[modules]\nautoload = no\n' >etc/modules.conf
printf 'load = %s.so\n' pbx_config app_verbose res_clioriginate >>etc/modules.conf
printf '[logfiles]\nmessages = notice,warning,error\n' >etc/logger.conf
# Without these some modules do not load.
for file in ccss cdr cel features indications udptl; do : >"etc/$file.conf"; done
fields=('mon-sun,*,*,Europe/Berlin' 'mon-sun,*,*, Europe/Berlin' 'mon-sun,*,*,europe/berlin'
    'mon-sun,*,*,Europe/Berln' ' mon-sun,*,*,Europe/Berlin')
hours() { echo "$(TZ=$1 date --date '-10 minutes' +%H:%M)-$(TZ=$1 date --date '+10 minutes' +%H:%M)"; }
{
    echo '[line]'
    for clock in berlin utc; do
        zone=$([ $clock = utc ] && echo UTC || echo Europe/Berlin)
        for each in "${!fields[@]}"; do
            echo "exten => $clock$each,1,GotoIfTime($(hours "$zone"),${fields[each]}?open)"
            echo ' same => n,Log(NOTICE,it is closed)'
            echo ' same => n,Hangup()'
            echo ' same => n(open),Log(NOTICE,it is open)'
            echo ' same => n,Hangup()'
        done
    done
} >etc/extensions.conf
asterisk -f >/dev/null 2>&1 &
for _ in $(seq 300); do
    if asterisk -rx 'core waitfullybooted' 2>/dev/null | grep -q 'fully booted'; then break; fi
    sleep 0.1
done
asterisk -V | sed 's/+.*//'
is_open() {  # by this clock, with these fields; what the log says beside goes into a file
    before=$(wc -l <run/messages)
    asterisk -rx "channel originate Local/$1$2@line application Wait 0.1" >/dev/null
    for _ in $(seq 30); do
        if tail -n "+$((before + 1))" run/messages | grep -q 'it is '; then break; fi
        sleep 0.1
    done
    tail -n "+$((before + 1))" run/messages | grep 'pbx_timing\|localtime\|WARNING\|ERROR' >>warnings || true
    if tail -n "+$((before + 1))" run/messages | grep -q 'it is open'; then echo yes; else echo no; fi
}
row() { printf '%-26s %-23s %-15s %s\n' "$@"; }
row 'GotoIfTime(HOURS,...)' "open by Berlin's clock" "by UTC's clock" log
for each in "${!fields[@]}"; do
    : >warnings
    berlin=$(is_open berlin "$each")
    utc=$(is_open utc "$each")
    row "${fields[each]}" "$berlin" "$utc" "$(wc -l <warnings) lines"
    echo "$berlin $utc $(wc -l <warnings)" >>seen
done
printf '%s\n' 'yes no 0' 'no yes 0' 'no yes 0' 'no yes 0' 'no no 2' | cmp -s - seen ||
    { echo 'It behaves differently now.'; exit 1; }
