from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from typing import Any, TextIO

import pytest
import structlog
from aiohttp.http_exceptions import BadStatusLine

from ari_app.process import logs
from ari_app.process.logs import Number, close_log, mask_number, set_up_logging

SECRET = "sk_of_nobody"
NUMBER = "+493023125001"


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    libraries = {
        name: logging.getLogger(name).level for name in ("websockets", "aiohttp", "asyncio")
    }
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in libraries.items():
        logging.getLogger(name).setLevel(before)
    structlog.reset_defaults()


def fail(key: str, number: str) -> None:
    hidden = f"{key} of {number}"
    raise RuntimeError(f"{len(hidden)} characters")


def written(capsys: pytest.CaptureFixture[str]) -> str:
    close_log()
    out, err = capsys.readouterr()
    assert out == "", "standard output belongs to what was asked for"
    return err


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        ("+493023125001", "*001"),
        ("+49 (30) 23125-001", "*001"),
        ("12345", "*345"),
        ("sip:493023125001@example.org", "*001"),
        ("101", "101"),
        ("1234", "1234"),
        ("anonymous", "anonymous"),
        ("", ""),
    ],
)
def test_a_number_shows_its_last_three_digits(number: str, shown: str) -> None:
    assert mask_number(number) == shown


def test_every_line_of_json_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("INFO", "json")
    log = structlog.get_logger("some.module").bind(session="5")
    log.info("call_ended", reason='a "quoted"\nword', seconds=1.5, call="ä")
    log.debug("not_shown")
    try:
        fail(SECRET, NUMBER)
    except RuntimeError:
        log.exception("call_failed")
    logging.getLogger("somebody.elses").warning("beware of %s", "dogs")
    lines = [json.loads(line) for line in written(capsys).splitlines()]
    assert [line["event"] for line in lines] == ["call_ended", "call_failed", "beware of dogs"]
    assert [line["level"] for line in lines] == ["info", "error", "warning"]
    assert lines[0] | {"timestamp": ""} == {
        "event": "call_ended",
        "level": "info",
        "session": "5",
        "reason": 'a "quoted"\nword',
        "seconds": 1.5,
        "call": "ä",
        "timestamp": "",
    }
    assert all(line["timestamp"].endswith("Z") for line in lines)
    (failure,) = lines[1]["exception"]
    assert (failure["exc_type"], failure["exc_value"]) == ("RuntimeError", "29 characters")
    assert [frame["name"] for frame in failure["frames"]][-1] == "fail"


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_no_values(capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    set_up_logging("DEBUG", log_format)
    try:
        fail(SECRET, NUMBER)
    except RuntimeError as error:
        structlog.get_logger("one").exception("call_failed")
        structlog.get_logger("two").error("call_failed", exc_info=error)
        logging.getLogger("somebody.elses").exception("as_it_does")
    text = written(capsys)
    assert text.count("29 characters") == 3
    assert "in fail" in text or '"fail"' in text
    assert SECRET not in text
    assert NUMBER not in text


def test_the_console_is_plain_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("INFO", "console")
    structlog.get_logger("some.module").info("call_ended", reason="caller_hung_up")
    text = written(capsys)
    assert "call_ended" in text and "reason=caller_hung_up" in text
    assert "\x1b" not in text


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR"])
def test_what_is_below_the_level_is_left_out(
    capsys: pytest.CaptureFixture[str], level: str
) -> None:
    set_up_logging(level, "json")
    log: Any = structlog.get_logger("some.module")
    levels = ["debug", "info", "warning", "error"]
    for name in levels:
        getattr(log, name)(name)
        getattr(logging.getLogger("somebody.elses"), name)(f"other {name}")
    expected = levels[levels.index(level.lower()) :]
    said = [json.loads(line)["event"] for line in written(capsys).splitlines()]
    assert said == [word for name in expected for word in (name, f"other {name}")]


def test_libraries_never_show_whole_messages(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("DEBUG", "json")
    for name in (
        "websockets.client",
        "websockets.server",
        "aiohttp.client",
        "asyncio",
    ):
        logging.getLogger(name).debug("> GET /?conversation_signature=%s", SECRET)
    for name in ("aiosqlite", "asyncpg.pool", "sqlalchemy.engine.Engine"):
        logging.getLogger(name).debug("executing INSERT INTO calls %s", SECRET)
        logging.getLogger(name).info("INSERT INTO calls %s", SECRET)
    assert written(capsys) == ""


def test_a_request_that_is_not_http_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("DEBUG", "json")
    server = logging.getLogger("aiohttp.server")
    try:
        raise BadStatusLine(f"GET /?key={SECRET}")
    except BadStatusLine as error:
        server.error(f"Error handling request from {NUMBER}", exc_info=error)
    try:
        raise RuntimeError("ours")
    except RuntimeError as error:
        server.error("Error handling request", exc_info=error)
    first, second = (json.loads(line) for line in written(capsys).splitlines())
    assert first["event"] == "not HTTP: BadStatusLine"
    assert first["level"] == "error"
    assert SECRET not in str(first) and "exception" not in first
    assert second["exception"][0]["exc_value"] == "ours"


def test_setting_up_twice_does_not_say_everything_twice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_up_logging()
    set_up_logging("INFO", "json")
    structlog.get_logger("some.module").info("once")
    assert len(written(capsys).splitlines()) == 1


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_what_others_chose_stays_on_its_line_and_within_bounds(
    capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    set_up_logging("INFO", log_format)
    hostile = "a\n2026 [error] forged\x1b[2J\x9b31m\u2028\u202e\ud800" + "x" * 10_000
    log = structlog.get_logger("some.module")
    log.info("call_entered", name=hostile, names=[hostile[:60]])
    try:
        raise ValueError(hostile[:60])
    except ValueError:
        log.exception("call_failed")
    text = written(capsys)
    assert not {"\x1b", "\x9b", "\u2028", "\u202e", "\ud800"} & set(text)
    assert not [line for line in text.splitlines() if line.startswith("2026 ")]
    assert len(text) < 8000
    assert "characters)" in text


@pytest.mark.parametrize(("style", "shown"), [("masked", "*001"), ("full", NUMBER)])
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_numbers_are_masked_unless_they_are_asked_for(
    capsys: pytest.CaptureFixture[str], log_format: str, style: logs.NumberStyle, shown: str
) -> None:
    assert repr(Number(NUMBER)) == str(Number(NUMBER)) == "*001"
    set_up_logging("INFO", log_format, style)
    structlog.get_logger("some.module").info("call_entered", caller=Number(NUMBER))
    text = written(capsys)
    assert shown in text
    assert (NUMBER in text) is (style == "full")


def test_lines_that_nobody_took_are_counted_and_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stalled = threading.Event()
    show = logs._show

    def show_later(stream: TextIO, data: bytes) -> None:
        stalled.wait()
        show(stream, data)

    monkeypatch.setattr(logs, "_show", show_later)
    set_up_logging("INFO", "json")
    log = structlog.get_logger("some.module")
    for _ in range(50_000):
        log.info("call_entered", text="x" * 900)
        if logs.lines_dropped():
            break
    assert logs.lines_dropped() == 1
    stalled.set()
    lines = [json.loads(line) for line in written(capsys).splitlines()]
    told = [line for line in lines if line["event"] == "log_lines_dropped"]
    assert [(line["lines"], line["level"]) for line in told] == [(1, "warning")]


def test_without_a_thread(capfd: pytest.CaptureFixture[str]) -> None:
    before = set(threading.enumerate())
    set_up_logging("INFO", "json", in_thread=False)
    structlog.get_logger("some.module").info("worker_died", signal="SIGKILL")
    assert set(threading.enumerate()) <= before
    assert json.loads(capfd.readouterr().err)["event"] == "worker_died"
