"""Signed URLs: tokens that open one agent's socket for a while. Pure."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass

MAX_SIGNATURES = 10_000


@dataclass(frozen=True, slots=True)
class _Signature:
    agent_id: str
    expires_at: float
    conversation_id: str | None


@dataclass(frozen=True, slots=True)
class Admission:
    """What a good signature grants."""

    conversation_id: str | None
    """The id that was promised with the URL, if one was."""


class Signatures:
    """Issues and checks signatures.

    One issued with a conversation id opens a single conversation, any other opens many until it
    expires. At most ``MAX_SIGNATURES`` are remembered; the oldest go first.
    """

    def __init__(self, lifetime_s: float) -> None:
        self._lifetime_s = lifetime_s
        self._issued: OrderedDict[str, _Signature] = OrderedDict()

    def issue(self, agent_id: str, *, conversation_id: str | None, now: float) -> str:
        """Return a new token."""
        if len(self._issued) == MAX_SIGNATURES:
            self._issued.popitem(last=False)
        token = f"cvtkn_{secrets.token_urlsafe(24)}"
        self._issued[token] = _Signature(agent_id, now + self._lifetime_s, conversation_id)
        return token

    def redeem(self, token: str, agent_id: str, now: float) -> Admission | None:
        """Check a token; None when it is unknown, expired, spent or somebody else's."""
        signature = self._issued.get(token)
        if signature is None or signature.agent_id != agent_id or now >= signature.expires_at:
            return None
        if signature.conversation_id is not None:
            del self._issued[token]
        return Admission(signature.conversation_id)
