"""The chronicle of a call: who said what and when it was heard, tools, keys, notes. Pure.

It is made of the call's events, and of the times at which the line plays the agent's voice. An
agent's words and its voice come in any order and are put together here: by the id that both bear,
or else in the order in which they came. Times are seconds since the call began.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from ari_app.records.bounded import Bounded
from ari_app.records.events import CallEvent, KeysPressed, Noted, Said, ToolRan, size_of
from ari_app.records.plain_json import plain_json, plain_text

MAX_BYTES: Final = 4 * 1024 * 1024
"""Of all that is kept of one call; the oldest is forgotten, and counted."""
_ENTRY_BYTES: Final = 128
"""What an entry takes beside its words."""
_MAX_ENTRIES: Final = MAX_BYTES // _ENTRY_BYTES
_RECENT: Final = 32
"""So many responses back is looked for what belongs together."""
_TOLD: Final = frozenset(
    {
        "hears",
        "response_over",
        "sound_began",
        "another_agent",
        "interrupted",
        "silenced",
        "heard_again",
        "ended",
    }
)
_Recent = TypeVar("_Recent")
_SURELY_HEARD_SECONDS: Final = 0.1
"""A response that lacks no more than this at a call's end was heard."""


@dataclass(slots=True)
class Turn:
    """What one side said.

    Attributes:
        at, until: When it began and ended: the caller's as the line brought it, the agent's as the
            caller heard it. An agent's turn that was never played has only `at`, when it was told.
        who: `caller` or `agent`.
        text: All the words, also those that were not heard.
        interrupted: The caller spoke over it.
        heard: What of the words was heard, where it was not all; None otherwise.
    """

    at: float
    who: str
    text: str
    until: float | None = None
    interrupted: bool = False
    heard: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it as a document has it."""
        return {
            "at": self.at,
            "until": self.until,
            "who": self.who,
            "text": self.text,
            "interrupted": self.interrupted,
            "heard": self.heard,
        }


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A tool that the agent called at `at`, and that took `seconds`."""

    at: float
    name: str
    arguments: Mapping[str, Any]
    result: str
    is_error: bool
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Return it as a document has it."""
        return {
            "at": self.at,
            "name": self.name,
            "arguments": self.arguments,
            "result": self.result,
            "is_error": self.is_error,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys that the caller pressed, as far as they may be shown."""

    at: float
    digits: str

    def as_json(self) -> dict[str, Any]:
        """Return it as a document has it."""
        return {"at": self.at, "digits": self.digits}


@dataclass(frozen=True, slots=True)
class Note:
    """Something else that belongs to the course of the call; it repeats nobody's words."""

    at: float
    text: str

    def as_json(self) -> dict[str, Any]:
        """Return it as a document has it."""
        return {"at": self.at, "text": self.text}


Entry = Turn | ToolUse | Keys | Note


class _Response:
    """The sound of one response of the agent's: when the caller hears it."""

    __slots__ = ("began", "cut", "last_id", "over", "seconds", "turn", "until", "waits", "wordless")

    def __init__(self, event_id: int, began: float, *, waits: bool) -> None:
        self.last_id = event_id
        self.began = self.until = began
        self.seconds = 0.0
        self.over = self.cut = self.wordless = False
        self.waits = waits
        self.turn: Turn | None = None

    def heard_of(self, text: str) -> str | None:
        """Return what was heard of its words, by the time that it sounded; None: all."""
        lacks = self.seconds - (self.until - self.began)
        if lacks <= 0 or (not self.cut and lacks <= _SURELY_HEARD_SECONDS):
            return None
        share = (self.until - self.began) / self.seconds
        head = text[: int(len(text) * share)]
        if not text[len(head) : len(head) + 1].isspace():
            head = head.rpartition(" ")[0] or head
        return f"{head.rstrip()} …" if head.strip() else ""

    def settle(self) -> None:
        """Write its times down with its words."""
        turn = self.turn
        if turn is not None:
            turn.at, turn.until = round(self.began, 3), round(self.until, 3)
            turn.interrupted = turn.interrupted or self.cut
            if turn.heard is None:
                turn.heard = self.heard_of(turn.text)


def _keep_recent(kept: list[_Recent], newest: _Recent) -> None:
    kept.append(newest)
    del kept[:-_RECENT]


class Chronicle:
    """What happened in one call.

    Args:
        max_bytes: Of all its words; the oldest entries are forgotten.

    Attributes:
        watch: Told of all that comes beside events, by the method's name and with its arguments:
            `replay` takes it.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.watch: Callable[..., None] = lambda *told: None
        self._entries: Bounded[Entry] = Bounded(_MAX_ENTRIES, max_bytes)
        # The last `_RECENT` of each.
        self._responses: list[_Response] = []
        self._unheard: list[tuple[int | None, Turn]] = []
        self._agent_turns: list[Turn] = []
        self._sounds = False
        self._silenced = False
        self._heard_until = 0.0

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    @property
    def forgotten(self) -> int:
        """How many entries before the first are no longer kept."""
        return self._entries.forgotten

    @property
    def last_said(self) -> Turn | None:
        """The agent's last turn; its times follow as it is heard."""
        return self._agent_turns[-1] if self._agent_turns else None

    # --- events

    def take(self, event: CallEvent, at: float) -> None:
        """Take what has happened at `at`; most kinds of events mean nothing here."""
        match event:
            case Said("caller", text):
                began = at if event.began is None else event.began
                until = at if event.until is None else event.until
                turn = Turn(round(began, 3), "caller", plain_text(text), round(until, 3))
                self._keep(turn, event)
            case Said("agent", text):
                self._said(event, Turn(at, "agent", plain_text(text)))
            case Said(_, text):
                self._corrected(plain_text(event.original), plain_text(text))
            case ToolRan():
                began = round(at - event.seconds, 3)
                name, result = plain_text(event.name), plain_text(event.result)
                arguments = plain_json(event.arguments)
                self._keep(
                    ToolUse(began, name, arguments, result, event.is_error, event.seconds), event
                )
            case KeysPressed(text):
                self._keep(Keys(at, plain_text(text)), event)
            case Noted(text):
                self._keep(Note(at, plain_text(text)), event)
            case _:
                pass

    def _keep(self, entry: Entry, event: CallEvent) -> None:
        self._entries.append(entry, _ENTRY_BYTES + size_of(event))

    def _said(self, event: Said, turn: Turn) -> None:
        self._keep(turn, event)
        _keep_recent(self._agent_turns, turn)
        event_id = event.event_id
        for response in self._responses:
            fits = event_id is None or event_id <= response.last_id
            if response.turn is None and not response.wordless and fits:
                response.turn = turn
                response.settle()
                return
        if self._silenced:
            turn.interrupted, turn.heard = True, ""
        else:
            _keep_recent(self._unheard, (event_id, turn))

    def _corrected(self, original: str, heard: str) -> None:
        turns = self._agent_turns
        last = [turn for turn in turns if turn.interrupted] or turns
        same = [turn for turn in turns if turn.text == original]
        for turn in (same or last)[-1:]:
            turn.interrupted, turn.heard = True, heard

    # --- what the caller hears of the agent

    def hears(self, event_id: int, began: float, until: float) -> None:
        """Take the times at which a piece of the agent's voice is heard, if nothing comes between.

        Before `sound_began` they are counted from then on. Nothing is heard before what came before
        it: a line that takes sound ahead of time plays it later than it seems.
        """
        began, until = max(began, self._heard_until), max(began, self._heard_until) + until - began
        self._heard_until = until
        self.watch("hears", event_id, began, until)
        response = self._responses[-1] if self._responses else None
        if response is None or response.over or self._belongs_to_another(event_id, response):
            response = _Response(event_id, began, waits=not self._sounds)
            response.turn = self._words_for(event_id)
            _keep_recent(self._responses, response)
        response.last_id = event_id
        response.seconds += until - began
        response.until = until
        response.settle()

    def _belongs_to_another(self, event_id: int, response: _Response) -> bool:
        return response.turn is not None and any(each == event_id for each, _ in self._unheard)

    def _words_for(self, event_id: int) -> Turn | None:
        unheard = self._unheard
        fitting = [pair for pair in unheard if pair[0] == event_id] or [
            pair for pair in unheard if pair[0] is None or pair[0] <= event_id
        ]
        if not fitting:
            return None
        unheard.remove(fitting[0])
        return fitting[0][1]

    def response_over(self) -> None:
        """Take note that nothing more comes of the response."""
        if self._responses and not self._responses[-1].over:
            self._responses[-1].over = True
            self.watch("response_over")

    def sound_began(self, at: float) -> None:
        """Take note that the caller hears from now on what has waited."""
        self.watch("sound_began", at)
        self._heard_until += 0.0 if self._sounds else at
        self._sounds = True
        for response in self._responses:
            if response.waits:
                response.waits = False
                response.began += at
                response.until += at
                response.settle()

    def another_agent(self) -> None:
        """Take note that an agent has come in the place of a lost one, and counts anew."""
        self.watch("another_agent")
        self._unheard.clear()
        for response in self._responses:
            response.over = response.wordless = True

    def interrupted(self, at: float, event_id: int | None = None) -> None:
        """Take note that the agent falls silent, for the caller speaks over it.

        Args:
            at: When.
            event_id: What is told up to this id is not heard either.
        """
        self.watch("interrupted", at, event_id)
        for response in self._cut(at):
            response.cut = True
            response.settle()
        for each, turn in tuple(self._unheard):
            if each is not None and event_id is not None and each <= event_id:
                turn.interrupted, turn.heard = True, ""
                self._unheard.remove((each, turn))

    def silenced(self, at: float) -> None:
        """Take note that nothing of the agent is heard until `heard_again`: it is held."""
        self.watch("silenced", at)
        self.interrupted(at)
        for _, turn in self._unheard:
            turn.interrupted, turn.heard = True, ""
        self._unheard.clear()
        self._silenced = True

    def heard_again(self) -> None:
        """Take note that what the agent says is heard again."""
        self.watch("heard_again")
        self._silenced = False

    def ended(self, at: float) -> None:
        """Take note that the caller hears no more."""
        self.watch("ended", at)
        for response in self._cut(at):
            response.settle()

    def replay(self, name: str, *args: Any) -> None:
        """Take what another chronicle's `watch` was told.

        Raises:
            ValueError: It is nothing that it tells.
        """
        if name not in _TOLD:
            raise ValueError(f"a chronicle has no {name}")
        getattr(self, name)(*args)

    def _cut(self, at: float) -> list[_Response]:
        self.response_over()
        self._heard_until = at if self._sounds else 0.0
        cut = [response for response in self._responses if response.waits or response.until > at]
        for response in cut:
            response.began = at if response.waits else min(response.began, at)
            response.until = at
            response.waits = False
        return cut
