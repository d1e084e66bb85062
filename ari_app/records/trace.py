"""Where a call stands in a trace: W3C Trace Context, read and written. Pure.

Source: https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

_TRACEPARENT: Final = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
    r"(?P<more>-.*)?"
)
_MAX_TRACEPARENT: Final = 256
_TRACESTATE: Final = re.compile(r"[\x20-\x7e\t]{1,512}")
_SAMPLED: Final = 0x01


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span of a trace, as it is named to others.

    Attributes:
        trace_id, span_id: 32 and 16 hexadecimal digits.
        sampled: Whether the trace is kept.
        state: `tracestate`, which is passed on as it came; empty: none.
        parent_id: The span that it is part of; empty: none, or nobody here makes spans.
    """

    trace_id: str
    span_id: str
    sampled: bool = True
    state: str = ""
    parent_id: str = ""

    @property
    def traceparent(self) -> str:
        """The header of this name."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"

    @property
    def headers(self) -> Mapping[str, str]:
        """What a request carries on."""
        told = {"traceparent": self.traceparent}
        return told | {"tracestate": self.state} if self.state else told

    def child(self) -> TraceContext:
        """Return a new span that is part of this one."""
        return replace(self, span_id=secrets.token_hex(8), parent_id=self.span_id)


Begin = Callable[[str, str], TraceContext | None]
"""Gives a call its place: takes the `traceparent` and `tracestate` that it came with, if any."""


def read_traceparent(text: str, state: str = "") -> TraceContext | None:
    """Read what somebody has sent; None where it is not of the standard, and counts as not sent.

    Where no spans are made it is a call's place in the trace as well: what it came with goes on.
    """
    found = _TRACEPARENT.fullmatch(text.strip()[:_MAX_TRACEPARENT])
    if found is None or found["version"] == "ff" or (found["version"] == "00" and found["more"]):
        return None
    if not found["trace"].strip("0") or not found["span"].strip("0"):
        return None
    return TraceContext(
        found["trace"],
        found["span"],
        sampled=bool(int(found["flags"], 16) & _SAMPLED),
        state=state if _TRACESTATE.fullmatch(state) else "",
    )


def headers_of(trace: TraceContext | None) -> Mapping[str, str]:
    """Return what a request for a call carries on; nothing where there is no trace."""
    return {} if trace is None else trace.headers
