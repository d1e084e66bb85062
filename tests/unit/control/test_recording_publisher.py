"""What becomes known of recordings while the call log cannot be asked, or lacks the call."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from ari_app.control import recording_publisher as module
from ari_app.control.recording_publisher import RecordingPublisher
from ari_app.records.store.log import CallLogUnavailable
from tests.waiting import until

FOUND = {"path": "2026-11-28/153012-1-s1.2.flac", "format": "flac", "bytes": 5}
PARTS = [
    {"path": "2026-11-28/153012-1-s1.flac", "format": "flac", "bytes": 9, "from": 0.0},
    {"path": "2026-11-28/153012-1-s1.2.wav", "format": "wav", "bytes": 44, "from": 7.0},
]


class Log:
    """A call log that answers so, one after the other; the last one for ever."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.amended: list[Any] = []

    async def settle(self) -> None:
        pass

    async def find(self, session_id: str) -> Any:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def amend(self, session_id: str, part: str, value: Any) -> None:
        self.amended.append(value)


class Outbox:
    def __init__(self) -> None:
        self.told: list[Any] = []

    def recorded(self, document: Any, part: Any) -> None:
        self.told.append(part)


AWAY = CallLogUnavailable("It is away.")


@pytest.mark.parametrize("answers", [[AWAY] * 5, [None] * 3])
@pytest.mark.parametrize("is_ready", [False, True])
async def test_what_is_known_of_other_recordings_stays(
    answers: list[Any], is_ready: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_ASK_AGAIN_SECONDS", "_MERGE_AGAIN_SECONDS"):
        monkeypatch.setattr(module, name, 0.001)
    log, outbox = Log(*answers, {"recordings": PARTS}), Outbox()
    calls: Any = SimpleNamespace(records={})
    publisher = RecordingPublisher(lambda: calls, lambda record: {}, log, outbox)  # type: ignore[arg-type]
    publisher.changed("s1", [FOUND], [FOUND] if is_ready else [])
    await until(lambda: log.amended)
    assert log.amended == [[PARTS[0], {**PARTS[1], **FOUND}]]
    assert [part["path"] for part in outbox.told] == [FOUND["path"]] * is_ready
    await publisher.all_told()


async def test_what_is_told_later_counts_whoever_finds_the_call_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_ASK_AGAIN_SECONDS", 0.001)
    log = Log(None, None, None, {"recordings": PARTS})
    calls: Any = SimpleNamespace(records={})
    publisher = RecordingPublisher(lambda: calls, lambda record: {}, log, None)  # type: ignore[arg-type]
    publisher.changed("s1", [PARTS[1]], [])
    publisher.changed("s1", [FOUND], [FOUND])
    await publisher.all_told()
    assert log.amended == [[PARTS[0], {**PARTS[1], **FOUND}]]


async def test_the_end_does_not_wait_for_a_call_log_that_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log(AWAY)
    calls: Any = SimpleNamespace(records={})
    publisher = RecordingPublisher(lambda: calls, lambda record: {}, log, None)  # type: ignore[arg-type]
    publisher.changed("s1", [FOUND], [])
    await until(lambda: publisher._waiting)
    await publisher.all_told()
    await asyncio.sleep(0)
    assert (log.amended, publisher._waiting) == ([], set())
