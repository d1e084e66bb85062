from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ari_app.records.webhooks.events import Event
from ari_app.records.webhooks.schedule import Answer, Fate, Next
from ari_app.records.webhooks.spool import Spool, SpoolUnusable

DELIVERED = (Answer(200), Next(Fate.DELIVERED))
FAILED = (Answer(500), Next(Fate.AGAIN, 60.0))
DEAD = (Answer(410), Next(Fate.DEAD))


def event(name: str, call: str = "", body: bytes = b"{}") -> Event:
    return Event(name, "call.started", call or name, body)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "webhooks.db"


@pytest.fixture
def spool(path: Path) -> Iterator[Spool]:
    spool = Spool(path)
    yield spool
    spool.close()


def ready(spool: Spool, now: float, receiver: int = 1) -> list[str]:
    return [each.event_id for each in spool.take(receiver, now, 100)]


def seq(spool: Spool, name: str, receiver: int = 1) -> int:
    (found,) = [each.seq for each in spool.of(name) if each.receiver == receiver]
    return found


def settle(spool: Spool, name: str, what: tuple[Answer, Next], now: float) -> None:
    spool.settle(seq(spool, name), name, *what, now)


def test_nobody_else_may_read_it(spool: Spool, path: Path) -> None:
    spool.put([event("a")], 1, 0.0)
    for each in path.parent.iterdir():
        assert stat.S_IMODE(each.stat().st_mode) == 0o600, each.name
    assert len(list(path.parent.iterdir())) > 1


def test_nobody_else_may_read_a_copy_that_was_put_back(spool: Spool, path: Path) -> None:
    spool.put([event("a")], 1, 0.0)
    for each in path.parent.iterdir():
        each.chmod(0o644)
    Spool(path).close()
    assert {stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()} == {0o640}


def test_of_each_call_one_is_sent_at_a_time_in_order(spool: Spool) -> None:
    spool.put([event("a1", "a"), event("a2", "a"), event("b1", "b")], 1, 0.0)
    assert ready(spool, 1.0) == ["a1", "b1"]
    settle(spool, "a1", DELIVERED, 1.0)
    assert ready(spool, 1.0) == ["b1", "a2"] or ready(spool, 1.0) == ["a2", "b1"]


def test_what_failed_holds_up_its_call_alone_and_for_its_pause(spool: Spool) -> None:
    spool.put([event("a1", "a"), event("a2", "a"), event("b1", "b")], 1, 0.0)
    settle(spool, "a1", FAILED, 10.0)
    spool.put([event("a3", "a")], 1, 11.0)
    assert ready(spool, 69.0) == ["b1"]
    assert ready(spool, 70.0) == ["b1", "a1"]
    settle(spool, "a1", DEAD, 70.0)
    assert "a2" in ready(spool, 70.0)


def test_what_is_being_sent_is_not_given_out_again(spool: Spool) -> None:
    spool.put([event("a"), event("b"), event("c")], 1, 0.0)
    first = spool.take(1, 0.0, 2)
    busy = {each.seq for each in first}
    assert [each.event_id for each in spool.take(1, 0.0, 2, busy)] == ["c"]


def test_receivers_do_not_wait_for_each_other(spool: Spool) -> None:
    spool.put([event("a1", "a"), event("a2", "a")], 2, 0.0)
    spool.settle(seq(spool, "a1", 1), "a1", *FAILED, 0.0)
    spool.settle(seq(spool, "a1", 2), "a1", *DELIVERED, 0.0)
    assert ready(spool, 1.0, 1) == []
    assert ready(spool, 1.0, 2) == ["a2"]


def test_the_same_event_is_kept_once(spool: Spool) -> None:
    spool.put([event("a")], 1, 0.0)
    spool.put([event("a"), event("b")], 1, 1.0)
    settle(spool, "a", DELIVERED, 1.0)
    spool.put([event("a")], 1, 2.0)
    assert ready(spool, 2.0) == ["b"]


def test_a_clock_that_was_put_back_makes_nobody_wait(spool: Spool) -> None:
    spool.put([event("a")], 1, 1_000_000.0)
    settle(spool, "a", FAILED, 1_000_000.0)
    assert ready(spool, 1_000_001.0) == []
    assert ready(spool, 500.0) == ["a"]


def test_it_is_all_there_when_it_is_opened_again(path: Path) -> None:
    spool = Spool(path)
    spool.put([event("a"), event("b")], 1, 0.0)
    settle(spool, "a", FAILED, 0.0)
    spool.close()
    spool = Spool(path)
    assert ready(spool, 100.0) == ["b", "a"]
    assert spool.of("a")[0].attempts == 1
    spool.close()


def test_what_was_delivered_leaves_its_fate_and_not_its_words(spool: Spool, path: Path) -> None:
    spool.put([event("a", body=b"a secret word")], 2, 5.0)
    settle(spool, "a", DELIVERED, 7.0)
    assert spool.body("a") is not None, "the other receiver still needs it"
    spool.settle(seq(spool, "a", 2), "a", *DELIVERED, 8.0)
    assert spool.body("a") is None
    assert [(each.state, each.settled_at) for each in spool.of("a")] == [
        ("delivered", 7.0),
        ("delivered", 8.0),
    ]


def test_the_dead_can_be_sent_again(spool: Spool) -> None:
    spool.put([event("a"), event("b"), event("c")], 1, 0.0)
    for name in ("a", "b"):
        settle(spool, name, DEAD, 0.0)
    settle(spool, "c", DELIVERED, 0.0)
    assert ready(spool, 1e9) == []
    assert spool.counts().dead == 2
    assert spool.again("a") == 1
    assert ready(spool, 1.0) == ["a"]
    assert spool.again() == 2
    assert ready(spool, 1.0) == ["a", "b"]
    assert (spool.counts().waiting, spool.counts().dead) == (2, 0)


def test_what_is_deleted_is_nowhere_in_the_files(spool: Spool, path: Path) -> None:
    spool.put([event("a1", "a", b"a secret word"), event("b1", "b")], 1, 0.0)
    assert spool.forget("a") == 1
    assert ready(spool, 1.0) == ["b1"]
    assert spool.of("a") == []
    assert not any(b"secret word" in each.read_bytes() for each in path.parent.iterdir())


def test_what_comes_of_something_that_was_deleted_is_forgotten(spool: Spool) -> None:
    spool.put([event("a")], 1, 0.0)
    (being_sent,) = spool.take(1, 0.0, 1)
    spool.forget("a")
    spool.settle(being_sent.seq, being_sent.event_id, *FAILED, 1.0)
    assert spool.undelivered(10) == []


def test_what_comes_of_something_in_another_file_is_forgotten(spool: Spool, path: Path) -> None:
    """Somebody removed the file while it was being sent: numbers begin anew in the next one."""
    spool.put([event("a")], 1, 0.0)
    (being_sent,) = spool.take(1, 0.0, 1)
    other = Spool(path.with_name("next.db"))
    other.put([event("b")], 1, 0.0)
    assert seq(other, "b") == being_sent.seq
    for what in (FAILED, DELIVERED):
        other.settle(being_sent.seq, being_sent.event_id, *what, 1.0)
        assert ready(other, 1.0) == ["b"]
    other.close()


def test_receivers_that_are_gone_get_nothing_more(spool: Spool) -> None:
    spool.put([event("a")], 3, 0.0)
    spool.give_up_beyond(1, 5.0)
    assert [(each.receiver, each.state) for each in spool.of("a")] == [
        (1, "waiting"),
        (2, "dead"),
        (3, "dead"),
    ]


def test_a_full_spool_keeps_what_it_has_and_makes_room_of_what_is_settled(path: Path) -> None:
    spool = Spool(path, max_bytes=512 * 1024)
    count = 0
    with pytest.raises(sqlite3.OperationalError, match="full"):
        for count in range(1000):
            spool.put([event(f"e{count}", body=5000 * b"x")], 1, 0.0)
    assert len(ready(spool, 1.0)) == count
    assert path.stat().st_size <= 512 * 1024
    for number in range(count // 2):
        settle(spool, f"e{number}", DEAD, 1.0)
    spool.tidy(2.0)
    spool.put([event("new", body=5000 * b"x")], 1, 3.0)
    assert "new" in ready(spool, 3.0)
    assert len(ready(spool, 3.0)) == count - count // 2 + 1, "nothing that waits was dropped"
    spool.close()


def test_what_is_kept_costs_the_same_however_much_waits(spool: Spool) -> None:
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    def put(name: str) -> int:
        nonlocal steps
        steps = 0
        spool.put([event(name)], 1, 0.0)
        return steps

    spool._db.set_progress_handler(count, 1)
    few = put("first")
    spool.put([event(f"e{number}") for number in range(1000)], 1, 0.0)
    assert put("last") < 2 * few


def test_what_was_settled_long_ago_is_forgotten(spool: Spool) -> None:
    spool.put([event("a"), event("b")], 1, 0.0)
    settle(spool, "a", DELIVERED, 0.0)
    settle(spool, "b", FAILED, 0.0)
    spool.tidy(31 * 86_400.0)
    assert spool.of("a") == []
    assert ready(spool, 31 * 86_400.0) == ["b"]


def test_what_is_no_spool_is_left_alone(path: Path) -> None:
    path.write_bytes(b"notes of somebody\n" * 100)
    with pytest.raises(SpoolUnusable, match="no database"):
        Spool(path)
    assert path.read_bytes() == b"notes of somebody\n" * 100
    os.unlink(path)
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.close()
    with pytest.raises(SpoolUnusable, match="something else"):
        Spool(path)
    path.unlink()
    later = sqlite3.connect(path)
    later.execute("PRAGMA user_version = 7")
    later.close()
    with pytest.raises(SpoolUnusable, match="version 7"):
        Spool(path)


def test_the_trace_of_a_call_is_found_in_what_is_sent(spool: Spool) -> None:
    traced = b'{"call": {"traceparent": "00-1-2-01", "text": "\\u00fc \xc3\xbc"}}'
    spool.put([event("a", body=traced), event("b", body=b'{"call": null}')], 1, 0.0)
    spool.put([event("c", body=b"no JSON")], 1, 0.0)
    assert [each.traceparent for each in spool.take(1, 1.0, 100)] == ["00-1-2-01", None, None]
