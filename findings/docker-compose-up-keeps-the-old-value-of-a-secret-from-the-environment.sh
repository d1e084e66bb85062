#!/bin/bash
# `docker compose up` gives a container the old value of a secret that comes from the environment.
#
# Software: Docker Compose 2.26.1 (Debian 13: docker-compose 2.26.1-4), Engine 20.10.24 (Debian 12).
# Expected: what a changed variable under `environment:` does: `up` makes the container anew, which
#           then has the new value. The same for a variable under `secrets:`.
# Happens:  the file below /run/secrets is written when the container is made, and the value is in no
#           configuration that `up` compares. So a key that was changed (rotated, or corrected) does
#           not arrive, and nothing says so: the container is started with the old one, and so on at
#           every further `up`.
# Way out:  `docker compose up --force-recreate`; or a secret with `file:`, which is mounted.
#
# Needs root or membership in the group docker, a Docker Engine that runs, Compose, and Debian's
# packages. Exit code 0: seen as described; 1: no longer so; 2: could not be tried.
#
# Seen:
#   Docker Compose 2.26.1-4, Engine 20.10.24+dfsg1
#   environment:  first one, then two
#   secrets:      first one, then one
set -euo pipefail
export KEY=one
folder=$(mktemp -d)
chmod 755 "$folder"
cd "$folder"
image=busybox-of-this-script:$$
finish() {
    docker compose down --volumes >/dev/null 2>&1 || true
    docker image rm "$image" >/dev/null 2>&1 || true
    rm -rf "$folder"
}
trap finish EXIT

docker compose version >/dev/null 2>&1 && docker info >/dev/null 2>&1 ||
    { echo 'No Docker Engine with Compose answers here.'; exit 2; }
apt-get -qq download busybox-static 2>/dev/null || { echo 'The packages cannot be had here.'; exit 2; }
dpkg -x busybox-static_*.deb root
tar -C root -c . | docker import - "$image" >/dev/null
cat >docker-compose.yml <<YAML
name: secret-of-this-script-$$
services:
  environment:
    image: $image
    network_mode: none
    environment: {KEY: "\${KEY}"}
    command: [/bin/busybox, sh, -c, "echo \$\$KEY"]
  secrets:
    image: $image
    network_mode: none
    secrets: [key]
    command: [/bin/busybox, sh, -c, "echo \$\$(/bin/busybox cat /run/secrets/key)"]
secrets:
  key: {environment: KEY}
YAML

value() {  # of a service that is brought up while KEY is so
    export KEY=$2
    docker compose up --detach "$1" >/dev/null 2>&1
    docker wait "$(docker compose ps --all --quiet "$1")" >/dev/null
    docker compose logs --no-log-prefix "$1" 2>/dev/null | tr -d '\r' | grep -o '[a-z]*$' | tail -n 1
}

echo "Docker Compose $(docker compose version --short), Engine $(docker version -f '{{.Server.Version}}')"
seen=
for service in environment secrets; do
    first=$(value "$service" one)
    second=$(value "$service" two)
    printf '%-13s first %s, then %s\n' "$service:" "$first" "$second"
    seen="$seen$first $second;"
done
[ "$seen" = 'one two;one one;' ]
