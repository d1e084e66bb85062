"""What others are told, over real sockets and a real file; only the clock is moved by hand."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random

import pytest
import trustme
from aiohttp import web

from ari_app.errors import ConfigError
from ari_app.records.document import call_document
from ari_app.records.events import CallEnded, StateChanged
from ari_app.records.journal import Journal
from ari_app.records.publisher import CallPublisher
from ari_app.records.record import CallRecord
from ari_app.records.webhooks import outbox as outbox_module
from ari_app.records.webhooks.events import Event
from ari_app.records.webhooks.keeper import Keeper, SpoolAway
from ari_app.records.webhooks.outbox import Outbox, OutboxOptions
from ari_app.records.webhooks.spool import Spool
from tests.tls import server_tls
from tests.unit.records.webhooks.receiver import SECRET, BadReceiver, Got, receiving
from tests.waiting import PATIENCE_SECONDS, until


class Clock:
    """The time of day, and how far a test has moved it."""

    moved = 0.0

    def __call__(self) -> float:
        return time.time() + self.moved


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def receiver() -> AsyncIterator[BadReceiver]:
    async with receiving() as receiver:
        yield receiver


Open = Callable[..., contextlib.AbstractAsyncContextManager[Outbox]]


@pytest.fixture
def opened(tmp_path: Path, clock: Clock, receiver: BadReceiver) -> Open:
    def make(*urls: str) -> Outbox:
        return Outbox(
            OutboxOptions(urls or (f"{receiver.url}/hook",), SECRET, tmp_path / "webhooks.db"),
            now=clock,
        )

    return make


def record(name: str) -> CallRecord:
    return CallRecord(name, f"line of {name}", 0.0, caller_number="+493023125001")


def begin(outbox: Outbox, *names: str) -> None:
    for name in names:
        outbox.began(call_document(record(name)))


def end(outbox: Outbox, *names: str) -> None:
    for name in names:
        outbox.ended(call_document(record(name)))


def has_failed(outbox: Outbox, times: int) -> bool:
    return outbox.stats.failed == times


async def states(outbox: Outbox, name: str) -> list[str]:
    return [each["state"] for each in await outbox.of_call(name)]


async def test_beginning_and_end_of_a_call_are_told(opened: Open, receiver: BadReceiver) -> None:
    journal, call = Journal(), record("a")
    async with opened() as outbox:
        journal.listen(CallPublisher(call_document, None, outbox).heard)
        for state in ("connecting", "talking"):
            journal.note(call, StateChanged(state, "active"))
        call.agent_status, call.end_reason = "COMPLETED", "agent_ended"
        call.has_ended(61.2)
        journal.note(call, StateChanged("ended", "ended"))
        journal.note(call, CallEnded("COMPLETED", "agent_ended", 61.2))
        # The receiver has it before it is known here that it has.
        await until(lambda: outbox.stats.delivered == 2)
        assert await states(outbox, "a") == ["delivered", "delivered"]
    began, ended = receiver.got
    assert began.kind == "call.started"
    assert began.body["call"]["caller_number"] == "+493023125001"
    assert "turns" not in began.body["call"]
    assert ended.kind == "call.ended"
    assert ended.body["call"] == call_document(call)
    assert datetime.fromisoformat(ended.body["created_at"]) <= datetime.now(UTC)
    assert len(receiver.connections) == 1


async def test_a_spool_that_is_removed_while_it_runs(
    opened: Open, receiver: BadReceiver, tmp_path: Path
) -> None:
    """What is told then waits where the next process finds it."""
    receiver.behave = lambda request, got: web.Response(status=503)
    async with opened() as outbox:
        begin(outbox, "a")
        await until(lambda: has_failed(outbox, 1))
        for each in ("", "-wal", "-shm"):
            os.unlink(tmp_path / f"webhooks.db{each}")
        begin(outbox, "b")
        await until(lambda: receiver.kinds("b"))
        os.rename(tmp_path / "webhooks.db", tmp_path / "moved.db")
        begin(outbox, "c")
        await until(lambda: receiver.kinds("c"))
        assert outbox.lost == 0 and outbox.warnings() == []
    spool = Spool(tmp_path / "webhooks.db")
    assert [each.session_id for each in spool.undelivered(9)] == ["c"]
    spool.close()


async def test_a_caller_who_waited_has_one_name(opened: Open, receiver: BadReceiver) -> None:
    journal, call = Journal(), record("while it waits")
    async with opened() as outbox:
        journal.listen(CallPublisher(call_document, None, outbox).heard)
        journal.note(call, StateChanged("waiting", "initializing"))
        call.session_id = "as a call"
        journal.note(call, StateChanged("connecting", "active"))
        call.has_ended(61.2)
        journal.note(call, CallEnded("COMPLETED", "agent_ended", 61.2))
        await until(lambda: len(receiver.got) == 2)
    assert receiver.kinds("as a call") == ["call.started", "call.ended"]


async def test_a_call_that_is_told_twice_is_sent_once(opened: Open, receiver: BadReceiver) -> None:
    call = record("a")
    async with opened() as outbox:
        outbox.ended(call_document(call))
        await until(lambda: receiver.got)
        outbox.ended(call_document(call))
        begin(outbox, "b")
        await until(lambda: receiver.kinds("b"))
    assert receiver.kinds("a") == ["call.ended"]


async def test_what_fails_is_tried_again_later_and_in_order(
    opened: Open, receiver: BadReceiver, clock: Clock
) -> None:
    answers = iter([500, 302, 404])
    receiver.behave = lambda request, got: web.Response(
        status=next(answers, 200) if got.call == "a" else 200, headers={"Location": "/elsewhere"}
    )
    call = record("a")
    async with opened() as outbox:
        outbox.began(call_document(call))
        outbox.ended(call_document(call))
        begin(outbox, "b")
        await until(lambda: receiver.kinds("b"))
        for failures in (1, 2, 3):
            await until(partial(has_failed, outbox, failures))
            clock.moved += 70
        await until(lambda: "call.ended" in receiver.kinds("a"))
    assert [(each.kind, each.attempt) for each in receiver.got if each.call == "a"] == [
        ("call.started", 1),
        ("call.started", 2),
        ("call.started", 3),
        ("call.started", 4),
        ("call.ended", 1),
    ]
    assert len({each.event_id for each in receiver.got if each.call == "a"}) == 2
    assert {each.path for each in receiver.got} == {"/hook"}, "nobody is followed elsewhere"


async def test_a_connection_that_breaks_is_tried_again(
    opened: Open, receiver: BadReceiver, clock: Clock
) -> None:
    def reset(request: web.Request, got: Got) -> None:
        if got.attempt == 1:
            assert request.transport is not None
            request.transport.abort()

    receiver.behave = reset
    async with opened() as outbox:
        begin(outbox, "a")
        await until(lambda: outbox.stats.failed)
        (delivery,) = await outbox.of_call("a")
        assert delivery["http_status"] is None
        assert delivery["error"]
        clock.moved += 6
        await until(lambda: outbox.stats.delivered)
    assert [each.attempt for each in receiver.got] == [1, 2]


async def test_one_that_wants_quiet_has_it(
    opened: Open, receiver: BadReceiver, clock: Clock
) -> None:
    receiver.behave = lambda request, got: web.Response(status=429, headers={"Retry-After": "600"})
    async with opened() as outbox:
        begin(outbox, "a")
        await until(lambda: outbox.stats.failed)
        begin(outbox, "b")
        clock.moved += 599 - 60
        await asyncio.sleep(1.5)
        assert len(receiver.got) == 1, "nothing else is sent to it, either"
        (delivery,) = await outbox.of_call("a")
        assert datetime.fromisoformat(delivery["next_at"]).timestamp() > clock() + 30


async def test_after_a_restart_events_wait_for_a_spool_that_is_away(
    tmp_path: Path, receiver: BadReceiver
) -> None:
    path = tmp_path / "away" / "webhooks.db"
    options = OutboxOptions((f"{receiver.url}/hook",), SECRET, path)
    with pytest.raises(ConfigError, match="cannot be used: No such file or directory"):
        async with Outbox(options):
            pass
    async with Outbox(options, again=True) as outbox:
        begin(outbox, "a")
        assert "No such file or directory" in outbox.warnings()[0]
        assert await outbox.of_call("a") == []
        path.parent.mkdir()
        await until(lambda: outbox.stats.delivered == 1)
        assert outbox.warnings() == []
    assert receiver.kinds("a") == ["call.started"]


async def test_gone_is_gone_until_somebody_wants_it_again(
    opened: Open, receiver: BadReceiver, tmp_path: Path
) -> None:
    receiver.behave = lambda request, got: web.Response(status=410)
    async with opened() as outbox:
        begin(outbox, "a")
        end(outbox, "a")
        await until(lambda: outbox.stats.dead == 2)
        assert await states(outbox, "a") == ["dead", "dead"]
        receiver.behave = lambda request, got: None
        # As `ari-app webhooks retry` does, in a process of its own.
        other = Spool(tmp_path / "webhooks.db")
        assert other.again() == 2
        other.close()
        await until(lambda: outbox.stats.delivered == 2)
        assert await states(outbox, "a") == ["delivered", "delivered"]


async def test_a_slow_receiver_holds_up_no_other(opened: Open, receiver: BadReceiver) -> None:
    names = [f"call-{number}" for number in range(40)]

    def asked() -> Counter[str]:
        return Counter(each.path for each in receiver.got)

    async with opened(f"{receiver.url}/slow", f"{receiver.url}/quick") as outbox:
        begin(outbox, *names)
        await until(lambda: asked()["/quick"] == 40 and asked()["/slow"] >= 8)
        assert asked()["/slow"] == 8, "and it is asked a few things at a time"
        receiver.gate.set()
        await until(lambda: outbox.stats.delivered == 80)


async def test_an_endless_answer_is_not_read(opened: Open) -> None:
    sent = 0
    over = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n")
            while True:
                writer.write(65536 * b"x")
                await writer.drain()
                sent += 65536
        except OSError:
            pass
        finally:
            writer.close()
            over.set()

    server = await asyncio.start_server(endless, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with opened(f"http://127.0.0.1:{port}/hook") as outbox:
        begin(outbox, "a")
        await until(lambda: outbox.stats.delivered)
        await asyncio.wait_for(over.wait(), PATIENCE_SECONDS)
    server.close()
    await server.wait_closed()
    assert sent < 20_000_000


async def test_another_process_waits_for_its_turn_and_then_goes_on(
    opened: Open, receiver: BadReceiver
) -> None:
    async with opened() as first:
        begin(first, "a")
        await until(lambda: receiver.got)
        async with opened() as second:
            begin(second, "b")
            await until(lambda: receiver.kinds("b"))
            # The receiver has it before the sender knows.
            await until(lambda: first.stats.delivered == 2)
            assert second.stats.delivered == 0
            await first.__aexit__(None, None, None)
            begin(second, "c")
            await until(lambda: second.stats.delivered == 1)


async def test_a_turn_that_is_had_later_than_anybody_waited_is_had(
    opened: Open, receiver: BadReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, stalled, goes_on = fcntl.flock, threading.Event(), threading.Event()

    def slowly(file: int, what: int) -> None:
        stalled.set()
        goes_on.wait(PATIENCE_SECONDS)
        flock(file, what)

    monkeypatch.setattr(fcntl, "flock", slowly)
    monkeypatch.setattr(outbox_module, "_ASK_SECONDS", 0.01)
    monkeypatch.setattr(outbox_module, "_TURN_SECONDS", 0.01)
    async with opened() as outbox:
        begin(outbox, "a")
        await until(stalled.is_set)
        await asyncio.sleep(0.1)
        monkeypatch.setattr(outbox_module, "_ASK_SECONDS", 60.0)
        goes_on.set()
        await until(lambda: receiver.kinds("a"))
        async with opened() as second:
            begin(second, "b")
            await until(lambda: outbox.stats.delivered == 2)
            await outbox.__aexit__(None, None, None)
            begin(second, "c")
            await until(lambda: second.stats.delivered == 1)


async def test_what_was_not_sent_is_sent_after_a_restart(
    opened: Open, receiver: BadReceiver, clock: Clock
) -> None:
    receiver.behave = lambda request, got: web.Response(status=503)
    async with opened() as outbox:
        begin(outbox, "a")
        end(outbox, "a")
        await until(lambda: outbox.stats.failed)
    receiver.behave = lambda request, got: None
    clock.moved += 6
    async with opened() as outbox:
        await until(lambda: outbox.stats.delivered == 2)
    assert receiver.kinds("a") == ["call.started", "call.started", "call.ended"]


async def test_the_last_call_is_told_before_the_service_stops(
    opened: Open, receiver: BadReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ari_app.records.webhooks.outbox._LAST_SECONDS", PATIENCE_SECONDS)
    async with opened() as outbox:
        begin(outbox, "a")
        end(outbox, "a")
    assert receiver.kinds("a") == ["call.started", "call.ended"]


async def test_what_is_deleted_is_not_sent(
    opened: Open, receiver: BadReceiver, clock: Clock
) -> None:
    receiver.behave = lambda request, got: web.Response(status=503)
    async with opened() as outbox:
        begin(outbox, "a", "b")
        await until(lambda: outbox.stats.failed == 2)
        await outbox.forget("a")
        receiver.behave = lambda request, got: None
        clock.moved += 6
        await until(lambda: outbox.stats.delivered)
        assert await outbox.of_call("a") == []
    assert receiver.kinds("b") == ["call.started", "call.started"]
    assert receiver.kinds("a") == ["call.started"]


async def test_a_certificate_has_to_hold(
    authority: trustme.CA, ca_file: Path, tmp_path: Path
) -> None:
    async with receiving(server_tls(authority, "127.0.0.1")) as receiver:
        for known in (None, ca_file):
            options = OutboxOptions((f"{receiver.url}/hook",), SECRET, tmp_path / "w.db", known)
            async with Outbox(options) as outbox:
                begin(outbox, f"with {known}")
                await until(lambda outbox=outbox: outbox.stats.failed + outbox.stats.delivered)  # type: ignore[misc]
                (delivery,) = await outbox.of_call(f"with {known}")
                trusted = delivery["state"] == "delivered"
                assert trusted is (known is not None), delivery
    assert [each.call for each in receiver.got] == [f"with {ca_file}"]


async def test_a_spool_that_cannot_be_opened_is_said(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "webhooks.db").write_bytes(b"something else" * 100)
    with pytest.raises(ConfigError, match=r"WEBHOOK_SPOOL .*webhooks\.db cannot be used: is no"):
        async with opened():
            pass


class FullSpool(Spool):
    """A spool on a disk that is full, for as long as a test wants it."""

    full = False

    def put(self, events: object, receivers: int, now: float) -> None:
        if self.full:
            raise sqlite3.OperationalError("disk I/O error")
        super().put(events, receivers, now)  # type: ignore[arg-type]


def _disk_io_error() -> sqlite3.Error:
    # What SQLite says where there is no room for the file of shared memory beside its own.
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
    return error


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), _disk_io_error()]
)
async def test_a_disk_that_is_full_from_the_start_is_waited_for(
    tmp_path: Path, error: Exception
) -> None:
    full = True

    def make(path: Path) -> Spool:
        if full:
            raise error
        return Spool(path)

    keeper = Keeper(tmp_path / "w.db", 1, time.time, open_spool=make)
    await keeper.open()
    keeper.put(Event("e", "call.ended", "a", b"x"))
    await until(lambda: keeper.stats.failure in ("No space left on device", "disk I/O error"))
    full = False
    await until(lambda: keeper.stats.kept == 1)
    assert keeper.stats.failure is None
    await keeper.close()


async def test_a_full_disk_loses_nothing_at_first_and_then_says_so(tmp_path: Path) -> None:
    spools: list[FullSpool] = []

    def make(path: Path) -> Spool:
        spools.append(FullSpool(path))
        return spools[0]

    keeper = Keeper(tmp_path / "w.db", 1, time.time, max_waiting_bytes=100_000, open_spool=make)
    await keeper.open()
    spools[0].full = True
    for number in range(100):
        keeper.put(Event(f"e{number:03}", "call.ended", f"s{number}", 2000 * b"x"))
    assert keeper.stats.lost == 60
    await until(lambda: keeper.stats.failure == "disk I/O error")
    spools[0].full = False
    await until(lambda: keeper.stats.kept == 40)
    assert keeper.stats.failure is None
    keeper.put(Event("later", "call.ended", "later", b"x"))
    kept = await keeper.ask(lambda spool: spool.undelivered(1000))
    assert [each.event_id for each in reversed(kept)] == [
        *(f"e{number:03}" for number in range(40)),
        "later",
    ]
    await keeper.close()
    keeper.put(Event("too late", "call.ended", "s", b"x"))
    assert keeper.stats.lost == 61


async def test_what_is_deleted_before_it_could_be_written_down_is_not_sent(tmp_path: Path) -> None:
    """Where a spool is as large as it may be, deleting makes room for what waits."""
    spools: list[FullSpool] = []

    def make(path: Path) -> Spool:
        spools.append(FullSpool(path))
        return spools[0]

    keeper = Keeper(tmp_path / "w.db", 1, time.time, open_spool=make)
    await keeper.open()
    spools[0].full = True
    for name in ("a", "b"):
        keeper.put(Event(f"e{name}", "call.ended", name, b"x"))
    await until(lambda: keeper.stats.failure)
    await keeper.forget("a")
    spools[0].full = False
    await until(lambda: keeper.stats.kept)
    kept = await keeper.ask(lambda spool: spool.undelivered(1000))
    assert [each.event_id for each in kept] == ["eb"]
    assert keeper._given_bytes == keeper._taken_bytes
    await keeper.close()


async def test_too_many_open_files_is_told_in_words(tmp_path: Path) -> None:
    def fail(_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files", "webhooks.db-turn")

    keeper = Keeper(tmp_path / "w.db", 1, time.time)
    await keeper.open()
    with pytest.raises(SpoolAway, match=r"^Too many open files$"):
        await keeper.ask(fail)
    await keeper.close()


async def test_what_nobody_waits_for_any_more_is_not_done(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path / "w.db", 1, time.time)
    await keeper.open()
    goes_on = threading.Event()
    stalled = asyncio.create_task(
        keeper.ask(lambda spool: goes_on.wait(PATIENCE_SECONDS), PATIENCE_SECONDS)
    )
    await asyncio.sleep(0)
    done: list[Spool] = []
    for _ in range(2):
        with pytest.raises(SpoolAway):
            await keeper.ask(done.append, 0.01)
    asking = asyncio.create_task(keeper.ask(done.append))
    goes_on.set()
    await asking
    await stalled
    assert len(done) == 1
    await keeper.close()


SENDER = """
import asyncio, sys
from pathlib import Path
import ari_app.process.plain_structlog
from ari_app.records.document import call_document
from ari_app.records.record import CallRecord
from ari_app.records.webhooks.outbox import Outbox, OutboxOptions

async def main(url, spool, first, calls):
    async with Outbox(OutboxOptions((url,), "{secret}", Path(spool))) as outbox:
        for number in range(first, first + calls):
            call = CallRecord(f"call-{{number}}", "line", 0.0)
            outbox.began(call_document(call))
            outbox.ended(call_document(call))
            # What has been told has to be on disk before it counts.
            await outbox.of_call(call.session_id)
            print(number, flush=True)
        await asyncio.sleep(3600)

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
"""


async def test_nothing_is_lost_by_kills(receiver: BadReceiver, tmp_path: Path) -> None:
    """Senders are killed at random moments; what they had kept arrives all the same, each event
    with one id, and of each call in order."""
    rng = Random(20261128)
    receiver.behave = lambda request, got: None
    told, first = 0, 0
    for round_number in range(8):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            SENDER.format(secret=SECRET),
            f"{receiver.url}/hook",
            str(tmp_path / "webhooks.db"),
            str(first),
            "200",
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        while not (await process.stdout.readline()).strip().isdigit():
            pass
        await asyncio.sleep(rng.uniform(0, 0.25))
        os.kill(process.pid, signal.SIGKILL)
        said = await process.stdout.read()
        await process.wait()
        last = max([first, *map(int, filter(bytes.isdigit, said.split(b"\n")[:-1]))])
        told += last - first + 1
        # The names of calls of later senders are others.
        first += 1000
        assert told, round_number
    expected = _kept(tmp_path / "webhooks.db")
    async with Outbox(
        OutboxOptions((f"{receiver.url}/hook",), SECRET, tmp_path / "webhooks.db")
    ) as outbox:
        await until(lambda: outbox.counts.waiting == 0 and outbox.stats.delivered)
        await until(lambda: expected <= {got.event_id for got in receiver.got})
    assert len(expected) >= 2 * told
    seen: dict[str, list[str]] = {}
    for got in receiver.got:
        events = seen.setdefault(got.call, [])
        if got.event_id not in events:
            events.append(got.event_id)
            assert got.kind == ("call.started", "call.ended")[len(events) - 1]
    assert all(len(events) <= 2 for events in seen.values())
    again = len(receiver.got) - len({got.event_id for got in receiver.got})
    assert again <= 8 * 8, "only what was under way is sent again"


def _kept(path: Path) -> set[str]:
    spool = sqlite3.connect(path)
    try:
        return {name for (name,) in spool.execute("SELECT id FROM events")}
    finally:
        spool.close()
