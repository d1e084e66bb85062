"""Supervisors of one call: who takes it over, who listens, and what its record says of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final, TypeVar

from ari_app.call.context import CallContext
from ari_app.call.conversation import AgentSide
from ari_app.call.listening import Ear
from ari_app.call.signals import GiveBack
from ari_app.call.sound import CallSound
from ari_app.records.events import GivenBack, Noted, TakenOver, TakeOverFailed
from ari_app.records.record import Listener, TakeOver

_MOST_KEPT: Final = 100
_SOMEBODY: Final = "somebody"
"""The name of a supervisor who needs no key."""

_Kept = TypeVar("_Kept")


class Supervision:
    """Keeps a call's record of its supervisors, and silences the agent while one speaks.

    Args:
        context: What the parts of the call share.
        sound: The call's sound.
        side: Its agent.
    """

    def __init__(self, context: CallContext, sound: CallSound, side: AgentSide) -> None:
        self._context, self._sound, self._side = context, sound, side
        # A call whose process was lost may have been taken over before.
        takes = context.record.take_overs
        self._last: TakeOver | None = takes[-1] if takes else None

    def asked(self, number: str, who: str) -> None:
        """Record that a supervisor is called.

        Args:
            number: Their telephone.
            who: The name of the key that asked for it; empty: without keys.
        """
        self._last = TakeOver(who, number, asked=self._at())
        _keep(self._context.record.take_overs, self._last)
        self._note(who, "calls a phone to take the call over")

    def failed(self, why: str) -> None:
        """Record that the supervisor did not answer.

        Args:
            why: A slug.
        """
        taken = self._taken
        taken.failed = why
        self._context.log.info("take_over_failed", key=taken.who, reason=why)
        self._note(taken.who, f"did not take the call over ({why.replace('_', ' ')})")
        self._context.note(TakeOverFailed(taken.who, why))

    def taken_over(self) -> None:
        """Silence the agent: the supervisor speaks with the caller."""
        taken = self._taken
        taken.began = self._at()
        self._side.fall_silent()
        self._context.log.info("taken_over", key=taken.who)
        self._note(taken.who, "speaks with the caller")
        self._context.note(TakenOver(taken.who))

    def given_back(self, how: GiveBack) -> None:
        """Let the agent go on, or the one that comes in its place."""
        taken = self._taken
        assert taken.began is not None, "the call was taken over"
        taken.until, taken.renewed = self._at(), how.lost
        seconds = round(taken.until - taken.began, 3)
        self._context.log.info("given_back", key=taken.who, seconds=seconds)
        self._note(taken.who, "gives the call back to the agent")
        self._context.note(GivenBack(taken.who, seconds))
        self._side.speak_again(seconds, there=how.there)

    @contextlib.contextmanager
    def listened(self, who: str) -> Iterator[Ear]:
        """Let a supervisor hear both sides, until the context is left.

        Args:
            who: The name of their key; empty: without keys.
        """
        context, sound = self._context, self._sound
        listener = Listener(who, self._at())
        _keep(context.record.listeners, listener)
        ear = sound.add_ear()
        self._note(who, "listens")
        context.mark()
        try:
            yield ear
        finally:
            sound.remove_ear(ear)
            if listener.until is None:
                listener.until = self._at()
            if not context.over:
                self._note(who, "listens no more")
                context.mark()

    def heard_until(self, at: float) -> None:
        """Record that everybody who listened has stopped: their connections ended with the lost
        process.

        Args:
            at: When, in seconds of the call.
        """
        for listener in self._context.record.listeners:
            if listener.until is None:
                listener.until = round(max(at, listener.began), 3)
                self._note(listener.who, "listens no more")

    def ended(self) -> None:
        """Record that taking over and listening have ended with the call."""
        record = self._context.record
        parts: list[TakeOver | Listener] = [*record.take_overs, *record.listeners]
        for each in parts:
            if each.until is None and each.began is not None:
                each.until = self._at()

    @property
    def _taken(self) -> TakeOver:
        assert self._last is not None, "a supervisor was called"
        return self._last

    def _note(self, who: str, does: str) -> None:
        self._context.say(Noted(f"{who or _SOMEBODY} {does}"))

    def _at(self) -> float:
        return round(self._context.duration(), 3)


def _keep(kept: list[_Kept], one: _Kept) -> None:
    if len(kept) < _MOST_KEPT:
        kept.append(one)
