#!/bin/sh
# Takes Valkey, or Redis where Debian has no Valkey yet, and HAProxy out of their packages into
# .cache/cluster, with the libraries that are not here: installed, they would start servers. Needs
# apt-get, and lists of packages no older than their mirror.
set -eu
cd "$(dirname "$0")/.."

apt-get update -qq || true
server=redis-server
apt-cache show valkey-server >/dev/null 2>&1 && server=valkey-server
tools=$(echo "$server" | sed s/server/tools/)
mkdir -p .cache/cluster
cd .cache/cluster
wanted="$server $tools haproxy"
# Of their dependencies only the libraries that this machine lacks.
for package in $(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
    --no-replaces --no-enhances --no-pre-depends $wanted | grep -E '^lib' | sort -u); do
    dpkg -s "$package" >/dev/null 2>&1 || wanted="$wanted $package"
done
# shellcheck disable=SC2086
apt-get download -qq $wanted
for file in *.deb; do
    dpkg -x "$file" .
done
rm -f ./*.deb
