"""Asks the owner's own service about a call before it starts: which agent, and with what to say.

The request and its answer are those of ElevenLabs' conversation initiation webhook, so a service
that was written for calls which ElevenLabs takes serves ours as well. The answer may name an
``agent_id`` besides; that is ours.

Source: https://elevenlabs.io/docs/eleven-agents/customization/personalization/twilio-personalization
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, Self

import aiohttp
import orjson
import structlog
from pydantic import Field, SecretStr, ValidationError

from ari_app.elevenlabs.client_messages import DynamicValue, Initiation
from ari_app.errors import AppError
from ari_app.resolver import OwnThreadResolver

log = structlog.get_logger(__name__)

OnFailure = Literal["go_on", "fail"]

_MAX_ANSWER_BYTES: Final = 64 * 1024


class PreCallError(AppError):
    """The service said nothing that could be used.

    ``code`` is ``precall_timeout``, ``precall_unreachable``, ``precall_status``,
    ``precall_too_long`` or ``precall_malformed``.
    """

    default_code = "precall"


@dataclass(frozen=True, slots=True)
class PreCallRequest:
    """What the service is told, under the names that ElevenLabs uses."""

    caller_id: str
    agent_id: str
    called_number: str
    call_sid: str


@dataclass(frozen=True, slots=True)
class PreCallAnswer:
    """What the service has decided.

    Attributes:
        agent_id: The agent to talk with; None leaves it as it was.
        initiation: What the agent is told at the start: variables, overrides and the rest.
        failure: The code of what went wrong, when the call goes on nevertheless.
    """

    agent_id: str | None = None
    initiation: Initiation = field(default_factory=Initiation)
    failure: str | None = None

    def initiation_with(self, variables: Mapping[str, DynamicValue]) -> Initiation:
        """The initiation with the call's own ``variables`` beside it; the service's win."""
        merged = {**variables, **(self.initiation.dynamic_variables or {})}
        return self.initiation.model_copy(update={"dynamic_variables": merged})


class PreCall:
    """The service that is asked, over one shared session. Open it with ``async with``.

    Args:
        url: Where it answers.
        secret: The value of the header that proves who asks; None: no such header.
        header: That header's name.
        timeout_seconds: The deadline of a request, from its start to the last byte.
        on_failure: ``go_on``: the call is made as if nothing had been said; ``fail``: the caller
            of :meth:`ask` has to give the call up.
    """

    def __init__(
        self,
        url: str,
        *,
        secret: SecretStr | None = None,
        header: str = "Authorization",
        timeout_seconds: float = 3.0,
        on_failure: OnFailure = "go_on",
    ) -> None:
        self._url = url
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if secret is not None:
            self._headers[header] = secret.get_secret_value()
        self._timeout_seconds = timeout_seconds
        self._on_failure = on_failure
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=OwnThreadResolver()),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. May be called twice."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def ask(self, request: PreCallRequest) -> PreCallAnswer:
        """Ask about a call.

        Raises:
            PreCallError: Nothing usable was said, and ``on_failure`` is ``fail``.
            RuntimeError: Used outside ``async with``.
        """
        if self._session is None:
            raise RuntimeError("PreCall must be opened with `async with`")
        try:
            return parse_answer(await self._post(self._session, orjson.dumps(asdict(request))))
        except PreCallError as error:
            log.warning(
                "precall_failed",
                call=request.call_sid,
                code=error.code,
                error=str(error),
                then=self._on_failure,
            )
            if self._on_failure == "fail":
                raise
            return PreCallAnswer(failure=error.code)

    async def _post(self, session: aiohttp.ClientSession, payload: bytes) -> bytes:
        try:
            async with (
                asyncio.timeout(self._timeout_seconds),
                session.post(
                    self._url,
                    data=payload,
                    headers=self._headers,
                    # A redirect would take the secret and the caller's number elsewhere.
                    allow_redirects=False,
                ) as response,
            ):
                if response.status != 200:
                    raise PreCallError(
                        f"the pre-call service answered with the HTTP status {response.status}",
                        code="precall_status",
                    )
                return await _read(response)
        except TimeoutError:
            raise PreCallError(
                f"the pre-call service did not answer within {self._timeout_seconds:g} s",
                code="precall_timeout",
                retryable=True,
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise PreCallError(
                f"the pre-call service cannot be reached ({type(error).__name__})",
                code="precall_unreachable",
                retryable=True,
            ) from None


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _MAX_ANSWER_BYTES:
            raise PreCallError(
                f"the pre-call service answered with more than {_MAX_ANSWER_BYTES} bytes",
                code="precall_too_long",
            )
    return bytes(body)


class _Answer(Initiation):
    # Without it, any JSON object (an error, an empty one) would look like an answer.
    type: Literal["conversation_initiation_client_data"] = Field()
    agent_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{1,128}$")


def parse_answer(body: bytes) -> PreCallAnswer:
    """Read the service's answer. Pure but for the log.

    Fields that are not known are passed over and logged: ElevenLabs may know more than this
    program.

    Raises:
        PreCallError: ``precall_malformed``; it names the fields that do not fit, never their
            values.
    """
    try:
        data = orjson.loads(body)
    except ValueError:
        raise _malformed("it is not JSON") from None
    if not isinstance(data, dict):
        raise _malformed("it is not a JSON object")
    if unknown := sorted(data.keys() - _Answer.model_fields.keys()):
        log.info("precall_fields_unknown", fields=[name[:40] for name in unknown[:10]])
    known: dict[str, Any] = {name: data[name] for name in data if name in _Answer.model_fields}
    try:
        answer = _Answer.model_validate(known)
    except ValidationError as error:
        fields = [".".join(map(str, item["loc"])) for item in error.errors(include_input=False)]
        named = ", ".join(dict.fromkeys(name[:80] for name in fields[:10]))
        raise _malformed(f"these fields do not fit: {named}") from None
    told = {name: getattr(answer, name) for name in Initiation.model_fields}
    return PreCallAnswer(answer.agent_id, Initiation(**told))


def _malformed(why: str) -> PreCallError:
    return PreCallError(
        f"the pre-call service's answer cannot be used: {why}", code="precall_malformed"
    )
