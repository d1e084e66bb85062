"""How a call ends, in the dialplan's words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Result(StrEnum):
    """What became of a call that we placed."""

    ANSWERED = "answered"
    BUSY = "busy"
    NO_ANSWER = "no_answer"
    REJECTED = "rejected"
    UNREACHABLE = "unreachable"
    INVALID_NUMBER = "invalid_number"
    FAILED = "failed"


_BY_SIP_CODE: Final = MappingProxyType(
    {
        **dict.fromkeys((486, 600), Result.BUSY),
        **dict.fromkeys((401, 403, 407, 603, 607, 608), Result.REJECTED),
        **dict.fromkeys((404, 410, 414, 416, 484, 485, 604), Result.INVALID_NUMBER),
        **dict.fromkeys((430, 502, 503, 504), Result.UNREACHABLE),
        487: Result.NO_ANSWER,
    }
)
# ITU-T Q.850.
_BY_CAUSE: Final = MappingProxyType(
    {
        17: Result.BUSY,
        21: Result.REJECTED,
        **dict.fromkeys((1, 22, 28), Result.INVALID_NUMBER),
        **dict.fromkeys((2, 3, 20, 27, 34, 38, 41, 42, 44), Result.UNREACHABLE),
    }
)
# Nobody took the call: where it rang, nobody was there; where it did not, nobody can be.
_NOBODY_SIP: Final = frozenset({408, 480})
_NOBODY_CAUSES: Final = frozenset({18, 19, 102})


def result_of(cause: int | None, sip_code: int | None, *, rang: bool) -> Result:
    """Say why a call was not answered.

    Args:
        cause: The Q.850 cause; 0 or None when none was set.
        sip_code: The SIP status, where Asterisk tells it.
        rang: It rang, or something was heard from there.
    """
    if sip_code in _NOBODY_SIP or (not sip_code and cause in _NOBODY_CAUSES):
        return Result.NO_ANSWER if rang else Result.UNREACHABLE
    if sip_code and (by_code := _BY_SIP_CODE.get(sip_code)) is not None:
        return by_code
    return _BY_CAUSE.get(cause or 0, Result.FAILED)


class Status(StrEnum):
    """``AGENT_STATUS``: what the dialplan is told when the agent's part has ended."""

    COMPLETED = "COMPLETED"
    TRANSFER = "TRANSFER"
    TIMEOUT = "TIMEOUT"
    REJECTED = "REJECTED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended.

    Attributes:
        status: For the dialplan.
        reason: A stable slug such as ``agent_ended`` or ``agent_timeout``.
        transfer_to: Where the agent wants the caller to go; only with ``TRANSFER``.
    """

    status: Status
    reason: str
    transfer_to: str | None = None
