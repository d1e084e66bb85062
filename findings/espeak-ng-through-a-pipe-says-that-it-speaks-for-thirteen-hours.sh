#!/bin/bash
# What `espeak-ng --stdout` writes has a WAV header that says 13.5 hours, whatever is said.
#
# Software: espeak-ng 1.51 (Debian 12: 1.51+dfsg-10+deb12u2), Python's `wave`.
# Expected: the length that was spoken, as `espeak-ng -w FILE` writes it; or a header that is known to
#           leave it open (0 or 0xFFFFFFFF), which readers understand.
# Happens:  the length is 0x7FFFF000 bytes, a plain number: 48,695.7 s at 22,050 Hz. A reader that
#           takes its time from the header (when the prompt is over, how long a buffer must be, how
#           long to wait before the next one) waits until the next day. Reading is short, without an
#           error.
# Way out:  count what was read; or let it write a file.
#
# Needs Debian 12 (amd64). Exit code 0: seen as described; 1: no longer so; 2: could not be tried.
#
# Seen:
#   espeak-ng 1.51
#   --stdout  header: 48695.68 s  there: 0.97 s
#   -w FILE   header: 0.97 s  there: 0.97 s
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"

apt-get -qq download espeak-ng=1.51+dfsg-10+deb12u2 libespeak-ng1 espeak-ng-data libpcaudio0 \
    libsonic0 libasound2 libpulse0 2>/dev/null || { echo 'The packages cannot be had here.'; exit 2; }
for package in *.deb; do dpkg -x "$package" root; done
libraries=$folder/root/usr/lib/x86_64-linux-gnu
export LD_LIBRARY_PATH=$libraries:$libraries/pulseaudio ESPEAK_DATA_PATH=$libraries
espeak=$folder/root/usr/bin/espeak-ng
if ldd "$espeak" | grep -q 'not found'; then
    echo 'A library of the sound system is missing here.'
    exit 2
fi
"$espeak" --version | sed -n 's/^eSpeak NG text-to-speech: \([0-9.]*\).*/espeak-ng \1/p'
"$espeak" --stdout 'Hello there.' | cat >piped.wav
"$espeak" -w written.wav 'Hello there.'

python3 - <<'PYTHON'
import sys
import wave

found = {}
for name, path in (("--stdout", "piped.wav"), ("-w FILE", "written.wav")):
    with wave.open(path) as file:
        rate = file.getframerate()
        header = file.getnframes() / rate
        there = len(file.readframes(file.getnframes())) / file.getsampwidth() / rate
    print(f"{name:9} header: {header:.2f} s  there: {there:.2f} s")
    found[name] = (header, there)
wrong = found["--stdout"][0] > 40_000 > 10 > found["--stdout"][1]
right = abs(found["-w FILE"][0] - found["-w FILE"][1]) < 0.01
sys.exit(0 if wrong and right else 1)
PYTHON
