from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ari_app.control.cluster.lease import TTL, FrontLease, Grant, Standing
from ari_app.control.cluster.view import Machine, View, choose


def held(at: float = 0.0, token: int = 1) -> FrontLease:
    lease = FrontLease("a/1")
    lease.answered(at, Grant("a/1", token))
    return lease


def test_it_is_good_from_when_it_was_asked_for() -> None:
    lease = held(at=10.0)
    assert lease.may_act(10.0 + TTL - 0.01)
    # Ours as far as we know, and yet nothing may be done: we have not run for a while.
    assert not lease.may_act(10.0 + TTL)
    assert lease.is_ours


def test_another_run_of_the_same_machine_does_not_hold_it() -> None:
    lease = FrontLease("a/2")
    lease.answered(0.0, Grant("a/1", 1))
    assert not lease.is_ours


def test_the_holder_goes_on_alone_while_the_store_is_away() -> None:
    lease = held()
    for second in range(1, 11):
        lease.unanswered(float(second))
        assert lease.may_act(second + 1.0)
    assert lease.standing is Standing.ALONE
    # Frozen meanwhile, it has to ask again before it acts.
    assert not lease.may_act(20.0)


def test_who_never_held_it_does_not_begin_alone() -> None:
    lease = FrontLease("a/1")
    lease.unanswered(1.0)
    assert not lease.is_ours


def test_what_the_store_has_given_to_another_is_lost() -> None:
    lease = held(token=3)
    lease.unanswered(1.0)
    lease.answered(2.0, Grant("b/1", 4))
    assert lease.standing is Standing.OTHERS
    assert not lease.may_act(2.0)


def test_an_answer_that_was_overtaken_takes_nothing_away() -> None:
    lease = held(token=5)
    lease.answered(0.5, Grant("b/1", 4))
    assert lease.standing is Standing.HOLDS


def test_who_has_just_found_the_store_again_lets_the_last_holder_go_first() -> None:
    lease = FrontLease("a/1")
    lease.answered(0.0, Grant("b/1", 1))
    lease.unanswered(5.0)
    lease.answered(10.0, Grant("", 0))
    assert not lease.may_want(10.3, others=True)
    assert lease.may_want(10.0 + TTL, others=True)
    # Nobody else can have had it.
    assert lease.may_want(10.3, others=False)


@given(
    st.lists(
        st.tuples(st.floats(0.01, 3.0), st.sampled_from(["mine", "theirs", "nobody", "away"])),
        max_size=30,
    )
)
def test_nobody_acts_on_a_lease_that_another_was_given(steps: list[tuple[float, str]]) -> None:
    lease, now, token = FrontLease("a/1"), 0.0, 0
    theirs = False
    for pause, answer in steps:
        now += pause
        match answer:
            case "away":
                lease.unanswered(now)
                continue
            case "mine":
                token, theirs = token + (not lease.is_ours), False
                lease.answered(now, Grant("a/1", token))
            case _:
                token, theirs = token + 1, True
                lease.answered(now, Grant("b/1" if answer == "theirs" else "", token))
        assert lease.may_act(now) is not theirs


def machine(name: str, room: int = 5, asterisk: str = "one", *, ready: bool = True) -> Machine:
    return Machine(name, "1", f"http://{name}:8080", asterisk, room, 0, ready)


def test_the_machine_with_most_room_gets_a_call() -> None:
    machines = [machine("a", 2), machine("b", 4), machine("c", 9, "two"), machine("d", 0)]
    machines.append(machine("e", 9, ready=False))
    assert [each.name for each in choose(machines, "one", {})] == ["b", "a"]
    # What was given to one since it told its room counts.
    assert [each.name for each in choose(machines, "one", {"b": 3})] == ["a", "b"]
    assert [each.name for each in choose(machines, "one", {"b": 4})] == ["a"]


@given(st.sets(st.text("abc", min_size=1, max_size=3), min_size=1), st.integers(1, 1000))
def test_the_shares_add_up_to_the_limit(names: set[str], limit: int) -> None:
    view = View()
    view.update([machine(name) for name in names], 0, 0.0)
    assert sum(view.share(name, limit) for name in names) == limit


def test_after_a_time_without_the_store_nobody_is_taken_for_gone_at_once() -> None:
    view = View()
    view.update([machine("a"), machine("b")], 0, 0.0)
    assert [each.name for each in view.update([machine("a")], 0, 10.0)] == ["b"]
    view.update([machine("a"), machine("b")], 0, 11.0)
    view.reachable = False
    assert view.update([machine("a")], 0, 20.0) == []
    assert set(view.machines) == {"a", "b"}
    assert [each.name for each in view.update([machine("a")], 0, 20.0 + 2 * TTL)] == ["b"]


def test_a_machine_reads_what_it_has_written_and_nothing_else() -> None:
    told = machine("a")
    assert Machine.from_json(told.to_json()) == told
    assert Machine.from_json(b'{"name": "a"}') is None
    assert Machine.from_json(b"garbage") is None
    assert Machine.from_json(b"[]") is None
