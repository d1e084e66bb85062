#!/bin/bash
# socket.send_fds takes an address and flags, and uses neither.
#
# Software: CPython 3.11.7, 3.12.1 and 3.13.0, Linux.
# Expected: socket.send_fds(sock, buffers, fds, flags, address) sends file descriptors to that address, as
#           its signature and the documentation ("flags, address": "Consult sendmsg() for the documentation
#           of these parameters") say, so one datagram socket can hand descriptors to several processes.
# Happens:  it calls sock.sendmsg(buffers, ancillary data) and leaves both out: on a socket that is not
#           connected ENOTCONN, whatever address was given, and on one that is connected
#           the descriptor goes to whom it is connected with, not to whom it was sent: no error, and the
#           wrong process has it.
# Way out:  sock.sendmsg(buffers, [(SOL_SOCKET, SCM_RIGHTS, array("i", fds))], flags, address).
#
# Exit code 0: seen as described; 1: no longer so; 2: could not be tried.
#
# Seen:
#   CPython 3.11.7
#   not connected, to "right": OSError ENOTCONN
#   connected with "wrong", to "right": wrong has it
#   sendmsg, connected with "wrong", to "right": right has it
set -euo pipefail
command -v python3 >/dev/null || { echo 'There is no python3 here.'; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 - "$folder" <<'PYTHON'
import errno
import os
import platform
import socket
import sys
from array import array

folder = sys.argv[1]
if not hasattr(socket, "send_fds") or not sys.platform.startswith("linux"):
    print("This Python has no send_fds, or this is no Linux.")
    sys.exit(2)
print(platform.python_implementation(), platform.python_version())

doors = {}
for name in ("right", "wrong"):
    doors[name] = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    doors[name].setblocking(False)
    doors[name].bind(os.path.join(folder, name))


def who_has_it() -> str:
    found = []
    for name, door in doors.items():
        try:
            _, fds, _, _ = socket.recv_fds(door, 100, 1)
        except BlockingIOError:
            continue
        found.append(name)
        for fd in fds:
            os.close(fd)
    return " and ".join(found) or "nobody"


right = os.path.join(folder, "right")
fd = os.open(os.devnull, os.O_RDONLY)
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
try:
    socket.send_fds(sender, [b"."], [fd], 0, right)
except OSError as error:
    refused = error.errno
else:
    refused = 0
print('not connected, to "right":', f"OSError {errno.errorcode[refused]}" if refused else who_has_it())

sender.connect(os.path.join(folder, "wrong"))
socket.send_fds(sender, [b"."], [fd], 0, right)
astray = who_has_it()
print('connected with "wrong", to "right":', astray, "has it")

sender.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [fd]))], 0, right)
meant = who_has_it()
print('sendmsg, connected with "wrong", to "right":', meant, "has it")
sys.exit(0 if refused and astray == "wrong" and meant == "right" else 1)
PYTHON
