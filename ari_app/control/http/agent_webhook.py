"""Takes ElevenLabs' post-call webhooks: whoever has the secret needs no key."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import time
from typing import Any, Final

import structlog
from aiohttp import web

from ari_app.control.http.middleware import address_of, counted_address
from ari_app.control.http.problems import Problem
from ari_app.json_text import NotJson, read_json
from ari_app.process.loop import compute
from ari_app.records.agent_report import NoReport, Report, report_of
from ari_app.records.webhooks.signing import BadSignature, SignatureCheck

log = structlog.get_logger(__name__)

PATH: Final = "/webhook/elevenlabs"
HEADER: Final = "ElevenLabs-Signature"
_REFUSAL: Final = "This is no webhook that is taken here."
_NAME: Final = "v0"
_PAST_SECONDS: Final = 30 * 60.0
_FUTURE_SECONDS: Final = 5 * 60.0
_READ_SECONDS: Final = 60.0
"""The most that a body may take, however long it is."""
_PACE: Final = 256 * 1024
"""Bytes a second at which a body has to come."""
_LATE_SECONDS: Final = 10.0
"""Whoever is so far behind that pace is given up."""
_SLOW_SECONDS: Final = 1.0
"""Whoever is so far behind makes room where all places are taken. Behind a proxy that passes bodies
on as they come, strangers have the same address as those who have the secret: there nothing else
tells them apart before their bodies are complete."""
_MAX_KEPT_BYTES: Final = 2 * 1024 * 1024
_MAX_BYTES: Final = 64 * 1024 * 1024
_AT_ONCE: Final = 8
_LONG_BYTES: Final = 64 * 1024
_LATER_SECONDS: Final = 5.0

KeepReport = Callable[[Report], None]


@dataclass(slots=True, eq=False)
class _Upload:
    """A body on its way, of which nobody knows yet from whom it is.

    Attributes:
        began: When, by the loop's clock.
        limit: Ends it.
        size: The bytes that have come.
        given_up: Another one has its place.
    """

    address: str
    began: float
    limit: asyncio.Timeout
    size: int = 0
    given_up: bool = False

    def behind(self, now: float) -> float:
        """Return by how many seconds it is behind the pace that is asked for."""
        return now - self.began - self.size / _PACE

    def came(self, size: int) -> None:
        """Note that so many bytes more have come.

        Raises:
            TimeoutError: It has been given up.
        """
        if self.given_up:
            raise TimeoutError
        self.size += size
        late = min(_READ_SECONDS, _LATE_SECONDS + self.size / _PACE)
        self.limit.reschedule(self.began + late)

    def give_up(self, now: float) -> None:
        """End it, as soon as the loop comes to that."""
        self.given_up = True
        if not self.limit.expired():
            self.limit.reschedule(now)


class AgentWebhook:
    """The place where the agent's service tells of conversations that are over.

    What is wrong is always refused in the same words, so that nobody learns from them; the reasons
    are counted. A body that is too long to be kept, as one with a call's sound is, is read to its
    end, for only then it is known from whom it is, and thrown away.

    What anybody can send takes few places, and none for long: a body has to come at a pace. When
    all are taken, whoever comes gets the place of one that is slow, or of an address that has
    more than its share.

    Args:
        secrets: A signature made with any of them will do.
        keep: Takes what is to be kept; never waits, never raises.
        count: Called with what became of each: `kept`, `ignored`, or why it was refused.
        now: Unix time.

    Attributes:
        routes: What it serves, where it checks by itself who comes.
    """

    def __init__(
        self,
        secrets: Sequence[bytes],
        keep: KeepReport,
        count: Callable[[str], None],
        *,
        now: Callable[[], float] = time,
    ) -> None:
        self._secrets = secrets
        self._keep = keep
        self._count = count
        self._now = now
        self._under_way = 0
        self._uploads: dict[_Upload, None] = {}
        self.routes = [web.post(PATH, self.serve)]

    async def serve(self, request: web.Request) -> web.Response:
        """Take one event."""
        with self._place(counted_address(request)):
            try:
                event = await self._read(request)
                report = None if event is None else report_of(event)
            except BadSignature as error:
                raise self._refused(request, error.reason) from None
            except (NotJson, NoReport) as error:
                raise self._refused(request, "malformed", str(error)) from None
        if report is None:
            self._count("ignored")
            return _answer("ignored")
        self._keep(report)
        self._count("kept")
        log.info("agent_report", conversation=report.conversation_id)
        return _answer("kept")

    @contextmanager
    def _place(self, address: str) -> Iterator[None]:
        # What is not yet known to be from there lies in memory meanwhile.
        if self._under_way >= _AT_ONCE and not self._make_room(address):
            raise self._full()
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    def _make_room(self, address: str) -> bool:
        """Give up the upload that has least right to its place, if any has less than a new one.

        Args:
            address: Where the new one comes from.
        """
        now = asyncio.get_running_loop().time()
        places = Counter(upload.address for upload in self._uploads)
        found = [
            upload
            for upload in self._uploads
            if upload.behind(now) > _SLOW_SECONDS or places[upload.address] > places[address] + 1
        ]
        if not found:
            return False
        # The oldest of whoever has most.
        last = max(found, key=lambda upload: places[upload.address])
        del self._uploads[last]
        last.give_up(now)
        return True

    def _full(self) -> Problem:
        self._count("too_many")
        return Problem("rate_limited", retry_after=_LATER_SECONDS, closes=True)

    def _refused(self, request: web.Request, reason: str, detail: str = "") -> Problem:
        self._count(reason)
        log.warning(
            "agent_webhook_refused", reason=reason, detail=detail, address=address_of(request)
        )
        return Problem("bad_request", _REFUSAL, closes=True)

    async def _read(self, request: web.Request) -> Any:
        """Return the event; None for one that is too long to be kept.

        Raises:
            BadSignature: It is not from there.
            NotJson: It cannot be read.
            Problem: `rate_limited`: its place was another's before it was complete.
        """
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise BadSignature("compressed")
        headers = request.headers.getall(HEADER, [])
        if len(headers) > 1:
            raise BadSignature("malformed_signature")
        check = SignatureCheck(
            headers[0] if headers else None,
            self._secrets,
            self._now(),
            name=_NAME,
            past_seconds=_PAST_SECONDS,
            future_seconds=_FUTURE_SECONDS,
        )
        if (request.content_length or 0) > _MAX_BYTES:
            raise BadSignature("too_large")
        body = bytearray()
        limit = asyncio.timeout(_LATE_SECONDS)
        now = asyncio.get_running_loop().time()
        upload = _Upload(counted_address(request), now, limit)
        self._uploads[upload] = None
        try:
            async with limit:
                async for piece in request.content.iter_any():
                    upload.came(len(piece))
                    if upload.size > _MAX_BYTES:
                        raise BadSignature("too_large")
                    check.update(piece)
                    if upload.size <= _MAX_KEPT_BYTES:
                        body += piece
                    else:
                        body.clear()
        except TimeoutError:
            if upload.given_up:
                raise self._full() from None
            raise BadSignature("too_late") from None
        except (web.RequestPayloadError, ConnectionError):
            raise BadSignature("cut_off") from None
        finally:
            self._uploads.pop(upload, None)
        check.finish()
        if upload.size > _MAX_KEPT_BYTES:
            return None
        if upload.size > _LONG_BYTES:
            return await compute(read_json, bytes(body))
        return read_json(bytes(body))


def _answer(status: str) -> web.Response:
    return web.json_response({"status": status})
