"""How an agent behaves: its dialogue, its formats, its pace and its faults.

A book of profiles, by agent id, is what a YAML file describes (`dialogue.yaml` is the one that
comes with the package).
"""

from __future__ import annotations

from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt, ValidationError

from ari_app.process.yaml_text import NotYaml, read_yaml
from lab.practice_agent.dialogue import Dialogue, Model
from lab.practice_agent.formats import AudioFormat


class PracticeAgentError(Exception):
    """The practice agent was set up in a way that cannot work."""


class ClientEvent(StrEnum):
    """What an agent may be told to send: the names of its ``conversation.client_events``.

    Taking ``interruption`` out is how barge-in is switched off (ElevenLabs, *Conversation flow*).
    """

    AUDIO = "audio"
    INTERRUPTION = "interruption"
    PING = "ping"
    USER_TRANSCRIPT = "user_transcript"
    TENTATIVE_USER_TRANSCRIPT = "tentative_user_transcript"
    AGENT_RESPONSE = "agent_response"
    AGENT_RESPONSE_CORRECTION = "agent_response_correction"
    AGENT_RESPONSE_COMPLETE = "agent_response_complete"
    AGENT_TOOL_REQUEST = "agent_tool_request"
    AGENT_TOOL_RESPONSE = "agent_tool_response"
    CLIENT_TOOL_CALL = "client_tool_call"
    CLIENT_ERROR = "client_error"
    VAD_SCORE = "vad_score"


DEFAULT_CLIENT_EVENTS = frozenset(ClientEvent) - {
    ClientEvent.TENTATIVE_USER_TRANSCRIPT,
    ClientEvent.VAD_SCORE,
}

ErrorStyle = Literal["client_error", "error", "flat", "none"]
"""The shapes an error has been seen in: the current schema's, the older schema's, and
``{"type": "error", "message": …}`` with nothing around it."""


class Formats(Model):
    """The two formats that the agent announces."""

    user_input: AudioFormat = AudioFormat.PCM_16000
    agent_output: AudioFormat = AudioFormat.PCM_16000


class Hearing(Model):
    """When sound counts as speech."""

    threshold_dbfs: float = Field(default=-42.0, lt=0)
    start_ms: int = Field(default=80, ge=20)
    end_ms: int = Field(default=600, ge=20)


class Delivery(Model):
    """How speech leaves."""

    chunk_ms: tuple[PositiveInt, ...] = Field(default=(1020, 2370), min_length=1)
    """Length of the first chunk, of the second, …; the last one repeats. May be odd."""
    speed: float = Field(default=10.0, ge=1)
    """How many times faster than real time the chunks leave."""
    event_ids: Literal["shared", "per_chunk"] = "shared"
    """Whether all chunks of a response carry its event id or each has one of its own."""
    think_ms: int = Field(default=150, ge=0)
    """From the end of the caller's turn to the start of the answer."""


class Limits(Model):
    """Times after which something happens by itself."""

    initiation_seconds: float = Field(default=1.0, gt=0)
    """How long to wait for the client's first message before starting without it."""
    ping_seconds: float = Field(default=5.0, gt=0)
    receive_seconds: float = Field(default=60.0, gt=0)
    """Without user input for this long: ``transport_receive_timeout``, close 1002."""
    duration_seconds: float = Field(default=600.0, gt=0)


class Queue(Model):
    """A wait for a free agent before the conversation."""

    seconds: float = Field(default=5.0, gt=0)
    outcome: Literal["admitted", "timed_out"] = "admitted"
    message: str = Field(default="All our agents are busy. Please hold the line.", min_length=1)


class CloseFault(Model):
    """The connection ends before its time."""

    code: int = Field(default=1006, ge=1000, le=4999)
    """1006 drops the TCP connection without a close frame."""
    reason: str = Field(default="", max_length=120)
    after_ms: int = Field(default=0, ge=0)
    mid_response: bool = False
    """Count ``after_ms`` from the first audio of a response, not from the opening."""
    response: int = Field(default=1, ge=1)
    """Which response that is."""
    error: ErrorStyle = "none"
    """What to say before it."""


class Faults(Model):
    """What goes wrong on request. Everything is off by default."""

    times: int | None = Field(default=None, ge=1)
    """How many requests for a URL, handshakes and conversations go wrong, counted each for
    themselves; after that the agent is well. None: all of them."""
    retry_after_seconds: int | None = Field(default=None, ge=0)
    """``Retry-After`` of what is refused."""
    signed_url_status: int | None = Field(default=None, ge=400, le=599)
    signed_url_delay_ms: int = Field(default=0, ge=0)
    handshake_status: int | None = Field(default=None, ge=400, le=599)
    handshake_delay_ms: int = Field(default=0, ge=0)
    metadata_delay_ms: int = Field(default=0, ge=0)
    no_metadata: bool = False
    metadata_twice: bool = False
    never_answers: bool = False
    deaf: bool = False
    """Speech is not answered, not even with a transcript; text is."""
    freeze_after_ms: int | None = Field(default=None, ge=0)
    """Then nothing is read, said or answered any more, not even a WebSocket ping; the socket stays
    open, as that of a process that has stopped."""
    late_audio_chunks: int = Field(default=0, ge=0)
    """After an interruption, this many chunks come with the interrupted event id."""
    torn_samples: bool = False
    """Chunks of PCM are cut in the middle of a sample."""
    omit_event_ids: bool = False
    null_alignment: bool = False
    empty_audio: bool = False
    """Every audio event is followed by one without sound."""
    unknown_messages: bool = False
    """Every message is followed by one of a type that nobody knows."""
    garbage: Literal["json", "binary", "list"] | None = None
    """Sent once, after the metadata: broken JSON, a binary frame, or JSON that is no object."""
    close: CloseFault | None = None


class AgentProfile(Model):
    """One agent."""

    dialogue: Dialogue = Dialogue()
    formats: Formats = Formats()
    hearing: Hearing = Hearing()
    delivery: Delivery = Delivery()
    limits: Limits = Limits()
    queue: Queue | None = None
    faults: Faults = Faults()
    client_events: frozenset[ClientEvent] = DEFAULT_CLIENT_EVENTS
    error_style: ErrorStyle = "client_error"
    requires_auth: bool = False
    """Only a signed URL or an API key opens its socket."""
    allow_overrides: bool = True
    """Whether ``conversation_config_override`` is obeyed; otherwise it is refused with 1008."""

    def with_formats(self, user_input: AudioFormat, agent_output: AudioFormat) -> AgentProfile:
        """Return the same agent announcing other formats."""
        formats = Formats(user_input=user_input, agent_output=agent_output)
        return self.model_copy(update={"formats": formats})


class AgentBook(Model):
    """The agents that a server knows."""

    default: AgentProfile | None = AgentProfile()
    """Answers for every id not listed; None makes them unknown."""
    agents: dict[str, AgentProfile] = Field(default_factory=dict)

    def find(self, agent_id: str) -> AgentProfile | None:
        """Return the profile for an id, or None.

        An id that ends in ``-FORMAT`` or ``-INPUT-OUTPUT`` is the agent named before that with
        these formats: ``reception-ulaw_8000``, ``reception-pcm_8000-pcm_24000``.
        """
        if agent_id in self.agents:
            return self.agents[agent_id]
        name, formats = _split_formats(agent_id)
        profile = self.agents.get(name, self.default)
        if profile is None or not formats:
            return profile
        return profile.with_formats(formats[0], formats[-1])

    @classmethod
    def from_yaml(cls, text: str, *, name: str = "dialogue") -> AgentBook:
        """Read a book. Raises `PracticeAgentError`, which says where ``name`` is wrong."""
        try:
            return cls.model_validate(read_yaml(text))
        except NotYaml as error:
            raise PracticeAgentError(f"{name} {error}.") from error
        except ValidationError as error:
            lines = [
                f"  {'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}"
                for item in error.errors(include_url=False)
            ]
            raise PracticeAgentError("\n".join([f"{name} cannot be used:", *lines])) from error

    @classmethod
    def from_file(cls, path: Path) -> AgentBook:
        """Read a book from a file. Raises `PracticeAgentError`."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise PracticeAgentError(f"{path} cannot be read: {why}.") from error
        return cls.from_yaml(text, name=str(path))

    @classmethod
    def built_in(cls) -> AgentBook:
        """Return the book that comes with the package."""
        file = resources.files(__package__) / "dialogue.yaml"
        return cls.from_yaml(file.read_text(encoding="utf-8"), name="dialogue.yaml")


_FORMAT_NAMES = frozenset(audio_format.value for audio_format in AudioFormat)


def _split_formats(agent_id: str) -> tuple[str, list[AudioFormat]]:
    name, formats = agent_id, list[AudioFormat]()
    while len(formats) < 2:
        head, dash, tail = name.rpartition("-")
        if not dash or tail not in _FORMAT_NAMES:
            break
        name, formats = head, [AudioFormat(tail), *formats]
    return name, formats
