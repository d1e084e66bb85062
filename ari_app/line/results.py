"""The result of a call that was not answered, from Q.850 causes, SIP statuses and Dial(). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ari_app.line.interface import Result

_SAY_NOTHING: Final = frozenset({None, 0, 16, 31})
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
# What a Dial() says at its end. It is coarse: a number that does not exist is `NOANSWER`, too.
_BY_DIAL_STATUS: Final = MappingProxyType(
    {
        "BUSY": Result.BUSY,
        "CONGESTION": Result.UNREACHABLE,
        "CHANUNAVAIL": Result.UNREACHABLE,
    }
)
# Nobody took the call: where it rang, nobody was there; where it did not, nobody can be.
_NOBODY_SIP: Final = frozenset({408, 480})
_NOBODY_CAUSES: Final = frozenset({18, 19, 102})


@dataclass(slots=True)
class Route:
    """The last call that the dialplan behind a Local channel has made, as far as it is known.

    Attributes:
        dial_status: `DIALSTATUS` of its Dial(), or of the one that called the Local channel.
        cause, sip_code: Q.850 cause and SIP status with which the channel that it called ended.
    """

    dial_status: str = ""
    cause: int | None = None
    sip_code: int | None = None

    def why(self, cause: int | None, sip_code: int | None) -> tuple[int | None, int | None]:
        """Return the cause and the SIP status of a leg: its own, or the route's where it has none.

        A Local channel ends without a cause, or with a normal one, whatever its dialplan met.
        """
        own = cause if cause not in _SAY_NOTHING else self.cause or cause
        return own, sip_code or self.sip_code


def result_of(
    cause: int | None, sip_code: int | None, *, rang: bool, dial_status: str = ""
) -> Result:
    """Return the result of a call that was not answered.

    Args:
        cause: The Q.850 cause; 0 or None when none was set.
        sip_code: The SIP status, where Asterisk tells it.
        rang: It rang, or something was heard from there.
        dial_status: How the Dial() of the route behind a Local channel ended; it counts where
            there is neither a cause that says something nor a SIP status.
    """
    if cause in _SAY_NOTHING and not sip_code:
        if dial_status == "NOANSWER":
            return Result.NO_ANSWER if rang else Result.UNREACHABLE
        return _BY_DIAL_STATUS.get(dial_status, Result.FAILED)
    if sip_code in _NOBODY_SIP or (not sip_code and cause in _NOBODY_CAUSES):
        return Result.NO_ANSWER if rang else Result.UNREACHABLE
    if sip_code and (by_code := _BY_SIP_CODE.get(sip_code)) is not None:
        return by_code
    return _BY_CAUSE.get(cause or 0, Result.FAILED)
