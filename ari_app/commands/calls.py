"""The command `ari-app calls`: the call log in the terminal, read from the database itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import orjson
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ari_app.control.http.call_models import CallsFilter
from ari_app.errors import ConfigError, in_words
from ari_app.process.files import is_absent
from ari_app.process.logs import printable, set_up_logging
from ari_app.records.findings import findings, timeline
from ari_app.records.id_prefix import MOST_FOUND, only_match, prefix_of
from ari_app.records.rows import summary
from ari_app.records.store.address import read_address
from ari_app.records.store.log import CallLog
from ari_app.records.store.query import CallFilter
from ari_app.records.transcript import clock
from ari_app.settings import Settings

T = TypeVar("T")

_OPTIONS: Final = {"agent_id": "agent", "campaign_id": "campaign"}
_COLUMNS: Final = ("began (UTC)", "session", "who", "took", "turns", "score", "how it ended")
_COLORS: Final = {"agent": "cyan", "caller": "green", "tool": "magenta", "keys": "yellow"}
_A_PAGE: Final = 500
_GOOD, _FAIR = 80, 60
_A_ROW: Final = 400


def call_filter(given: Mapping[str, str | None]) -> CallFilter:
    """Make a filter of what was given, by the names that HTTP has for it.

    Raises:
        ConfigError: Something of it cannot be meant.
    """
    try:
        query = CallsFilter.model_validate({name: value for name, value in given.items() if value})
    except ValidationError as error:
        wrong = [
            f"--{_OPTIONS.get(name := str(each['loc'][0]), name)} {in_words(each)}."
            for each in error.errors()
        ]
        raise ConfigError(" ".join(wrong)) from None
    return query.wanted()


async def list_calls(
    settings: Settings, wanted: CallFilter, limit: int, console: Console, *, as_json: bool
) -> None:
    """Print calls, the newest first.

    Args:
        settings: Where the database is.
        wanted: Which calls.
        limit: So many at most.
        console: Where to.
        as_json: All that is kept of each, a line each.

    Raises:
        ConfigError: There is no call log.
        CallLogUnavailable: It cannot be read.
    """

    async def ask(call_log: CallLog) -> tuple[list[dict[str, Any]], bool]:
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while len(found) < limit:
            page = await call_log.page(wanted, min(limit - len(found), _A_PAGE), cursor)
            found += page.calls if as_json else map(summary, page.calls)
            cursor = page.cursor
            if cursor is None:
                break
        return found, cursor is not None

    found, more = await _asked(settings, ask)
    if as_json:
        for document in found:
            _print_plain(console, orjson.dumps(document).decode())
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in _COLUMNS:
        table.add_column(name, no_wrap=True, justify="right" if name == "took" else "left")
    for row in found:
        table.add_row(*_cells(row))
    if found:
        # A row is a line, however narrow the terminal: a session is there to be copied.
        wide = console.options.update(width=_A_ROW)
        table.width = console.measure(table, options=wide).maximum
        console.print(table, highlight=False, crop=False)
    console.print(f"Calls: {len(found)}{', and there are more: --limit' if more else ''}.")


async def show_call(settings: Settings, name: str, console: Console, *, as_json: bool) -> None:
    """Print what is kept of a call: what went well, what did not and why, and its course.

    Args:
        settings: Where the database is.
        name: Its session id, the beginning of that, or the id of a conversation of its agent's.
        console: Where to.
        as_json: As it is kept.

    Raises:
        ConfigError: There is no call log, or not one such call in it.
        CallLogUnavailable: It cannot be read.
    """

    async def ask(call_log: CallLog) -> dict[str, Any] | None:
        found = await call_log.find(name) or await call_log.find_conversation(name)
        if found is not None or not (start := prefix_of(name)):
            return found
        session_id = only_match(start, await call_log.sessions(start, MOST_FOUND))
        return None if session_id is None else await call_log.find(session_id)

    document = await _asked(settings, ask)
    if document is None:
        raise ConfigError(f"The call log has no call {name}. One that runs is not in it yet.")
    if as_json:
        _print_plain(console, orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
        return
    _print_head(document, console)
    _print_findings(document, console)
    _print_course(document, console)
    _print_sound(document["sound"], console)


async def _asked(settings: Settings, ask: Callable[[CallLog], Awaitable[T]]) -> T:
    if not settings.database_url:
        raise ConfigError("DATABASE_URL is empty, so no calls are kept.")
    address = read_address(settings.database_url)
    if address.kind == "sqlite" and is_absent(address.path):
        # SQLite would make one.
        problem = f"There is no {address.path.absolute()}: no call has been kept there yet."
        if not address.path.is_absolute():
            problem += " DATABASE_URL counts from this folder; run the command in that of `serve`."
        raise ConfigError(problem)
    # What is to be said is said here.
    set_up_logging("CRITICAL")
    async with CallLog(settings.database_url, writes=False) as call_log:
        return await ask(call_log)


def _cells(row: Mapping[str, Any]) -> list[str]:
    result = row["result"] if row["result"] not in (None, "answered") else None
    ended = f"{row['status']} {result or row['reason']}"
    good = row["status"] in ("COMPLETED", "TRANSFER")
    out = row["direction"] == "out"
    who = f"{'→' if out else '←'} {row['called_number' if out else 'caller_number'] or '-'}"
    return [
        row["started_at"][:19].replace("T", " "),
        _text(row["session_id"]),
        _text(who),
        "-" if row["seconds"] is None else clock(row["seconds"]),
        str(row["turns"]),
        _score(row["score"]),
        f"[{'green' if good else 'red'}]{_text(ended)}[/]",
    ]


def _score(value: int | None) -> str:
    if value is None:
        return "-"
    color = "green" if value >= _GOOD else "yellow" if value >= _FAIR else "red"
    return f"[{color}]{value}[/]"


def _print_head(document: Mapping[str, Any], console: Console) -> None:
    console.print(f"[bold]Call {_text(document['session_id'])}[/]", highlight=False)
    took = "" if document["seconds"] is None else f", {document['seconds']:.1f} s"
    report = document.get("agent_report") or {}
    legs = f"{document['caller_number'] or '-'} to {document['called_number'] or '-'}"
    facts = {
        "when": f"{document['started_at']}{took}",
        "who": f"{legs} ({document['direction']}, by {document['way'] or 'an unknown way'})",
        "line": document["line_id"],
        "reference": document["reference"],
        "agent": document["agent_id"],
        "conversation": ", ".join(document["conversation_ids"]),
        "passed on to": document["transfer_to"],
        "cause": document["hangup_cause"],
        "SIP status": document["sip_code"],
        "hidden": ", ".join(document["hidden"]),
        "ElevenLabs": report.get("call_successful"),
        "summary": report.get("transcript_summary"),
    }
    for name, value in facts.items():
        if value not in (None, ""):
            console.print(f"  [dim]{name:<13}[/] {_text(value)}", highlight=False, soft_wrap=True)
    for recording in document.get("recordings") or ():
        path = _text(recording.get("path"))
        console.print(f"  [dim]{'recording':<13}[/] {path}", highlight=False, soft_wrap=True)


def _print_findings(document: Mapping[str, Any], console: Console) -> None:
    console.print(f"\n[bold]Score[/] {_score(document['score']['value'])}", highlight=False)
    for finding in findings(document):
        sign = "[green]✓[/]" if finding.well else "[bold red]✗[/]"
        console.print(f"  {sign} {_text(finding.text)}", highlight=False, soft_wrap=True)


def _print_course(document: Mapping[str, Any], console: Console) -> None:
    console.print("\n[bold]What happened[/]")
    if left_out := document.get("left_out"):
        console.print(f"  [dim]{left_out} entries from the beginning were not kept.[/]")
    for each in timeline(document):
        color = _COLORS.get(each.kind, "dim")
        console.print(
            f"  {clock(each.at):>8} [{color}]{each.kind:<7}[/] {_text(each.text)}",
            highlight=False,
            soft_wrap=True,
        )


def _print_sound(sound: Mapping[str, Any], console: Console) -> None:
    console.print("\n[bold]Sound[/]")
    rtp = sound["rtp"] or {}
    for name, value in {**sound, "rtp": None, **{f"rtp {key}": rtp[key] for key in rtp}}.items():
        shown = ", ".join(f"{each:g}" for each in value) if isinstance(value, list) else value
        if shown not in (None, "", 0):
            console.print(f"  [dim]{name:<24}[/] {_text(shown)}", highlight=False)


def _text(value: object) -> str:
    """Write what somebody else has chosen so that no terminal obeys it."""
    return escape(printable(str(value)))


def _print_plain(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
