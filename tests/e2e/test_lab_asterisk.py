"""The lab's Asterisk itself: it starts, serves what the bridge needs, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ari_app.ari.swagger import check_against_swagger
from lab.asterisk import Installation, LabAsterisk, LabError
from lab.asterisk.folder import RunFolder

pytestmark = pytest.mark.e2e

OWNER = """
import asyncio, sys
from lab.asterisk import LabAsterisk

async def main():
    async with LabAsterisk() as asterisk:
        print(asterisk.pid, asterisk.run_dir, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


class Application:
    """A Stasis application that takes notes: the bare event socket, no client of ours."""

    def __init__(self, asterisk: LabAsterisk, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._asterisk = asterisk
        self._socket = socket

    async def event(self, kind: str) -> dict[str, Any]:
        """Return the next event of that type; others are passed over."""
        async with asyncio.timeout(10):
            while True:
                event: dict[str, Any] = await self._socket.receive_json()
                if event["type"] == kind:
                    return event

    async def send_back(self, channel: str, **variables: str) -> None:
        """Let a channel go on in the dialplan, with variables set."""
        for name, value in variables.items():
            await self._asterisk.ari(
                "POST", f"channels/{channel}/variable", variable=name, value=value
            )
        await self._asterisk.ari("POST", f"channels/{channel}/continue")


@asynccontextmanager
async def application(asterisk: LabAsterisk, name: str = "") -> AsyncIterator[Application]:
    """Connect to the event socket as the application that the dialplan calls."""
    auth = aiohttp.BasicAuth(asterisk.ari_username, asterisk.ari_password)
    async with aiohttp.ClientSession(auth=auth) as session:
        url = f"{asterisk.ari_url}/ari/events"
        async with session.ws_connect(url, params={"app": name or asterisk.app}) as socket:
            yield Application(asterisk, socket)


@asynccontextmanager
async def caller(asterisk: LabAsterisk, extension: str) -> AsyncIterator[str]:
    """A caller without a telephone who dials `extension`; gives back its channel's id."""
    channel = f"caller-{uuid.uuid4()}"
    await asterisk.ari(
        "POST",
        "channels",
        endpoint="Local/602@from-phones/n",
        channelId=channel,
        extension=extension,
        context="from-phones",
        priority="1",
    )
    try:
        yield channel
    finally:
        if channel in [each["id"] for each in await asterisk.channels()]:
            await asterisk.ari("DELETE", f"channels/{channel}")
        await asterisk.wait_until_empty()


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(10):
        while is_running(pid):
            await asyncio.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def mounts() -> list[str]:
    return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


async def test_answers_for_itself(asterisk: LabAsterisk) -> None:
    info = await asterisk.ari("GET", "asterisk/info")
    assert info["system"]["version"] == asterisk.version
    assert await asterisk.cli("core show version") >= f"Asterisk {asterisk.version}"
    assert await asterisk.channels() == []
    assert await asterisk.bridges() == []


async def test_refuses_strangers(asterisk: LabAsterisk) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{asterisk.ari_url}/ari/asterisk/info") as response,
    ):
        assert response.status == 401


@pytest.mark.parametrize("module", ["chan_audiosocket", "res_audiosocket", "chan_pjsip", "app_amd"])
async def test_has_the_modules(asterisk: LabAsterisk, module: str) -> None:
    answer = await asterisk.ari("GET", f"asterisk/modules/{module}.so")
    assert answer["status"] == "Running"


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


async def test_ends_when_its_owner_is_killed(installation: Installation) -> None:
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert owner.stdout is not None
        async with asyncio.timeout(30):
            pid, folder = (await owner.stdout.readline()).decode().split()
        assert is_running(int(pid))
    finally:
        owner.send_signal(signal.SIGKILL)
        await owner.wait()
    await until_gone(int(pid))
    RunFolder().remove()
    assert not Path(folder).exists()


async def test_a_call_reaches_a_person_when_the_application_is_down(asterisk: LabAsterisk) -> None:
    async with caller(asterisk, "100"):
        line = await asterisk.wait_for_log("landed=human stasis=FAILED")
        assert "agent= " in line


@pytest.mark.parametrize(
    ("extension", "args", "state"),
    [
        ("100", [], "Ring"),
        ("101", [], "Up"),
        ("102", ["agent_id=agent_7", "customer_name=Jane"], "Ring"),
        ("103", ["wait=30"], "Ring"),
        ("104", ["wait=30"], "Up"),
        ("106", ["wait=2"], "Ring"),
        ("4930555", [], "Ring"),
    ],
)
async def test_a_call_reaches_the_application(
    asterisk: LabAsterisk, extension: str, args: list[str], state: str
) -> None:
    async with application(asterisk) as app:
        # A Local channel's two halves answer each other, so the caller is a phone that rings in.
        channel = f"call-{uuid.uuid4()}"
        await asterisk.ari(
            "POST",
            "channels/create",
            endpoint=f"Local/{extension}@from-phones/n",
            app="nobody",
            channelId=channel,
            otherChannelId=f"{channel}-2",
        )
        await asterisk.ari("POST", f"channels/{channel}/dial")
        start = await app.event("StasisStart")
        assert start["channel"]["id"] == f"{channel}-2"
        assert start["args"] == args
        assert start["channel"]["state"] == state
        await asterisk.ari("DELETE", f"channels/{channel}")
    await asterisk.wait_until_empty()


@pytest.mark.parametrize(
    ("variables", "landed"),
    [
        ({"AGENT_STATUS": "COMPLETED", "AGENT_REASON": "done"}, "landed=bye reason=done "),
        (
            {"AGENT_STATUS": "TRANSFER", "AGENT_TRANSFER_TO": "2001"},
            "landed=transfer to=2001 ",
        ),
        (
            {"AGENT_STATUS": "TIMEOUT", "AGENT_SESSION_ID": "s1", "AGENT_CONVERSATION_ID": "c1"},
            "landed=human stasis=SUCCESS agent=TIMEOUT reason= session=s1 conversation=c1",
        ),
        ({"AGENT_STATUS": "REJECTED"}, "landed=human stasis=SUCCESS agent=REJECTED "),
        ({"AGENT_STATUS": "FAILED"}, "landed=human stasis=SUCCESS agent=FAILED "),
        ({}, "landed=human stasis=SUCCESS agent= "),
    ],
    ids=["completed", "transfer", "timeout", "rejected", "failed", "none"],
)
async def test_a_call_goes_on_in_the_dialplan(
    asterisk: LabAsterisk, variables: dict[str, str], landed: str
) -> None:
    async with application(asterisk) as app, caller(asterisk, "101"):
        start = await app.event("StasisStart")
        await app.send_back(start["channel"]["id"], **variables)
        assert landed in await asterisk.wait_for_log(landed)


async def test_media_comes_over_audiosocket(asterisk: LabAsterisk) -> None:
    wanted = uuid.uuid4()
    first: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first.set_result(await reader.readexactly(19))
        writer.write(b"\x00\x00\x00")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, application(asterisk) as app:
        host, port = server.sockets[0].getsockname()
        channel = await asterisk.ari(
            "POST",
            "channels/externalMedia",
            app=asterisk.app,
            external_host=f"{host}:{port}",
            encapsulation="audiosocket",
            transport="tcp",
            format="slin",
            data=str(wanted),
        )
        start = await app.event("StasisStart")
        assert start["channel"]["id"] == channel["id"]
        assert start["channel"]["name"].startswith("AudioSocket/")
        assert await first == b"\x01\x00\x10" + wanted.bytes
        assert (await app.event("StasisEnd"))["channel"]["id"] == channel["id"]
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
