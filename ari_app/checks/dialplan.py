"""Finds callers who would not reach us or be left alone: looks through extensions.conf. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Final

from ari_app.checks.conf_file import ConfFile, Entry

# A priority may have a label: `n(bye)`.
_STEP: Final = re.compile(
    r"\s*(?P<priority>[^,(]+?)\s*(?:\((?P<label>[^),]*)\))?\s*,\s*(?P<text>.*)"
)
_APPLICATION: Final = re.compile(r"(?P<name>\w+)(?:\((?P<data>.*)\))?[^)]*")
# Asterisk has no application `Stasis ` with a space in its name.
_NO_STASIS: Final = re.compile(r"\s*Stasis\s+\(.*", re.IGNORECASE)
_GLOBAL: Final = re.compile(r"\$\{(\w+)\}")
# Such a condition does not hold while the application is down, for AGENT_STATUS is empty then.
_AGENT_SAID: Final = re.compile(r'\$\["?\$\{AGENT_\w+\}"?\s*=+\s*"?\w+"?\]\s*')
_CHECKED: Final = "STASISSTATUS"
_UNKNOWN: Final = -1
_NONE: Final = -2
"""What a step has that follows none: Asterisk refuses it."""

_PASSES: Final = frozenset(
    {
        *("answer", "ringing", "progress", "proceeding", "wait", "incomplete", "amd", "stasis"),
        *("noop", "log", "verbose", "dumpchan", "userevent", "return", "stackpop"),
        *("set", "mset", "setcallerpres", "setamaflags", "resetcdr", "forkcdr", "nocdr"),
        *("mixmonitor", "stopmixmonitor", "monitor", "stopmonitor", "channelredirect"),
    }
)
"""After these a caller is where they were."""
_ENDS: Final = frozenset({"hangup", "busy", "congestion"})
_JUMPS: Final = frozenset({"goto", "gotoif", "gotoiftime", "gosub", "gosubif", "macro"})
_WRAPS: Final = frozenset({"execif", "execiftime", "exec", "tryexec"})


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an extension.

    Attributes:
        number: Its priority; negative where it cannot be told.
        text: The application and what it is given.
        where: `extensions.conf:12`.
    """

    number: int
    label: str
    text: str
    where: str


@dataclass(slots=True)
class Extension:
    """The steps of one extension in a context."""

    context: str
    pattern: str
    steps: list[Step] = field(default_factory=list)

    def place(self, priority: str) -> int | None:
        """Find where the step of a number or a label stands; None: nowhere."""
        return next(
            (
                place
                for place, step in enumerate(self.steps)
                if priority in (step.label, str(step.number))
            ),
            None,
        )

    def fits(self, number: str) -> bool:
        """Return whether it is dialled by this number."""
        if not self.pattern.startswith("_"):
            return self.pattern == number
        try:
            return re.fullmatch(_as_regex(self.pattern[1:]), number) is not None
        except re.error:
            return False


@dataclass(frozen=True, slots=True)
class HandOver:
    """A step that hands a call to an application.

    Attributes:
        app: The application, as Asterisk reads it.
    """

    extension: Extension
    place: int
    app: str

    @property
    def where(self) -> str:
        """`extensions.conf:12`."""
        return self.extension.steps[self.place].where

    @property
    def text(self) -> str:
        """What stands there."""
        return self.extension.steps[self.place].text


@dataclass(frozen=True, slots=True)
class Hidden:
    """A step that hands calls to an application, and that no call comes to.

    Attributes:
        why: The end of a sentence.
        certain: Nothing that is not seen here can lead calls to it.
    """

    hand_over: HandOver
    why: str
    certain: bool


@dataclass(frozen=True, slots=True)
class _Include:
    """A context that another one includes; at certain times only, where it is timed."""

    context: str
    timed: bool


class Dialplan:
    """The dialplan of extensions.conf, as far as the questions here go.

    Args:
        conf: What the file says.
        entered: The contexts in which calls come in, as other files say.
    """

    def __init__(self, conf: ConfFile, entered: Collection[str] = ()) -> None:
        self._entered = entered
        found = conf.first("globals")
        self._globals = {e.key: e.value for e in found.entries} if found is not None else {}
        sections = [
            section
            for section in conf.sections
            if not section.is_template and section.name.lower() not in ("general", "globals")
        ]
        self._includes: dict[str, list[_Include]] = {section.name: [] for section in sections}
        for section in sections:
            for entry in section.entries:
                if entry.key.lower() == "include":
                    context, _, times = entry.value.partition(",")
                    self._includes[section.name].append(
                        _Include(context.strip(), bool(times.strip()))
                    )
        written = [
            each for section in sections for each in _extensions(section.name, section.entries)
        ]
        self._extensions, self._left_out = _as_taken(written)
        self.has_switch = any(
            entry.key.lower() in ("switch", "eswitch", "lswitch")
            for section in sections
            for entry in section.entries
        )

    def has(self, context: str, pattern: str) -> bool:
        """Return whether a context has an extension of exactly this pattern."""
        return any(e.context == context and e.pattern == pattern for e in self._extensions)

    def says(self, what: re.Pattern[str]) -> bool:
        """Return whether a step has this in it."""
        return any(what.search(step.text) for e in self._extensions for step in e.steps)

    def hand_overs(self) -> list[HandOver]:
        """Return every step that hands a call to an application, but for those of `hidden`."""
        return [
            each
            for each in self._all_hand_overs()
            if self._can_be_dialled(each.extension) and self._hider(each.extension) is None
        ]

    def hidden(self) -> list[Hidden]:
        """Return every step that would hand a call over, and that no call comes to."""
        found = []
        for extension, first in self._left_out:
            app = _handed_to(self._resolved(extension.steps[0].text))
            if app is not None:
                why = (
                    f"{first.where} has priority {first.number} of {extension.pattern} in "
                    f"[{extension.context}] already, and Asterisk leaves a second one out. Give it "
                    "a number that is free"
                )
                found.append(Hidden(HandOver(extension, 0, app), why, certain=True))
        for hand_over in self._all_hand_overs():
            if not self._can_be_dialled(hand_over.extension):
                why = (
                    f"{hand_over.extension.pattern} in [{hand_over.extension.context}] has no "
                    "priority 1, so nobody can dial it. Begin it with `exten => "
                    f"{hand_over.extension.pattern},1,`"
                )
                found.append(Hidden(hand_over, why, certain=False))
                continue
            hider = self._hider(hand_over.extension)
            if hider is not None:
                why = (
                    f"where [{hand_over.extension.context}] is included, {hider.pattern} of "
                    f"[{hider.context}] ({hider.steps[0].where}) comes before it and takes the "
                    f"calls to {hand_over.extension.pattern}. Give it a number that is free"
                )
                found.append(Hidden(hand_over, why, certain=False))
        return found

    def _all_hand_overs(self) -> list[HandOver]:
        return [
            HandOver(extension, place, app)
            for extension in self._extensions
            for place, step in enumerate(extension.steps)
            if (app := _handed_to(self._resolved(step.text))) is not None
        ]

    def _can_be_dialled(self, extension: Extension) -> bool:
        """Return whether there is a first step, were it in another context."""
        return any(
            step.number in (1, _UNKNOWN)
            for each in self._extensions
            if each.pattern == extension.pattern
            for step in each.steps
        )

    def _hider(self, extension: Extension) -> Extension | None:
        """Find what takes all calls to a number before its extension can; None: nothing, as far as
        is seen here.

        Asterisk looks through a context first, and through those that it includes in their order:
        the first one that has anything for a number takes it, were it a mere pattern.
        """
        if extension.pattern.startswith("_") or self._is_entered(extension.context):
            return None
        takers = [
            self._taker(context, extension, set())
            for context in self._includes
            if context != extension.context and extension.context in self._reach(context, set())
        ]
        if any(taker is None or taker is extension for taker in takers):
            return None
        return next(iter(takers), None)

    def _taker(self, context: str, wanted: Extension, seen: set[str]) -> Extension | None:
        """Find which extension takes a call to the number of another one in a context."""
        if context in seen:
            return None
        seen.add(context)
        number = wanted.pattern
        own = [
            each
            for each in self._extensions
            if each.context == context and each.fits(number) and each.place("1") is not None
        ]
        if own:
            return next((each for each in own if each.pattern == number), own[0])
        for include in self._includes.get(context, ()):
            taker = self._taker(include.context, wanted, seen)
            # At other times it takes nothing.
            if taker is not None and (taker is wanted or not include.timed):
                return taker
        return None

    def _reach(self, context: str, seen: set[str]) -> set[str]:
        """Return a context and all that it includes."""
        if context not in seen:
            seen.add(context)
            for include in self._includes.get(context, ()):
                self._reach(include.context, seen)
        return seen

    def _is_entered(self, context: str) -> bool:
        """Return whether calls may come into a context by another way than an `include`."""
        name = re.compile(rf"(?<![\w-]){re.escape(context)}(?![\w-])")
        return context in self._entered or self.says(name)

    def catches(self, hand_over: HandOver) -> bool:
        """Return whether somebody takes care of a caller who comes back because the application is
        down.

        That is so where a step looks at STASISSTATUS, or an application takes the caller: a queue,
        a telephone, an announcement. Where only the call will tell how it goes on, it counts.
        """
        todo = [(hand_over.extension, hand_over.place + 1)]
        seen: set[tuple[int, int]] = set()
        while todo:
            extension, place = todo.pop()
            if place >= len(extension.steps) or (id(extension), place) in seen:
                continue
            seen.add((id(extension), place))
            text = self._resolved(extension.steps[place].text)
            if _CHECKED in text:
                return True
            goes_on = True
            for name, data in _applications(text):
                if name not in _PASSES and name not in _ENDS and name not in _JUMPS:
                    return True
                for target in _targets(name, data):
                    places = self._places(extension, target)
                    if places is None:
                        return True
                    todo += places
                if name == "goto" or name in _ENDS:
                    goes_on = text.lower().startswith("execif")
            if goes_on:
                todo.append((extension, place + 1))
        return False

    def _places(self, here: Extension, target: str) -> list[tuple[Extension, int]] | None:
        """Find where `[[context,]extension,]priority` leads; None: only the call will tell."""
        if "${" in target or "$[" in target:
            return None
        *names, priority = (part.strip() for part in target.split(","))
        if not names:
            place = here.place(priority)
            return [] if place is None else [(here, place)]
        context = names[-2] if len(names) > 1 else here.context
        if context not in self._includes:
            return None
        return [
            (extension, place)
            for extension in self._found(context, names[-1], set())
            if (place := extension.place(priority)) is not None
        ]

    def _found(self, context: str, number: str, seen: set[str]) -> list[Extension]:
        if context in seen:
            return []
        seen.add(context)
        found = [e for e in self._extensions if e.context == context and e.fits(number)]
        for include in self._includes.get(context, ()):
            found += self._found(include.context, number, seen)
        return found

    def _resolved(self, text: str) -> str:
        return _GLOBAL.sub(lambda found: self._globals.get(found[1], found[0]), text)


def _extensions(context: str, entries: list[Entry]) -> Iterator[Extension]:
    found: dict[str, Extension] = {}
    current, number = "", _NONE
    for entry in entries:
        match entry.key.lower():
            case "exten":
                current, _, text = (part.strip() for part in entry.value.partition(","))
            case "same":
                text = entry.value
            case _:
                continue
        match = _STEP.fullmatch(text)
        if match is None or match["priority"].lower() == "hint":
            continue
        number = _priority(match["priority"], number)
        step = Step(number, match["label"] or "", match["text"], entry.where)
        found.setdefault(current, Extension(context, current)).steps.append(step)
    yield from found.values()


def _priority(said: str, last: int) -> int:
    """Return the number of a priority: `3`, `n`, and `n+2`, which leaves two out; the unknown one
    where it is counted from a label or from what is not known."""
    base, _, more = said.partition("+")
    if not (f"{more}0".isascii() and f"{more}0".isdigit()):
        return _UNKNOWN
    if base.isascii() and base.isdigit():
        return int(base) + int(more or 0)
    if base.lower() in ("n", "next"):
        return last if last < 0 else last + 1 + int(more or 0)
    return _UNKNOWN


def _as_taken(written: list[Extension]) -> tuple[list[Extension], list[tuple[Extension, Step]]]:
    """Return the extensions as Asterisk takes them, and which steps it leaves out.

    Sections of one name are one context, and of two steps of one priority the first counts.

    Returns:
        The extensions, each once; each step that is left out, as an extension of its own, with the
        one that counts.
    """
    taken: dict[tuple[str, str], Extension] = {}
    left_out = []
    for each in written:
        context, pattern = each.context, each.pattern
        extension = taken.setdefault((context, pattern), Extension(context, pattern))
        for step in each.steps:
            first = next((s for s in extension.steps if s.number == step.number >= 0), None)
            if first is None:
                extension.steps.append(step)
            else:
                left_out.append((Extension(context, pattern, [step]), first))
    return list(taken.values()), left_out


def _handed_to(text: str) -> str | None:
    """Return the application that a step hands calls to, as Asterisk reads it; None: to none."""
    if _NO_STASIS.fullmatch(text):
        return ""
    given = (data for name, data in _applications(text) if name == "stasis")
    return next((_first_argument(data) for data in given), None)


def _applications(text: str) -> Iterator[tuple[str, str]]:
    """Return the applications of a step with what they are given: more than one where it has a
    choice."""
    found = _APPLICATION.fullmatch(text.strip())
    if found is None:
        # Not to be read: whoever wrote it will know.
        yield "", ""
        return
    name, data = found["name"].lower(), found["data"] or ""
    if name not in _WRAPS:
        yield name, data
    elif name in ("exec", "tryexec"):
        yield from _applications(data)
    else:
        for choice in _choices(data):
            yield from _applications(choice)


def _targets(name: str, data: str) -> list[str]:
    match name:
        case "goto":
            return [data]
        case "macro":
            return [f"macro-{_split(data, ',')[0].strip()},s,1"]
        case "gosub":
            return [_without_arguments(data)]
        case "gotoif" | "gotoiftime" | "gosubif":
            return [_without_arguments(choice) for choice in _choices(data)]
        case _:
            return []


def _choices(data: str) -> list[str]:
    """Say what `condition?this:that` may come to while the application is down."""
    condition, question, rest = _halves(data, "?")
    if not question:
        return []
    then, _, otherwise = _halves(rest, ":")
    possible = [otherwise] if _AGENT_SAID.fullmatch(condition) else [then, otherwise]
    return [choice for choice in possible if choice.strip()]


def _without_arguments(target: str) -> str:
    """Return Gosub's target without what the routine is given: `context,s,1(a,b)`."""
    return re.sub(r"\(.*\)\s*$", "", target)


def _first_argument(data: str) -> str:
    """Return the first argument as Asterisk reads it: without quotes and backslashes, with its
    spaces."""
    return re.sub(r'\\(.)|"', lambda found: found[1] or "", _split(data, ",")[0])


def _halves(text: str, mark: str) -> tuple[str, str, str]:
    first, *others = _split(text, mark)
    return first, mark if others else "", mark.join(others)


def _split(text: str, mark: str) -> list[str]:
    """Split where the mark stands outside of brackets and quotes."""
    parts, depth, quoted, skip = [""], 0, False, False
    for character in text:
        if skip:
            skip = False
        elif character == "\\":
            skip = True
        elif character == '"':
            quoted = not quoted
        elif quoted:
            pass
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == mark and depth <= 0:
            parts.append("")
            continue
        parts[-1] += character
    return parts


def _as_regex(pattern: str) -> str:
    """Return a regular expression for what stands behind the `_` of a pattern: X, Z, N, [1-5], .
    and !."""
    known = {"X": "[0-9]", "Z": "[1-9]", "N": "[2-9]", ".": ".+", "!": ".*", "-": ""}
    parts = re.findall(r"\[[^\]]*\]|.", pattern)
    return "".join(
        "[" + re.escape(part[1:-1]).replace(r"\-", "-") + "]"
        if len(part) > 2 and part.startswith("[")
        else known.get(part.upper(), re.escape(part))
        for part in parts
    )
