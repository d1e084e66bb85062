"""Requests to the server that a number belongs to: signed, with deadlines, repeated once."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlencode, urljoin, urlsplit, urlunsplit

import aiohttp
from yarl import URL

from lab.twilio.signatures import HEADER, fragment_of, sign

CONNECT_MS: Final = 5000
READ_MS: Final = 15_000
TOTAL_SECONDS: Final = 15.0
Signing = Literal["right", "wrong", "missing"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was made, for whoever looks at it afterwards.

    Attributes:
        status: The answer's; 0 when there was none.
        failure: Why not: `ct` no connection, `rt` no answer in time; or `4xx`, `5xx`.
    """

    url: str
    fields: Mapping[str, str]
    token: str
    status: int = 0
    body: bytes = b""
    content_type: str = ""
    failure: str = ""

    @property
    def is_good(self) -> bool:
        """Whether the answer can be used."""
        return 200 <= self.status < 300


class Webhooks:
    """Asks a server under its public addresses, which may lead to this machine.

    Args:
        token: The auth token that signs.
        origins: Public origins, and where they lead: `{"https://bridge.test": "http://127.0.0.1:…"}`.

    Attributes:
        asked: Every request, each attempt of it, in order of its end.
        signing: What the signature of requests is from now on.
        patience: Of all of Twilio's deadlines, this part; a test need not wait 15 s.
    """

    def __init__(self, token: str, origins: Mapping[str, str]) -> None:
        self.token = token
        self.asked: list[Asked] = []
        self.signing: Signing = "right"
        self.patience = 1.0
        self._origins = origins
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close what is open."""
        if self._session is not None:
            await self._session.close()

    def where(self, url: str) -> tuple[str, str]:
        """Return where a public address leads, and the Host header that goes there."""
        parts = urlsplit(url)
        secure = {"wss": "https", "ws": "http"}.get(parts.scheme, parts.scheme)
        local = self._origins.get(f"{secure}://{parts.netloc}", f"{secure}://{parts.netloc}")
        to = urlsplit(local)
        return urlunsplit((to.scheme, to.netloc, parts.path, parts.query, "")), parts.netloc

    def signature(
        self, url: str, fields: Mapping[str, str], signing: Signing | None = None
    ) -> dict[str, str]:
        """Return the header that signs a request, as `signing` says."""
        match signing or self.signing:
            case "missing":
                return {}
            case "wrong":
                return {HEADER: sign(url, fields.items(), self.token[::-1])}
            case _:
                return {HEADER: sign(url, fields.items(), self.token)}

    async def ask(self, url: str, fields: Mapping[str, str], method: str = "POST") -> Asked:
        """Ask, and once more where there was no answer at all; the last answer.

        The fragment of the address may say when else it is repeated, as Twilio's does.
        """
        overrides = fragment_of(url)
        again = overrides.get("rp", "ct").split(",")
        token = str(uuid.uuid4())
        asked = Asked(url, fields, token)
        for _ in range(1 + int(overrides.get("rc", "1"))):
            asked = await self._ask_once(url, fields, method, token, overrides)
            self.asked.append(asked)
            if asked.is_good or not {asked.failure, "all"} & {*again}:
                break
        return asked

    async def _ask_once(
        self,
        url: str,
        fields: Mapping[str, str],
        method: str,
        token: str,
        overrides: Mapping[str, str],
    ) -> Asked:
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        if method == "GET":
            query = urlencode(fields)
            parts = urlsplit(url)
            url = urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, query)))))
        posted = fields if method == "POST" else {}
        local, host = self.where(url)
        headers = {
            "Host": host,
            "User-Agent": "TwilioProxy/1.1",
            "I-Twilio-Idempotency-Token": token,
            **self.signature(url, posted),
        }
        timeout = aiohttp.ClientTimeout(
            total=TOTAL_SECONDS * self.patience,
            sock_connect=int(overrides.get("ct", CONNECT_MS)) / 1000 * self.patience,
            sock_read=int(overrides.get("rt", READ_MS)) / 1000 * self.patience,
        )
        try:
            async with self._session.request(
                method,
                URL(local, encoded=True),
                data=dict(posted) if method == "POST" else None,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
            ) as answer:
                body = await answer.read()
                kind = answer.headers.get("Content-Type", "")
                failure = f"{answer.status // 100}xx"
                return Asked(url, fields, token, answer.status, body, kind, failure)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            return Asked(url, fields, token, failure="ct")
        except (aiohttp.ClientError, TimeoutError, OSError):
            return Asked(url, fields, token, failure="rt")


def absolute(base: str, url: str) -> str:
    """Return the address that a document from `base` means; empty when it has none."""
    found = urljoin(base, url) if base else url
    return found if urlsplit(found).scheme in ("http", "https") else ""
