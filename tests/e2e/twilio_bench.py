"""A bench without Asterisk: practice agent and service, and the lab's Twilio in front of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from ari_app.bridge import VoiceBridge
from ari_app.control.planner import Wish
from ari_app.line.twilio.gateway import TwilioGateway
from ari_app.records.record import CallRecord
from ari_app.settings import load_settings
from lab.practice_agent import AgentBook, ConversationRecord, PracticeAgent
from lab.twilio import Number, Twilio, TwilioCall
from tests.e2e.harness import KEY, book, practice_config
from tests.hold_ups import HoldUps
from tests.waiting import call_tasks, until

ORIGIN = "https://bridge.test"
VOICE = f"{ORIGIN}/twilio/voice"
STATUS = f"{ORIGIN}/twilio/status"
CALLER, NUMBER, TARGET = "+15550100001", "+15550100002", "+15550100009"
LOUD = -35.0
ULAW = {"user_input": "ulaw_8000", "agent_output": "ulaw_8000"}
INTENDED = 31921
"""What Twilio notes whenever a server closes its stream, also where that was intended."""


@dataclass(slots=True)
class TwilioBench:
    """What a test holds in its hands."""

    twilio: Twilio
    agent: PracticeAgent
    bridge: VoiceBridge
    origins: dict[str, str]
    hold_ups: HoldUps = field(default_factory=HoldUps)

    @property
    def url(self) -> str:
        """The service's HTTP, as it really is."""
        return "http://{}:{}".format(*self.bridge.api_address)

    def call(self, query: str = "", **extra: str) -> TwilioCall:
        """Let somebody call; the call, which begins at once."""
        self.twilio.numbers[NUMBER] = Number(VOICE + query, status_url=STATUS)
        return self.twilio.call(CALLER, NUMBER, **extra)

    async def answered(self, **extra: str) -> TwilioCall:
        """A call that is up."""
        call = self.call(**extra)
        await call.answered()
        return call

    async def greeted(self, query: str = "") -> TwilioCall:
        """A call that has been greeted to the end."""
        call = self.call(query)
        await call.answered()
        await call.wait_for_sound(LOUD, since=0)
        await call.wait_for_silence(500)
        return call

    async def initiate(self, number: str = TARGET, **wish: object) -> CallRecord:
        """Ask for a call."""
        return await self.bridge.control.initiate(Wish(called_number=number, **wish))  # type: ignore[arg-type]

    def records(self) -> list[CallRecord]:
        """The records of all calls, up to date."""
        return [self.bridge.control.record(name) for name in [*self.bridge.calls.records]]

    async def record(self, call: TwilioCall) -> CallRecord:
        """The service's record of a call that came in."""
        await until(lambda: any(each.line_id == call.sid for each in self.records()))
        return next(each for each in self.records() if each.line_id == call.sid)

    async def conversation(self, record: CallRecord) -> ConversationRecord:
        """The agent's side of a call."""
        await until(lambda: record.conversation_id)
        conversations = self.agent.conversations
        return next(c for c in conversations if c.conversation_id == record.conversation_id)

    async def last_conversation(self) -> ConversationRecord:
        """The agent's side of the call that came last."""
        await until(lambda: bool(self.agent.conversations))
        return list(self.agent.conversations)[-1]

    def refused(self) -> dict[str, float]:
        """How often something was refused, by reason."""
        return {
            sample.labels["reason"]: sample.value
            for metric in self.bridge.metrics.twilio_refused_total.collect()
            for sample in metric.samples
            if sample.name.endswith("_total")
        }

    async def all_gone(self, within: float = 10.0) -> None:
        """Nothing of any call is left: at Twilio, on our side, at the agent."""
        await until(lambda: all(call.is_over for call in self.twilio.calls.values()), within)
        await until(lambda: all(record.ended_at is not None for record in self.records()), within)
        gateway = self.bridge.way_in(TwilioGateway)
        assert gateway is not None
        assert gateway.expected == 0
        await until(lambda: all(c.closing is not None for c in self.agent.conversations))
        await until(lambda: not call_tasks())

    def complaints(self) -> list[str]:
        """What Twilio has against us."""
        return [f"{n.code} {n.text}" for n in self.twilio.notes if n.code != INTENDED]


@contextlib.asynccontextmanager
async def twilio_bench(
    agents: AgentBook | None = None, /, **changes: object
) -> AsyncIterator[TwilioBench]:
    """A bench that is ready for calls; everything is stopped at the end."""
    origins: dict[str, str] = {}
    async with (
        Twilio(origins, calls_a_second=100) as twilio,
        PracticeAgent(practice_config(agents or book(formats=ULAW))) as agent,
    ):
        settings = load_settings(
            None,
            **{
                "dialer_type": "twilio",
                "api_bind": "127.0.0.1:0",
                "api_public_url": ORIGIN,
                "twilio_account_sid": twilio.account_sid,
                "twilio_auth_token": twilio.auth_token,
                "twilio_phone_number": NUMBER,
                "twilio_api_base_url": twilio.base_url,
                "elevenlabs_base_url": agent.base_url,
                "elevenlabs_api_key": KEY,
                "elevenlabs_agent_id": "agent_default",
                "database_url": "",
                **changes,
            },
        )
        async with VoiceBridge(settings) as bridge:
            running = asyncio.create_task(bridge.run())
            origins[ORIGIN] = "http://{}:{}".format(*bridge.api_address)
            twilio.numbers[NUMBER] = Number(VOICE, status_url=STATUS)
            try:
                await until(lambda: not bridge.readiness().problems)
                made = TwilioBench(twilio, agent, bridge, origins)
                watching = asyncio.create_task(made.hold_ups.watch())
                try:
                    yield made
                finally:
                    watching.cancel()
            finally:
                bridge.stop()
                bridge.stop()
                await running
