"""ARI over https: whoever answers has to show a certificate that holds."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import trustme
from structlog.testing import capture_logs

from ari_app.errors import ConfigError
from ari_app.line.asterisk.ari.client import Client
from ari_app.line.asterisk.ari.errors import AriUntrusted
from ari_app.line.asterisk.ari.socket import EventSocket, SocketState
from tests.tls import server_tls
from tests.unit.line.asterisk.ari.fake_ari import APP, PASSWORD, USERNAME, FakeAri
from tests.waiting import PATIENCE_SECONDS


async def test_requests_and_events_over_https(authority: trustme.CA, ca_file: Path) -> None:
    connected = asyncio.Event()

    def entered(state: SocketState) -> None:
        if state is SocketState.CONNECTED:
            connected.set()

    async with (
        FakeAri(server_tls(authority, "localhost")) as ari,
        Client(ari.url, USERNAME, PASSWORD, APP, ca_file=ca_file) as client,
    ):
        await client.channels.hangup("1")
        socket = EventSocket(client, lambda event: None, entered)
        running = asyncio.create_task(socket.run())
        await asyncio.wait_for(connected.wait(), PATIENCE_SECONDS)
        await socket.close()
        await running
    assert [seen.method for seen in ari.seen] == ["DELETE", "PUT"]


@pytest.mark.parametrize(("name", "trusts"), [("localhost", False), ("other.example", True)])
async def test_a_certificate_that_does_not_hold(
    authority: trustme.CA, ca_file: Path, name: str, trusts: bool
) -> None:
    async with (
        FakeAri(server_tls(authority, name)) as ari,
        Client(ari.url, USERNAME, PASSWORD, APP, ca_file=ca_file if trusts else None) as client,
    ):
        with pytest.raises(AriUntrusted, match="not trusted") as caught:
            await client.channels.hangup("1")
        assert (caught.value.code, caught.value.retryable) == ("ari_untrusted", False)
        assert ("Hostname mismatch" in str(caught.value)) is trusts

        logged = asyncio.Event()

        async def sleep(seconds: float) -> None:
            logged.set()
            await asyncio.Event().wait()

        with capture_logs() as logs:
            socket = EventSocket(client, lambda event: None, lambda state: None, sleep=sleep)
            running = asyncio.create_task(socket.run())
            await asyncio.wait_for(logged.wait(), PATIENCE_SECONDS)
            await socket.close()
            await running
        assert "ari_untrusted" in [entry.get("code") for entry in logs]
    assert ari.seen == []
    assert ari.handshakes == []


def test_a_file_that_is_no_certificate(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^ARI_CA_FILE .*cannot be read"):
        Client("https://h:8089", USERNAME, PASSWORD, APP, ca_file=tmp_path / "none.pem")
    (tmp_path / "bad.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n")
    with pytest.raises(ConfigError, match=r"^ARI_CA_FILE .*no certificate"):
        Client("https://h:8089", USERNAME, PASSWORD, APP, ca_file=tmp_path / "bad.pem")


@pytest.mark.parametrize(
    ("url", "warned"), [("http://127.0.0.1:1", False), ("http://asterisk.internal:8088", True)]
)
def test_a_password_that_others_can_read_on_the_way(url: str, warned: bool) -> None:
    with capture_logs() as logs:
        Client(url, USERNAME, PASSWORD, APP)
    assert (["ari_password_unencrypted"] if warned else []) == [entry["event"] for entry in logs]
    assert PASSWORD not in str(logs)
