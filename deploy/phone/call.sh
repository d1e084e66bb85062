#!/bin/sh
# Registers, dials the number $1 for $2 seconds, and leaves what was heard in /heard.
set -eu
number=${1:-100}
seconds=${2:-30}
home=/tmp/baresip
mkdir -p "$home"
cp /usr/local/share/baresip/config /phone/accounts "$home/"
domain=$(sed -n 's/^<sip:[^@]*@\([^;>]*\).*/\1/p' "$home/accounts")
exec baresip -f "$home" -t "$seconds" -e "/dial sip:$number@$domain"
