"""The rules of a conversation with an agent, with no socket and no clock.

Give `AgentProtocol.receive` each message, act on the events it returns, and send what
`data_to_send` holds::

    protocol = AgentProtocol()
    socket.send(encode(initiation))
    for message in socket:
        events = protocol.receive(message)
        for data in protocol.data_to_send():
            socket.send(data)
        ...
    close = protocol.closed(code, reason)

Three rules are kept here. Nothing is reported before the metadata, which say what the audio is;
what came earlier is held, within bounds. Audio whose id is not above the last interruption's is
dropped, as in the official Python SDK. And one message that makes no sense never ends a call.

Only a text of ours, such as keys, may be answered with audio that bears the very id of the
interruption that it was (elevenlabs-python#829; the SDK for browsers plays it): the caller would
hear nothing of the answer. It is no late rest unless sound or words with this id came before.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from ari_app.agent.elevenlabs import server_messages
from ari_app.agent.elevenlabs.client_messages import Pong
from ari_app.agent.elevenlabs.closing import AgentClose, ServiceError, classify
from ari_app.agent.elevenlabs.codec import decode, encode
from ari_app.agent.elevenlabs.errors import MalformedMessage, UnsupportedFormat
from ari_app.agent.elevenlabs.server_messages import ServerMessage, Unknown
from ari_app.agent.interface import (
    AgentCorrected,
    AgentEvent,
    AgentSaid,
    CallerSaid,
    Ending,
    Interrupted,
    ResponseComplete,
    Spoke,
    TheirToolBegan,
    TheirToolEnded,
    ToolCalled,
)
from ari_app.audio.formats import AGENT_FORMATS


@dataclass(frozen=True, slots=True)
class ConversationStarted:
    """The agent is there. Comes before every other event, and once.

    Attributes:
        input_format: What it wants to hear: `pcm_16000`, `ulaw_8000`, …
        output_format: What it will send.
    """

    conversation_id: str
    input_format: str
    output_format: str


@dataclass(frozen=True, slots=True)
class Other:
    """A message with no event of its own, known or not."""

    message: ServerMessage | Unknown


@dataclass(frozen=True, slots=True)
class Garbled:
    """A message was dropped because it could not be understood."""

    reason: str
    """A slug: not_json, not_an_object, no_type, bad_payload, bad_audio,
    too_many_values."""
    detail: str


ProtocolEvent = ConversationStarted | Other | Garbled | AgentEvent
"""What comes of a message: what the port tells, and what only the shell needs."""


_MAX_ID_LENGTH = 128
_SHORT_BYTES = 4096
# A message is repeated soon, if ever.
_MAX_TOOL_CALLS = 64


class AgentProtocol:
    """One conversation, from the first message to the close.

    Before the metadata at most `max_held_events` events and `max_held_bytes` of them are held;
    what comes beyond is dropped.
    """

    def __init__(
        self, *, max_held_events: int = 256, max_held_bytes: int = 4 * 1024 * 1024
    ) -> None:
        self.malformed = 0
        self.started: ConversationStarted | None = None
        self.call_ending = False
        """The agent's `end_call` has succeeded; the close will follow."""

        self._max_held_events = max_held_events
        self._max_held_bytes = max_held_bytes
        self._held: list[ProtocolEvent] = []
        self._held_bytes = 0
        self._to_send: list[bytes] = []

        self._interrupted_at = self._first_valid_id = -(2**63)
        self._latest_audio_id = 0
        self._latest_words_id = 0
        self._has_asked = False
        self._last_tool_call_id: str | None = None
        self._tool_calls: deque[int] = deque(maxlen=_MAX_TOOL_CALLS)

        # What the close will be explained by. An error that the agent has spoken after is past.
        self._error: ServiceError | None = None
        self._queue_timed_out = False

    def receive(self, data: bytes | str) -> list[ProtocolEvent]:
        """Take one message and return what happened, in order.

        Raises:
            UnsupportedFormat: The metadata announce a format that nobody documented.
        """
        events: list[ProtocolEvent]
        try:
            events = self._handle(decode(data))
        except MalformedMessage as error:
            self.malformed += 1
            events = [Garbled(error.reason, str(error))]
        return events if self.started else self._hold(events, len(data))

    def asked(self) -> None:
        """Take note that the agent is sent a text to answer, which interrupts it."""
        self._has_asked = True

    def data_to_send(self) -> list[bytes]:
        """Return the messages that the protocol itself owes (pongs), as JSON, once."""
        data, self._to_send = self._to_send, []
        return data

    def closed(self, code: int, reason: str = "", *, local: bool = False) -> AgentClose:
        """Say what the end means. `local`: we closed first."""
        return classify(
            code,
            reason,
            error=self._error,
            call_ending=self.call_ending,
            queue_timed_out=self._queue_timed_out,
            local=local,
        )

    def _handle(
        self, message: server_messages.ServerMessage | server_messages.Unknown
    ) -> list[ProtocolEvent]:
        match message:
            case server_messages.Audio():
                return self._audio(message)
            case server_messages.Ping():
                self._to_send.append(encode(Pong(event_id=message.event_id)))
                return []
            case server_messages.Interruption():
                return [self._interruption(message.event_id)]
            case server_messages.UserTranscript():
                return [CallerSaid(message.user_transcript, message.event_id)]
            case server_messages.AgentResponse():
                self._error = None
                if message.event_id is not None:
                    self._latest_words_id = message.event_id
                return [AgentSaid(message.agent_response, message.event_id)]
            case server_messages.AgentResponseCorrection():
                return [
                    AgentCorrected(
                        message.original_agent_response,
                        message.corrected_agent_response,
                        message.event_id,
                    )
                ]
            case server_messages.AgentResponseComplete():
                return [ResponseComplete(message.event_id)]
            case server_messages.ClientToolCall() if self._is_repeated(message):
                pass
            case server_messages.ClientToolCall():
                return [
                    ToolCalled(
                        message.tool_name,
                        message.tool_call_id,
                        message.parameters,
                        message.expects_response,
                        message.event_id,
                    )
                ]
            case server_messages.AgentToolRequest():
                return [
                    TheirToolBegan(
                        message.tool_name, message.tool_call_id, message.response_timeout_secs
                    )
                ]
            case server_messages.AgentToolResponse():
                return self._tool_response(message)
            case server_messages.InitiationMetadata():
                return self._metadata(message)
            case server_messages.ClientError() | server_messages.Error():
                self._error = ServiceError(message.code, message.text)
            case server_messages.QueueStatus():
                self._queue_timed_out = message.status == "timed_out"
        return [Other(message)]

    def _audio(self, message: server_messages.Audio) -> list[ProtocolEvent]:
        event_id = message.event_id
        if event_id is None:
            # Nothing says that it is overtaken, so it must not look so further down either.
            event_id = max(self._latest_audio_id, self._first_valid_id)
        elif event_id < self._first_valid_id:
            return []
        self._error = None
        self._latest_audio_id = event_id
        return [Spoke(event_id, message.data, message.is_final)]

    def _interruption(self, event_id: int | None) -> Interrupted:
        # The old form has no id: it means all that has been sent.
        if event_id is None:
            event_id = max(self._latest_audio_id, self._interrupted_at)
            self._first_valid_id = event_id + 1
        else:
            is_new = event_id > self._latest_audio_id and event_id > self._latest_words_id
            self._first_valid_id = event_id if self._has_asked and is_new else event_id + 1
        self._has_asked = False
        self._interrupted_at = event_id
        return Interrupted(event_id)

    def _is_repeated(self, call: server_messages.ClientToolCall) -> bool:
        """Return whether this very call was asked for before: it has, or will get, one answer.

        Its id alone does not say so: a model of the agent's owner may count from 0 again in each
        response.
        """
        if call.event_id is None:
            return False
        # It may be as long as a message.
        asked = call.tool_call_id, call.event_id, call.tool_name, repr(call.parameters)
        known = hash(asked)
        if known in self._tool_calls:
            return True
        self._tool_calls.append(known)
        return False

    def _tool_response(self, message: server_messages.AgentToolResponse) -> list[ProtocolEvent]:
        # An agent may be set to send both the short and the full form of each response.
        if message.tool_call_id == self._last_tool_call_id:
            return [Other(message)]
        self._last_tool_call_id = message.tool_call_id
        status = message.status or ("error" if message.is_error else "success")
        events: list[ProtocolEvent] = [
            TheirToolEnded(message.tool_name, message.tool_call_id, status, message.is_error)
        ]
        if message.tool_name == "end_call" and message.succeeded and not self.call_ending:
            self.call_ending = True
            events.append(Ending())
        return events

    def _metadata(self, message: server_messages.InitiationMetadata) -> list[ProtocolEvent]:
        if self.started is not None:
            return []
        for name in (message.user_input_audio_format, message.agent_output_audio_format):
            if name not in AGENT_FORMATS:
                raise UnsupportedFormat(
                    f"the agent announced the audio format {name[:32]!r}; known are "
                    f"{', '.join(sorted(AGENT_FORMATS))}"
                )
        self.started = ConversationStarted(
            message.conversation_id[:_MAX_ID_LENGTH],
            message.user_input_audio_format,
            message.agent_output_audio_format,
        )
        held, self._held, self._held_bytes = self._held, [], 0
        return [self.started, Other(message), *held]

    def _hold(self, events: list[ProtocolEvent], message_bytes: int) -> list[ProtocolEvent]:
        for event in events:
            if isinstance(event, Spoke):
                size = len(event.data)
            else:
                # Short ones are bounded by their number.
                size = message_bytes if message_bytes > _SHORT_BYTES else 0
            if isinstance(event, Interrupted):
                self._drop_held_audio(event.event_id)
            if (
                len(self._held) >= self._max_held_events
                or self._held_bytes + size > self._max_held_bytes
            ):
                continue
            self._held.append(event)
            self._held_bytes += size
        return []

    def _drop_held_audio(self, up_to: int) -> None:
        kept: list[ProtocolEvent] = []
        for event in self._held:
            if isinstance(event, Spoke) and event.event_id <= up_to:
                self._held_bytes -= len(event.data)
            else:
                kept.append(event)
        self._held = kept
