from __future__ import annotations

import asyncio
import errno
import re
import shutil
import socket
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from weakref import WeakKeyDictionary

import aiohttp
import pytest
from structlog.testing import capture_logs

from ari_app.audio.formats import DEFAULT_AGENT_FORMATS, AgentFormats, AudioFormat
from ari_app.bridge import VoiceBridge, WorkerPlace
from ari_app.call import adoption as adoption_module
from ari_app.call.adoption import Adoption
from ari_app.call.checkpoint import Restored, restore
from ari_app.call.states import State
from ari_app.control.workers.folder import Folder
from ari_app.errors import AgentError, ConfigError
from ari_app.line.asterisk.ari.socket import EventSocket
from ari_app.line.asterisk.ari.version import assess
from ari_app.line.asterisk.gateway import AsteriskGateway
from ari_app.line.asterisk.line import Asterisk, AsteriskLine
from ari_app.process.loop import cancelled
from ari_app.records.checkpoints import OrphanedCall
from ari_app.records.document import call_document
from ari_app.records.record import CallRecord
from ari_app.records.recording.wav import GrowingWav
from ari_app.records.store.log import CallLog, CallLogUnavailable
from ari_app.records.store.query import CallFilter
from ari_app.records.store.spool import BEGAN, Counts, Spool
from ari_app.settings import Settings
from lab.load.server import LoadServer
from tests.unit.agent.elevenlabs.fake_agent import API_KEY, FakeAgent
from tests.unit.call.stage import Notes
from tests.unit.line.asterisk.ari.fake_ari import PASSWORD, USERNAME, Answer, FakeAri, json_answer
from tests.unit.line.asterisk.ari.samples import ASTERISK_INFO
from tests.unit.records.webhooks.receiver import SECRET, receiving
from tests.unit.settings_maker import Make, settings_maker, unhurried
from tests.waiting import PATIENCE_SECONDS, until

URLS: WeakKeyDictionary[LoadServer, str] = WeakKeyDictionary()


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Make:
    """Settings that are complete, with these changes."""
    unhurried(monkeypatch)
    return settings_maker(
        monkeypatch,
        tmp_path,
        ari_username=USERNAME,
        ari_password=PASSWORD,
        audiosocket_bind="127.0.0.1:0",
        api_bind="127.0.0.1:0",
        elevenlabs_api_key=API_KEY,
        elevenlabs_agent_id="agent_default",
    )


@pytest.fixture
async def asterisk() -> AsyncIterator[LoadServer]:
    """An Asterisk whose callers are there when they are told to be."""
    server = LoadServer("voice-agent", USERNAME, PASSWORD)
    URLS[server] = await server.start()
    yield server
    await server.close()


def url_of(asterisk: LoadServer) -> str:
    return URLS[asterisk]


@asynccontextmanager
async def running(bridge: VoiceBridge) -> AsyncIterator[asyncio.Task[None]]:
    """The service takes calls; at the end it is stopped in no time."""
    run = asyncio.create_task(bridge.run())
    try:
        await until(lambda: not bridge.readiness().problems)
        yield run
    finally:
        bridge.stop()
        bridge.stop()
        await asyncio.wait([run])
    run.result()


# --- starting


async def test_it_starts_serves_and_stops(asterisk: LoadServer, make: Make) -> None:
    before = asyncio.all_tasks()
    async with VoiceBridge(make(ari_url=url_of(asterisk))) as bridge:
        assert bridge.audiosocket_address[1] > 0 and bridge.api_address[1] > 0
        assert bridge.readiness().problems == ["Asterisk's event socket is not connected yet"]
        url = "http://{}:{}".format(*bridge.api_address)
        async with running(bridge), aiohttp.ClientSession() as session:
            await until(lambda: asterisk_of(bridge).version is not None)
            async with session.get(f"{url}/health/ready") as response:
                assert response.status == 200
                body = await response.json()
            assert (body["status"], body["asterisk_version"]) == ("ready", "22.10.1")
            async with session.get(f"{url}/metrics") as response:
                shown = await response.text()
            assert "ari_app_ari_connected 1.0" in shown
            assert "ari_app_ready 1.0" in shown
            assert f"ari_app_calls_limit {bridge.settings.max_concurrent_calls}.0" in shown
        assert bridge.readiness().problems == [
            "Asterisk's event socket is disconnected",
            "draining: new calls are refused",
        ]
    with pytest.raises(OSError):
        await asyncio.open_connection(*bridge.audiosocket_address)
    with pytest.raises(OSError):
        await asyncio.open_connection(*bridge.api_address)
    assert asyncio.all_tasks() - before == set()


async def test_an_agent_that_cannot_be_reached_is_a_problem(
    asterisk: LoadServer, make: Make
) -> None:
    settings = make(ari_url=url_of(asterisk), elevenlabs_base_url="http://127.0.0.1:1")
    async with VoiceBridge(settings) as bridge, running(bridge):
        with pytest.raises(AgentError):
            await bridge.agents.check("agent_default")
        assert bridge.readiness().problems == [
            "the agent's service cannot be reached: connection refused"
        ]


@pytest.mark.parametrize("setting", ["audiosocket_bind", "api_bind"])
async def test_a_port_that_is_taken(make: Make, setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(
            ConfigError, match=f"^{setting.upper()} {address} cannot be used: anoth"
        ):
            await VoiceBridge(make(**{setting: address})).__aenter__()


async def test_an_address_that_is_not_ours(make: Make) -> None:
    with pytest.raises(ConfigError, match="choose an address of this machine"):
        await VoiceBridge(make(audiosocket_bind="192.0.2.1:9092")).__aenter__()


async def test_what_was_started_is_stopped_when_the_rest_cannot_start(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        bridge = VoiceBridge(make(api_bind=address))
        with pytest.raises(ConfigError):
            await bridge.__aenter__()
    assert not bridge.lines.listening
    assert bridge.ari.rest.closed


async def test_settings_that_are_not_complete(make: Make) -> None:
    with pytest.raises(ConfigError, match="ARI_USERNAME"):
        await VoiceBridge(make(ari_username="")).__aenter__()


async def test_the_folder_of_recordings_is_made(make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "one" / "two"
    async with VoiceBridge(make(recordings_dir=str(folder))):
        assert list(folder.iterdir()) == []


async def test_a_folder_that_cannot_be_written(make: Make, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "recordings"
    with pytest.raises(ConfigError, match=r"^RECORDINGS_DIR .* cannot be written: Not a directory"):
        await VoiceBridge(make(recordings_dir=str(folder))).__aenter__()


async def test_it_starts_while_there_is_no_room_for_recordings(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    async with VoiceBridge(make(recordings_dir=str(tmp_path / "recordings"))) as bridge:
        assert bridge.recordings is not None


async def test_an_interface_without_a_key_is_told(make: Make) -> None:
    with capture_logs() as logs:
        async with VoiceBridge(make()):
            pass
        async with VoiceBridge(make(api_key="k")) as bridge:
            url = "http://{}:{}/sessions".format(*bridge.api_address)
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                assert response.status == 401
    assert [entry["event"] for entry in logs].count("api_without_key") == 1


# --- a call


async def test_a_call(asterisk: LoadServer, make: Make, tmp_path: Path) -> None:
    notes = Notes()
    async with FakeAgent() as agent:
        settings = make(
            ari_url=url_of(asterisk),
            elevenlabs_base_url=agent.base_url,
            recordings_dir=str(tmp_path / "recordings"),
        )
        async with VoiceBridge(settings, [notes.heard]) as bridge, running(bridge):
            await asterisk.generator.start_calls(1, 100, ("customer_name=Jane",))
            await until(lambda: State.TALKING in notes.states)
            (record,) = bridge.calls.records.values()
            assert bridge.readiness().active_sessions == 1
            asterisk.generator.end_calls()
            await until(lambda: record.ended_at is not None)
            metrics = bridge.metrics.render().decode()
        (recording,) = (tmp_path / "recordings").glob("*/*")
        assert recording.name.endswith(f"-{record.session_id}.wav")
    assert 'ari_app_calls_ended_total{reason="caller_hung_up",status="COMPLETED"} 1.0' in metrics
    assert asterisk.generator.world.channels == {}
    assert asterisk.generator.world.bridges == {}


async def test_a_call_is_kept(asterisk: LoadServer, make: Make, tmp_path: Path) -> None:
    async with FakeAgent() as agent:
        settings = make(
            ari_url=url_of(asterisk),
            elevenlabs_base_url=agent.base_url,
            database_url=f"sqlite+aiosqlite:///{tmp_path}/calls.db",
        )
        async with VoiceBridge(settings) as bridge, running(bridge):
            assert bridge.call_log is not None
            assert await bridge.call_log.looked() is None
            await asterisk.generator.start_calls(1, 100)
            await until(lambda: any(each.has_conversed for each in bridge.calls.records.values()))
            (record,) = bridge.calls.records.values()
            assert await bridge.call_log.find(record.session_id) is None, "it has not ended"
            # As the next process would find it, were this one lost.
            (journal,) = (tmp_path / "calls.journal").glob("*/*.calls")
            await until(lambda: str(record.conversation_id) in journal.read_text())
            asterisk.generator.end_calls()
            await until(lambda: bridge.call_log is not None and bridge.call_log.counts.written)
            kept = await bridge.call_log.find(record.session_id) or {}
            metrics = bridge.metrics.render().decode()
            warnings = bridge.readiness().warnings
    assert (kept["status"], kept["reason"]) == ("COMPLETED", "caller_hung_up")
    assert kept["conversation_id"] == record.conversation_id
    assert "ari_app_records_written_total 1.0" in metrics
    assert "ari_app_records_backlog 0.0" in metrics
    assert warnings == []


async def test_a_call_is_found_by_the_campaign_that_it_was_asked_for(
    asterisk: LoadServer, make: Make, tmp_path: Path
) -> None:
    async with FakeAgent() as agent:
        settings = make(
            ari_url=url_of(asterisk),
            elevenlabs_base_url=agent.base_url,
            database_url=f"sqlite+aiosqlite:///{tmp_path}/calls.db",
        )
        async with (
            VoiceBridge(settings) as bridge,
            running(bridge),
            aiohttp.ClientSession("http://{}:{}".format(*bridge.api_address)) as http,
        ):
            for campaign in ("c1", "c2"):
                # No trunk is there to place it, and it is kept all the same.
                asked = {"called_number": "+15550100", "metadata": {"campaign_id": campaign}}
                answer = await http.post("/webhook/initiate-call", json=asked)
                assert answer.status == 200, await answer.text()
            log = bridge.call_log
            await until(lambda: log is not None and log.counts.written == 2)
            found = await (await http.get("/calls", params={"campaign_id": "c1"})).json()
    (call,) = found["calls"]
    assert (call["campaign_id"], call["direction"]) == ("c1", "out")


async def test_a_recording_is_kept_with_its_call_and_told_of(
    asterisk: LoadServer, make: Make, tmp_path: Path
) -> None:
    async with FakeAgent() as agent, receiving() as receiver:
        settings = make(
            ari_url=url_of(asterisk),
            elevenlabs_base_url=agent.base_url,
            database_url=f"sqlite+aiosqlite:///{tmp_path}/calls.db",
            recordings_dir=str(tmp_path / "recordings"),
            recordings_format="flac",
            record_calls="asked",
            webhook_url=f"{receiver.url}/hook",
            webhook_secret=SECRET,
        )
        async with VoiceBridge(settings) as bridge, running(bridge):
            assert bridge.call_log is not None and bridge.recordings is not None
            archive = bridge.recordings
            for arguments in ((), ("record=yes",)):
                await asterisk.generator.start_calls(1, 100, arguments)
            await until(
                lambda: [each.state for each in bridge.calls.records.values()] == ["talking"] * 2
            )
            silent, heard = bridge.calls.records.values()
            assert (silent.recording, heard.recording) == ("off", "on")
            await asyncio.sleep(0.5)
            asterisk.generator.end_calls()
            await until(lambda: heard.ended_at and not archive.is_busy(heard.session_id))
            await until(lambda: "recording.ready" in receiver.kinds(heard.session_id))
            assert "recording.ready" not in receiver.kinds(silent.session_id)
            await bridge.call_log.settle()
            kept = await bridge.call_log.find(heard.session_id) or {}
            (part,) = kept["recordings"]
            assert (part["format"], part["complete"]) == ("flac", True)
            assert "recordings" not in (await bridge.call_log.find(silent.session_id) or {})
            assert "ari_app_recordings_saved_total 1.0" in bridge.metrics.render().decode()
            assert await bridge.call_log.delete(heard.session_id)
            assert archive.find(part["path"]) is None


async def test_a_recorded_call_stays_where_nobody_knows_its_recording(
    make: Make, tmp_path: Path
) -> None:
    settings = make(database_url=f"sqlite+aiosqlite:///{tmp_path}/calls.db", records_keep_days=30)
    async with VoiceBridge(settings, http=False) as bridge:
        log = bridge.call_log
        assert log is not None
        at = {"started_at": "2020-01-01T00:00:00Z", "ended_at": "2020-01-01T00:01:00Z"}
        for session_id in ("recorded", "silent"):
            log.keep({"session_id": session_id, **at})
        log.amend("recorded", "recordings", [{"path": "2020-01-01/000000-1-recorded.wav"}])
        with pytest.raises(CallLogUnavailable, match="has recordings, and RECORDINGS_DIR is not"):
            await log.delete("recorded")
        assert await log.forget_old() == 1
        assert [each["session_id"] async for each in log.export(CallFilter())] == ["recorded"]


@pytest.mark.parametrize(
    ("there", "known", "told"), [(False, True, 1), (True, True, 0), (False, False, 0)]
)
async def test_recordings_that_are_not_where_they_were_are_told_of(
    make: Make, tmp_path: Path, there: bool, known: bool, told: int
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/calls.db"
    async with CallLog(url) as call_log:
        call_log.keep({"session_id": "s1", "started_at": "2026-11-28T15:30:12Z"})
        if known:
            call_log.amend("s1", "recordings", [{"path": "2026-11-28/153012-1-s1.wav"}])
    folder = tmp_path / "recordings"
    if there:
        (folder / "2026-11-28").mkdir(parents=True)
    settings = make(database_url=url, recordings_dir=str(folder))
    with capture_logs() as logs:
        async with VoiceBridge(settings, http=False):
            looking = [each for each in asyncio.all_tasks() if "missing" in each.get_name()]
            await asyncio.gather(*looking)
    assert [each["event"] for each in logs].count("recordings_not_there") == told


async def test_a_recording_that_a_lost_process_left_to_be_encoded(
    asterisk: LoadServer, make: Make, tmp_path: Path
) -> None:
    """Told of after the call's end; and again as what it becomes, with all that was known of it."""
    async with FakeAgent() as agent, receiving() as receiver:

        def settings(kind: str) -> Settings:
            return make(
                ari_url=url_of(asterisk),
                elevenlabs_base_url=agent.base_url,
                database_url=f"sqlite+aiosqlite:///{tmp_path}/calls.db",
                recordings_dir=str(tmp_path / "recordings"),
                recordings_format=kind,
                webhook_url=f"{receiver.url}/hook",
                webhook_secret=SECRET,
            )

        async with VoiceBridge(settings("wav")) as bridge, running(bridge):
            await asterisk.generator.start_calls(1, 100)
            await until(
                lambda: [each.state for each in bridge.calls.records.values()] == ["talking"]
            )
            (record,) = bridge.calls.records.values()
            await asyncio.sleep(0.3)
            asterisk.generator.end_calls()
            await until(lambda: len(receiver.kinds(record.session_id)) == 3)
            assert bridge.call_log is not None
            await bridge.call_log.settle()
            before = await bridge.call_log.find(record.session_id) or {}
        told = ["call.started", "call.ended", "recording.ready"]
        assert receiver.kinds(record.session_id) == told
        async with VoiceBridge(settings("flac")) as bridge, running(bridge):
            await until(lambda: len(receiver.got) == 4)
            assert bridge.call_log is not None
            await bridge.call_log.settle()
            after = await bridge.call_log.find(record.session_id) or {}
    (was,), (part,) = before["recordings"], after["recordings"]
    path = was["path"].replace(".wav", ".flac")
    assert part == {**was, "path": path, "format": "flac", "bytes": part["bytes"]}
    ready = receiver.got[-1].body
    assert (ready["type"], ready["recording"]) == ("recording.ready", part)
    assert ready["call"]["conversation_id"] == record.conversation_id


async def test_what_a_lost_process_left_of_a_call_is_told_in_its_order(
    asterisk: LoadServer, make: Make, tmp_path: Path
) -> None:
    """The journal of a call that had only begun, and its recording that still grew."""
    url = f"sqlite+aiosqlite:///{tmp_path}/calls.db"
    record = CallRecord("s1", "sip-1", 0.0, caller_number="493023125001", called_number="100")
    spool = Spool(tmp_path / "calls.journal", Counts(), lambda: None)
    spool.start()
    spool.put(BEGAN, call_document(record))
    spool.close(5)
    spool.give_back()
    (tmp_path / "recordings").mkdir()
    wav = GrowingWav(tmp_path / "recordings" / "s1.wav", 2, 8000)
    wav.append(bytes(32000))
    wav.close()
    async with FakeAgent() as agent, receiving() as receiver:
        settings = make(
            ari_url=url_of(asterisk),
            elevenlabs_base_url=agent.base_url,
            database_url=url,
            recordings_dir=str(tmp_path / "recordings"),
            webhook_url=f"{receiver.url}/hook",
            webhook_secret=SECRET,
        )
        async with VoiceBridge(settings) as bridge, running(bridge):
            await until(lambda: len(receiver.got) == 2, 20)
            assert bridge.call_log is not None
            await bridge.call_log.settle()
            kept = await bridge.call_log.find("s1") or {}
    assert receiver.kinds("s1") == ["call.ended", "recording.ready"]
    assert [part["path"] for part in kept["recordings"]] == ["s1.wav"]
    assert kept["reason"] == "worker_lost"


async def test_however_many_calls_others_delete_their_recordings_go(
    make: Make, tmp_path: Path
) -> None:
    folder = tmp_path / "recordings" / "2026-11-28"
    folder.mkdir(parents=True)
    names = {f"{n:032x}": f"{folder.name}/153012-+493012-{n:032x}.wav" for n in range(3000)}
    for name in names.values():
        (folder.parent / name).touch()
    settings = make(
        recordings_dir=str(folder.parent),
        webhook_url="http://127.0.0.1:1/hook",
        webhook_secret=SECRET,
    )
    place = WorkerPlace(1, Folder(tmp_path))
    with capture_logs() as logs:
        async with VoiceBridge(settings, http=False, place=place) as bridge:
            assert bridge.membership is not None and bridge.outbox is not None
            for session_id, name in names.items():
                bridge.membership.on_forget(session_id, [name])
            await until(lambda: not folder.exists())
    assert "deleted_call_not_forgotten" not in [each["event"] for each in logs]


@pytest.mark.parametrize(
    ("changes", "possible"),
    [({}, True), ({"record_calls": "asked"}, True), ({"record_calls": "none"}, False)],
)
async def test_where_calls_can_be_recorded(
    make: Make, tmp_path: Path, changes: dict[str, str], possible: bool
) -> None:
    async with VoiceBridge(make(recordings_dir=str(tmp_path / "r"), **changes)) as bridge:
        assert bridge.recordings is not None, "what is there can be fetched"
        assert (bridge.calls._services.recordings is not None) is possible


async def test_stopping_lets_calls_finish_and_stopping_twice_ends_them(
    asterisk: LoadServer, make: Make
) -> None:
    notes = Notes()
    async with FakeAgent() as agent:
        settings = make(ari_url=url_of(asterisk), elevenlabs_base_url=agent.base_url)
        async with VoiceBridge(settings, [notes.heard]) as bridge:
            run = asyncio.create_task(bridge.run())
            await until(lambda: not bridge.readiness().problems)
            await asterisk.generator.start_calls(1, 100)
            await until(lambda: State.TALKING in notes.states)
            bridge.stop()
            await until(lambda: bridge.calls.draining)
            assert bridge.readiness().problems == ["draining: new calls are refused"]
            (record,) = bridge.calls.records.values()
            assert record.state == State.TALKING
            bridge.stop()
            await run
    assert (record.agent_status, record.end_reason) == ("FAILED", "shutting_down")


async def lose(calls: int, settings: Settings, asterisk: LoadServer, folder: Path) -> None:
    """Leave in `folder / "lost"` what a process leaves that is killed while it has calls."""
    bridge = VoiceBridge(settings, checkpoints=folder / "first")
    async with bridge, running(bridge):
        await asterisk.generator.start_calls(calls, 100)
        await until(
            lambda: (
                sum(b"talking" in path.read_bytes() for path in folder.glob("first/*/*.call"))
                == calls
            )
        )
        # Nobody holds the copy.
        shutil.copytree(folder / "first", folder / "lost")
        asterisk.generator.end_calls()


async def test_restarts_that_cannot_serve_are_not_put_down_to_the_calls(
    asterisk: LoadServer, make: Make, tmp_path: Path
) -> None:
    async with FakeAgent() as agent:
        settings = make(ari_url=url_of(asterisk), elevenlabs_base_url=agent.base_url)
        await lose(1, settings, asterisk, tmp_path)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            cannot = settings.model_copy(update={"api_bind": address})
            for _ in range(3):
                with pytest.raises(ConfigError, match="another program has this port"):
                    async with VoiceBridge(cannot, checkpoints=tmp_path / "lost"):
                        pass
        with capture_logs() as logs:
            async with VoiceBridge(settings, checkpoints=tmp_path / "lost") as bridge:
                await bridge.mend(expected=True)
                assert len(bridge.calls.records) == 1
                bridge.end_calls()
                await bridge.run()
    assert "call_not_adopted" not in [entry["event"] for entry in logs]


@pytest.mark.parametrize("goes_on", [True, False])
async def test_while_the_calls_of_a_lost_process_are_gone_through_the_loop_turns(
    asterisk: LoadServer,
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    goes_on: bool,
) -> None:
    loop, turns = asyncio.get_running_loop(), 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    gone_through: list[int] = []

    def read(left: OrphanedCall) -> Restored:
        turns_on = threading.Event()
        loop.call_soon_threadsafe(turns_on.set)
        assert turns_on.wait(PATIENCE_SECONDS), "the loop stands"
        return restore(left)

    name = "_adopt" if goes_on else "_give_up"
    go_on = getattr(Adoption, name)

    def one(adoption: Adoption, *given: object) -> None:
        gone_through.append(turns)
        go_on(adoption, *given)

    async with FakeAgent() as agent:
        settings = make(ari_url=url_of(asterisk), elevenlabs_base_url=agent.base_url)
        await lose(3, settings, asterisk, tmp_path)
        monkeypatch.setattr(adoption_module, "restore", read)
        monkeypatch.setattr(Adoption, name, one)
        second = VoiceBridge(settings, checkpoints=tmp_path / "lost", goes_on=goes_on)
        async with second:
            turning = asyncio.create_task(turn())
            await second.mend(expected=True)
            await cancelled(turning)
            second.end_calls()
            await second.run()
    assert len(set(gone_through)) == 3


# --- Asterisk


async def test_asterisk_refuses_us(make: Make) -> None:
    async with FakeAri() as ari:
        ari.refuse_handshakes = [401]
        async with VoiceBridge(make(ari_url=ari.url)) as bridge:
            with pytest.raises(ConfigError, match="refuses the user 'voice'"):
                await bridge.run()


async def test_asterisk_lets_us_only_read(make: Make) -> None:
    async with FakeAri() as ari:
        ari.answer("PUT", f"/applications/{make().ari_app}/eventFilter", Answer(403))
        async with VoiceBridge(make(ari_url=ari.url)) as bridge:
            with pytest.raises(ConfigError, match="'voice' read only"):
                await bridge.run()


async def test_an_unforeseen_end_of_the_event_socket_is_not_hidden(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(EventSocket, "run", fail)
    async with VoiceBridge(make()) as bridge:
        with pytest.raises(ZeroDivisionError):
            await bridge.run()


async def test_another_client_takes_the_application(asterisk: LoadServer, make: Make) -> None:
    async with VoiceBridge(make(ari_url=url_of(asterisk))) as first:
        run = asyncio.create_task(first.run())
        await until(lambda: not first.readiness().problems)
        with capture_logs() as logs:
            async with VoiceBridge(make(ari_url=url_of(asterisk))) as second, running(second):
                await run
                assert second.readiness().problems == []
        assert "Asterisk's event socket is replaced" in first.readiness().problems
    assert "ari_application_replaced" in [entry["event"] for entry in logs]


async def test_a_version_that_is_not_told(make: Make) -> None:
    async with FakeAri() as ari:
        ari.answer("GET", "/asterisk/info", Answer(500))
        async with VoiceBridge(make(ari_url=ari.url)) as bridge:
            with capture_logs() as logs:
                async with running(bridge):
                    await until(lambda: "reconcile_failed" in [entry["event"] for entry in logs])
            version = asterisk_of(bridge).version
            assert version is not None
            assert version.version is None, "it counts as the oldest"
            assert bridge.readiness().asterisk_version is None
    assert "asterisk_version_unknown" in [entry["event"] for entry in logs]


async def test_after_each_connection_it_looks_for_what_was_missed(make: Make) -> None:
    async with FakeAri() as ari:
        ari.answer("GET", "/asterisk/info", json_answer(ASTERISK_INFO))
        ari.answer("GET", "/channels", json_answer([]))
        ari.answer("GET", "/bridges", json_answer([]))
        ari.answer("GET", "/applications/voice-agent", json_answer({"name": "voice-agent"}))

        def looks() -> int:
            return sum(seen.raw_path == "/ari/applications/voice-agent" for seen in ari.seen)

        async with VoiceBridge(make(ari_url=ari.url)) as bridge, running(bridge):
            # What has come about is told, and then what is gone is looked for.
            await until(lambda: looks() == 2)
            await (await ari.sockets.get()).close()
            await until(lambda: looks() == 4)


# --- the sound of a line


def asterisk_of(bridge: VoiceBridge) -> Asterisk:
    gateway = bridge.way_in(AsteriskGateway)
    assert gateway is not None
    return gateway.asterisk


async def line_format(bridge: VoiceBridge, agent: AgentFormats = DEFAULT_AGENT_FORMATS) -> str:
    line = AsteriskLine(asterisk_of(bridge), "sip-1", caller="12025550123", called="100")
    return (await line.prepare(agent)).name


@pytest.mark.parametrize(
    ("wanted", "version", "codec", "chosen"),
    [
        ("slin", "22.10.1", "(g722)", "slin"),
        ("slin16", "22.10.1", "(ulaw)", "slin16"),
        ("slin16", "20.16.0", "(g722)", "slin"),
        ("slin16", None, "(g722)", "slin"),
        ("auto", "22.10.1", "(g722)", "slin16"),
        ("auto", "22.10.1", "(ulaw)", "slin"),
        ("auto", "22.10.1", None, "slin"),
        ("auto", "18.26.4", "(g722)", "slin"),
    ],
)
async def test_the_format_of_the_line(
    make: Make, wanted: str, version: str | None, codec: str | None, chosen: str
) -> None:
    async with FakeAri() as ari:
        answer = Answer(404) if codec is None else json_answer({"value": codec})
        ari.answer("GET", "/channels/sip-1/variable", answer)
        async with VoiceBridge(make(ari_url=ari.url, audiosocket_format=wanted)) as bridge:
            asterisk_of(bridge).version = None if version is None else assess(version)
            assert await line_format(bridge) == chosen


async def test_the_format_follows_what_the_agent_announced(make: Make) -> None:
    narrow = AudioFormat.parse("ulaw_8000")
    async with FakeAri() as ari:
        ari.answer("GET", "/channels/sip-1/variable", json_answer({"value": "g722"}))
        async with VoiceBridge(make(ari_url=ari.url, audiosocket_format="auto")) as bridge:
            asterisk_of(bridge).version = assess("22.10.1")
            assert await line_format(bridge) == "slin16"
            assert await line_format(bridge, AgentFormats(narrow, narrow)) == "slin"


@pytest.mark.parametrize(
    ("advertise", "bound", "target"),
    [
        ("10.0.0.5:9092", ("127.0.0.1", 4000), "10.0.0.5:9092"),
        (None, ("127.0.0.1", 4000), "127.0.0.1:4000"),
        (None, ("::1", 4000), "[::1]:4000"),
    ],
)
async def test_what_asterisk_is_told_to_dial(
    make: Make, advertise: str | None, bound: tuple[str, int], target: str
) -> None:
    bridge = VoiceBridge(make(audiosocket_advertise=advertise))
    bridge.audiosocket_address = bound
    assert bridge._target() == target


async def test_a_server_that_does_not_listen_is_told(make: Make) -> None:
    async with VoiceBridge(make()) as bridge:
        await bridge.lines.close()
        assert "the AudioSocket server does not listen" in bridge.readiness().problems


async def test_who_is_not_let_in_is_told_once_with_the_setting(make: Make) -> None:
    with capture_logs() as logs:
        async with VoiceBridge(make(audiosocket_allow="10.0.0.0/8")) as bridge:
            for _ in range(3):
                reader, writer = await asyncio.open_connection(*bridge.audiosocket_address)
                await reader.read()
                writer.close()
            assert bridge.lines.refusals == {"not_allowed": 3}
    (told,) = (entry for entry in logs if entry["event"] == "audiosocket_not_allowed")
    assert told["log_level"] == "warning"
    assert told["peer"].startswith("127.0.0.1:")
    assert "AUDIOSOCKET_ALLOW" in told["note"]


# --- metrics


def test_every_state_of_a_running_call_is_there_from_the_start(make: Make) -> None:
    shown = VoiceBridge(make()).metrics.render().decode()
    states = set(re.findall(r'^ari_app_calls\{state="(\w+)"\} 0', shown, re.MULTILINE))
    assert states == {"waiting", *State} - {State.NEW, State.ENDED}


# --- the agent's settings


@pytest.mark.parametrize(
    ("content", "problem"), [(None, "No such file"), (b"hello", "it is no WAV file")]
)
@pytest.mark.parametrize("setting", ["AGENT_LOSS_SOUND", "RECORDING_SOUND", "LISTENING_SOUND"])
async def test_a_phrase_that_cannot_be_played(
    make: Make, tmp_path: Path, content: bytes | None, problem: str, setting: str
) -> None:
    path = tmp_path / "phrase.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"{setting} {path} cannot be used: {problem}"):
        await VoiceBridge(make(**{setting.lower(): path})).__aenter__()
