from __future__ import annotations

from uuid import uuid4

import pytest

from audiosocket.server import Expectations


def test_each_uuid_is_good_once() -> None:
    expectations = Expectations[int]()
    uuid = uuid4()
    assert expectations.take(uuid, now=0.0) == "unknown_uuid"
    expectations.add(uuid, 7, now=0.0, ttl=10.0)
    assert expectations.count(now=5.0) == 1
    assert expectations.take(uuid, now=5.0) == 7
    assert expectations.take(uuid, now=5.0) == "reused"
    assert expectations.count(now=5.0) == 0


def test_each_has_its_own_time() -> None:
    expectations = Expectations[int]()
    short, long = uuid4(), uuid4()
    expectations.add(long, 1, now=0.0, ttl=10.0)
    expectations.add(short, 2, now=0.0, ttl=1.0)
    assert expectations.take(short, now=1.0) == "expired"
    assert expectations.take(long, now=9.9) == 1


def test_it_can_be_expected_anew() -> None:
    expectations = Expectations[int]()
    uuid = uuid4()
    expectations.add(uuid, 1, now=0.0, ttl=1.0)
    with pytest.raises(ValueError, match="expected already"):
        expectations.add(uuid, 2, now=0.5, ttl=1.0)
    expectations.add(uuid, 3, now=1.5, ttl=1.0)
    assert expectations.take(uuid, now=2.0) == 3


def test_forgetting() -> None:
    expectations = Expectations[int]()
    uuid = uuid4()
    expectations.add(uuid, 1, now=0.0, ttl=1.0)
    assert expectations.forget(uuid)
    assert not expectations.forget(uuid)
    assert expectations.take(uuid, now=0.0) == "unknown_uuid"
    expectations.add(uuid, 1, now=0.0, ttl=1.0)
    expectations.clear()
    assert expectations.count(now=0.0) == 0


def test_what_is_remembered_is_bounded() -> None:
    expectations = Expectations[int]()
    uuids = [uuid4() for _ in range(1025)]
    for uuid in uuids:
        expectations.add(uuid, 0, now=0.0, ttl=1.0)
        expectations.take(uuid, now=0.0)
    assert expectations.take(uuids[0], now=0.0) == "unknown_uuid"
    assert expectations.take(uuids[1], now=0.0) == "reused"
