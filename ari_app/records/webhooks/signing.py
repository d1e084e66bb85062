"""Signatures of webhooks: ours, and those of others that sign in the same way. Pure.

A signature is a header `t=UNIX,NAME=HEX`: HMAC-SHA256 of the time, a dot, and the body as it was
sent. Several signatures may stand in one header, while a secret is replaced by another.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Final

OURS: Final = "v1"
"""The name of our signatures."""
_MAX_HEADER: Final = 2048
_MAX_SIGNATURES: Final = 16
_TIME: Final = re.compile(r"[0-9]{1,12}\Z")
_HEX: Final = re.compile(r"[0-9a-fA-F]{64}\Z")


def secrets_of(text: str) -> list[bytes]:
    """Take secrets apart that stand in one setting, with commas between them."""
    return [each.strip().encode() for each in text.split(",") if each.strip()]


def sign(secrets: Sequence[bytes], body: bytes, timestamp: int) -> str:
    """Sign a body, once with each secret.

    Args:
        secrets: One or more.
        body: As it is sent.
        timestamp: Now, as Unix time in whole seconds.
    """
    signatures = [
        f"{OURS}={hmac.digest(secret, b'%d.' % timestamp + body, hashlib.sha256).hex()}"
        for secret in secrets
    ]
    return ",".join([f"t={timestamp}", *signatures])


class BadSignature(ValueError):
    """A signature does not prove anything. `reason` is a slug, for counting."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class SignatureCheck:
    """Checks a body against the header that came with it, piece by piece.

    Args:
        header: The header's value; None: there was none.
        secrets: A signature made with any of them will do.
        now: Unix time.
        name: Of the signatures that count.
        past_seconds, future_seconds: How old a signature may be, and how far ahead of our clock.

    Raises:
        BadSignature: `no_signature`, `malformed_signature`, `too_old` or `from_the_future`.
    """

    def __init__(
        self,
        header: str | None,
        secrets: Sequence[bytes],
        now: float,
        *,
        name: str = OURS,
        past_seconds: float = 300.0,
        future_seconds: float = 300.0,
    ) -> None:
        if not header:
            raise BadSignature("no_signature")
        if len(header) > _MAX_HEADER:
            raise BadSignature("malformed_signature")
        parts = [part.strip().partition("=") for part in header.split(",")]
        times = [value for key, _, value in parts if key == "t"]
        self._given = [value.lower() for key, _, value in parts if key == name]
        if len(times) != 1 or not _TIME.match(times[0]):
            raise BadSignature("malformed_signature")
        if not 0 < len(self._given) <= _MAX_SIGNATURES:
            raise BadSignature("malformed_signature")
        if not all(_HEX.match(each) for each in self._given):
            raise BadSignature("malformed_signature")
        if now - int(times[0]) > past_seconds:
            raise BadSignature("too_old")
        if int(times[0]) - now > future_seconds:
            raise BadSignature("from_the_future")
        # As it was written: a leading zero is signed, too.
        begin = f"{times[0]}.".encode()
        self._hashes = [hmac.new(secret, begin, hashlib.sha256) for secret in secrets]

    def update(self, piece: bytes) -> None:
        """Take the next piece of the body."""
        for each in self._hashes:
            each.update(piece)

    def finish(self) -> None:
        """Compare: the body is complete.

        Raises:
            BadSignature: `wrong_signature`.
        """
        right = False
        for wanted in [each.hexdigest() for each in self._hashes]:
            for given in self._given:
                right |= hmac.compare_digest(wanted, given)
        if not right:
            raise BadSignature("wrong_signature")
