#!/bin/sh
# Makes .venv from requirements.lock. Needs Python 3.11 to 3.13 or an installed uv; brings uv itself where
# it is missing. Safe to run again: it ends at once when nothing changed.
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }
fail() { say "bootstrap: $*"; exit 2; }

stamp=.venv/.locked
wanted=$(cat requirements.lock pyproject.toml | cksum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && [ -x .venv/bin/python ]; then
    exit 0
fi

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null 2>&1; then sudo -n "$@"; else return 1; fi
}

find_python() {
    for name in python3.13 python3.12 python3.11 python3; do
        path=$(command -v "$name" 2>/dev/null) || continue
        if "$path" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            printf '%s' "$path"
            return 0
        fi
    done
    return 1
}

if command -v uv >/dev/null 2>&1; then
    uv=uv
else
    python=$(find_python) || {
        command -v apt-get >/dev/null 2>&1 && as_root apt-get install -qq -y python3 python3-venv >&2 || true
        python=$(find_python) || fail "Python 3.11, 3.12 or 3.13 is needed (Debian, Ubuntu: apt-get install python3 python3-venv), or uv."
    }
    if [ ! -x .cache/uv/bin/uv ]; then
        say "Fetching uv ..."
        "$python" -m venv .cache/uv >/dev/null 2>&1 || {
            rm -rf .cache/uv
            as_root apt-get install -qq -y python3-venv >&2 || fail "python3-venv is missing: apt-get install python3-venv"
            "$python" -m venv .cache/uv
        }
        .cache/uv/bin/pip install --quiet --quiet --disable-pip-version-check uv
    fi
    uv=.cache/uv/bin/uv
fi

python=$(find_python) || python=3.11
say "Installing what requirements.lock names ..."
[ -x .venv/bin/python ] || "$uv" venv --quiet --python "$python" .venv
"$uv" pip sync --quiet --python .venv/bin/python --require-hashes requirements.lock
"$uv" pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
printf '%s' "$wanted" > "$stamp"
