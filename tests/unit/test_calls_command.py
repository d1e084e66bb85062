"""`ari-app calls`, with a real call log behind it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console

from ari_app.commands.calls import call_filter, list_calls, show_call
from ari_app.errors import AppError, ConfigError
from ari_app.records.document import call_document
from ari_app.records.events import KeysPressed, Noted, Said, ToolRan
from ari_app.records.findings import why
from ari_app.records.record import Leg
from ari_app.records.store.log import CallLog
from ari_app.records.store.query import CallFilter
from tests.unit.call.test_reasons import documented
from tests.unit.control.http.fake_service import end, talking
from tests.unit.settings_maker import settings_maker

HOSTILE = "\x1b[2J[red]\nboo"
Say = Callable[..., str]


def document(number: int, **changes: Any) -> dict[str, Any]:
    record = talking(f"s{number}", way="asterisk")
    end(record, "FAILED", "agent_silent")
    record.answered_at, record.seconds = record.started_at, 70.0
    record.converses(f"conv_{number}")
    record.legs = [Leg("caller", "+493023125002", 0.0, 1.0, 70.0, cause=16)]
    record.chronicle.sound_began(1.0)
    record.chronicle.hears(1, 1.0, 5.0)
    record.fold(Said("agent", "Hello, who is it?", event_id=1), 1.0)
    record.chronicle.interrupted(3.0, 1)
    record.fold(Said("caller", HOSTILE, began=3.0, until=4.0), 4.5)
    ran = ToolRan("", name="look_up", arguments={"id": 7}, result="gone", is_error=True, seconds=1)
    record.fold(ran, 61.0)
    record.fold(KeysPressed("12"), 62.0)
    record.fold(Noted("the caller holds"), 65.0)
    moment = f"2025-01-01T00:00:{number:02}.000000Z"
    return {**call_document(record), "started_at": moment, **changes}


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Say:
    """Run a command on a log with five calls; what it prints."""
    monkeypatch.setattr("ari_app.commands.calls.set_up_logging", lambda *_: None)
    url = f"sqlite+aiosqlite:///{tmp_path}/calls.db"
    settings = settings_maker(monkeypatch, tmp_path)(database_url=url)

    async def run(command: Callable[..., Any], *given: Any, **more: Any) -> str:
        async with CallLog(url) as call_log:
            for number in range(5):
                changes = {"direction": "out", "status": "COMPLETED"} if number == 3 else {}
                call_log.keep(document(number, **changes))
            await call_log.settle()
        shown = StringIO()
        await command(settings, *given, Console(file=shown, width=110), **more)
        return shown.getvalue()

    return lambda *given, **more: asyncio.run(run(*given, **more))


def test_a_list(say: Say) -> None:
    head, *rows, last = say(list_calls, CallFilter(), 3, as_json=False).splitlines()
    assert head.split()[:4] == ["began", "(UTC)", "session", "who"]
    assert [row.split()[2] for row in rows] == ["s4", "s3", "s2"]
    assert "2025-01-01 00:00:04" in rows[0]
    assert "← +493023125002" in rows[0]
    assert "FAILED agent_silent" in rows[0]
    assert "→ +493023125001" in rows[1]
    assert "1:10.0" in rows[0]
    assert last == "Calls: 3, and there are more: --limit."


def test_what_is_looked_for(say: Say) -> None:
    wanted = call_filter({"status": "COMPLETED", "from": "2025-01-01", "text": None})
    told = say(list_calls, wanted, 10, as_json=True)
    assert orjson.loads(told) == document(3, direction="out", status="COMPLETED")
    assert say(list_calls, CallFilter(agent_id="x"), 10, as_json=False) == "Calls: 0.\n"


def test_a_call(say: Say) -> None:
    told = say(show_call, "s2", as_json=False)
    for line in (
        "Call s2",
        "  conversation  conv_2",
        "  ✗ FAILED (agent_silent). The agent said nothing, and not when it was told so either.",
        "  ✗ The tool look_up failed: gone",
        "  ✗ The call failed: agent_silent (-30)",
        "    0:01.0 agent   Hello, who is it? [interrupted] [heard: Hello, …] (until 0:03.0)",
        r"    0:03.0 caller  \x1b[2J[red]\nboo (until 0:04.0)",
        "    1:00.0 tool    look_up(id=7) failed in 1.0 s: gone",
        "    1:02.0 keys    12",
        "    1:05.0 note    the caller holds",
        "    1:10.0 leg     caller +493023125002 has left (cause 16)",
        "  frames_not_read          3",
    ):
        assert line in told.splitlines()
    assert "\x1b" not in told
    assert say(show_call, "conv_2", as_json=False) == told
    assert orjson.loads(say(show_call, "s2", as_json=True)) == document(2)


def test_a_call_that_is_not_there(say: Say) -> None:
    with pytest.raises(ConfigError, match="has no call s9"):
        say(show_call, "s9", as_json=False)


def test_the_beginning_of_a_session(say: Say, tmp_path: Path) -> None:
    names = ["5d0c41", "5d0c42", "6159", "6159ab", *(f"many%{number}" for number in range(6))]

    async def keep() -> None:
        async with CallLog(f"sqlite+aiosqlite:///{tmp_path}/calls.db") as call_log:
            for number, name in enumerate(names):
                call_log.keep(document(10 + number, session_id=name, conversation_ids=[]))
            await call_log.settle()

    asyncio.run(keep())
    for name, whole in (("5d0c41…", "5d0c41"), ("6159", "6159"), ("6159a", "6159ab")):
        assert f"Call {whole}\n" in say(show_call, name, as_json=False)
    for name, told in (
        ("5d0c", "Several begin with 5d0c: 5d0c41, 5d0c42."),
        ("5d0c…", "Several begin with 5d0c: 5d0c41, 5d0c42."),
        ("many", "many%0, many%1, many%2, many%3, many%4, and more."),
        ("615", "has no call 615"),
        ("____", "has no call ____"),
        ("5D0C41", "has no call 5D0C41"),
    ):
        with pytest.raises(ConfigError, match=re.escape(told)):
            say(show_call, name, as_json=False)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", "DATABASE_URL is empty"),
        ("sqlite:///nowhere.db", "no call has been kept there yet"),
        ("sqlite:///{folder}/nowhere.db", "no call has been kept there yet"),
    ],
)
async def test_no_call_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str, sentence: str
) -> None:
    settings = settings_maker(monkeypatch, tmp_path)(database_url=url.format(folder=tmp_path))
    with pytest.raises(ConfigError, match=sentence) as refused:
        await list_calls(settings, CallFilter(), 1, Console(), as_json=False)
    if url:
        assert f"There is no {tmp_path}/nowhere.db: " in str(refused.value)
        assert ("that of `serve`" in str(refused.value)) is (url == "sqlite:///nowhere.db")
    assert not (tmp_path / "nowhere.db").exists()


async def test_a_call_log_that_cannot_be_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/{'x' * 300}.db"
    settings = settings_maker(monkeypatch, tmp_path)(database_url=url)
    monkeypatch.setattr("ari_app.commands.calls.set_up_logging", lambda *_: None)
    with pytest.raises(AppError, match="The call log's database"):
        await list_calls(settings, CallFilter(), 1, Console(), as_json=False)


def test_options_that_cannot_be_meant() -> None:
    with pytest.raises(ConfigError) as refused:
        call_filter({"from": "yesterday", "status": "x", "agent_id": "a" * 200, "to": ""})
    assert "--from must be a date or a time" in str(refused.value)
    assert "--status must be COMPLETED, TRANSFER" in str(refused.value)
    assert "--agent must be at most 128 characters long" in str(refused.value)


def test_of_every_call_that_failed_something_is_said() -> None:
    """Where no sentence fits, where to look; a caller's own word needs none."""
    told = {
        (status, reason): why(document(1, status=status, reason=reason))
        for status in ("FAILED", "COMPLETED")
        for reason in (*documented(), "customer_paid")
    }
    assert told["FAILED", "media_channel_gone"].endswith("`ari-app check` tries its way.")
    assert told["FAILED", "agent_not_found"].startswith("ElevenLabs knows no such agent")
    assert told["FAILED", "line_silent"] == "See docs/agent.md#reasons."
    assert told["COMPLETED", "customer_paid"] == ""
    assert all(told["FAILED", reason] for reason in documented())
