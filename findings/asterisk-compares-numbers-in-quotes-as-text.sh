#!/bin/bash
# Asterisk: `$["${COUNT}" > "9"]` is false for 10: quotes, there for empty values, compare as text.
#
# Software: Asterisk 22.10.1 (Debian forky: asterisk 1:22.10.1+dfsg+~cs6.17.60671434-1), its dialplan.
# Expected: numbers are compared as numbers. Variables are put into quotes so that an empty one is no
#           syntax error, as nearly every dialplan does for `=`, and the quotes mean no more than that.
# Happens:  with quotes `<` and `>` compare character by character, so 10 is less than 9. A limit (calls at once,
#           callers who wait, seconds) holds as long as all numbers have as many digits, which is as long as
#           somebody tries it: of a limit of nine the tenth call is let through, and so are the next
#           eighty. Where only one side has quotes, the quote itself is compared, and each number is
#           greater than it. Nothing is logged.
# Way out:  for `<` and `>` no quotes, and a zero before the variable for the case that it is empty:
#           $[0${COUNT} > 9].
#
# Needs Debian (amd64). Exit code 0: seen as described; 1: no longer so; 2: could not be tried.
#
# Seen (1: true):
#   Asterisk 22.10.1
#   COUNT  "${COUNT}" > "9"  ${COUNT} > "9"  ${COUNT} > 9  0${COUNT} > 9
#   8      0                 1               0             0
#   9      0                 1               0             0
#   10     0                 1               1             1
#   89     0                 1               1             1
#   90     1                 1               1             1
#   empty  0                 syntax error    syntax error  0
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
printf '[modules]\nautoload = no\nload = pbx_config.so\nload = app_verbose.so\nload = res_clioriginate.so\n' \
    >etc/modules.conf
printf '[general]\n[logfiles]\nlog = verbose,warning,error\n' >etc/logger.conf
for file in cdr cel features indications ccss; do : >"etc/$file.conf"; done
counts='8 9 10 89 90 empty'
{
    printf '[test]\nexten => wait,1,Answer()\n same => n,Wait(20)\nexten => compare,1,Answer()\n'
    for count in $counts; do
        printf ' same => n,Set(COUNT=%s)\n' "${count/empty/}"
        # The dialplan's own words, not the shell's.
        # shellcheck disable=SC2016
        printf ' same => n,Verbose(0,seen %s %s/%s/%s/%s/)\n' "$count" \
            '$["${COUNT}" > "9"]' '$[${COUNT} > "9"]' '$[${COUNT} > 9]' '$[0${COUNT} > 9]'
    done
    printf ' same => n,Verbose(0,seen all)\n'
} >etc/extensions.conf
asterisk -f >/dev/null 2>&1 &
for _ in $(seq 300); do
    if asterisk -rx 'core waitfullybooted' 2>/dev/null | grep -q 'fully booted'; then break; fi
    sleep 0.1
done
asterisk -V | sed 's/+.*//'
asterisk -rx 'channel originate Local/wait@test extension compare@test' >/dev/null
for _ in $(seq 100); do
    if grep -q 'c: seen all' run/log; then break; fi
    sleep 0.1
done
row='%-6s %-17s %-15s %-13s %s\n'
{
    # shellcheck disable=SC2059
    printf "$row" COUNT '"${COUNT}" > "9"' '${COUNT} > "9"' '${COUNT} > 9' '0${COUNT} > 9'
    for count in $counts; do
        IFS=/ read -r quoted one none zero _ < <(sed -n "s|.*c: seen $count ||p" run/log)
        # shellcheck disable=SC2059
        printf "$row" "$count" "${quoted:-syntax error}" "${one:-syntax error}" "${none:-syntax error}" "$zero"
    done
} | tee seen
cat >expected <<'TEXT'
COUNT  "${COUNT}" > "9"  ${COUNT} > "9"  ${COUNT} > 9  0${COUNT} > 9
8      0                 1               0             0
9      0                 1               0             0
10     0                 1               1             1
89     0                 1               1             1
90     1                 1               1             1
empty  0                 syntax error    syntax error  0
TEXT
diff seen expected >/dev/null || { echo 'It behaves differently now.'; exit 1; }
