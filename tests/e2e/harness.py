"""A whole bench for one test: practice agent, service and phone around the lab's Asterisk."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from pydantic import SecretStr

from ari_app.bridge import VoiceBridge
from ari_app.call.states import State
from ari_app.control.planner import Wish
from ari_app.records.journal import Listener
from ari_app.settings import Settings, load_settings
from lab.asterisk import LabAsterisk
from lab.practice_agent import (
    AgentBook,
    AgentProfile,
    ConversationRecord,
    PracticeAgent,
    PracticeConfig,
)
from lab.softphone import Call, Phone
from lab.softphone.handset import Handset
from lab.softphone.sounds import level_dbfs, tone, tone_dbfs
from tests.session_view import Session
from tests.waiting import PATIENCE_SECONDS, call_tasks, until

KEY = "sk_of_the_lab"
HUMAN_HZ, TRANSFER_HZ = 480, 620


@dataclass(slots=True)
class Bench:
    """What a test holds in its hands."""

    asterisk: LabAsterisk
    agent: PracticeAgent
    bridge: VoiceBridge
    phone: Phone
    _known: set[str] = field(default_factory=set)

    async def call(self, extension: str = "100", *, codec: str = "PCMU") -> Call:
        """Call an extension; the call that is up."""
        uri = f"sip:{extension}@{self.asterisk.sip_host}:{self.asterisk.sip_port}"
        return await self.phone.call(uri, codec=codec, timeout=PATIENCE_SECONDS)

    async def dial(self, extension: str = "100") -> Call:
        """Call an extension; the call at once, whether or not it is answered."""
        uri = f"sip:{extension}@{self.asterisk.sip_host}:{self.asterisk.sip_port}"
        return await self.phone.dial(uri)

    async def talk(self, extension: str = "100", *, codec: str = "PCMU") -> tuple[Call, Session]:
        """Call an extension, until caller and agent talk."""
        call = await self.call(extension, codec=codec)
        session = await self.session()
        await until(lambda: session.state is State.TALKING)
        return call, session

    def sessions(self) -> list[Session]:
        calls = self.bridge.calls
        return [Session(calls, record) for record in calls.records.values()]

    async def session(self) -> Session:
        """The session that began last."""
        await until(lambda: bool(self.sessions()))
        return self.sessions()[-1]

    def named(self, session_id: str) -> Session:
        """The session of this name."""
        return Session(self.bridge.calls, self.bridge.calls.records[session_id])

    async def initiate(self, wish: Wish) -> Session:
        """Ask for a call."""
        return Session(self.bridge.calls, await self.bridge.control.initiate(wish))

    async def conversation(self, index: int = -1) -> ConversationRecord:
        await until(lambda: bool(self.agent.conversations))
        return list(self.agent.conversations)[index]

    @property
    def lines(self) -> int:
        """How many AudioSocket lines there are, or are expected."""
        if not self.bridge.settings.has_audiosocket:
            return 0
        return self.bridge.lines.lines + self.bridge.lines.expected

    async def all_gone(self, within: float = 2.0) -> None:
        """Nothing of any call is left: in Asterisk, on our side, at the agent."""
        await self.asterisk.wait_until_empty(within)
        await until(lambda: all(session.ended.is_set() for session in self.sessions()))
        assert self.lines == 0
        await until(lambda: all(c.closing is not None for c in self.agent.conversations))
        await until(lambda: not call_tasks())


def settings_for(asterisk: LabAsterisk, agent: PracticeAgent, **changes: object) -> Settings:
    return load_settings(
        None,
        **{
            "ari_url": asterisk.ari_url,
            "ari_username": asterisk.ari_username,
            "ari_password": asterisk.ari_password,
            "audiosocket_bind": "127.0.0.1:0",
            "api_bind": "127.0.0.1:0",
            "elevenlabs_base_url": agent.base_url,
            "elevenlabs_api_key": KEY,
            "elevenlabs_agent_id": "agent_default",
            "database_url": "",
            **changes,
        },
    )


def practice_config(book: AgentBook | None = None) -> PracticeConfig:
    return PracticeConfig(
        api_key=SecretStr(KEY),
        voice="built_in",
        keep_audio_seconds=120,
        book=book or AgentBook(default=AgentProfile.model_validate(CHATTY)),
    )


CHATTY = {
    "dialogue": {
        "first_message": "Hello, how can I help you today?",
        "turns": [{"say": "Thank you, I have written that down."}],
    }
}


@contextlib.asynccontextmanager
async def bench(
    asterisk: LabAsterisk,
    book: AgentBook | None = None,
    listeners: Sequence[Listener] = (),
    /,
    **changes: object,
) -> AsyncIterator[Bench]:
    """A bench that is ready for calls; everything is stopped and checked at the end."""
    async with (
        PracticeAgent(practice_config(book)) as agent,
        VoiceBridge(settings_for(asterisk, agent, **changes), listeners) as bridge,
        Phone() as phone,
    ):
        running = asyncio.create_task(bridge.run())
        try:
            await until(lambda: not bridge.readiness().problems)
            yield Bench(asterisk, agent, bridge, phone)
        finally:
            bridge.stop()
            bridge.stop()
            await running
    await asterisk.wait_until_empty(2)


def profile(**parts: object) -> AgentProfile:
    """An agent that differs from the chatty one in `parts`."""
    return AgentProfile.model_validate({**CHATTY, **parts})


def book(**parts: object) -> AgentBook:
    """A book with that one agent."""
    return AgentBook(default=profile(**parts))


def loud_seconds(record: ConversationRecord, threshold_dbfs: float = -35.0) -> float:
    """How long the agent has heard sound above a level, at 16 kHz and in pieces of 20 ms."""
    pcm = np.frombuffer(b"".join(each.payload for each in record.user_audio), "<i2")
    frames = pcm[: len(pcm) // 320 * 320].reshape(-1, 320)
    return 0.02 * sum(level_dbfs(frame.tobytes()) > threshold_dbfs for frame in frames)


def tone_seconds(pcm: bytes, hz: float) -> float:
    """How long a tone is heard, and hardly anything beside it, in pieces of a tenth of a second."""
    pieces = (pcm[at : at + 1600] for at in range(0, len(pcm) - 1599, 1600))
    return 0.1 * sum(
        tone > -30 and tone > level_dbfs(piece) - 3
        for piece in pieces
        for tone in [tone_dbfs(piece, hz)]
    )


async def hears(hearer: Handset, speaker: Handset, hz: float) -> bool:
    """Let one sound a tone; whether the other hears it, through the holes of a busy machine too."""
    began = len(hearer.heard_pcm())
    await speaker.play(tone(hz, 1500, -15))
    await asyncio.sleep(0.5)
    return tone_seconds(hearer.heard_pcm()[began:], hz) > 0.7
