"""docs/agent.md lists every word that AGENT_REASON may be: the code is compared with it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import ari_app.agent.elevenlabs.errors  # noqa: F401 -- its classes count as AgentError's
from ari_app.agent.elevenlabs.closing import CloseKind
from ari_app.agent.precall import PreCallError
from ari_app.errors import AgentError, AppError
from ari_app.line.asterisk.ari.errors import AriError
from ari_app.line.interface import Result

ROOT = Path(__file__).parents[3]
EVENTS = {"AgentFailed", "Ended", "LineFailed", "SoundLost"}
# And what puts a reason into one of them.
SAYS_WHY = EVENTS | {"_caller_gone", "lost", "_fail", "end_all"}
# Where the code of an error becomes a reason, and how.
FAILING = (
    "ari_app/agent/elevenlabs",
    "ari_app/agent/precall.py",
    "ari_app/line/asterisk/ari/errors.py",
)


def documented() -> list[str]:
    text = (ROOT / "docs" / "agent.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]+`) \|", text.partition("## Reasons")[2], re.MULTILINE)
    return [word for row in rows for word in re.findall(r"`(\w+)`", row)]


def literals(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.IfExp(body=body, orelse=other):
            yield from literals(body)
            yield from literals(other)


def said_by(path: Path) -> Iterator[str]:
    """The reasons that a module names itself."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Call(func=ast.Name(id="Outcome"), args=[_, reason, *_]):
                yield from literals(reason)
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=[reason, *_]) if (
                name in SAYS_WHY
            ):
                yield from literals(reason)


def codes_in(path: Path) -> Iterator[str]:
    """The codes that errors are given beside their classes' own."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.keyword(arg="code", value=value):
                yield from literals(value)
            case ast.Assign(targets=[ast.Name(id="code")], value=value):
                yield from literals(value)


def line_reasons() -> Iterator[str]:
    """Why a line is lost that we did not end: what a connection tells its handler."""
    tree = ast.parse((ROOT / "audiosocket" / "connection.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(attr="hang_up" | "_begin_end" | "_end_as_refused"),
                args=[reason],
            ):
                yield from (f"line_{text}" for text in literals(reason))


def dialer_reasons() -> Iterator[str]:
    """Why a dialer of one's own is refused."""
    line = ROOT / "ari_app" / "line"
    for path in (line / "websocket_input.py", *sorted((line / "dialer").glob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Name(id="BadInput") | ast.Attribute(attr="_refuse"),
                    args=[reason, *_],
                ):
                    yield from (f"dialer_{text}" for text in literals(reason))


def twilio_reasons() -> Iterator[str]:
    """Why a stream of Twilio's is given up for what did not come."""
    for path in sorted((ROOT / "ari_app" / "line" / "twilio").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(attr="_refuse"), args=[reason, *_]):
                    # Silence is `line_silent`, as on every line.
                    yield from (f"twilio_{t}" for t in literals(reason) if t != "silent")


def codes_of(root: type[AppError]) -> Iterator[str]:
    yield root.default_code
    for each in root.__subclasses__():
        yield from codes_of(each)


def in_the_code() -> set[str]:
    modules = sorted((ROOT / "ari_app").rglob("*.py"))
    found = {reason for path in modules for reason in said_by(path)}
    for place in FAILING:
        path = ROOT / place
        modules = [path] if path.is_file() else sorted(path.glob("*.py"))
        assert modules, place
        for module in modules:
            found |= set(codes_in(module))
    for root in (AgentError, AriError, PreCallError):
        found |= set(codes_of(root))
    found |= set(Result)
    for kind in CloseKind:
        found |= {kind.value, f"agent_{kind.value}"}
    # The control's word for an end that is asked for without one.
    refused = {*line_reasons(), *dialer_reasons(), *twilio_reasons()}
    return found | refused | {"end_requested"}


def test_every_reason_is_on_the_page_once_and_no_other() -> None:
    words = documented()
    assert sorted(set(words)) == sorted(in_the_code())
    twice = {word for word in words if words.count(word) > 1}
    assert twice == {"rejected"}, "the agent's, and the callee's"
