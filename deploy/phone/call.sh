#!/bin/sh
# Registers, dials the number $1, talks for $2 seconds, and leaves what it heard in /heard.
set -eu
number=${1:-100}
seconds=${2:-40}
home=/tmp/baresip
if ! [ -r /phone/accounts ]; then
    echo 'The lab has never been up: `docker compose up -d --wait` first.'
    exit 1
fi
mkdir -p "$home"
cp /usr/local/share/baresip/config /phone/accounts "$home/"
domain=$(sed -n 's/^<sip:[^@]*@\([^;>]*\).*/\1/p' "$home/accounts")
rm -f /heard/heard.wav
# Without what it prints ten times a second, and each key of the command as it is typed.
baresip -f "$home" -t "$seconds" -e "/dial sip:$number@$domain" 2>&1 </dev/null |
    tr '\r' '\n' | grep --line-buffered -E -v 'audio=|^/|^ *$'
