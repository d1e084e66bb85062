"""What of others' choosing may reach Asterisk: the values of variables, and a caller's id. Pure.

A dialplan may put a variable anywhere: into an expression (`$["${X}" = "y"]`), an argument of
`Dial()`, `System()`, `EVAL()`. Whatever has a meaning in one of these places stays outside, so that
a caller, an agent or a dialer can choose words and nothing else. See also
`ari_app.line.numbers` for what is dialled.

Source: README-SERIOUSLY.bestpractices of Asterisk, on dialplan injection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, unquote

from ari_app.line import arguments
from ari_app.line.arguments import OwnArguments, seconds
from ari_app.line.interface import AS_SET, CallLimits

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")
_MAX_WAIT_SECONDS = 3600.0
# What they say is ours, or the agent believes it to be.
_OWN = arguments.NAMES | {"wait", "traceparent", "caller_id", "called_number", "call_sid"}
_ANYWHERE = ("own_names", "anywhere")


@dataclass(frozen=True, slots=True)
class CallArguments:
    """The arguments of the dialplan for a call.

    Attributes:
        agent_id: The agent to talk with; None leaves it to the settings.
        wait_seconds: Wait so long for `initiate-call` to name the channel; None: talk at once.
        recorded: Whether the call is recorded from its beginning; None leaves it to the settings.
        variables: Dynamic variables for the agent.
        overrides: `conversation_config_override` for the agent.
        limits: The limits of the call.
        problems: What could not be used, a sentence each; values are not repeated, they may be
            personal.
        traceparent: The trace that the call is part of; empty: none.
    """

    agent_id: str | None = None
    wait_seconds: float | None = None
    recorded: bool | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    limits: CallLimits = AS_SET
    problems: tuple[str, ...] = ()
    traceparent: str = ""


def parse_arguments(args: Sequence[str]) -> CallArguments:
    """Read the arguments as Asterisk split them, at commas.

    A variable's text may be a caller's own, such as a name with a comma in it, and so may a part of
    a first message. So what comes after the first text cannot set our own names, unless
    `own_names=anywhere` stands before it; and what is not `name=value` is taken as more of the text
    before it.

    Never raises: a caller is not lost over a typing error in the dialplan. What is wrong is left
    out and named in `problems`.
    """
    own = OwnArguments()
    wait_seconds: float | None = None
    traceparent = ""
    # Of variables, and of our own names whose values are sentences.
    texts: dict[str, str] = {}
    problems: list[str] = []
    given: set[str] = set()
    anywhere = False
    last: str | None = None
    for position, argument in enumerate(args, start=1):
        name, equals, value = argument.partition("=")
        name, value = name.strip(), value.strip()
        before, last = last, None
        if not argument.strip():
            continue
        if before is not None and not (equals and (name in _OWN or _NAME.match(name))):
            texts[before] = f"{texts[before]},{argument.rstrip()}"
            problems.append(
                f"argument {position} is taken as more of {before}: put its value in quotes"
            )
            last = before
            continue
        if not equals:
            problems.append(f"argument {position} is not name=value")
        elif name not in _OWN and not _NAME.match(name):
            problems.append(f"argument {position} has a name that is not letters, digits and _")
        elif name in given:
            # A value that somebody else chose, with a comma in it, cannot take back what the
            # dialplan has said before it.
            problems.append(f"{name} is given twice: the first counts")
        elif name in _OWN and texts and not anywhere:
            problems.append(
                f"{name} comes after {next(iter(texts))}, whose text may bring names of its "
                f"own, and is left out: put {name} before it"
            )
            continue
        elif name in arguments.TEXTS:
            texts[name] = value
            last = name
        elif name in arguments.NAMES:
            if (problem := own.read(name, value)) is not None:
                problems.append(problem)
        elif name == "wait":
            wait_seconds = seconds(value, _MAX_WAIT_SECONDS)
            if wait_seconds is None:
                problems.append(
                    f"wait is not a number of seconds from 0 to {_MAX_WAIT_SECONDS:.0f}"
                )
        elif name == "traceparent":
            traceparent = value
        elif (name, value) == _ANYWHERE and not texts:
            anywhere = True
        elif name.startswith("system__"):
            problems.append(f"{name}: names that begin with system__ belong to ElevenLabs")
        else:
            texts[name] = value
            last = None if name in _OWN else name
        given.add(name)
    variables = {name: text for name, text in texts.items() if name not in arguments.TEXTS}
    told = [own.read(name, texts[name]) for name in texts if name in arguments.TEXTS]
    problems += filter(None, told)
    return CallArguments(
        own.agent_id,
        wait_seconds,
        own.recorded,
        variables,
        own.overrides,
        own.limits,
        tuple(problems),
        traceparent,
    )


_MOVED: Final = "%"
"""The first argument of a channel that the front has moved, which none of a dialplan's is: they are
`name=value`."""
_NO_ROOM: Final = "%full"


def moved_arguments(args: Sequence[str], *, has_room: bool) -> str:
    """Return what a channel brings to another application of ours, so that each of its arguments
    arrives as it was: Asterisk splits at commas, also within quotes.

    Args:
        args: As they came from the dialplan.
        has_room: Whether there is a place for it.
    """
    return ",".join([_MOVED if has_room else _NO_ROOM, *(quote(each, safe="= ") for each in args)])


def read_moved(args: Sequence[str]) -> tuple[list[str], bool] | None:
    """Return a moved channel's arguments, and whether there is room for it; None: it has not been
    moved by us."""
    if not args or args[0] not in (_MOVED, _NO_ROOM):
        return None
    return [unquote(each) for each in args[1:]], args[0] == _MOVED


def word(text: str) -> str:
    """Return a name or a reason as the value of a variable; empty when it is no word."""
    return text if arguments.WORD.fullmatch(text) else ""
