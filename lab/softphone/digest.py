"""Digest authentication (RFC 2617, RFC 7616) as a SIP client needs it: MD5 and SHA-256.

Pure.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from lab.softphone.fields import parse_parameters, quote, split_outside
from lab.softphone.sip import Request, Response, retried

_HASHES = {"MD5": "md5", "SHA-256": "sha256"}


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who we say we are. The password never shows in a repr."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a 401 or 407 asks for."""

    realm: str
    nonce: str
    algorithm: str = "MD5"
    qop: str | None = None
    opaque: str | None = None
    stale: bool = False

    @classmethod
    def parse(cls, value: str) -> Challenge | None:
        """Read a challenge; None when it is one that we cannot meet."""
        scheme, _, rest = value.strip().partition(" ")
        found = dict(parse_parameters(rest, ","))
        algorithm = (found.get("algorithm") or "MD5").upper()
        offered = split_outside(found.get("qop") or "", ",")
        if scheme.lower() != "digest" or algorithm not in _HASHES:
            return None
        if "nonce" not in found or (offered and "auth" not in offered):
            return None
        return cls(
            realm=found.get("realm") or "",
            nonce=found["nonce"] or "",
            algorithm=algorithm,
            qop="auth" if offered else None,
            opaque=found.get("opaque"),
            stale=(found.get("stale") or "").lower() == "true",
        )

    def answer(self, credentials: Credentials, method: str, uri: str, cnonce: str) -> str:
        """The value of Authorization (RFC 7616, section 3.4.1), for the nonce's first use."""
        first = self._hash(f"{credentials.username}:{self.realm}:{credentials.password}")
        second = self._hash(f"{method}:{uri}")
        count = "00000001"
        middle = f"{count}:{cnonce}:{self.qop}:" if self.qop else ""
        parts = [
            f"username={quote(credentials.username)}",
            f"realm={quote(self.realm)}",
            f"nonce={quote(self.nonce)}",
            f"uri={quote(uri)}",
            f"response={quote(self._hash(f'{first}:{self.nonce}:{middle}{second}'))}",
            f"algorithm={self.algorithm}",
        ]
        if self.qop:
            parts += [f"qop={self.qop}", f"nc={count}", f"cnonce={quote(cnonce)}"]
        if self.opaque is not None:
            parts.append(f"opaque={quote(self.opaque)}")
        return "Digest " + ", ".join(parts)

    def _hash(self, text: str) -> str:
        return hashlib.new(
            _HASHES[self.algorithm], text.encode("utf-8", "surrogateescape"), usedforsecurity=False
        ).hexdigest()


def authorised(
    request: Request,
    response: Response,
    credentials: Credentials | None,
    *,
    branch: str,
    cnonce: str,
) -> Request | None:
    """The refused request once more, with credentials.

    None when the response asks for none, when there are none to give, when none of the challenges
    can be met, or when the credentials were already refused (unless only the nonce was stale).
    """
    match response.status:
        case 401:
            asks, answers = "WWW-Authenticate", "Authorization"
        case 407:
            asks, answers = "Proxy-Authenticate", "Proxy-Authorization"
        case _:
            return None
    if credentials is None:
        return None
    tried = request.headers.get(answers) is not None
    for value in response.headers.all(asks):
        challenge = Challenge.parse(value)
        if challenge is not None and (not tried or challenge.stale):
            answer = challenge.answer(credentials, request.method, request.uri, cnonce)
            return retried(request, branch, (answers, answer))
    return None
