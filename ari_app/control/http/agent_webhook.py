"""Takes ElevenLabs' post-call webhooks: whoever has the secret needs no key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import time
from typing import Any, Final

import structlog
from aiohttp import web

from ari_app.control.http.problems import Problem
from ari_app.json_text import NotJson, read_json
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
_MAX_KEPT_BYTES: Final = 2 * 1024 * 1024
_MAX_BYTES: Final = 64 * 1024 * 1024
_AT_ONCE: Final = 8
_LONG_BYTES: Final = 64 * 1024
_LATER_SECONDS: Final = 5.0

KeepReport = Callable[[Report], None]


class AgentWebhook:
    """The place where the agent's service tells of conversations that are over.

    What is wrong is always refused in the same words, so that nobody learns from them; the reasons
    are counted. A body that is too long to be kept, as one with a call's sound is, is read to its
    end, for only then it is known from whom it is, and thrown away.

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
        self.routes = [web.post(PATH, self.serve)]

    async def serve(self, request: web.Request) -> web.Response:
        """Take one event."""
        with self._place():
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
    def _place(self) -> Iterator[None]:
        # What is not yet known to be from there lies in memory meanwhile.
        if self._under_way >= _AT_ONCE:
            self._count("too_many")
            raise Problem("rate_limited", retry_after=_LATER_SECONDS, closes=True)
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    def _refused(self, request: web.Request, reason: str, detail: str = "") -> Problem:
        self._count(reason)
        log.warning("agent_webhook_refused", reason=reason, detail=detail, address=request.remote)
        return Problem("bad_request", _REFUSAL, closes=True)

    async def _read(self, request: web.Request) -> Any:
        """Return the event; None for one that is too long to be kept.

        Raises:
            BadSignature: It is not from there.
            NotJson: It cannot be read.
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
        body, size = bytearray(), 0
        try:
            async with asyncio.timeout(_READ_SECONDS):
                async for piece in request.content.iter_any():
                    size += len(piece)
                    if size > _MAX_BYTES:
                        raise BadSignature("too_large")
                    check.update(piece)
                    if size <= _MAX_KEPT_BYTES:
                        body += piece
                    else:
                        body.clear()
        except TimeoutError:
            raise BadSignature("too_late") from None
        except (web.RequestPayloadError, ConnectionError):
            raise BadSignature("cut_off") from None
        check.finish()
        if size > _MAX_KEPT_BYTES:
            return None
        if size > _LONG_BYTES:
            return await asyncio.to_thread(read_json, bytes(body))
        return read_json(bytes(body))


def _answer(status: str) -> web.Response:
    return web.json_response({"status": status})
