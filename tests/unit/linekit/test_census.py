from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linekit.listener import Arrival, Census, ConnectionLimits

SMALL = ConnectionLimits(
    connections=4, connections_per_address=3, half_open=3, half_open_per_address=2
)


def census(limits: ConnectionLimits = SMALL) -> Census[int]:
    return Census(limits, identify_seconds=2.0)


def test_the_oldest_of_an_address_makes_room() -> None:
    found = census()
    assert found.arrive(1, "a", now=0) == Arrival()
    assert found.arrive(2, "b", now=0) == Arrival()
    assert found.arrive(3, "a", now=0) == Arrival()
    assert found.arrive(4, "a", now=0) == Arrival(made_room=(1, "address_limit"))
    assert (found.half_open, len(found)) == (3, 3)


def test_the_oldest_of_all_makes_room() -> None:
    found = census()
    for key, address in enumerate("abc"):
        found.arrive(key, address, now=0)
    assert found.arrive(3, "d", now=0) == Arrival(made_room=(0, "limit"))


def test_who_is_identified_stays() -> None:
    found = census()
    for key, address in enumerate("aaab"):
        found.arrive(key, address, now=0)
        found.identify(key)
    assert (found.half_open, len(found)) == (0, 4)
    assert found.arrive(4, "a", now=0) == Arrival(refused="address_limit")
    assert found.arrive(5, "c", now=0) == Arrival(refused="limit")
    found.leave(0)
    found.leave(0)
    assert found.arrive(6, "c", now=0) == Arrival()


def test_time_is_up_for_the_oldest_first() -> None:
    found = census()
    found.arrive(1, "a", now=0)
    found.arrive(2, "a", now=1)
    found.arrive(3, "b", now=1.5)
    found.identify(2)
    assert [found.next_deadline, found.take_late(1.9)] == [2.0, []]
    assert found.take_late(3.5) == [1, 3]
    assert [found.next_deadline, len(found)] == [None, 1]


def test_who_has_a_whole_ipv6_network_is_one() -> None:
    found = census()
    assert found.arrive(1, "2001:db8::1", now=0) == Arrival()
    assert found.arrive(2, "2001:db8::2", now=0) == Arrival()
    assert found.arrive(3, "2001:db8::3", now=0) == Arrival(made_room=(1, "address_limit"))
    assert found.arrive(4, "2001:db8:0:1::1", now=0) == Arrival()


def test_nobody_is_let_in_where_nobody_may() -> None:
    nobody = census(ConnectionLimits(half_open=0))
    assert nobody.arrive(1, "a", now=0) == Arrival(refused="limit")


STEPS = st.lists(
    st.tuples(st.sampled_from(["arrive", "identify", "leave", "late"]), st.integers(0, 8)),
    max_size=80,
)


@given(STEPS)
def test_no_order_of_events_breaks_a_limit(steps: list[tuple[str, int]]) -> None:
    found = census()
    there: dict[int, str] = {}
    now = 0.0
    for number, (step, choice) in enumerate(steps):
        now += 0.3
        present = list(there)
        match step:
            case "arrive":
                address = "abc"[choice % 3]
                arrival = found.arrive(number, address, now=now)
                if arrival.made_room is not None:
                    del there[arrival.made_room[0]]
                if arrival.refused is None:
                    there[number] = address
            case "late":
                for key in found.take_late(now):
                    del there[key]
            case _ if present:
                key = present[choice % len(present)]
                if step == "identify":
                    found.identify(key)
                else:
                    found.leave(key)
                    del there[key]
        assert len(found) == len(there) <= SMALL.connections
        assert found.half_open <= SMALL.half_open
        for address in "abc":
            assert list(there.values()).count(address) <= SMALL.connections_per_address


@pytest.mark.parametrize("identified", [True, False])
def test_nothing_is_kept_of_who_has_left(identified: bool) -> None:
    found = census()
    found.arrive(1, "a", now=0)
    if identified:
        found.identify(1)
    found.leave(1)
    assert not found._addresses
    assert not found._per_address
    assert not found._half_open
    assert not found._half_open_by_address
