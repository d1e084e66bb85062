"""A real Asterisk, an `ari-app serve`, a practice agent and phones: what *ear* and *stall* share.

The agent and the phones live in this process, so that the times at both ends come from one clock.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.heard import Packets
from benchmarks.lines import way
from benchmarks.marked import MarkedVoice, sweep
from benchmarks.processes import (
    BenchmarkError,
    Service,
    agent_settings,
    make_certificate,
    running_service,
    scratch_folder,
)
from lab.asterisk import LabAsterisk
from lab.practice_agent import AgentBook, AgentProfile, PracticeAgent, PracticeConfig
from lab.practice_agent.record import ConversationRecord
from lab.softphone import Call, Phone

GREETING_SECONDS = 2.0
SPEECH_SECONDS = 1.0
_SPEECH = sweep(SPEECH_SECONDS, 8000).tobytes()
_KEEP_SECONDS = 3600.0
_RATE_HZ = 8000


@dataclass(frozen=True, slots=True)
class Response:
    """One of the agent's responses, as it was sent."""

    sent_at: float
    """When its first audio message left."""
    seconds: float


@dataclass(slots=True)
class Caller:
    """A phone in a call, and the agent's side of that call."""

    call: Call
    record: ConversationRecord
    answered_at: float

    async def speak(self) -> float:
        """Say a second of sound; when its first packet left."""
        utterance = await self.call.play(_SPEECH)
        assert utterance.started_at is not None
        return utterance.started_at

    def packets(self) -> Packets:
        """All that was heard."""
        arrivals = self.call.ear.arrivals
        return Packets([arrival.at for arrival in arrivals], [arrival.pcm for arrival in arrivals])

    def responses(self) -> list[Response]:
        """All that the agent said; the greeting comes first."""
        return [
            Response(self.record.opened_at + line.at_s, float(line.text))
            for line in self.record.transcript
            if line.speaker == "agent"
        ]

    def interruptions(self) -> list[float]:
        """When the agent told that it was interrupted."""
        return [interruption.at for interruption in self.record.interruptions]

    def agent_heard(self) -> list[tuple[float, bytes]]:
        """The caller's sound as it reached the agent, message by message."""
        return [(arrival.at, arrival.payload) for arrival in self.record.user_audio]


@dataclass(frozen=True, slots=True)
class Stage:
    """All that runs."""

    asterisk: LabAsterisk
    service: Service
    agent: PracticeAgent
    exit: AsyncExitStack

    async def call(self, number: int) -> Caller:
        """Place a call from a phone of its own. Raises BenchmarkError when no agent comes."""
        name = f"bench{number}"
        phone = await self.exit.enter_async_context(Phone(username=name))
        target = f"sip:100@{self.asterisk.sip_host}:{self.asterisk.sip_port}"
        call = await phone.call(target, timeout=15)
        for _ in range(100):
            for record in self.agent.conversations:
                if record.dynamic_variables.get("caller_id") == name:
                    return Caller(call, record, call.answered_at or time.monotonic())
            await asyncio.sleep(0.02)
        raise BenchmarkError("the agent was not called")


@asynccontextmanager
async def running_stage(
    responses: tuple[float, ...],
    *,
    max_calls: int = 60,
    line: str = "audiosocket",
) -> AsyncIterator[Stage]:
    """Start everything; the agent gives responses of these lengths in turn, again and again.

    Raises BenchmarkError for a line that no Asterisk has.
    """
    if not way(line).in_asterisk:
        raise BenchmarkError(f"Asterisk is not the far end of {line!r}.")
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(scratch_folder())
        certificate = make_certificate(folder)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate.chain)
        agent = await stack.enter_async_context(
            PracticeAgent(
                PracticeConfig(
                    book=AgentBook(default=_profile(responses)),
                    keep_audio_seconds=_KEEP_SECONDS,
                ),
                ssl_context=tls,
                voice=MarkedVoice(),
            )
        )
        asterisk = await stack.enter_async_context(LabAsterisk())
        service = await stack.enter_async_context(
            running_service(
                folder,
                {
                    **way(line).settings,
                    **asterisk.settings,
                    **agent_settings(agent.base_url, certificate.authority),
                    "ELEVENLABS_AGENT_ID": "bench",
                    "MAX_CONCURRENT_CALLS": str(max_calls),
                    "CALL_TIMEOUT_SECONDS": "3600",
                },
            )
        )
        calls = await stack.enter_async_context(AsyncExitStack())
        yield Stage(asterisk, service, agent, calls)


def _profile(responses: tuple[float, ...]) -> AgentProfile:
    description: dict[str, Any] = {
        "dialogue": {
            "first_message": f"{GREETING_SECONDS}",
            "turns": [{"say": f"{seconds}"} for seconds in responses],
            "after_last": "start_again",
        },
        "formats": {"user_input": "pcm_16000", "agent_output": "pcm_16000"},
        "limits": {"duration_seconds": 3600},
    }
    return AgentProfile.model_validate(description)
