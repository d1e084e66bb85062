"""Answering machine detection: what is done with whoever has answered. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Settings name what is here, and every command reads them.
    from ari_app.line.interface import Screened


class OnMachine(StrEnum):
    """What to do when a machine has answered; `TALK` also stands for a person."""

    TALK = "talk"
    LEAVE_MESSAGE = "leave_message"
    HANG_UP = "hang_up"


@dataclass(frozen=True, slots=True)
class AmdRules:
    """What is done, by what Asterisk's AMD() has found.

    Attributes:
        machine: When it says machine.
        words: When it says so because it heard many words without a pause; None: as `machine`.
        silence: When it says so because it heard nobody speak.
        notsure: When it could not decide in its time.
    """

    machine: OnMachine = OnMachine.TALK
    words: OnMachine | None = None
    silence: OnMachine = OnMachine.TALK
    notsure: OnMachine = OnMachine.TALK

    def decide(self, found: Screened | None) -> OnMachine:
        """Decide what to do, by the result of AMD() and its cause; None: it was not asked."""
        if found is None:
            return OnMachine.TALK
        match found.status.upper(), found.cause.upper().partition("-")[0]:
            case "MACHINE", "INITIALSILENCE":
                return self.silence
            case "MACHINE", "MAXWORDS":
                return self.words or self.machine
            case "MACHINE", _:
                return self.machine
            case "NOTSURE", _:
                return self.notsure
            case _:
                return OnMachine.TALK
