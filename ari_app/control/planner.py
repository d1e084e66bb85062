"""Decides about a call before it starts: which agent, what it is told, what the line speaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import structlog

from ari_app.agent.elevenlabs.client_messages import Initiation
from ari_app.agent.precall import PreCall, PreCallRequest
from ari_app.audio.formats import AudioFormat
from ari_app.call.call import CallSession
from ari_app.call.plan import CallPlan
from ari_app.control.control import ControlRefused, Initiate, Variable
from ari_app.line.asterisk.ari.client import Client
from ari_app.line.asterisk.ari.errors import AriError
from ari_app.line.asterisk.ari.models import Channel
from ari_app.line.asterisk.ari.version import Assessment
from ari_app.line.asterisk.dialplan import CallArguments
from ari_app.line.asterisk.line import (
    DEFAULT_AGENT_FORMATS,
    AgentFormats,
    Party,
    choose_line_format,
)
from ari_app.records.events import SessionObserver
from ari_app.settings import Settings
from audiosocket.frames import LineFormat

log = structlog.get_logger(__name__)

_MAX_KNOWN_AGENTS = 1000


class FormatMemory(SessionObserver):
    """Remembers what each agent announced the last time."""

    def __init__(self) -> None:
        self._known: dict[str, AgentFormats] = {}

    def of(self, agent_id: str) -> AgentFormats:
        """What is to be expected of an agent."""
        return self._known.get(agent_id, DEFAULT_AGENT_FORMATS)

    def agent_connected(self, session: CallSession, seconds: float) -> None:
        """Keep what it announced."""
        if session.agent is not None:
            self._known.pop(session.agent_id, None)
            self._known[session.agent_id] = AgentFormats(
                hears=AudioFormat.parse(session.agent.input_format),
                speaks=AudioFormat.parse(session.agent.output_format),
            )
            while len(self._known) > _MAX_KNOWN_AGENTS:
                del self._known[next(iter(self._known))]


class Planner:
    """Makes the plan of each call.

    Args:
        settings: What it is told from outside.
        ari: Asterisk.
        asterisk: Says which Asterisk it is; None while that is not known.
        formats: What agents have announced.
        precall: The service that is asked before a call; None: nobody is.
        active_calls: How many calls are running.
    """

    def __init__(
        self,
        settings: Settings,
        ari: Client,
        asterisk: Callable[[], Assessment | None],
        formats: FormatMemory,
        precall: PreCall | None,
        active_calls: Callable[[], int],
    ) -> None:
        self._active_calls = active_calls
        self._settings = settings
        self._ari = ari
        self._asterisk = asterisk
        self._formats = formats
        self._precall = precall

    @property
    def asks_first(self) -> bool:
        """Whether a plan may take as long as a request to somebody's service."""
        return self._precall is not None

    async def for_caller(
        self, session_id: str, channel: Channel, arguments: CallArguments
    ) -> CallPlan:
        """Plan for a call that came in.

        Raises:
            PreCallError: The service that is asked first failed, and that matters.
        """
        party = Party(channel.id, channel.caller.number, channel.dialplan.exten)
        return await self._plan(
            session_id, party, arguments.agent_id, arguments.variables, None, channel.state
        )

    def for_waiting(self, session_id: str, arguments: CallArguments) -> CallPlan:
        """Plan for a call that waits until somebody names an agent."""
        agent_id = arguments.agent_id or self._settings.elevenlabs_agent_id or ""
        return self._with(
            session_id,
            agent_id,
            Initiation(dynamic_variables=dict(arguments.variables)),
            choose_line_format("slin", wide=False, caller_codec="", agent=DEFAULT_AGENT_FORMATS),
            arguments.wait_seconds or 0.0,
        )

    async def for_request(
        self, session_id: str, party: Party, request: Initiate, waiting: CallPlan | None
    ) -> CallPlan:
        """Plan for a call that was asked for.

        Args:
            session_id: Its session.
            party: Whom it is with.
            request: What was asked for.
            waiting: What the dialplan said of a caller who waits.

        Raises:
            ControlRefused: No agent is named.
            PreCallError: As for :meth:`for_caller`.
        """
        told = {} if waiting is None else waiting.initiation.dynamic_variables or {}
        agent_id = request.agent_id or (waiting.agent_id if waiting is not None else None)
        plan = await self._plan(
            session_id, party, agent_id, {**told, **request.variables}, request.overrides, "Up"
        )
        if not plan.agent_id:
            raise ControlRefused(
                "no_agent_id", "No agent is named, and ELEVENLABS_AGENT_ID is not set."
            )
        return plan

    async def _plan(
        self,
        session_id: str,
        party: Party,
        agent_id: str | None,
        variables: Mapping[str, Variable],
        overrides: Mapping[str, Any] | None,
        state: str,
    ) -> CallPlan:
        agent_id = agent_id or self._settings.elevenlabs_agent_id or ""
        told: dict[str, Variable] = {
            "caller_id": party.caller_number,
            "called_number": party.called_number,
            "call_sid": party.channel_id,
            **variables,
        }
        initiation = _merged(Initiation(dynamic_variables=told), overrides)
        if self._precall is not None:
            if state != "Up":
                await self._ring(party.channel_id)
            answer = await self._precall.ask(
                PreCallRequest(
                    caller_id=party.caller_number,
                    agent_id=agent_id,
                    called_number=party.called_number,
                    call_sid=party.channel_id,
                )
            )
            agent_id = answer.agent_id or agent_id
            if answer.failure is None:
                initiation = _merged(answer.initiation_with(told), overrides)
        return self._with(
            session_id, agent_id, initiation, await self._line_format(agent_id, party), 0.0
        )

    def _with(
        self,
        session_id: str,
        agent_id: str,
        initiation: Initiation,
        line_format: LineFormat,
        wait_seconds: float,
    ) -> CallPlan:
        settings = self._settings
        folder = settings.recordings_dir
        return CallPlan(
            agent_id=agent_id,
            initiation=initiation,
            line_format=line_format,
            call_timeout_seconds=settings.call_timeout_seconds,
            connect_timeout_seconds=settings.agent_connect_timeout_seconds,
            wait_seconds=wait_seconds,
            uplink_chunk_ms=settings.chunk_ms(self._active_calls()),
            recording_path=None if folder is None else folder / f"{session_id}.wav",
        )

    async def _ring(self, channel_id: str) -> None:
        try:
            await self._ari.channels.ring(channel_id)
        except AriError as error:
            log.info("caller_hears_no_ringing", call=channel_id, code=error.code)

    async def _line_format(self, agent_id: str, party: Party) -> LineFormat:
        asterisk = self._asterisk()
        wide = asterisk is not None and asterisk.capabilities.slin_wide
        codec = ""
        # Of somebody whom we are about to call, nothing is known yet.
        if wide and self._settings.audiosocket_format == "auto" and party.placement is None:
            try:
                codec = await self._ari.channels.get_channel_var(
                    party.channel_id, "CHANNEL(audioreadformat)"
                )
            except AriError as error:
                log.info("caller_codec_unknown", call=party.channel_id, code=error.code)
        return choose_line_format(
            self._settings.audiosocket_format,
            wide=wide,
            caller_codec=codec,
            agent=self._formats.of(agent_id),
        )


def _merged(initiation: Initiation, overrides: Mapping[str, Any] | None) -> Initiation:
    """What a request overrides, unless the service has said what is to be overridden."""
    if overrides is None or initiation.conversation_config_override is not None:
        return initiation
    return initiation.model_copy(update={"conversation_config_override": dict(overrides)})
