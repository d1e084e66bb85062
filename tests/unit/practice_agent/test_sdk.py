"""The official Python SDK holds a conversation with the practice agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from lab.practice_agent import (
    AgentBook,
    AgentProfile,
    Delivery,
    Dialogue,
    PracticeAgent,
    PracticeConfig,
    ToolCall,
    Turn,
)
from lab.practice_agent.formats import Samples

# The SDK asks `websockets` for a name that is deprecated there.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

RATE_HZ = 16000
STORY = "This takes a long while to tell, and you will not hear the end of it."
TOOL = ToolCall(name="look_up", parameters={"number": "17"}, say_on_success="Found {{tool_result}}")
DIALOGUE = Dialogue(
    first_message="Hello {{name}}.",
    turns=(
        Turn(say=STORY),
        Turn(say="Let me see.", tool=TOOL),
        Turn(say="Good bye.", end_call=True),
    ),
)


class WordVoice:
    """A tenth of a second for each letter."""

    def speak(self, text: str, rate_hz: int) -> Samples:
        return np.full(len(text) * rate_hz // 10, 2000, np.int16)


class Phone:
    """What the SDK calls an audio interface, and its callbacks; tells a test what has happened."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Condition()
        self._send: Callable[[bytes], None] = lambda _: None
        self.events: list[tuple[str, Any]] = []

    def interface(self) -> Any:
        """Build the SDK's class, which cannot be imported without a warning."""
        from elevenlabs.conversational_ai.conversation import AudioInterface

        phone = self

        class Interface(AudioInterface):  # type: ignore[misc]
            def start(self, input_callback: Callable[[bytes], None]) -> None:
                phone._send = input_callback

            def stop(self) -> None:
                phone.note("stop")

            def output(self, audio: bytes) -> None:
                phone.note("audio", len(audio))

            def interrupt(self) -> None:
                phone.note("interrupt")

        return Interface()

    def note(self, kind: str, value: Any = None) -> None:
        """Take an event from the SDK's thread."""
        asyncio.run_coroutine_threadsafe(self._note(kind, value), self._loop)

    async def _note(self, kind: str, value: Any) -> None:
        async with self._changed:
            self.events.append((kind, value))
            self._changed.notify_all()

    async def wait(self, kind: str, count: int = 1) -> list[Any]:
        """Wait until an event of a kind has come so often; return the values."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.values(kind)) >= count)
            return self.values(kind)

    def values(self, kind: str) -> list[Any]:
        """The values of all events of a kind so far."""
        return [value for name, value in self.events if name == kind]

    async def speak(self, seconds: float = 1.0) -> None:
        """Speak, then be silent long enough to end the turn; in chunks of 250 ms."""
        chunk = RATE_HZ // 4
        for amplitude in [8000] * int(seconds * 4) + [0] * 3:
            payload = np.full(chunk, amplitude, "<i2").tobytes()
            await asyncio.to_thread(self._send, payload)


@pytest.fixture
async def agent() -> AsyncIterator[PracticeAgent]:
    delivery = Delivery(chunk_ms=(500,), speed=100, think_ms=0)
    profile = AgentProfile(dialogue=DIALOGUE, delivery=delivery)
    book = AgentBook(
        default=profile,
        agents={"private": profile.model_copy(update={"requires_auth": True})},
    )
    config = PracticeConfig(book=book)
    async with PracticeAgent(config, voice=WordVoice()) as running:
        yield running


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    """The SDK does not close the client that it makes by itself."""
    with httpx.Client() as client:
        yield client


def conversation(
    agent: PracticeAgent, http: httpx.Client, agent_id: str, phone: Phone, **options: Any
) -> Any:
    """Build the SDK's conversation with everything that it can tell."""
    from elevenlabs.client import ElevenLabs
    from elevenlabs.conversational_ai.conversation import (
        ClientTools,
        Conversation,
        ConversationInitiationData,
    )

    tools = ClientTools()
    tools.register("look_up", lambda parameters: f"number {parameters['number']}")
    return Conversation(
        ElevenLabs(api_key="sk_local", base_url=agent.base_url, httpx_client=http),
        agent_id,
        config=ConversationInitiationData(dynamic_variables={"name": "Jane"}),
        client_tools=tools,
        callback_agent_response=lambda text: phone.note("said", text),
        callback_agent_response_correction=lambda _, heard: phone.note("heard", heard),
        callback_user_transcript=lambda text: phone.note("transcript", text),
        callback_latency_measurement=lambda ms: phone.note("latency", ms),
        callback_disconnect=lambda details: phone.note("end", details),
        **options,
    )


@pytest.mark.parametrize(
    ("agent_id", "requires_auth", "authorization"),
    [("anything", False, "public"), ("private", True, "signed_url")],
)
async def test_a_conversation(
    agent: PracticeAgent,
    http: httpx.Client,
    agent_id: str,
    requires_auth: bool,
    authorization: str,
) -> None:
    phone = Phone()
    talk = conversation(
        agent, http, agent_id, phone, requires_auth=requires_auth, audio_interface=phone.interface()
    )
    await asyncio.to_thread(talk.start_session)

    assert await phone.wait("said") == ["Hello Jane."]
    await phone.wait("audio", 3)
    # The greeting is still being played, so this interrupts it.
    await phone.speak()
    assert (await phone.wait("said", 2))[1] == STORY
    await phone.wait("interrupt")
    assert await phone.wait("transcript") == ["(caller spoke for 1.0 s)"]

    await phone.speak(0.5)
    assert len(await phone.wait("interrupt", 2)) == 2
    assert (await phone.wait("heard", 2))[1] != STORY
    said = await phone.wait("said", 4)
    assert said[2:] == ["Let me see.", "Found number 17"]

    await phone.speak()
    assert (await phone.wait("said", 5))[4] == "Good bye."
    (ended,) = await phone.wait("end")
    assert (ended.reason, ended.close_code) == ("agent", 1000)
    conversation_id = await asyncio.to_thread(talk.wait_for_session_end)

    record = await agent.conversation(ended=True)
    assert record.conversation_id == conversation_id
    assert record.authorization == authorization
    assert record.query["source"] == "python_sdk"
    assert record.dynamic_variables == {"name": "Jane"}
    assert record.tools[0].result == "number 17"
    assert record.tools[0].is_error is False
    assert record.pongs[0].round_trip_s is not None
    assert record.error is None


async def test_a_tool_that_the_client_does_not_have(
    agent: PracticeAgent, http: httpx.Client
) -> None:
    phone = Phone()
    tool = ToolCall(name="unheard_of", say_on_error="That did not work")
    dialogue = Dialogue(first_message="Hello", turns=(Turn(tool=tool),))
    agent.set_profile("tool", AgentProfile(dialogue=dialogue, delivery=Delivery(think_ms=0)))
    talk = conversation(
        agent, http, "tool", phone, requires_auth=False, audio_interface=phone.interface()
    )
    await asyncio.to_thread(talk.start_session)
    await phone.wait("said")
    await phone.speak()
    assert await phone.wait("said", 2) == ["Hello", "That did not work"]
    await asyncio.to_thread(talk.end_session)
    await asyncio.to_thread(talk.wait_for_session_end)
    record = await agent.conversation(ended=True)
    assert record.tools[0].is_error is True
    assert record.closing is not None
    assert record.closing.by == "client"


async def test_in_writing(agent: PracticeAgent, http: httpx.Client) -> None:
    phone = Phone()
    talk = conversation(agent, http, "chat", phone, requires_auth=False)
    await asyncio.to_thread(talk.start_session)
    assert await phone.wait("said") == ["Hello Jane."]
    await asyncio.to_thread(talk.send_user_message, "Tell me")
    assert (await phone.wait("said", 2))[1] == STORY
    await asyncio.to_thread(talk.send_contextual_update, "The caller is at home")
    await asyncio.to_thread(talk.register_user_activity)
    await asyncio.to_thread(talk.send_multimodal_message, "And this", file_ids=["f1"])
    assert (await phone.wait("said", 4))[3] == "Found number 17"
    assert phone.values("audio") == []
    await asyncio.to_thread(talk.end_session)
    await asyncio.to_thread(talk.wait_for_session_end)
    record = await agent.conversation(ended=True)
    kinds = [message["type"] for message in record.messages]
    assert kinds == [
        "conversation_initiation_client_data",
        "user_message",
        "contextual_update",
        "user_activity",
        "multimodal_message",
        "client_tool_result",
    ]
