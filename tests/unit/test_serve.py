from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from ari_app import bridge as app
from ari_app import serve as service
from ari_app.bridge import WorkerPlace
from ari_app.control.http import server as server_module
from ari_app.control.http.worker import WorkerServer, build_worker_app
from ari_app.control.workers.folder import Folder
from ari_app.control.workers.membership import Membership
from ari_app.errors import ConfigError
from ari_app.front.service import Front
from ari_app.line.asterisk.names import worker_app
from ari_app.process.peers import Peer, listen
from ari_app.process.supervisor import Duty, Mode, Order, Standing
from ari_app.records.store.sqlite_probe import calls_in
from ari_app.serve import serve, supervise
from ari_app.settings import Settings, load_settings
from lab.load.server import LoadServer
from linekit.listener import listening
from tests.unit.agent.elevenlabs.fake_agent import API_KEY, FakeAgent
from tests.unit.control.http.fake_service import FakeService
from tests.unit.line.asterisk.ari.fake_ari import PASSWORD, USERNAME, Answer, FakeAri
from tests.unit.settings_maker import nothing_outside
from tests.waiting import until


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nothing_outside(monkeypatch, tmp_path)


def settings_for(ari_url: str, agent_url: str, **changes: Any) -> Settings:
    complete = {
        "ari_url": ari_url,
        "ari_username": USERNAME,
        "ari_password": PASSWORD,
        "audiosocket_bind": "127.0.0.1:0",
        "api_bind": "127.0.0.1:0",
        "elevenlabs_base_url": agent_url,
        "elevenlabs_api_key": API_KEY,
        "elevenlabs_agent_id": "agent_default",
        "database_url": "",
    }
    return load_settings(None, **(complete | changes))


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """An Asterisk's address."""
    asterisk = LoadServer("voice-agent", USERNAME, PASSWORD)
    yield await asterisk.start()
    await asterisk.close()


def test_tables_are_made_by_a_process_of_its_own(tmp_path: Path) -> None:
    new, kept, broken = (tmp_path / f"{name}.db" for name in ("new", "kept", "broken"))
    broken.write_bytes(b"To the tax office" * 100)
    code = (
        "import shutil, sys; from ari_app.serve import _make_tables;"
        f"_make_tables('sqlite:///{new}'); shutil.copy('{new}', '{kept}');"
        f"_make_tables('sqlite:///{kept}'); _make_tables('sqlite:///{broken}');"
        "print('alembic' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("False\n", ""), "the worker says what is wrong"
    assert (calls_in(new), calls_in(kept)) == (0, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_serves_until_a_signal(url: str, number: signal.Signals) -> None:
    async with FakeAgent() as agent:
        with capture_logs() as logs:
            serving = asyncio.create_task(serve(settings_for(url, agent.base_url)))
            await until(lambda: "asterisk_connected" in [entry["event"] for entry in logs])
            os.kill(os.getpid(), number)
            await serving
    said = {entry["event"]: entry for entry in logs}
    assert said["serving"]["app"] == "voice-agent"
    assert said["serving"]["audiosocket"].startswith("127.0.0.1:")
    assert said["serving"]["page"] == f"http://{said['serving']['api']}/"
    assert said["signal_received"]["signal"] == number.name
    assert list(said)[-1] == "stopped"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert API_KEY not in str(logs) and PASSWORD not in str(logs)


async def test_what_no_call_could_be_served_without_is_said_at_once() -> None:
    async with FakeAgent() as agent, FakeAri() as ari:
        ari.answer("GET", "/asterisk/info", Answer(404))
        with pytest.raises(ConfigError, match="has no ARI there"):
            await serve(settings_for(ari.url, agent.base_url))
        assert ari.handshakes == [], "no call was taken"


async def test_an_asterisk_that_comes_later_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app, "_ASK_AGAIN_SECONDS", 0.01)
    async with FakeAgent() as agent, FakeAri() as ari:
        ari.answer("GET", "/asterisk/info", Answer(503))
        with capture_logs() as logs:
            serving = asyncio.create_task(serve(settings_for(ari.url, agent.base_url), wait=True))
            await until(lambda: "asterisk_awaited" in [entry["event"] for entry in logs])
            ari.answer("GET", "/asterisk/info", Answer(404))
            with pytest.raises(ConfigError, match="has no ARI there"):
                await serving
    assert [entry["event"] for entry in logs].count("asterisk_awaited") == 1


async def test_the_wait_for_asterisk_ends_with_a_signal() -> None:
    async with FakeAgent() as agent, FakeAri() as ari:
        ari.answer("GET", "/asterisk/info", Answer(503))
        with capture_logs() as logs:
            serving = asyncio.create_task(serve(settings_for(ari.url, agent.base_url), wait=True))
            await until(lambda: "asterisk_awaited" in [entry["event"] for entry in logs])
            os.kill(os.getpid(), signal.SIGTERM)
            await serving
    assert "serving" not in [entry["event"] for entry in logs]


async def test_a_key_that_is_refused_is_said_at_once(url: str) -> None:
    async with FakeAgent() as agent:
        settings = settings_for(url, agent.base_url, elevenlabs_api_key="sk_wrong")
        with pytest.raises(ConfigError, match="refuses ELEVENLABS_API_KEY"):
            await serve(settings)


async def test_a_call_log_of_another_version_keeps_only_the_first_start_away(
    url: str, tmp_path: Path, line: tuple[socket.socket, socket.socket]
) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "calls.db")) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('9999')")
        connection.commit()
    database = f"sqlite+aiosqlite:///{tmp_path}/calls.db"
    async with FakeAgent() as agent:
        settings = settings_for(url, agent.base_url, database_url=database)
        with pytest.raises(ConfigError, match="is of a newer ari-app"):
            await serve(settings)
        with capture_logs() as logs:
            again = asyncio.create_task(serve(settings, Duty(Mode.AGAIN, 1, line[1])))
            await until(lambda: "Call log" in [each.get("what") for each in logs])
            line[0].send(Order.END.value)
            await again
    assert "serving" in [each["event"] for each in logs]


async def test_what_may_be_over_in_a_minute_is_only_a_warning(url: str, closed_port: int) -> None:
    with capture_logs() as logs:
        agent_url = f"http://127.0.0.1:{closed_port}"
        serving = asyncio.create_task(serve(settings_for(url, agent_url)))
        await until(lambda: "asterisk_connected" in [entry["event"] for entry in logs])
        os.kill(os.getpid(), signal.SIGTERM)
        await serving
    (warning,) = (entry for entry in logs if entry["event"] == "check")
    assert (warning["log_level"], warning["what"]) == ("warning", "Agent")
    assert "cannot be reached" in warning["found"]


async def test_each_of_several_workers_finds_out_whether_the_agent_is_there(
    url: str, closed_port: int, tmp_path: Path
) -> None:
    with capture_logs() as logs:
        settings = settings_for(url, f"http://127.0.0.1:{closed_port}")
        place = WorkerPlace(2, Folder(tmp_path))
        serving = asyncio.create_task(serve(settings, place=place))
        await until(lambda: "agent_unreachable" in [entry["event"] for entry in logs])
        os.kill(os.getpid(), signal.SIGTERM)
        await serving
    # What to do about it is said once, by the first.
    assert "check" not in [entry["event"] for entry in logs]


# --- under a parent


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The parent's end and the worker's."""
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    with ends[0], ends[1]:
        yield ends


def standing(parent: socket.socket) -> Standing:
    """What the last beat said."""
    return Standing(parent.recv(4096)[-1:])


@asynccontextmanager
async def working(
    line: tuple[socket.socket, socket.socket], mode: Mode, restarts: int = 0, **changes: Any
) -> AsyncIterator[tuple[asyncio.Task[None], str, list[str]]]:
    """A worker that serves; its task, the API's address and what is logged."""
    asterisk = LoadServer("voice-agent", USERNAME, PASSWORD)
    url = await asterisk.start()
    with capture_logs() as logs:
        async with FakeAgent() as agent:
            duty = Duty(mode, restarts, line[1])
            task = asyncio.create_task(serve(settings_for(url, agent.base_url, **changes), duty))
            names: list[str] = []

            def connected() -> bool:
                names[:] = [entry["event"] for entry in logs]
                return "asterisk_connected" in names

            await until(connected)
            (said,) = [entry for entry in logs if entry["event"] == "serving"]
            try:
                yield task, said["api"], names
            finally:
                line[0].close()
                await asyncio.gather(task, return_exceptions=True)
                names[:] = [entry["event"] for entry in logs]
    await asterisk.close()


async def test_a_worker_says_how_it_stands_and_takes_orders(
    line: tuple[socket.socket, socket.socket],
) -> None:
    parent, _ = line
    async with working(line, Mode.FIRST) as (task, _, _):
        assert standing(parent) is Standing.SERVING
        os.kill(os.getpid(), signal.SIGTERM)
        await task
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_a_hang_up_is_for_the_parent_alone(line: tuple[socket.socket, socket.socket]) -> None:
    async with working(line, Mode.FIRST) as (task, _, names):
        assert signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL, "it would end this process"
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0)
        line[0].send(Order.DRAIN.value)
        await task
    assert names.count("signal_received") == 1
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


async def test_a_worker_ends_at_once_when_it_is_told_to(
    line: tuple[socket.socket, socket.socket],
) -> None:
    async with working(line, Mode.AGAIN) as (task, _, _):
        line[0].send(Order.DRAIN.value + Order.END.value)
        await task


async def test_a_worker_that_is_orphaned_drains(line: tuple[socket.socket, socket.socket]) -> None:
    async with working(line, Mode.FIRST) as (task, _, names):
        line[0].close()
        await task
    assert names[-2:] == ["parent_lost", "stopped"]


async def test_a_worker_tells_that_the_application_is_anothers(
    url: str, line: tuple[socket.socket, socket.socket]
) -> None:
    async with FakeAgent() as agent:
        settings = settings_for(url, agent.base_url)
        with capture_logs() as logs:
            old = asyncio.create_task(serve(settings, Duty(Mode.FIRST, 0, line[1])))
            await until(lambda: "asterisk_connected" in [entry["event"] for entry in logs])
            theirs, its = socket.socketpair()
            its.setblocking(False)
            new = asyncio.create_task(serve(settings, Duty(Mode.FIRST, 0, its)))
            await old
            assert standing(line[0]) is Standing.REPLACED
            theirs.close()
            await new


async def test_restarts_are_counted(line: tuple[socket.socket, socket.socket]) -> None:
    async with (
        working(line, Mode.AGAIN, restarts=3) as (_, api, _),
        aiohttp.ClientSession(f"http://{api}") as http,
        http.get("/metrics") as response,
    ):
        text = await response.text()
    assert "ari_app_worker_restarts_total 3.0" in text
    assert "ari_app_start_time_seconds 1" in text


async def test_what_is_wrong_at_a_restart_may_pass(
    url: str, line: tuple[socket.socket, socket.socket]
) -> None:
    async with FakeAgent() as agent:
        settings = settings_for(url, agent.base_url, elevenlabs_api_key="sk_wrong")
        with capture_logs() as logs:
            task = asyncio.create_task(serve(settings, Duty(Mode.AGAIN, 1, line[1])))
            await until(lambda: "asterisk_connected" in [entry["event"] for entry in logs])
            await until(lambda: "check" in [entry["event"] for entry in logs])
            line[0].send(Order.DRAIN.value)
            await task
    (finding,) = [entry for entry in logs if entry["event"] == "check"]
    assert "refuses ELEVENLABS_API_KEY" in finding["found"]


class FakeParent:
    """Returns at once, in the parent or in a worker."""

    returns: int | Duty = 0

    def __init__(self, limits: object, workers: int) -> None:
        pass

    def run(self) -> int | Duty:
        return self.returns


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch) -> type[FakeParent]:
    monkeypatch.setattr(service, "Parent", FakeParent)
    monkeypatch.setattr(service, "set_up_logging", lambda *given, **named: None)
    monkeypatch.setattr(service, "_call_ourselves", lambda name: None)
    return FakeParent


def test_the_parents_exit_code(parent: type[FakeParent]) -> None:
    parent.returns = 1
    assert supervise(settings_for("http://127.0.0.1:1", "http://127.0.0.1:1")) == 1


def test_what_a_worker_cannot_serve_without(
    parent: type[FakeParent], line: tuple[socket.socket, socket.socket]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = settings_for(
            "http://127.0.0.1:1", "http://127.0.0.1:1", api_bind=f"127.0.0.1:{port}"
        )
        parent.returns = Duty(Mode.AGAIN, 1, line[1])
        with capture_logs() as logs:
            assert supervise(settings) == 2
        said = {entry["event"]: entry for entry in logs}
        assert "another program has this port" in said["worker_cannot_serve"]["error"]
        # Whoever starts it reads one sentence.
        parent.returns = Duty(Mode.FIRST, 0, line[0])
        with pytest.raises(ConfigError, match="another program has this port"):
            supervise(settings)


async def test_a_restart_does_not_wait_for_the_agents_service(
    line: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def never(*given: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(service, "check_agent_key", never)
    async with working(line, Mode.AGAIN):
        await asked.wait()


async def test_a_restart_needs_nothing_that_only_keeps(
    line: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    (tmp_path / "away").touch()
    keeps: dict[str, Any] = {
        "recordings_dir": str(tmp_path / "away" / "recordings"),
        "audit_file": str(tmp_path / "away" / "audit"),
        "webhook_url": "http://127.0.0.1:1/hook",
        "webhook_secret": "a secret that is long enough to sign with",
        "webhook_spool": str(tmp_path / "away" / "webhooks.db"),
    }
    async with working(line, Mode.AGAIN, **keeps) as (_, api, _):
        async with aiohttp.ClientSession() as http, http.get(f"http://{api}/health/ready") as ready:
            told = await ready.json()
        assert ready.status == 200
    for what in ("calls are not recorded", "WEBHOOK_SPOOL", "AUDIT_FILE"):
        assert what in str(told["warnings"])


def test_a_worker_that_only_mends(
    parent: type[FakeParent],
    line: tuple[socket.socket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "GIVE_BACK_SECONDS", 0.1)
    parent.returns = Duty(Mode.MEND, 1, line[1])
    with capture_logs() as logs:
        assert supervise(settings_for("http://127.0.0.1:1", "http://127.0.0.1:1")) == 0
    assert [entry["event"] for entry in logs] == ["mending_failed"]


def test_a_worker_that_only_mends_trusts_whom_serving_ones_trust(
    parent: type[FakeParent], line: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    parent.returns = Duty(Mode.MEND, 1, line[1])
    garbage = tmp_path / "ca.pem"
    garbage.write_text("no certificate")
    settings = settings_for("https://127.0.0.1:1", "http://127.0.0.1:1", ari_ca_file=str(garbage))
    with capture_logs() as logs:
        assert supervise(settings) == 2
    assert [entry["event"] for entry in logs] == ["worker_cannot_serve"]
    assert "ARI_CA_FILE" in logs[0]["error"]


def test_which_applications_were_left_when_there_were_other_workers(tmp_path: Path) -> None:
    numbered = [worker_app("voice", number) for number in (1, 2, 3)]
    for name in ("voice", *numbered, "voice.test", "other"):
        (tmp_path / name / "process").mkdir(parents=True)
        (tmp_path / name / "process" / "lock").touch()
    assert service.lost_applications(tmp_path, "voice", 1) == numbered
    assert service.lost_applications(tmp_path, "voice", 2) == ["voice", numbered[2]]
    assert service.lost_applications(tmp_path, "other", 1) == []


@pytest.mark.parametrize(("loss", "left"), [("adopt", 1), ("dialplan", 0)])
def test_of_lost_calls_nothing_stays_that_nobody_goes_on_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, loss: str, left: int
) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    settings = settings_for("http://127.0.0.1:1", "http://127.0.0.1:1")
    folder = service._running_folder(settings)
    assert folder is not None
    (folder / "lost").mkdir(parents=True)
    for name in ("lock", "one.call"):
        (folder / "lost" / name).touch()
    changed = settings.model_copy(update={"worker_loss": loss})
    assert (service._running_folder(changed) is None) is (left == 0)
    assert len(list(tmp_path.rglob("*.call"))) == left


def test_a_link_may_lead_to_another_release_by_now(tmp_path: Path) -> None:
    python = Path(sys.executable).name
    for release in ("old", "new"):
        folder = tmp_path / release / "bin"
        folder.mkdir(parents=True)
        (folder / python).touch(mode=0o755)
    current = tmp_path / "current"
    current.symlink_to(tmp_path / "new")
    found = service.interpreter(str(current / "bin" / "ari-app"))
    # Not over the link: it may lead elsewhere before all is loaded.
    assert found == str(tmp_path.resolve() / "new" / "bin" / python)
    # No program beside it, or none that has a path: it is the one that runs.
    assert service.interpreter(str(tmp_path / "ari-app")) == sys.executable
    assert service.interpreter("-m") == sys.executable


async def test_a_front_that_cannot_start_leaves_workers_to_the_one_that_serves_on(
    tmp_path: Path,
) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_text("no list")
    keys.chmod(0o600)
    url = "http://127.0.0.1:1"
    settings = settings_for(url, url, workers=2, api_keys_file=keys)
    folder, came = Folder.make(), asyncio.Event()
    try:
        old = await listen(
            folder.front, lambda: Peer(lambda peer, told: None, on_open=lambda peer: came.set())
        )
        with pytest.raises(ConfigError, match="must be a list"):
            async with Front(settings, folder, []):
                pass
        loop = asyncio.get_running_loop()
        worker, _ = await loop.create_unix_connection(asyncio.Protocol, str(folder.front))
        await came.wait()
        worker.close()
        old.close()
    finally:
        folder.remove()


async def test_workers_go_to_the_next_front_before_the_last_requests_have_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "_SHUTDOWN_SECONDS", 0.01)
    settings = settings_for(
        *["http://127.0.0.1:1"] * 2,
        workers=2,
        dialer_type="custom",
        dialer_api_url="http://127.0.0.1:1",
        dialer_api_key="k",
    )
    folder, worker, (door,) = Folder.make(), FakeService(), listening("127.0.0.1", 0)
    server = WorkerServer(build_worker_app(worker, public_url=None, number_pattern=None, routes=[]))
    member = Membership(1, "voice-agent.host.1", folder.front, lambda: True)
    member.serve(SimpleNamespace(draining=False, count=lambda: 0, records={}))
    linked = asyncio.create_task(member.run())
    told: list[None] = []
    try:
        await server.start(folder.http(1), folder.passed(1))
        async with contextlib.AsyncExitStack() as stack:
            old, new = Front(settings, folder, [door]), Front(settings, folder, [])
            closing = contextlib.AsyncExitStack()
            await closing.enter_async_context(old)
            old.hub.roster.expected = new.hub.roster.expected = 1
            await old.answer()
            client = await stack.enter_async_context(aiohttp.ClientSession())
            worker.control.gate.clear()
            url = "http://{}:{}/webhook/initiate-call".format(*door.getsockname())
            asked = asyncio.create_task(client.post(url, json={"called_number": "1"}))
            await worker.control.asked.wait()
            await stack.enter_async_context(new)
            old.hub.on_calls = lambda: told.append(None)
            old.stop()
            ending = asyncio.create_task(closing.aclose())
            await new.hub.all_there(60)
            assert len(new.hub.roster) == 1
            assert not ending.done()
            assert not told, "its calls are as they were"
            await asyncio.sleep(0.2)
            assert not ending.done(), "whoever is cut off asks the next one, and is called twice"
            worker.control.gate.set()
            assert (await asked).status == 200
            await ending
    finally:
        linked.cancel()
        member.close()
        await server.close()
        door.close()
        folder.remove()
