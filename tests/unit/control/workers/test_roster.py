from __future__ import annotations

from collections import Counter
from typing import NoReturn

from hypothesis import given
from hypothesis import strategies as st

from ari_app.control.workers.roster import Roster, Worker, token_of


def worker(number: int, used: int = 0, **more: bool) -> Worker:
    found = Worker(number, 100 + number, f"voice-agent.host.{number}", used=used, takes=True)
    for name, value in more.items():
        setattr(found, name, value)
    return found


def roster(*workers: Worker) -> Roster:
    found = Roster(len(workers))
    for each in workers:
        found.came(each)
    return found


def test_the_one_with_the_most_room_is_next() -> None:
    one, two, three = worker(1, used=2), worker(2, used=1), worker(3, used=1)
    found = roster(three, one, two)
    assert found.roomiest() is two
    two.promised = 1
    assert found.roomiest() is three, "what is on its way counts"
    assert found.roomiest({three}) is one
    assert found.roomiest({one, two, three}) is None
    assert [each.number for each in found] == [1, 2, 3]


def test_the_places_of_one_that_is_gone_stay_taken_until_the_next_one_has_looked() -> None:
    one, two, again = worker(1, used=2), worker(2, used=3), worker(2, takes=False)
    found = roster(one, two)
    found.went(two)
    assert found.used == 5
    found.came(again)
    found.stands(again, 1, takes=False, draining=False)
    assert found.used == 5, "it goes on with one after the other"
    found.stands(again, 2, takes=True, draining=False)
    assert found.used == 4


def test_who_takes_no_calls_is_last() -> None:
    busy, away = worker(1, used=50), worker(2, takes=False)
    drains = worker(3, takes=False, draining=True)
    found = roster(busy, away, drains)
    assert found.roomiest() is busy
    assert found.roomiest({busy}) is away
    assert found.takes
    assert found.problems() == ["worker 2 takes no calls", "worker 3 drains"]
    found.went(busy)
    assert found.roomiest() is away
    assert found.problems()[0] == "worker 1 is not there"


def test_calls_are_found_by_name_and_by_line() -> None:
    one, two = worker(1), worker(2)
    found = roster(one, two)
    found.has(one, "waiting", "1700000000.1")
    # One who waited has become a call of another name.
    found.has_not(one, "waiting")
    found.has(one, "session", "1700000000.1")
    assert found.of_session("session") is found.of_line("1700000000.1") is one
    assert found.of_session("waiting") is None
    found.has(two, "other", "1700000000.1")
    found.has_not(one, "session")
    assert found.of_line("1700000000.1") is two, "a caller who came back has another's call"
    found.went(two)
    assert found.of_session("other") is found.of_line("1700000000.1") is None


class NoLongLook(dict[str, str]):
    """The calls of a worker, all of which nobody goes through while one ends."""

    def values(self) -> NoReturn:
        raise AssertionError("there may be thousands")


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.sampled_from("abc"), st.integers(0, 1)))
)
def test_a_line_is_its_workers_until_the_last_call_on_it_has_gone(
    steps: list[tuple[bool, int, str, int]],
) -> None:
    workers = [worker(1), worker(2)]
    found = roster(*workers)
    for each in workers:
        each.sessions = NoLongLook()
    here: list[dict[str, str]] = [{}, {}]
    last: dict[str, int] = {}
    for begins, number, line, which in steps:
        session = f"s{number}"
        before = here[which].pop(session, None)
        if begins:
            found.has(workers[which], session, line)
            here[which][session] = line
        else:
            found.has_not(workers[which], session)
        if before not in here[which].values() and last.get(before or "") == which:
            del last[before or ""]
        if begins:
            last[line] = which
        for each, lines in zip(workers, here, strict=True):
            assert each.lines == Counter(lines.values())
            assert dict(each.sessions.items()) == lines
        for name in "abc":
            assert found.of_line(name) is (workers[last[name]] if name in last else None)


def test_a_worker_that_comes_again_has_nothing_yet() -> None:
    old, new = worker(1, used=4), worker(1)
    found = roster(old)
    found.has(old, "session", "line")
    found.came(new)
    assert found.of_session("session") is None
    assert found.numbered(1) is new
    found.went(old)
    assert found.numbered(1) is new, "what is told of the old one says nothing of the new"


def test_calls_of_one_that_is_lost_are_awaited_until_the_next_one_has_looked() -> None:
    roster, lost, drained = Roster(2), worker(1, 2), worker(2)
    for each, session in ((lost, "a"), (lost, "b"), (drained, "c")):
        roster.came(each)
        roster.has(each, session, f"line-{session}")
    roster.stands(drained, 0, takes=False, draining=True)
    roster.went(lost)
    roster.went(drained)
    assert [roster.is_awaited(name) for name in ("a", "line-b", "c", "d")] == [
        True,
        True,
        False,
        False,
    ]
    assert dict(roster.sessions()) == {"a": "line-a", "b": "line-b"}
    # One that is lost at once, too, has told of nothing.
    for _ in range(2):
        after = worker(1)
        roster.came(after)
        roster.went(after)
    roster.came(after := worker(1))
    roster.has(after, "a", "line-a")
    assert not roster.stands(after, 1, takes=False, draining=False)
    assert roster.is_awaited("b") and roster.of_session("a") is after
    assert roster.stands(after, 1, takes=True, draining=False)
    assert not roster.is_awaited("b")
    assert dict(roster.sessions()) == {"a": "line-a"}
    assert not roster.stands(after, 1, takes=True, draining=False), "nothing new"


def test_nobody_is_awaited_where_lost_workers_are_not_replaced() -> None:
    roster, one, two = Roster(2), worker(1, 1), worker(2, 1)
    for each in (one, two):
        roster.came(each)
        roster.has(each, f"of {each.number}", "")
    roster.went(one)
    roster.ends()
    roster.went(two)
    assert not roster.is_awaited("of 1")
    assert not roster.is_awaited("of 2")


def test_tokens_and_channels_lead_to_their_worker() -> None:
    one, two = worker(1), worker(12)
    found = roster(one, two)
    assert found.of_token(token_of(12, "secret")) is two
    for token in ("secret", "13.secret", "x.secret", ".secret", "1" * 100, "²."):
        assert found.of_token(token) is None
    assert found.of_channel("voice-agent.host.12-out-session") is two
    assert found.of_channel("voice-agent.host.1-out-session") is one
    assert found.of_channel("1700000000.1") is None
