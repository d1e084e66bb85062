#!/bin/bash
# CPython 3.13: asyncio's create_server leaves out an address that is not there, without an error.
#
# Software: CPython 3.13.5 (Debian 13: python3.13 3.13.5-2+deb13u5); 3.11.2 (Debian 12) beside it.
# Expected: what 3.11 does: of two addresses one is not this machine's (an interface that is not up yet,
#           a mistake in a setting), so create_server raises OSError with errno EADDRNOTAVAIL.
# Happens:  3.13 leaves the address out and listens on the other one. No exception, no warning, no line
#           in the log unless asyncio's debug mode is on: the service says that it is ready, and the
#           side that should reach it by the first address is refused. Where no address is left it
#           raises an OSError whose errno and strerror are None, so `error.errno == EADDRNOTAVAIL` is
#           never true, and a message made of strerror is "None".
# Way out:  uvloop 0.23.0, which does as 3.11; or compare `server.sockets` with what was asked for, and
#           take `str(error)` for messages.
#
# Needs Debian's packages (amd64). Exit code 0: seen as described; 1: no longer so; 2: could not be
# tried.
#
# Seen:
#   3.11.2  127.0.0.1 and 192.0.2.1: OSError, errno 99, strerror there
#   3.11.2  192.0.2.1 alone:         OSError, errno 99, strerror there
#   3.13.5  127.0.0.1 and 192.0.2.1: listens on 127.0.0.1, logged: nothing
#   3.13.5  192.0.2.1 alone:         OSError, errno None, strerror None
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
cannot() { echo "$1"; exit 2; }
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m 1 '/debian/$') ||
    cannot 'apt knows no mirror of Debian here.'
keys=/usr/share/keyrings/debian-archive-keyring.gpg

fetch() {  # unpack this package of this suite, and all that it needs, into a folder of the suite's name
    mkdir -p "$1/lists/partial" "$1/archives/partial"
    touch "$1/status"
    echo "deb [arch=amd64 signed-by=$keys] $mirror $1 main" >"$1/sources"
    cat >"$1/conf" <<END
Dir::State "$folder/$1";
Dir::State::status "$folder/$1/status";
Dir::Cache "$folder/$1";
Dir::Etc::sourcelist "$folder/$1/sources";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Sandbox::User "$(id -un)";
Acquire::Check-Valid-Until "false";
END
    { apt-get -qq -c "$1/conf" update && apt-get -qq -y -c "$1/conf" --no-install-recommends \
        --download-only install "$2"; } >"$1/log" 2>&1 || cannot 'The packages cannot be had here.'
    for package in "$1"/archives/*.deb; do dpkg -x "$package" "$1/root"; done
}

cat >listen.py <<'PYTHON'
import asyncio
import logging
import platform
from io import StringIO

NOT_HERE = "192.0.2.1"


async def listen(addresses: list[str]) -> str:
    log = StringIO()
    logging.basicConfig(stream=log, level=logging.DEBUG, force=True)
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(asyncio.Protocol, addresses, 0)
    except OSError as error:
        strerror = "None" if error.strerror is None else "there"
        return f"OSError, errno {error.errno}, strerror {strerror}"
    names = [each.getsockname()[0] for each in server.sockets]
    server.close()
    return f"listens on {' '.join(names)}, logged: {log.getvalue() or 'nothing'}"


async def main() -> None:
    version = platform.python_version()
    print(f"{version}  127.0.0.1 and {NOT_HERE}:", await listen(["127.0.0.1", NOT_HERE]))
    print(f"{version}  {NOT_HERE} alone:        ", await listen([NOT_HERE]))


asyncio.run(main())
PYTHON

run() {  # this suite's interpreter, with its own loader and libraries
    find "$1/root" -name 'ld-linux-x86-64.so.2' -path '*x86_64-linux-gnu*' >"$1/loader"
    PYTHONHOME=$folder/$1/root/usr "$(cat "$1/loader")" --inhibit-cache \
        --library-path "$1/root/usr/lib/x86_64-linux-gnu:$1/root/lib/x86_64-linux-gnu" \
        "$1/root/usr/bin/$2" listen.py
}

fetch bookworm python3.11
fetch trixie python3.13=3.13.5-2+deb13u5
{ run bookworm python3.11 && run trixie python3.13; } | tee seen
grep -q '^3.11.* and .*errno 99' seen && grep -q '^3.11.* alone: .*errno 99' seen &&
    grep -q '^3.13.* and .*listens on 127.0.0.1, logged: nothing' seen &&
    grep -q '^3.13.* alone: .*errno None, strerror None' seen ||
    { echo 'It behaves differently now.'; exit 1; }
