"""Several machines: the store that they share, and the port at which they ask each other."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Final
from urllib.parse import urlsplit

from ari_app.checks.finding import Finding, failed, note, ok, warning
from ari_app.checks.host import not_to_be_had
from ari_app.process.addresses import is_unspecified, split_host_port
from ari_app.settings import Settings

_WHAT: Final = "Several machines"


async def check_cluster(settings: Settings) -> list[Finding]:
    """Check what a machine that is one of several needs; nothing in the store is changed."""
    if settings.cluster_url is None:
        return []
    return [await _store(settings, settings.cluster_url.get_secret_value()), *await _port(settings)]


async def _store(settings: Settings, url: str) -> Finding:
    from ari_app.control.cluster.store import Store
    from ari_app.control.cluster.view import StoreAway

    parts = urlsplit(url)
    where = f"{parts.hostname}:{parts.port or 6379}"
    try:
        async with Store(url, settings.ari_app) as store:
            await store.ping()
    except StoreAway as error:
        return failed(
            _WHAT,
            f"CLUSTER_URL: {where} does not let us in ({str(error).rstrip('.')}). Without it this "
            "machine is given no calls. See that Valkey runs there, and compare address and "
            "password.",
            may_pass=True,
        )
    return ok(_WHAT, f"{where} answers")


async def _port(settings: Settings) -> list[Finding]:
    host, port = split_host_port(settings.cluster_bind)
    try:
        # As `serve` listens, so one that runs is not in the way.
        server = await asyncio.get_running_loop().create_server(
            asyncio.Protocol, host, port, reuse_port=True
        )
    except OSError as error:
        return [not_to_be_had(_WHAT, "CLUSTER_BIND", settings.cluster_bind, error)]
    server.close()
    if not _is_open(host):
        return []
    everywhere = is_unspecified(host)
    say = note if everywhere else warning
    return [
        say(
            _WHAT,
            f"CLUSTER_BIND {settings.cluster_bind} is open to "
            f"{'every network that this machine is in' if everywhere else 'whoever reaches it'}, "
            "and what machines say to each other, CLUSTER_SECRET with it, is not encrypted. Name "
            "an address in a network of these machines alone, or keep others out by a firewall.",
        )
    ]


def _is_open(host: str) -> bool:
    """Return whether others than a private network may reach this address; a name tells nothing."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_unspecified or address.is_global
