"""The lab's Asterisk itself: it starts, serves what the bridge needs, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lab.asterisk import Installation, LabAsterisk, LabError
from lab.asterisk.ari_description import check_against_swagger
from lab.asterisk.folder import RunFolder
from lab.softphone import Phone
from tests.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.e2e

OWNER = """
import asyncio, sys
from lab.asterisk import LabAsterisk

async def main():
    async with LabAsterisk() as asterisk:
        print(asterisk.pid, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


TEST_TONE = {"context": "from-phones", "extension": "601", "priority": "1"}


class Application:
    """A Stasis application that takes notes: the bare event socket, no client of ours."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def event(self, kind: str) -> dict[str, Any]:
        """Return the next event of that type; others are passed over."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                event: dict[str, Any] = await self._socket.receive_json()
                if event["type"] == kind:
                    return event


@asynccontextmanager
async def application(asterisk: LabAsterisk, name: str = "") -> AsyncIterator[Application]:
    """Connect to the event socket as the application that the dialplan calls."""
    secret = aiohttp.encode_basic_auth(asterisk.ari_username, asterisk.ari_password)
    async with aiohttp.ClientSession(headers={"Authorization": secret}) as session:
        url = f"{asterisk.ari_url}/ari/events"
        async with session.ws_connect(url, params={"app": name or asterisk.app}) as socket:
            yield Application(socket)


@asynccontextmanager
async def caller(
    asterisk: LabAsterisk, extension: str, context: str = "from-phones"
) -> AsyncIterator[str]:
    """A caller without a telephone who dials `extension`; gives back its channel's id."""
    channel = f"caller-{uuid.uuid4()}"
    await asterisk.ari(
        "POST",
        "channels",
        endpoint="Local/602@from-phones/n",
        channelId=channel,
        extension=extension,
        context=context,
        priority="1",
    )
    try:
        yield channel
    finally:
        try:
            await asterisk.ari("DELETE", f"channels/{channel}")
        except aiohttp.ClientResponseError as error:
            # The dialplan may have hung up by itself.
            if error.status != 404:
                raise
        await asterisk.wait_until_empty()


@asynccontextmanager
async def ends(pid: int) -> AsyncIterator[None]:
    """What happens within must make the process end; at most ten seconds later it is gone."""
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    watch = os.pidfd_open(pid)
    loop.add_reader(watch, gone.set)
    try:
        yield
        async with asyncio.timeout(PATIENCE_SECONDS):
            await gone.wait()
    finally:
        loop.remove_reader(watch)
        os.close(watch)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def mounts() -> list[str]:
    return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


async def test_refuses_strangers(asterisk: LabAsterisk) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{asterisk.ari_url}/ari/asterisk/info") as response,
    ):
        assert response.status == 401


async def test_starts_without_a_complaint(installation: Installation) -> None:
    steps: list[str] = []
    async with LabAsterisk(installation=installation, progress=steps.append) as asterisk:
        log = asterisk.log_path.read_text()
    assert " NOTICE[" in log
    assert " WARNING[" not in log
    assert " ERROR[" not in log
    assert [step.split()[0] for step in steps] == ["Starting", "Asterisk"]


async def test_describes_its_rest_interface_as_our_client_knows_it(asterisk: LabAsterisk) -> None:
    index = await asterisk.ari("GET", "api-docs/resources.json")
    documents = {
        api["path"]: await asterisk.ari(
            "GET", api["path"].removeprefix("/").replace("{format}", "json")
        )
        for api in index["apis"]
    }
    assert len(documents) >= 9
    if asterisk.installation.major < 22:
        pytest.skip("older releases lack fields that the client can do without")
    assert check_against_swagger(documents) == []


async def test_leaves_nothing_behind(installation: Installation) -> None:
    before = mounts()
    asterisk = LabAsterisk(installation=installation)
    async with asterisk:
        pid, folder, port = asterisk.pid, asterisk.run_dir, asterisk.sip_port
        assert is_running(pid)
        assert folder.stat().st_mode & 0o077 == 0
        with pytest.raises(LabError, match="runs already"):
            await asterisk.start()
    await asterisk.stop()
    assert not is_running(pid)
    assert not folder.exists()
    assert mounts() == before
    async with LabAsterisk(installation=installation) as again:
        assert again.pid != pid
        assert again.sip_port % 1000 == port % 1000


async def test_two_run_at_once(asterisk: LabAsterisk, installation: Installation) -> None:
    async with LabAsterisk(installation=installation, app="other") as other:
        assert other.ari_url != asterisk.ari_url
        assert other.sip_port != asterisk.sip_port
        for each in (asterisk, other):
            assert (await each.ari("GET", "asterisk/info"))["system"]["version"] == each.version
        async with application(other, "other") as app, caller(other, "100"):
            assert (await app.event("StasisStart"))["application"] == "other"
        assert "landed=" not in other.log_path.read_text()


async def test_ends_when_its_owner_is_killed(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The path of a test's own folder may be too long for Asterisk's control socket.
    folder = tempfile.mkdtemp(prefix="ari-app-")
    owner = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", OWNER),
        env={**os.environ, "TMPDIR": folder},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert owner.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            pid = int(await owner.stdout.readline())
        assert len(os.listdir(folder)) == 1
        async with ends(pid):
            owner.kill()
    finally:
        await owner.wait()
    monkeypatch.setattr(tempfile, "tempdir", folder)
    RunFolder().remove()
    assert os.listdir(folder) == []
    os.rmdir(folder)


async def test_calls_phones_that_register(asterisk: LabAsterisk) -> None:
    registrar = f"sip:{asterisk.sip_host}:{asterisk.sip_port}"
    for name, endpoint in (("phone1", "PJSIP/phone1"), ("trunk", "PJSIP/4930555@trunk")):
        async with Phone(username=name) as phone:
            await phone.register(registrar)
            await asterisk.ari("POST", "channels", endpoint=endpoint, **TEST_TONE)
            async with asyncio.timeout(PATIENCE_SECONDS):
                call = await phone.incoming()
                await call.answered()
            await call.hang_up()
        await asterisk.wait_until_empty()


async def test_takes_more_dialplan_and_more_phones(installation: Installation) -> None:
    async with LabAsterisk(
        installation=installation,
        dialplan="[given]\nexten => s,1,NoOp(given)\n",
        pjsip="[extra](endpoint-basics)\naors = extra\n[extra](aor-basics)\n",
        trunk_contact="sip:127.0.0.1:5999",
        websocket_write_timeout_ms=2500,
    ) as asterisk:
        assert "NoOp(given)" in await asterisk.cli("dialplan show given")
        assert "extra" in await asterisk.cli("pjsip show endpoint extra")
        assert "sip:127.0.0.1:5999" in await asterisk.cli("pjsip show aor trunk")
        assert "2500" in (asterisk.run_dir / "etc/ari.conf").read_text()

        await asterisk.add_dialplan("later", "[later]\nexten => s,1,NoOp(first)\n")
        assert "NoOp(first)" in await asterisk.cli("dialplan show later")
        await asterisk.add_dialplan("later", "[later]\nexten => s,1,NoOp(second)\n")
        assert "NoOp(second)" in await asterisk.cli("dialplan show later")


async def test_names_what_stays(asterisk: LabAsterisk) -> None:
    async with caller(asterisk, "602"):
        with pytest.raises(LabError, match=r"Still there after 0\.1 s: Local/602"):
            await asterisk.wait_until_empty(0.1)
    with pytest.raises(LabError, match="no 'never said'"):
        await asterisk.wait_for_log("never said", 0.05)


async def test_a_request_that_fails_is_an_error(asterisk: LabAsterisk) -> None:
    with pytest.raises(aiohttp.ClientResponseError, match="404"):
        await asterisk.ari("GET", "channels/none")


async def test_runs_by_hand(installation: Installation) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "lab.asterisk", "run"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            url, user, password = [
                (await process.stdout.readline()).decode().strip().partition("=")[2]
                for _ in range(3)
            ]
        headers = {"Authorization": aiohttp.encode_basic_auth(user, password)}
        async with aiohttp.ClientSession(headers=headers) as session:
            info = await (await session.get(f"{url}/ari/asterisk/info")).json()
        assert info["system"]["version"] == installation.version
    finally:
        process.terminate()
        _, steps = await process.communicate()
    assert process.returncode == 0
    assert steps.decode().splitlines()[-1] == "Asterisk is ready"
