"""The names by which a dialplan, or the address of a number's webhook, says what holds for its
calls. Pure.

Those of overrides are the places in ElevenLabs' `conversation_config_override`. They have a dot in
them, which no dynamic variable has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from ari_app.line.interface import CallLimits

WORD: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
"""A name, or a reason."""
_A_WORD: Final = "letters, digits and _ . : -, 128 at most"
_NUMBER: Final = re.compile(r"[0-9]{1,5}(\.[0-9]{1,3})?")
_MAX_TEXT: Final = 4096
MOST_SECONDS: Final = 86_400.0
_YES_OR_NO: Final = {"yes": True, "no": False}


def seconds(value: str, most: float) -> float | None:
    """Read a number of seconds; None: it is none, or above `most`."""
    if not _NUMBER.fullmatch(value):
        return None
    number = float(value)
    return number if number <= most else None


def _word(value: str) -> str | None:
    return value if WORD.fullmatch(value) else None


def _text(value: str) -> str | None:
    return value if len(value) <= _MAX_TEXT else None


def _number(value: str) -> float | None:
    return float(value) if _NUMBER.fullmatch(value) else None


_Read = Callable[[str], str | float | None]
_WORDS: Final = (_word, _A_WORD)
_TEXTS: Final = (_text, f"a text of at most {_MAX_TEXT} characters")
_NUMBERS: Final = (_number, "a number")
_OVERRIDES: Final[Mapping[str, tuple[_Read, str]]] = MappingProxyType(
    {
        "agent.language": _WORDS,
        "agent.first_message": _TEXTS,
        "agent.prompt.prompt": _TEXTS,
        "agent.prompt.llm": _WORDS,
        "tts.voice_id": _WORDS,
        "tts.model_id": _WORDS,
        "tts.stability": _NUMBERS,
        "tts.speed": _NUMBERS,
        "tts.similarity_boost": _NUMBERS,
    }
)
TEXTS: Final = frozenset(name for name, reads in _OVERRIDES.items() if reads is _TEXTS)
"""Names whose values are whole sentences."""
NAMES: Final = frozenset(
    {"agent_id", "record", "call_timeout_seconds", "no_speech_timeout_seconds", *_OVERRIDES}
)


@dataclass(slots=True)
class OwnArguments:
    """What is said of a call by the names in `NAMES`.

    Attributes:
        agent_id: The agent to talk with; None leaves it to the settings.
        recorded: Whether the call is recorded from its beginning; None leaves it to the settings.
        call_timeout_seconds, no_speech_timeout_seconds: As in `CallLimits`.
        overridden: By the name of each place in `conversation_config_override`, what is there.
    """

    agent_id: str | None = None
    recorded: bool | None = None
    call_timeout_seconds: float | None = None
    no_speech_timeout_seconds: float | None = None
    overridden: dict[str, str | float] = field(default_factory=dict)

    def read(self, name: str, value: str) -> str | None:
        """Take one of `NAMES`. An empty value says nothing.

        Returns:
            What is wrong with it, as a sentence without the value; it is left out then.
        """
        if not value:
            return None
        match name:
            case "agent_id":
                self.agent_id = _word(value)
                wrong, must = self.agent_id is None, _A_WORD
            case "record":
                self.recorded = _YES_OR_NO.get(value.lower())
                wrong, must = self.recorded is None, "yes or no"
            case "call_timeout_seconds":
                # One of 0 would end every call as it begins.
                self.call_timeout_seconds = seconds(value, MOST_SECONDS) or None
                wrong = self.call_timeout_seconds is None
                must = f"a number of seconds above 0, {MOST_SECONDS:.0f} at most"
            case "no_speech_timeout_seconds":
                self.no_speech_timeout_seconds = seconds(value, MOST_SECONDS)
                wrong = self.no_speech_timeout_seconds is None
                must = f"a number of seconds from 0 to {MOST_SECONDS:.0f}"
            case _:
                read, must = _OVERRIDES[name]
                found = read(value)
                wrong = found is None
                if found is not None:
                    self.overridden[name] = found
        return f"{name} is not {must}" if wrong else None

    @property
    def limits(self) -> CallLimits:
        """The limits of the call."""
        return CallLimits(self.call_timeout_seconds, self.no_speech_timeout_seconds)

    @property
    def overrides(self) -> dict[str, Any]:
        """`conversation_config_override`, as far as it is said."""
        told: dict[str, Any] = {}
        for name, value in self.overridden.items():
            *places, last = name.split(".")
            part = told
            for place in places:
                part = part.setdefault(place, {})
            part[last] = value
        return told
