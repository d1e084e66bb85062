#!/bin/sh
# Makes .venv from lock files with hashes: `bootstrap.sh` for using ari-app and its demo, `bootstrap.sh dev`
# for working on it. Needs Python 3.11 to 3.14, or an installed uv, which brings its own. Safe to run again:
# it ends at once when nothing changed.
set -eu
cd "$(dirname "$0")/.."

log=.cache/bootstrap.log
offline='resolv|name resolution|name or service not known|unreachable|refused|timed out|dns error'

say() { printf '%s\n' "$*" >&2; }
fail() { say "bootstrap: $*"; exit 2; }

# Runs a command whose output is of interest only when it fails.
quietly() { mkdir -p .cache && "$@" >>"$log" 2>&1; }

# Ends with one sentence about a command of `quietly` that failed.
give_up() {
    if grep -qiE "$offline" "$log"; then
        fail "$1 cannot be fetched: the server cannot be reached. Is this machine online? (More in $log.)"
    fi
    if grep -qi certificate "$log"; then
        fail "$1 cannot be fetched: the server's certificate is not trusted here. (More in $log.)"
    fi
    grep -v '^[[:space:]]*$' "$log" | tail -n 5 >&2
    fail "$1 cannot be installed, see above; $log has the rest."
}

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

# Installs Debian packages, from new lists where the old ones are empty or too old.
install_packages() {
    command -v apt-get >/dev/null 2>&1 || fail "$1 is needed: install it, or uv, which brings its own Python."
    as_root true 2>/dev/null || fail "$* must be installed, by root: sudo apt-get install $*"
    say "Installing $* with apt-get, as root ..."
    apt="env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120"
    # shellcheck disable=SC2086
    quietly as_root $apt install -y --no-install-recommends "$@" || {
        quietly as_root $apt update || give_up "$*"
        quietly as_root $apt install -y --no-install-recommends "$@" || give_up "$*"
    }
}

# The system's own Python first: what Debian calls python3-venv belongs to it.
find_python() {
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        path=$(command -v "$name" 2>/dev/null) || continue
        if "$path" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
            printf '%s' "$path"
            return 0
        fi
    done
    return 1
}

need_python() {
    python=$(find_python) && return
    command -v python3 >/dev/null 2>&1 || install_packages python3 python3-venv
    python=$(find_python) && return
    fail "Python 3.11 to 3.14 is needed, and this is $(python3 --version 2>&1). Install one of these, or uv," \
        "which brings its own (pipx install uv), and try again."
}

# uv, in the version and with the hash that scripts/uv.lock names.
fetch_uv() {
    need_python
    say "Fetching uv ..."
    rm -rf .cache/uv
    quietly "$python" -m venv .cache/uv || {
        rm -rf .cache/uv
        install_packages "$(basename "$python")-venv"
        quietly "$python" -m venv .cache/uv || give_up "uv"
    }
    quietly .cache/uv/bin/pip install --disable-pip-version-check --no-cache-dir --retries 1 --require-hashes \
        -r scripts/uv.lock || give_up "uv"
    cp scripts/uv.lock .cache/uv/uv.lock
}

made=$(cat .venv/.locked 2>/dev/null || true)
size=${1:-use}
# What was made for working on it stays so.
case $made in "dev "*) size=dev ;; esac
case $size in
    use) locks="deploy/lab.lock deploy/build.lock" ;;
    dev) locks="requirements.lock" ;;
    *) fail "$size is neither use nor dev." ;;
esac
# shellcheck disable=SC2086
wanted="$size $(cat $locks pyproject.toml lab/pyproject.toml | cksum)"
# The import fails where the system's Python has become another one.
if [ "$made" = "$wanted" ] && .venv/bin/python -P -c 'import ari_app' 2>/dev/null; then
    exit 0
fi

rm -f "$log"
if command -v uv >/dev/null 2>&1; then
    uv=uv
    python=$(find_python) || python=3.13
else
    uv=.cache/uv/bin/uv
    { cmp -s scripts/uv.lock .cache/uv/uv.lock && "$uv" --version >/dev/null 2>&1; } || fetch_uv
    need_python
fi

say "Installing what .venv needs ..."
.venv/bin/python -P -c 'import ari_app' 2>/dev/null || {
    rm -rf .venv
    quietly "$uv" venv --python "$python" .venv || give_up "Python"
}
rm -f .venv/.locked
# shellcheck disable=SC2086
quietly "$uv" pip sync --python .venv/bin/python --require-hashes $locks || give_up "What .venv needs"
quietly "$uv" pip install --python .venv/bin/python --no-deps --no-build-isolation --editable . --editable ./lab ||
    give_up "ari-app"
printf '%s' "$wanted" > .venv/.locked
