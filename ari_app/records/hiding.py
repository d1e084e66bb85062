"""What the call log must not hold: telephone numbers, and what people say. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from ari_app.process.logs import mask_number

NUMBERS: Final = "numbers"
WORDS: Final = "words"
_NOTHING: Final = "nothing"
_KINDS: Final = (NUMBERS, WORDS)

# What may stand between the digits of a number that somebody has written down.
_BETWEEN: Final = r"[\s().,/_\-\u2010-\u2015\u2212\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]"
_LIKE_A_NUMBER: Final = rf"\d(?:{_BETWEEN}{{0,3}}\d){{6,}}"
_DIGIT: Final = re.compile(r"\d")
_FEWEST_OWN_DIGITS: Final = 5
_FEWEST_SECRET_KEYS: Final = 3
_MAX_SECRETS: Final = 32
_KEYS: Final = frozenset("0123456789*#ABCD")
_KEYS_WRITTEN: Final = re.compile(rf"[0-9*#A-D](?:{_BETWEEN}{{0,3}}[0-9*#A-D])*")
SECRET_KEYS: Final = "[digits]"

_FREE: Final = ("trunk", "reference", "campaign_id", "reason", "detail", "metadata")
_SAID: Final = MappingProxyType(
    {
        "turns": ("text", "heard"),
        "tools": ("name", "arguments", "result"),
        "keys": ("digits",),
        "notes": ("text",),
    }
)
"""Where anything may stand that somebody has said or sent."""
_LINE_ID: Final = "line_id"

_PLAIN_OF_REPORT: Final = frozenset(
    {
        "agent_id",
        "agent_name",
        "authorization_method",
        "branch_id",
        "call_successful",
        "conversation_id",
        "conversation_initiation_source",
        "criteria_id",
        "data_collection_id",
        "environment",
        "main_language",
        "result",
        "source",
        "status",
        "termination_reason",
        "type",
        "version_id",
    }
)
"""What the agent's service says about a conversation in words of its own."""
_SAID_OF_REPORT: Final = frozenset(
    {"transcript", "value", "rationale", "dynamic_variables", "conversation_initiation_client_data"}
)

_OF_WORDS: Final = frozenset(
    {
        "call_summary_title",
        "transcript_summary",
        "evaluation_criteria_results",
        "data_collection_results",
    }
)
"""Where it says what was spoken about."""

Change = Callable[[str], str]


def what_to_hide(text: str) -> frozenset[str]:
    """Read `RECORDS_HIDE`.

    Raises:
        ValueError: It is none of what it may be; a clause.
    """
    names = [name.strip() for name in text.split(",")]
    if names == [_NOTHING]:
        return frozenset()
    if not set(names) <= set(_KINDS) or len(set(names)) < len(names):
        raise ValueError(f"must be {_NOTHING}, or one or both of {', '.join(_KINDS)}, with a comma")
    return frozenset(names)


def hide(document: dict[str, Any], what: Collection[str]) -> dict[str, Any]:
    """Return the document of a call without what must not be in it; `hidden` says what is missing.

    Args:
        document: As `ari_app.records.document` makes it; it is used up.
        what: `numbers`, `words`, both or neither.
    """
    if WORDS in what:
        document = {
            **document,
            "turns": [{**turn, "text": "", "heard": None} for turn in document["turns"]],
            "tools": [{**tool, "arguments": {}, "result": ""} for tool in document["tools"]],
        }
    if NUMBERS in what:
        document = _without_numbers(document)
    return {**document, "hidden": [kind for kind in _KINDS if kind in what]}


def hide_in_part(part: str, value: Any, what: Collection[str]) -> Any:
    """Return a part that comes later without what must not be in it.

    Args:
        part: Its name, such as `agent_report`. In `recordings` there is nothing to hide.
        value: Plain JSON.
        what: As for `hide`.
    """
    if part != "agent_report":
        return value
    if WORDS in what:
        value = _wordless(value)
    return _changed(value, _masked(())) if NUMBERS in what else value


def were_secret(keys: Any) -> bool:
    """Return whether a call's document says that keys were pressed that nobody may keep.

    Args:
        keys: Of the document.
    """
    pressed = keys if isinstance(keys, list) else ()
    return any(isinstance(each, Mapping) and each.get("digits") == SECRET_KEYS for each in pressed)


def hide_keys(report: Any) -> Any:
    """Return what the agent's service says of a conversation without anything that may be keys.

    For a call in which secret ones were pressed: the agent was told them, so they may be in a
    summary or among what was collected; and what they were nobody knows here any more.
    """
    if not isinstance(report, Mapping):
        return report
    return {name: _keyless(value) if name in _OF_WORDS else value for name, value in report.items()}


def _keyless(value: Any, name: str = "") -> Any:
    match value:
        case str() if name in _PLAIN_OF_REPORT:
            return value
        case Mapping():
            return {key: _keyless(inner, key) for key, inner in value.items()}
        case list():
            return [_keyless(inner, name) for inner in value]
        case _:
            return _changed(value, _without_keys)


def _without_keys(text: str) -> str:
    return _KEYS_WRITTEN.sub(
        lambda found: (
            SECRET_KEYS
            if sum(character in _KEYS for character in found[0]) >= _FEWEST_SECRET_KEYS
            and _DIGIT.search(found[0])
            else found[0]
        ),
        text,
    )


def hide_numbers(value: Any) -> Any:
    """Return plain JSON with what looks like a telephone number masked."""
    return _changed(value, _masked(()))


class Secrets:
    """Keys that a caller has pressed and nobody may keep, wherever they are repeated: in what the
    agent says, or tells a tool.

    Args:
        beginnings: Each key is told as it comes, so that the beginning of an entry is known, and
            may be repeated, before there is more of it: it is as secret as all of it.
    """

    def __init__(self, *, beginnings: bool = False) -> None:
        self._beginnings = beginnings
        # Without values: a set that knows which came first.
        self._known: dict[str, None] = {}

    def add(self, keys: str) -> None:
        """Keep these keys secret from now on. One or two alone stand in too many other words."""
        if len(keys) < _FEWEST_SECRET_KEYS or keys in self._known:
            return
        if self._beginnings:
            for shorter in [known for known in self._known if keys.startswith(known)]:
                del self._known[shorter]
        self._known[keys] = None
        while len(self._known) > _MAX_SECRETS:
            del self._known[next(iter(self._known))]

    def __bool__(self) -> bool:
        return bool(self._known)

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def out_of(self, value: Any) -> Any:
        """Return a text, or plain JSON, without them."""
        return _changed(value, lambda text: _KEYS_WRITTEN.sub(self._hidden, text))

    def _hidden(self, written: re.Match[str]) -> str:
        """Return keys as somebody has written them down, without what is secret of them."""
        text = written[0]
        places = [place for place, character in enumerate(text) if character in _KEYS]
        keys = "".join([text[place] for place in places])
        told, end = "", 0
        for begin, length in sorted(
            found for secret in self._known for found in self._found(secret, keys)
        ):
            # One may begin within another.
            if places[begin] >= end:
                told += text[end : places[begin]] + SECRET_KEYS
            end = max(end, places[begin + length - 1] + 1)
        return told + text[end:]

    def _found(self, secret: str, keys: str) -> Iterator[tuple[int, int]]:
        """Yield where a secret is in keys, and how many of them it is."""
        fewest = _FEWEST_SECRET_KEYS if self._beginnings else len(secret)
        at = keys.find(secret[:fewest])
        while at >= 0:
            length = fewest
            while length < len(secret) and keys.startswith(secret[length], at + length):
                length += 1
            yield at, length
            # Where it breaks off, it may begin anew before that.
            at = keys.find(secret[:fewest], at + (length if length == len(secret) else 1))


def _without_numbers(document: dict[str, Any]) -> dict[str, Any]:
    legs = document["legs"]
    fields = ("caller_number", "called_number", "transfer_to")
    own = [document[field] or "" for field in fields] + [leg["number"] for leg in legs]
    change = _masked(own)
    result = {
        **document,
        **{
            part: [{**each, "number": mask_number(each["number"])} for each in document[part]]
            for part in ("legs", "take_overs")
        },
    }
    for field in fields:
        number = document[field]
        result[field] = mask_number(number) if number else number
    for field in _FREE:
        result[field] = _changed(document[field], change)
    for field, names in _SAID.items():
        for each in document[field]:
            for name in names:
                each[name] = _changed(each[name], change)
    result[_LINE_ID] = _masked(own, only_own=True)(document[_LINE_ID])
    return result


def _masked(own: Collection[str], *, only_own: bool = False) -> Change:
    """Return what masks the call's own numbers in a text, and whatever looks like one."""
    digits = sorted({_digits(number) for number in own}, key=len, reverse=True)
    patterns = [
        f"{_BETWEEN}{{0,3}}".join(each) for each in digits if len(each) >= _FEWEST_OWN_DIGITS
    ]
    if not only_own:
        patterns.append(_LIKE_A_NUMBER)
    if not patterns:
        return lambda text: text
    numbers = [re.compile(pattern) for pattern in patterns]

    def change(text: str) -> str:
        # Most of what is said has few digits, and there may be hours of it.
        if len(_DIGIT.findall(text)) >= _FEWEST_OWN_DIGITS:
            for number in numbers:
                text = number.sub(lambda found: mask_number(found[0]), text)
        return text

    return change


def _digits(text: str) -> str:
    return "".join(character for character in text if character.isdecimal())


def _changed(value: Any, change: Change) -> Any:
    """Return plain JSON with all its texts changed, and numbers as if they were texts."""
    match value:
        case str():
            return change(value)
        case bool():
            return value
        case int() | float():
            whole = str(int(value)) if isinstance(value, int) or value.is_integer() else ""
            changed = change(whole)
            return value if changed == whole else changed
        case Mapping():
            return {change(name): _changed(inner, change) for name, inner in value.items()}
        case list():
            return [_changed(inner, change) for inner in value]
        case _:
            return value


def _wordless(value: Any, name: str = "") -> Any:
    if name in _SAID_OF_REPORT:
        return None
    match value:
        case str():
            return value if name in _PLAIN_OF_REPORT else ""
        case Mapping():
            return {key: _wordless(inner, key) for key, inner in value.items()}
        case list():
            return [_wordless(inner, name) for inner in value]
        case _:
            return value
