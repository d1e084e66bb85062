"""Which addresses may connect. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final

_SEPARATORS: Final = re.compile(r"[,\s]+")
_IPV4_MAPPED: Final = IPv6Network("::ffff:0:0/96")


class Networks:
    """A list of networks, IPv4 and IPv6; an empty one holds every address.

    An IPv4 address counts as itself also where it comes written as IPv6 (`::ffff:192.0.2.1`,
    RFC 4291), as it does from a socket that takes both.
    """

    def __init__(self, text: str = "") -> None:
        """`text`: networks (`10.0.0.0/8`) and addresses, separated by commas or spaces.

        Raises ValueError with a sentence that names what is none.
        """
        self.text = text
        self._networks = [_network(word) for word in _SEPARATORS.split(text.strip()) if word]
        # A flood asks for the same few addresses again and again.
        self._holds = lru_cache(maxsize=1024)(self._look_up)

    def __contains__(self, host: str) -> bool:
        """Whether an address, as a socket gives it, is in one of the networks."""
        return not self._networks or self._holds(host)

    def _look_up(self, host: str) -> bool:
        try:
            address = plain_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks)


def plain_address(host: str) -> IPv4Address | IPv6Address:
    """An address, without the IPv6 around an IPv4 one. Raises ValueError."""
    address = ip_address(host)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _network(word: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(word)
    except ValueError:
        raise ValueError(
            f"{word!r} is no network such as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7"
        ) from None
    if isinstance(network, IPv6Network) and network.subnet_of(_IPV4_MAPPED):
        mapped = network.network_address.ipv4_mapped
        return IPv4Network(f"{mapped}/{network.prefixlen - 96}")
    return network
