from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import numpy as np
import pytest

from ari_app.audio.formats import AudioFormat
from ari_app.audio.g711 import pcm_to_ulaw
from ari_app.call.sound import AudioInterface, Cleared, ConversationStreamer
from ari_app.errors import LineError


class FakeInterface(AudioInterface):
    """An audio interface that hears what a test puts in, and writes down what it is to play."""

    def __init__(self, rate_hz: int = 8000) -> None:
        self.rate_hz = rate_hz
        self.heard: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.heard_as: AudioFormat | None = None
        self.played: list[tuple[bytes, int]] = []
        self.responses_ended = 0
        self.cleared = 0

    def start(self, heard_as: AudioFormat) -> None:
        self.heard_as = heard_as

    async def read_audio_chunk(self) -> bytes:
        chunk = await self.heard.get()
        if chunk is None:
            raise LineError("the line is closed", code="line_closed")
        return chunk

    def write_audio_chunk(self, audio: bytes, response_id: int = 0) -> None:
        self.played.append((audio, response_id))

    def end_response(self) -> None:
        self.responses_ended += 1

    def clear(self) -> Cleared:
        self.cleared += 1
        return Cleared(1, 20.0, 40.0)

    async def drained(self) -> None:
        """All is played at once."""

    async def close(self) -> None:
        self.heard.put_nowait(None)

    @property
    def sound(self) -> bytes:
        return b"".join(audio for audio, _ in self.played)


@dataclass
class FakeAgentAudio:
    input_format: str = "pcm_16000"
    output_format: str = "pcm_16000"
    sent: list[bytes] = field(default_factory=list)

    def send_audio(self, data: bytes) -> None:
        self.sent.append(data)


def ramp(samples: int) -> bytes:
    return np.arange(samples, dtype="<i2").tobytes()


async def test_what_the_line_hears_is_sent_as_it_comes_until_the_line_is_closed() -> None:
    line, agent = FakeInterface(), FakeAgentAudio(input_format="ulaw_8000")
    streamer = ConversationStreamer(line, agent)
    running = asyncio.create_task(streamer.run())
    for chunk in (b"one", b"two"):
        line.heard.put_nowait(chunk)
    await line.close()
    await running
    assert agent.sent == [b"one", b"two"]
    assert line.heard_as == AudioFormat.parse("ulaw_8000")


async def test_each_direction_obeys_its_own_format() -> None:
    line, agent = FakeInterface(), FakeAgentAudio("pcm_16000", "ulaw_8000")
    streamer = ConversationStreamer(line, agent)
    pcm = ramp(800)
    streamer.agent_audio(7, pcm_to_ulaw(pcm), is_final=True)
    assert len(line.sound) == len(pcm)
    assert {response_id for _, response_id in line.played} == {7}
    assert line.heard_as is None, "nothing begins before run()"


async def test_a_response_is_complete_to_its_last_sample() -> None:
    line = FakeInterface(8000)
    streamer = ConversationStreamer(line, FakeAgentAudio(output_format="pcm_16000"))
    streamer.agent_audio(1, ramp(1600), is_final=False)
    held_back = 800 * 2 - len(line.sound)
    assert held_back > 0
    assert line.responses_ended == 0
    streamer.response_complete()
    assert len(line.sound) == 800 * 2
    assert line.responses_ended == 1


async def test_a_final_chunk_completes_a_response() -> None:
    line = FakeInterface(8000)
    streamer = ConversationStreamer(line, FakeAgentAudio(output_format="pcm_16000"))
    streamer.agent_audio(1, ramp(1600), is_final=True)
    assert len(line.sound) == 800 * 2
    assert line.responses_ended == 1


async def test_a_line_that_runs_dry_gets_what_is_held_back() -> None:
    line = FakeInterface(8000)
    streamer = ConversationStreamer(line, FakeAgentAudio(output_format="pcm_16000"))
    streamer.agent_audio(1, ramp(1600), is_final=False)
    assert line.on_dry is not None
    assert len(line.sound) + len(line.on_dry()) == 800 * 2


async def test_an_interruption_forgets_what_is_held_back() -> None:
    line = FakeInterface(8000)
    streamer = ConversationStreamer(line, FakeAgentAudio(output_format="pcm_16000"))
    streamer.agent_audio(1, ramp(1600), is_final=False)
    assert streamer.interrupt() == Cleared(1, 20.0, 40.0)
    assert line.cleared == 1
    line.played.clear()
    streamer.response_complete()
    assert line.sound == b""


@pytest.mark.parametrize(
    "agent", [FakeAgentAudio("opus_48000", "pcm_8000"), FakeAgentAudio("pcm_8000", "opus_48000")]
)
def test_a_format_that_cannot_be_is_refused_at_once(agent: FakeAgentAudio) -> None:
    with pytest.raises(ValueError, match="opus"):
        ConversationStreamer(FakeInterface(), agent)


async def test_another_agent_takes_over_in_its_own_formats() -> None:
    line = FakeInterface(8000)
    first, second = (
        FakeAgentAudio("pcm_16000", "pcm_16000"),
        FakeAgentAudio("ulaw_8000", "pcm_8000"),
    )
    streamer = ConversationStreamer(line, first)
    streamer.agent_audio(1, ramp(1600), is_final=True)
    running = asyncio.create_task(streamer.run())
    line.heard.put_nowait(b"one")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    streamer.replace(second)
    assert line.heard_as == AudioFormat.parse("ulaw_8000")
    line.heard.put_nowait(b"two")
    await line.close()
    await running
    assert (first.sent, second.sent) == ([b"one"], [b"two"])
    streamer.agent_audio(1, ramp(800), is_final=True)
    assert len(line.sound) == 2 * 800 * 2, "what the first one said is still played"


async def test_another_agent_before_the_line_has_begun() -> None:
    line = FakeInterface(8000)
    streamer = ConversationStreamer(line, FakeAgentAudio())
    streamer.replace(FakeAgentAudio(input_format="pcm_8000"))
    assert line.heard_as is None
