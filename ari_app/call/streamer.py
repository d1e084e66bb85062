"""Carries the sound of one conversation between an audio interface and the agent."""

from __future__ import annotations

from typing import Protocol

from ari_app.audio.convert import make_converter
from ari_app.audio.formats import AudioFormat
from ari_app.audio_interface import AudioInterface, Cleared
from ari_app.call.downlink import Downlink
from ari_app.errors import LineError


class AgentAudio(Protocol):
    """What the streamer needs of :class:`ari_app.elevenlabs.client.AgentConnection`."""

    @property
    def input_format(self) -> str:
        """The format that the agent wants to hear, as announced."""
        ...

    @property
    def output_format(self) -> str:
        """The format that the agent speaks, as announced."""
        ...

    def send_audio(self, data: bytes) -> None:
        """Send audio in the input format; never waits."""
        ...


class ConversationStreamer:
    """Uplink and downlink of one conversation.

    The uplink is :meth:`run`, a task; the downlink is driven by the agent's messages.

    Args:
        audio_interface: The line.
        agent: The agent's connection; its announced formats are obeyed, each direction for itself.
    """

    def __init__(self, audio_interface: AudioInterface, agent: AgentAudio) -> None:
        self.audio_interface = audio_interface
        self._runs = False
        self._carry(agent)

    def _carry(self, agent: AgentAudio) -> None:
        audio = self.audio_interface
        self._agent = agent
        self._agent_hears = AudioFormat.parse(agent.input_format)
        self._downlink = Downlink(
            make_converter(AudioFormat.parse(agent.output_format), AudioFormat.pcm(audio.rate_hz)),
            audio.write_audio_chunk,
        )
        audio.on_dry = self._downlink.tail

    def replace(self, agent: AgentAudio) -> None:
        """Go on with another agent, in its formats; what is queued of the last one is still played.

        Raises:
            ValueError: It announces a format that cannot be.
        """
        self._carry(agent)
        if self._runs:
            self._listen()

    def _listen(self) -> None:
        self.audio_interface.on_chunk = self._agent.send_audio
        self.audio_interface.start(self._agent_hears)

    async def run(self) -> None:
        """Let the line begin, and send what it hears to the agent until it is closed."""
        self._runs = True
        self._listen()
        read = self.audio_interface.read_audio_chunk
        try:
            while True:
                chunk = await read()
                self._agent.send_audio(chunk)
        except LineError:
            return

    def agent_audio(self, response_id: int, data: bytes, *, is_final: bool) -> None:
        """Queue a piece of the agent's response, in the agent's output format."""
        self._downlink.audio(response_id, data)
        if is_final:
            self.response_complete()

    def response_complete(self) -> None:
        """Take note that nothing more of the response will come whose audio came last."""
        self._downlink.end_of_response()
        self.audio_interface.end_response()

    def interrupt(self) -> Cleared:
        """Fall silent: the caller speaks."""
        self._downlink.reset()
        return self.audio_interface.clear()
