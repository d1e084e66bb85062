#!/bin/bash
# Asterisk: a WebSocket message that arrives in ten pieces is "unresponsive", and ends the channel.
#
# Software: Asterisk 22.10.1 (Debian forky: asterisk 1:22.10.1+dfsg+~cs6.17.60671434-1), chan_websocket,
#           and with it every WebSocket that Asterisk reads (res_http_websocket).
# Expected: a message may arrive in any number of pieces: TCP is a stream, and over a network each packet is
#           a piece for a reader that is faster than the link.
# Happens:  Asterisk counts how often a read brought less than the whole rest of the message, and at the
#           tenth it closes: "Websocket seems unresponsive, disconnecting ...", channel gone, although
#           all of it arrived within 20 ms. On loopback nobody sees it: there a message is one piece.
#           Over packets of 1,448 bytes it takes 14,000 bytes: 0.4 s of slin16, 0.9 s of slin; documentation
#           and examples send more (up to 65,500 bytes are taken when they come at once).
#           With TLS it is the record that counts, whatever messages are in it: a library that writes
#           several short messages together makes one record of up to 16 KiB of them.
# Way out:  messages of at most 8,000 bytes, and with TLS one write for each (writelines() of asyncio makes
#           a record of each as well).
#
# Needs Debian (amd64) and Python 3.11. Exit code 0: seen as described; 1: no longer so; 2: could not be
# tried.
#
# Seen (each piece 2 ms after the one before it; the same sound in all rows):
#   Asterisk 22.10.1
#   sent, and how it arrives                 channel
#   a message of 16,000 bytes                there
#   the same in 9 pieces                     there
#   the same in 12                           gone
#   two of 8,000 bytes in 12                 there
#   TLS: 16,000 bytes                        there
#   TLS: the same in 12                      gone
#   TLS: two of 8,000 in one write, in 12    gone
#   TLS: two of 8,000 in two writes, in 12   there
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
{
    printf '[modules]\nautoload = no\n'
    printf 'load = %s.so\n' res_sorcery_config res_timing_timerfd res_http_websocket res_websocket_client \
        res_stasis res_stasis_answer res_stasis_playback res_stasis_recording res_stasis_snoop \
        res_stasis_device_state res_ari res_ari_model res_ari_channels res_ari_events app_stasis \
        chan_websocket
} >etc/modules.conf
port=$(python3 -c "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1])")
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=asterisk -keyout etc/key.pem -out etc/cert.pem \
    2>/dev/null
cat >etc/http.conf <<END
[general]
enabled = yes
bindaddr = 127.0.0.1
bindport = $port
tlsenable = yes
tlsbindaddr = 127.0.0.2:$port
tlscertfile = $folder/etc/cert.pem
tlsprivatekey = $folder/etc/key.pem
END
cat >etc/ari.conf <<END
[general]
enabled = yes
[me]
type = user
password = password-of-this-script
END
cat >sends.py <<'PYTHON'
import base64
import contextlib
import json
import os
import socket
import ssl
import struct
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

PORT = int(sys.argv[1])
NAME = {"Authorization": "Basic " + base64.b64encode(b"me:password-of-this-script").decode()}
GAP_SECONDS = 0.002


def ask(method: str, path: str, **parameters: str) -> dict:
    url = f"http://127.0.0.1:{PORT}/ari/{path}?{urllib.parse.urlencode(parameters)}"
    request = urllib.request.Request(url, method=method, headers=NAME)
    return json.load(urllib.request.urlopen(request, timeout=10))


class Line:
    """A connection to a WebSocket of Asterisk's; what is written waits for `give`."""

    def __init__(self, path: str, *, tls: bool, protocol: str = "") -> None:
        self.socket = socket.create_connection(("127.0.0.2" if tls else "127.0.0.1", PORT), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.came, self.goes, self.tls = ssl.MemoryBIO(), ssl.MemoryBIO(), None
        if tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self.tls = context.wrap_bio(self.came, self.goes)
            while True:
                try:
                    self.tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    self.socket.sendall(self.goes.read())
                    self.came.write(self.socket.recv(65536))
        key = base64.b64encode(os.urandom(16)).decode()
        self.write(
            f"GET {path} HTTP/1.1\r\nHost: asterisk\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Authorization: {NAME['Authorization']}\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key}\r\n{protocol}\r\n".encode()
        )
        self.give(pieces=1)
        time.sleep(0.3)

    def write(self, data: bytes) -> None:
        self.tls.write(data) if self.tls else self.goes.write(data)

    def give(self, pieces: int) -> None:
        data = self.goes.read()
        size = -(-len(data) // pieces)
        with contextlib.suppress(ConnectionError):
            for at in range(0, len(data), size):
                self.socket.sendall(data[at : at + size])
                time.sleep(GAP_SECONDS)


def message(size: int) -> bytes:
    return struct.pack("!BBH4x", 0x82, 0x80 | 126, size) + bytes(size)


def channel_after(writes: list[bytes], pieces: int, *, tls: bool) -> str:
    made = ask(
        "POST",
        "channels/externalMedia",
        app="service",
        external_host="",
        encapsulation="none",
        transport="websocket",
        connection_type="server",
        format="slin16",
    )
    where = made["channelvars"]["MEDIA_WEBSOCKET_CONNECTION_ID"]
    line = Line(f"/media/{where}", tls=tls, protocol="Sec-WebSocket-Protocol: media\r\n")
    for data in writes:
        line.write(data)
    line.give(pieces)
    time.sleep(0.5)
    try:
        ask("GET", f"channels/{made['id']}")
    except urllib.error.HTTPError as error:
        assert error.code == 404
        return "gone"
    return "there"


SIXTEEN, EIGHTS = message(16000), message(8000) * 2
TRIALS = [
    ("a message of 16,000 bytes", [SIXTEEN], 1, False, "there"),
    ("the same in 9 pieces", [SIXTEEN], 9, False, "there"),
    ("the same in 12", [SIXTEEN], 12, False, "gone"),
    ("two of 8,000 bytes in 12", [EIGHTS], 12, False, "there"),
    ("TLS: 16,000 bytes", [SIXTEEN], 1, True, "there"),
    ("TLS: the same in 12", [SIXTEEN], 12, True, "gone"),
    ("TLS: two of 8,000 in one write, in 12", [EIGHTS], 12, True, "gone"),
    ("TLS: two of 8,000 in two writes, in 12", [message(8000)] * 2, 12, True, "there"),
]
events = Line("/ari/events?app=service", tls=False)
seen = []
print("{:<40} {}".format("sent, and how it arrives", "channel"))
for what, writes, pieces, tls, _ in TRIALS:
    seen.append(channel_after(writes, pieces, tls=tls))
    print(f"{what:<40} {seen[-1]}")
sys.exit(0 if seen == [each[-1] for each in TRIALS] else "It behaves differently now.")
PYTHON
boot() {
    asterisk -f >/dev/null 2>&1 &
    for _ in $(seq 300); do
        if asterisk -rx 'core waitfullybooted' 2>/dev/null | grep -q 'fully booted'; then return; fi
        sleep 0.1
    done
    cannot 'Asterisk does not start here.'
}

boot
asterisk -V | sed 's/+.*//'
python3 sends.py "$port"
