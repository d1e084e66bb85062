#!/bin/bash
# Asterisk: in a pattern a small n, x or z stands for a digit too: `_agent-X` never takes agent-5.
#
# Software: Asterisk 22.10.1 (Debian forky: asterisk 1:22.10.1+dfsg+~cs6.17.60671434-1), its dialplan.
# Expected: X, Z and N stand for digits, as every introduction has it, and other letters for themselves;
#           names have capital and small letters, and without the `_` "agent-5" is found as written.
# Happens:  the small ones are digits as well. `_agent-X` takes age2t-5, and agent-5 is not there: 404, or
#           another pattern takes it. `_line-X`, `_sales-next-X`, `_voice-agent` are of the same kind; `_desk-X`
#           works, so the first try says nothing. `dialplan show` prints the pattern as it was written, and
#           nothing is logged.
# Way out:  the letter in brackets: `_age[n]t-X`.
#
# Needs Debian (amd64). Exit code 0: seen as described; 1: no longer so; 2: could not be tried.
#
# Seen:
#   Asterisk 22.10.1
#   extension    takes
#   agent-5      agent-5
#   _agent-X     age2t-5
#   _age[n]t-X   agent-5
#   _line-X      li2e-5
#   _box-X       bo2-5
#   _desk-X      desk-5
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
printf '[modules]\nautoload = no\nload = pbx_config.so\nload = app_verbose.so\nload = func_dialplan.so\n' >etc/modules.conf
echo 'load = res_clioriginate.so' >>etc/modules.conf
printf '[general]\n[logfiles]\nlog = verbose,warning,error\n' >etc/logger.conf
for file in cdr cel features indications ccss; do : >"etc/$file.conf"; done
patterns='agent-5 _agent-X _age[n]t-X _line-X _box-X _desk-X'
dialled='agent-5 age2t-5 line-5 li2e-5 box-5 bo2-5 desk-5 de2k-5'
{
    number=0
    for pattern in $patterns; do
        number=$((number + 1))
        printf '[context-%s]\nexten => %s,1,Wait(1)\n' "$number" "$pattern"
    done
    printf '[test]\nexten => wait,1,Answer()\n same => n,Wait(20)\nexten => look,1,Answer()\n'
    number=0
    for pattern in $patterns; do
        number=$((number + 1))
        for each in $dialled; do
            printf ' same => n,Verbose(0,seen %s %s ${DIALPLAN_EXISTS(context-%s,%s,1)})\n' \
                "$number" "$each" "$number" "$each"
        done
    done
    printf ' same => n,Verbose(0,seen all)\n'
} >etc/extensions.conf
asterisk -f >/dev/null 2>&1 &
for _ in $(seq 300); do
    if asterisk -rx 'core waitfullybooted' 2>/dev/null | grep -q 'fully booted'; then break; fi
    sleep 0.1
done
asterisk -V | sed 's/+.*//'
asterisk -rx 'channel originate Local/wait@test extension look@test' >/dev/null
for _ in $(seq 100); do
    if grep -q 'c: seen all' run/log; then break; fi
    sleep 0.1
done
{
    printf '%-12s %s\n' extension takes
    number=0
    for pattern in $patterns; do
        number=$((number + 1))
        taken=$(sed -n "s|.*c: seen $number \(.*\) 1$|\1|p" run/log)
        printf '%-12s %s\n' "$pattern" "${taken//$'\n'/ }"
    done
} | tee seen
cat >expected <<'TEXT'
extension    takes
agent-5      agent-5
_agent-X     age2t-5
_age[n]t-X   agent-5
_line-X      li2e-5
_box-X       bo2-5
_desk-X      desk-5
TEXT
diff seen expected >/dev/null || { echo 'It behaves differently now.'; exit 1; }
