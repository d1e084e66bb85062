"""Asks the owner's own service about a call before it starts: which agent, and with what to say.

The request and its answer are those of ElevenLabs' conversation initiation webhook, so a service
that was written for calls which ElevenLabs takes serves ours as well. The answer may name an
`agent_id` besides; that is ours.

Source: https://elevenlabs.io/docs/eleven-agents/customization/personalization/twilio-personalization
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, Self

import aiohttp
import orjson
import structlog
from pydantic import Field, SecretStr, ValidationError

from ari_app.agent.elevenlabs.client_messages import ConfigOverride, DynamicValue, Initiation
from ari_app.errors import AppError
from ari_app.json_text import NotJson, read_json
from ari_app.process.network import read_bounded, session_for_others

log = structlog.get_logger(__name__)

_MAX_ANSWER_BYTES: Final = 64 * 1024
_TYPE: Final = "conversation_initiation_client_data"


class PreCallError(AppError):
    """The service said nothing that could be used.

    `code` is `precall_timeout`, `precall_unreachable`, `precall_status`,
    `precall_too_long` or `precall_malformed`.
    """

    default_code = "precall"


@dataclass(frozen=True, slots=True)
class PreCallRequest:
    """A request to the service, under the names that ElevenLabs uses."""

    caller_id: str
    agent_id: str
    called_number: str
    call_sid: str


@dataclass(frozen=True, slots=True)
class PreCallAnswer:
    """The service's decision.

    Attributes:
        agent_id: The agent to talk with; None leaves it as it was.
        initiation: What the agent is told at the start: variables, overrides and the rest.
        failure: The code of what went wrong, when the call goes on nevertheless.
    """

    agent_id: str | None = None
    initiation: Initiation = field(default_factory=Initiation)
    failure: str | None = None

    @property
    def variables(self) -> Mapping[str, DynamicValue]:
        """The dynamic variables that the service has given."""
        return self.initiation.dynamic_variables or {}

    @property
    def options(self) -> Mapping[str, Any]:
        """What else the agent is told, for `ari_app.agent.interface.Briefing`."""
        return self.initiation.model_dump(
            mode="json", exclude_none=True, exclude={"dynamic_variables", "type"}
        )


class PreCall:
    """The service that is asked, over one shared session. Open it with `async with`.

    Args:
        url: Where it answers.
        secret: The value of the header that proves who asks; None: no such header.
        header: That header's name.
        timeout_seconds: The deadline of a request, from its start to the last byte.
        on_failure: `go_on`: the call is made as if nothing had been said; `fail`: the caller
            of `ask` has to give the call up.
    """

    def __init__(
        self,
        url: str,
        *,
        secret: SecretStr | None = None,
        header: str = "Authorization",
        timeout_seconds: float = 3.0,
        on_failure: Literal["go_on", "fail"] = "go_on",
    ) -> None:
        self._url = url
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if secret is not None:
            self._headers[header] = secret.get_secret_value()
        self._timeout_seconds = timeout_seconds
        self._on_failure = on_failure
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = session_for_others()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. May be called twice."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def ask(
        self, request: PreCallRequest, headers: Mapping[str, str] = MappingProxyType({})
    ) -> PreCallAnswer:
        """Ask about a call.

        Args:
            request: What is told of it.
            headers: More headers, of this call's.

        Raises:
            PreCallError: Nothing usable was said, and `on_failure` is `fail`.
            RuntimeError: Used outside `async with`.
        """
        if self._session is None:
            raise RuntimeError("PreCall must be opened with `async with`")
        try:
            return parse_answer(
                await self._post(self._session, orjson.dumps(asdict(request)), headers)
            )
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

    async def _post(
        self, session: aiohttp.ClientSession, payload: bytes, headers: Mapping[str, str]
    ) -> bytes:
        try:
            async with (
                asyncio.timeout(self._timeout_seconds),
                session.post(
                    self._url,
                    data=payload,
                    headers={**headers, **self._headers},
                    # A redirect would take the secret and the caller's number elsewhere.
                    allow_redirects=False,
                ) as response,
            ):
                if not 200 <= response.status < 300:
                    raise PreCallError(
                        f"the pre-call service answered with the HTTP status {response.status}",
                        code="precall_status",
                    )
                body = await read_bounded(response, _MAX_ANSWER_BYTES)
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
        if body is None:
            raise PreCallError(
                f"the pre-call service answered with more than {_MAX_ANSWER_BYTES} bytes",
                code="precall_too_long",
            )
        return body


class _Answer(Initiation):
    # An override that ElevenLabs refuses ends the conversation, so it is looked at here.
    conversation_config_override: ConfigOverride | None = None  # type: ignore[assignment]
    agent_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.:-]{1,128}$")


_KNOWN: Final = frozenset(_Answer.model_fields)


def parse_answer(body: bytes) -> PreCallAnswer:
    """Read the service's answer. Pure but for the log.

    What is null is left out. What nobody knows, or has a value that does not fit, is left out
    alone and named in the log: ElevenLabs may know more than this program, and one bad field
    shall not cost the good ones.

    Raises:
        PreCallError: `precall_malformed`: it is no JSON object, or has nothing of an answer in
            it. Values are never repeated.
    """
    try:
        data = read_json(body)
    except NotJson as error:
        raise _malformed(str(error)) from None
    if isinstance(data, list) and len(data) == 1:
        data = data[0]
    if not isinstance(data, dict):
        raise _malformed("it is not a JSON object")
    answer = _without_nulls(data)
    # An error, or an object about something else, shall not look like an answer.
    if answer.get("type", _TYPE) != _TYPE:
        raise _malformed(f"its type is not {_TYPE}")
    if not answer.keys() & _KNOWN:
        raise _malformed("it has none of the fields of an answer")
    fitting = _fitting(answer)
    told = fitting.model_dump(mode="json", exclude_none=True, exclude={"type", "agent_id"})
    return PreCallAnswer(fitting.agent_id, Initiation.model_validate(told))


def _without_nulls(answer: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in answer.items() if value is not None}
    match given.get("dynamic_variables"):
        case {**variables}:
            given["dynamic_variables"] = {
                name: value for name, value in variables.items() if value is not None
            }
    return given


def _fitting(answer: dict[str, Any]) -> _Answer:
    """Return the answer without what does not fit; `answer` is changed."""
    unknown: list[str] = []
    unfit: list[str] = []
    while True:
        try:
            fitting = _Answer.model_validate(answer)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False, include_context=False)
            places = {_place(answer, item["loc"]): item["type"] for item in found}
            if () in places:
                raise _malformed("it is not a JSON object") from None
            # From the end: the elements of a list keep their places until they are looked at.
            for place in sorted(places, key=_by_parts, reverse=True):
                (unknown if places[place] == "extra_forbidden" else unfit).append(
                    ".".join(map(str, place))[:80]
                )
                _remove(answer, place)
        else:
            break
    if unknown:
        log.info("precall_fields_unknown", fields=sorted(unknown)[:10])
    if unfit:
        log.warning("precall_fields_dropped", fields=sorted(unfit)[:10])
    return fitting


def _place(tree: Any, location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Return the part of a pydantic location that is a way into `tree`.

    What follows in it names the alternative of a union, or a key.
    """
    way: list[int | str] = []
    for part in location:
        match tree, part:
            case {}, str() if part in tree:
                pass
            case list(), int() if part < len(tree):
                pass
            case _:
                break
        way.append(part)
        tree = tree[part]
    return tuple(way)


def _by_parts(place: tuple[int | str, ...]) -> list[tuple[int, str]]:
    return [(part, "") if isinstance(part, int) else (-1, part) for part in place]


def _remove(tree: Any, place: tuple[int | str, ...]) -> None:
    for part in place[:-1]:
        tree = tree[part]
    del tree[place[-1]]


def _malformed(why: str) -> PreCallError:
    return PreCallError(
        f"the pre-call service's answer cannot be used: {why}", code="precall_malformed"
    )
