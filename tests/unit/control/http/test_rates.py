from __future__ import annotations

from ari_app.control.http.access import WrongKeys
from ari_app.control.http.rates import MOST_CLIENTS, ClientRates, RequestRates


def test_each_client_has_its_own_rate() -> None:
    found = ClientRates(2.0)
    assert [found.take("a", 0.0) for _ in range(5)] == [0, 0, 0, 0, 0.5]
    assert found.take("b", 0.0) == 0
    assert [found.wait("a", 0.0), found.wait("b", 0.0), found.wait("c", 0.0)] == [0.5, 0, 0]
    assert found.take("a", 0.5) == 0


def test_no_rate_is_no_limit_and_remembers_nobody() -> None:
    found = RequestRates(0)
    assert {found.take("a", 0.0, changes=True) for _ in range(1000)} == {0.0}
    assert len(found._every) == 0


def test_so_many_clients_are_remembered_and_no_more() -> None:
    found = ClientRates(1.0)
    for number in range(MOST_CLIENTS + 10):
        found.take(str(number), 0.0)
    assert len(found) == MOST_CLIENTS


def test_what_changes_something_is_limited_harder() -> None:
    found = RequestRates(1.0)
    assert [found.take("a", 0.0, changes=True) for _ in range(3)] == [0, 0, 1.0]
    assert [found.take("a", 0.0, changes=False) for _ in range(6)] == [0, 0, 0, 0, 0, 0.25]
    assert found.take("a", 0.25, changes=False) == 0


def test_whoever_guesses_keys_has_to_wait() -> None:
    keys = WrongKeys()
    for _ in range(10):
        assert keys.wait("a", 0.0) == 0
        keys.wrong("a", 0.0)
    assert keys.wait("a", 0.0) == 1.0
    assert keys.wait("a", 1.0) == 0
    assert keys.wait("b", 0.0) == 0


def test_who_knows_the_key_is_not_locked_out_by_a_neighbour() -> None:
    keys = WrongKeys()
    keys.right("a")
    for _ in range(100):
        keys.wrong("a", 0.0)
    assert keys.wait("a", 0.0) == 0


def test_so_many_are_trusted_and_no_more() -> None:
    keys = WrongKeys()
    for number in range(MOST_CLIENTS + 10):
        keys.right(str(number))
    assert len(keys._trusted) == MOST_CLIENTS
