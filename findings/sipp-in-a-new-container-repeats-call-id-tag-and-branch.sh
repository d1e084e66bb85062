#!/bin/bash
# SIPp in a new container sends the Call-IDs, From tags and branches of the last one again.
#
# Software: SIPp 3.6.1 (Debian 12: sip-tester 1:3.6.1-1+b2), its built-in scenario, no options.
# Expected: what RFC 3261 asks for: a Call-ID that is unique over space and time (8.1.1.4), a tag with
#           32 random bits at least (19.3), a branch that no other transaction of anybody has (8.1.1.7).
# Happens:  all three are made of the process id and a counter. In a container the process id is the
#           same each time (here: a new PID namespace, as Docker gives one), so the first call of the
#           second run is to the far end the first call of the first one: as long as that one is
#           remembered (64 * T1 = 32 s after a final answer, or a dialog that was never ended), a new
#           call is taken for a retransmission or for a request inside an old dialog.
#           On a host the process id hides it.
# Way out:  `-cid_str` with something of one's own, and a value from `-key` in tags and branches.
#
# Needs Debian 12 (amd64) and root or unprivileged user namespaces. Exit code 0: seen as described;
# 1: no longer so; 2: could not be tried.
#
# Seen:
#   SIPp v3.6.1-SCTP-PCAP-RTPSTREAM.
#   new container, first:  Call-ID: 1-2@127.0.0.1  tag: 2SIPpTag001  branch: z9hG4bK-2-1-0
#   new container, second: Call-ID: 1-2@127.0.0.1  tag: 2SIPpTag001  branch: z9hG4bK-2-1-0
#   the same: Call-ID, tag and branch
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"

apt-get -qq download sip-tester=1:3.6.1-1+b2 libgsl27 libgslcblas0 libsctp1 libpcap0.8 2>/dev/null ||
    { echo 'The packages cannot be had here.'; exit 2; }
for package in *.deb; do dpkg -x "$package" root; done
export LD_LIBRARY_PATH=$folder/root/usr/lib/x86_64-linux-gnu
sipp=$folder/root/usr/bin/sipp
"$sipp" -v | grep -o 'SIPp v[^ ]*' || true

# The far end: writes down the first INVITE, and is busy, so that the call is over.
cat >far_end.py <<'PYTHON'
import re
import socket
import sys

line = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
line.bind(("127.0.0.1", 0))
line.settimeout(20)
print(line.getsockname()[1], flush=True)
while True:
    data, phone = line.recvfrom(4096)
    text = data.decode()
    if not text.startswith("INVITE"):
        continue
    kept = re.findall(r"^(?:Via|From|To|Call-ID|CSeq):.*$", text, re.M)
    answer = "\r\n".join(["SIP/2.0 486 Busy Here", *(each.strip() for each in kept)])
    line.sendto(f"{answer}\r\nContent-Length: 0\r\n\r\n".encode(), phone)
    call_id = re.search(r"^Call-ID: *(\S+)", text, re.M)[1]
    tag = re.search(r"^From:.*;tag=(\S+)", text, re.M)[1]
    branch = re.search(r"branch=(\S+)", text)[1]
    print(f"Call-ID: {call_id}  tag: {tag}  branch: {branch}", file=sys.stderr)
    break
PYTHON

as_in_a_container() {
    # `sh` is process 1, as the entry point of an image is; SIPp is its first child.
    unshare --user --map-root-user --pid --fork --mount-proc sh -c \
        "'$sipp' -sn uac 127.0.0.1:$1 -i 127.0.0.1 -m 1 -nostdin -timeout 15s >/dev/null 2>&1; true"
}

for run in first second; do
    mkfifo "port.$run"
    python3 far_end.py >"port.$run" 2>"$run" &
    read -r port <"port.$run"
    as_in_a_container "$port" || { echo 'There are no new PID namespaces here.'; exit 2; }
    wait "$!"
    printf 'new container, %-7s %s\n' "$run:" "$(cat "$run")"
done
if [ -s first ] && cmp -s first second; then
    echo 'the same: Call-ID, tag and branch'
else
    echo 'They differ: SIPp has changed.'
    exit 1
fi
