from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from ari_app.checks.cluster import check_cluster
from ari_app.checks.finding import Verdict
from ari_app.settings import load_settings
from lab.asterisk.ports import free_port
from tests.unit.control.cluster.valkey import NoValkey, valkey_server


async def test_one_machine_needs_no_store() -> None:
    assert await check_cluster(load_settings(None, cluster_bind="127.0.0.1:1")) == []


async def test_a_store_that_is_not_there_and_a_port_that_is_taken() -> None:
    url = f"valkey://:hunter2@127.0.0.1:{free_port()}"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = load_settings(None, cluster_url=url, cluster_bind=bind)
        store, port = await check_cluster(settings)
    assert (store.verdict, port.verdict) == (Verdict.FAILED, Verdict.FAILED)
    assert store.detail.startswith(f"CLUSTER_URL: {url.rpartition('@')[2]} does not let us in (")
    assert store.may_pass
    assert "hunter2" not in store.detail
    assert f"CLUSTER_BIND {bind} cannot be used: another program has this port." in port.detail


async def test_a_store_that_answers() -> None:
    try:
        with valkey_server() as server:
            settings = load_settings(None, cluster_url=server.url, cluster_bind="127.0.0.1:0")
            (found,) = await check_cluster(settings)
    except NoValkey as missing:
        pytest.skip(str(missing))
    assert (found.verdict, found.detail) == (Verdict.OK, f"127.0.0.1:{server.port} answers")


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("0.0.0.0", Verdict.NOTE),
        ("::", Verdict.NOTE),
        ("127.0.0.1", None),
        ("localhost", None),
        ("10.0.0.11", None),
        ("100.64.0.11", None),
        ("8.8.8.8", Verdict.WARNING),
    ],
)
async def test_a_port_that_is_open_to_others_is_told(
    host: str, told: Verdict | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen = asyncio.BaseEventLoop.create_server

    async def here(loop: asyncio.BaseEventLoop, *args: Any, **options: Any) -> Any:
        protocol, _, port = args
        return await listen(loop, protocol, "127.0.0.1", port, **options)

    monkeypatch.setattr(asyncio.BaseEventLoop, "create_server", here)
    url = f"valkey://127.0.0.1:{free_port()}"
    bind = f"[{host}]:0" if ":" in host else f"{host}:0"
    _, *found = await check_cluster(load_settings(None, cluster_url=url, cluster_bind=bind))
    assert [each.verdict for each in found] == ([] if told is None else [told])
    assert all("CLUSTER_SECRET with it, is not encrypted" in each.detail for each in found)
