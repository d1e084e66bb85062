"""Machines that are network namespaces on one bridge, with wires that can be cut."""

from __future__ import annotations

import subprocess
from typing import Final

NET: Final = "10.77.0."
HERE: Final = NET + "1"
"""Where the phones and the agents are."""
INSIDE: Final = "ARI_APP_CLUSTER_TEST"
ENTER: Final = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
"""What is run behind it has all of this for itself, and takes it along when it ends."""


def run(*command: str) -> None:
    """Run a command that has to succeed."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


class Network:
    """The bridge, and who is on it; to be made behind `ENTER`."""

    def __init__(self) -> None:
        self._hosts: dict[str, str] = {}
        run("mount", "-t", "tmpfs", "tmpfs", "/run")
        run("mkdir", "/run/netns")
        run("ip", "link", "set", "lo", "up")
        # Else its address changes with those who join, and who has talked to it before goes on to
        # send to the old one.
        run("ip", "link", "add", "lan0", "address", "02:00:00:00:00:01", "type", "bridge")
        run("ip", "addr", "add", f"{HERE}/24", "dev", "lan0")
        run("ip", "link", "set", "lan0", "up")

    def add(self, name: str, number: int) -> str:
        """Make a machine; its address."""
        self._hosts[name] = host = f"{NET}{number}"
        inside = ("ip", "-n", name)
        run("ip", "netns", "add", name)
        run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "link", "set", name, "master", "lan0")
        run("ip", "link", "set", name, "up")
        run(*inside, "link", "set", "lo", "up")
        run(*inside, "addr", "add", f"{host}/24", "dev", "eth0")
        run(*inside, "link", "set", "eth0", "up")
        return host

    def within(self, name: str) -> list[str]:
        """Return the command behind which something runs on a machine."""
        return ["nsenter", f"--net=/run/netns/{name}"]

    def alone(self, name: str) -> list[str]:
        """Return the same for something that has a host name and processes of its own, too."""
        apart = ["unshare", "--uts", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
        named = ["sh", "-c", 'hostname "$0" && exec "$@"', name]
        return [*self.within(name), *apart, *named]

    def cut(self, name: str) -> None:
        """Pull a machine's cable."""
        run("ip", "link", "set", name, "down")

    def mend(self, name: str) -> None:
        """Put it in again."""
        run("ip", "link", "set", name, "up")

    def part(self, one: str, other: str) -> None:
        """Let two machines hear nothing of each other."""
        for here, there in ((one, other), (other, one)):
            run("ip", "-n", here, "route", "add", "blackhole", self._hosts[there])

    def unite(self, one: str, other: str) -> None:
        """Let them hear each other again."""
        for here, there in ((one, other), (other, one)):
            run("ip", "-n", here, "route", "del", "blackhole", self._hosts[there])
