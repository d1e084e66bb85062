from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.process.supervisor.policy import (
    LOST_CALLS,
    Exit,
    Kill,
    Limits,
    Mode,
    Order,
    Standing,
    Start,
    Supervision,
    name_of_end,
)

LIMITS = Limits()


def supervision(now: float = 100.0, limits: Limits = LIMITS) -> Supervision:
    """One whose first worker has just been started."""
    found = Supervision(limits, now)
    assert found.next_action(now) == Start(Mode.FIRST, 0)
    found.started(now)
    return found


def serving(now: float = 100.0, limits: Limits = LIMITS) -> Supervision:
    found = supervision(now, limits)
    found.beat(Standing.SERVING, now)
    return found


def deadline_of(found: Supervision) -> float | None:
    """The deadline now; the type checker would hold on to what it was."""
    return found.deadline


# --- the end of a worker


@pytest.mark.parametrize("code", [0, 1, 2, 130])
def test_what_the_first_worker_says_before_it_serves_is_final(code: int) -> None:
    found = supervision()
    found.beat(Standing.STARTING, 100.1)
    assert found.ended(code, 100.2) is False
    assert found.next_action(100.2) == Exit(code)


def test_the_first_worker_is_killed_before_it_serves() -> None:
    found = supervision()
    assert found.ended(-9, 100.2) is True
    assert found.next_action(100.2) == Start(Mode.FIRST, 1)


def test_one_that_is_done_is_not_started_again() -> None:
    found = serving()
    assert found.ended(0, 200.0) is False
    assert found.next_action(200.0) == Exit(0)


def test_one_of_several_that_is_done_is_started_again() -> None:
    found = Supervision(LIMITS, 100.0, stays=True)
    found.started(100.0)
    found.beat(Standing.SERVING, 100.0)
    assert found.serving
    assert found.ended(0, 200.0) is False
    assert found.next_action(200.0) == Start(Mode.AGAIN, 0), "it was not lost"
    found.started(200.0)
    found.stop(201.0)
    found.ended(0, 202.0)
    assert found.done


def test_one_of_several_whose_application_another_has_is_not() -> None:
    found = Supervision(LIMITS, 100.0, stays=True)
    found.started(100.0)
    found.beat(Standing.REPLACED, 100.0)
    found.ended(0, 200.0)
    assert found.next_action(200.0) == Exit(0)


def test_a_front_that_is_lost_while_it_is_to_end_leaves_nothing() -> None:
    found = Supervision(LIMITS, 100.0, stays=True, leaves_calls=False)
    found.started(100.0)
    found.beat(Standing.SERVING, 100.0)
    found.stop(101.0)
    assert found.ended(-9, 102.0) is True
    assert found.next_action(102.0) == Exit(0)


@pytest.mark.parametrize("code", [-9, -11, 1, 2])
def test_one_that_is_lost_is_replaced_at_once(code: int) -> None:
    found = serving()
    assert found.ended(code, 200.0) is True
    assert found.next_action(200.0) == Start(Mode.AGAIN, 1)


def test_a_crash_loop_slows_down() -> None:
    found = serving()
    now, waits = 100.0, []
    for _ in range(9):
        now += 0.5
        found.ended(2, now)
        deadline = found.deadline
        assert deadline is not None
        waits.append(deadline - now)
        assert found.next_action(deadline - 0.001) is None
        now = deadline
        assert isinstance(found.next_action(now), Start)
        found.started(now)
    assert waits == [0, 0, 1, 2, 4, 8, 16, 30, 30]
    assert found.restarts == 9


def test_who_has_served_for_a_while_is_no_part_of_a_crash_loop() -> None:
    found = serving()
    for now in (101.0, 102.0):
        found.ended(-9, now)
        found.started(now)
        found.beat(Standing.SERVING, now)
    found.ended(-9, 102.0 + LIMITS.steady)
    assert found.next_action(102.0 + LIMITS.steady) == Start(Mode.AGAIN, 3)


def test_a_lost_one_whose_application_another_has_is_not_replaced() -> None:
    found = serving()
    found.beat(Standing.REPLACED, 101.0)
    assert found.ended(-9, 102.0) is True
    assert found.next_action(102.0) == Exit(LOST_CALLS)


# --- the heartbeat


def test_one_that_stalls_is_killed_once_and_replaced() -> None:
    found = serving(100.0)
    assert found.deadline == 100.0 + LIMITS.stall
    assert found.next_action(101.9) is None
    assert found.next_action(102.0) == Kill()
    assert found.next_action(102.1) is None
    assert deadline_of(found) is None, "its end is waited for"
    found.ended(-9, 102.2)
    assert found.next_action(102.2) == Start(Mode.AGAIN, 1)


def test_every_beat_counts() -> None:
    found = serving(100.0)
    for tenth in range(1, 100):
        now = 100.0 + tenth / 10
        assert found.next_action(now) is None
        found.beat(Standing.SERVING, now)


def test_before_the_first_beat_there_is_more_time() -> None:
    found = supervision(100.0)
    assert found.next_action(100.0 + LIMITS.start - 0.1) is None
    assert found.next_action(100.0 + LIMITS.start) == Kill()


def test_a_parent_that_was_held_up_itself_grants_another_period_once() -> None:
    found = serving(100.0)
    assert found.next_action(160.0) is None
    assert found.deadline == 160.0 + LIMITS.stall
    assert found.next_action(200.0) == Kill()


def test_a_beat_earns_the_next_excuse() -> None:
    found = serving(100.0)
    assert found.next_action(160.0) is None
    found.beat(Standing.SERVING, 160.1)
    assert found.next_action(200.0) is None


def test_one_that_ends_has_its_time_too() -> None:
    found = serving(100.0)
    found.closed(101.0)
    assert found.next_action(101.0 + LIMITS.end - 0.1) is None
    assert found.next_action(101.0 + LIMITS.end) == Kill()


def test_the_watch_can_be_switched_off() -> None:
    found = serving(100.0, Limits(stall=0))
    found.beat(Standing.SERVING, 101.0)
    assert found.deadline is None
    found.closed(102.0)
    assert found.next_action(1e9) is None


# --- stopping


def test_the_first_wish_drains_and_the_second_ends() -> None:
    found = serving()
    assert found.stop(101.0) is Order.DRAIN
    assert found.stop(102.0) is Order.END
    assert found.stop(103.0) is Order.END
    assert found.ended(0, 104.0) is False
    assert found.next_action(104.0) == Exit(0)


@pytest.mark.parametrize("code", [-9, 1, 2])
def test_calls_of_one_that_is_lost_while_it_drains_are_given_back(code: int) -> None:
    found = serving()
    found.stop(101.0)
    assert found.ended(code, 102.0) is True
    assert found.next_action(102.0) == Start(Mode.MEND, 0)
    found.started(102.0)
    found.ended(0, 103.0)
    assert found.next_action(103.0) == Exit(LOST_CALLS)


def test_a_mending_that_fails_is_not_tried_again() -> None:
    found = serving()
    found.stop(101.0)
    found.ended(-9, 102.0)
    found.started(102.0)
    assert found.next_action(102.0 + LIMITS.start) == Kill()
    found.ended(-9, 120.0)
    assert found.next_action(120.0) == Exit(LOST_CALLS)


def test_a_wish_to_stop_between_two_workers_mends_at_once() -> None:
    found = serving()
    for now in (101.0, 101.2):
        found.ended(2, now)
        found.started(now)
    found.ended(2, 101.5)
    assert found.next_action(101.5) is None
    assert found.stop(101.6) is None
    assert found.stop(101.7) is None
    assert found.next_action(101.7) == Start(Mode.MEND, 3)


def test_a_wish_to_stop_before_anything_was_served() -> None:
    found = supervision()
    found.ended(-9, 100.5)
    assert found.stop(100.6) is None
    assert found.next_action(100.6) == Exit(LOST_CALLS)


def test_the_first_worker_is_killed_while_it_starts_and_is_to_stop() -> None:
    found = supervision()
    assert found.stop(100.1) is Order.DRAIN
    found.ended(-15, 100.2)
    assert found.next_action(100.2) == Exit(LOST_CALLS)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["beat", "replaced", "closed", "killed", "code", "done", "stop", "wait"]),
        st.floats(0, 40),
    ),
    max_size=40,
)


@given(STEPS)
def test_in_no_order_of_things_are_there_two_workers_or_none_for_long(
    steps: list[tuple[str, float]],
) -> None:
    found, now, up, over = Supervision(LIMITS, 0.0), 0.0, False, False
    for what, seconds in steps:
        if not over:
            match found.next_action(now):
                case Start():
                    assert not up
                    found.started(now)
                    up = True
                case Kill():
                    assert up
                    found.ended(-9, now)
                    up = False
                case Exit():
                    assert not up
                    over = True
                case None:
                    deadline = found.deadline
                    assert up or (deadline is not None and now < deadline <= now + 30)
        now += seconds
        match what:
            case "beat" if up:
                found.beat(Standing.SERVING, now)
            case "replaced" if up:
                found.beat(Standing.REPLACED, now)
            case "closed" if up:
                found.closed(now)
            case "killed" | "code" | "done" if up:
                found.ended({"killed": -9, "code": 2, "done": 0}[what], now)
                up = False
            case "stop" if not over:
                found.stop(now)
            case _:
                pass


@pytest.mark.parametrize(
    ("code", "name"),
    [(-9, {"signal": "SIGKILL"}), (2, {"code": 2}), (-200, {"signal": 200})],
    ids=str,
)
def test_the_name_of_an_end(code: int, name: dict[str, int | str]) -> None:
    assert name_of_end(code) == name
