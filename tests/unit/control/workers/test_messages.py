from __future__ import annotations

import orjson
import pytest

from ari_app.control.workers.messages import (
    Enter,
    Has,
    Hello,
    Offer,
    Room,
    Spending,
    as_message,
    read,
)


@pytest.mark.parametrize(
    "told",
    [
        Hello(2, 4711, "voice-agent.host.2"),
        Room(3, takes=True),
        Has("session", "1700000000.1"),
        Enter(7, paced=True, wait_seconds=2.5),
        Offer(1, "1700000000.1", anyhow=True),
        Spending("2026-11-29", {}, ["over"], gone=1, anew=True, more=True, worker=3),
    ],
    ids=lambda told: type(told).__name__,
)
def test_what_is_told_arrives(told: Hello | Room | Has | Enter | Offer | Spending) -> None:
    assert read(orjson.loads(orjson.dumps(as_message(told)))) == told


def test_another_version_may_say_more_and_less() -> None:
    assert read({"kind": "Room", "used": 1, "takes": True, "mood": "good"}) == Room(1, takes=True)
    assert read({"kind": "Offer", "offer": 1, "channel": "c"}) == Offer(1, "c")
    assert read({"kind": "Room"}) is None
    assert read({"kind": "Spending", "worker": 1, "counted": {}}) is None
    assert read({"kind": "Adopt", "session_id": "s"}) is None
    assert read({}) is None
