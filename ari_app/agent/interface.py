"""The port through which calls meet agents: what an agent is told, does, and tells.

`ari_app.call` knows these and no service's protocol. `Agents` begins conversations, a
`Conversation` is one of them; it tells `AgentEvent`s in order, `Closed` once and last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any, Protocol

from ari_app.audio.formats import AgentFormats, AudioFormat

Variable = str | int | float | bool

# --- what an agent tells


@dataclass(frozen=True, slots=True)
class Spoke:
    """A chunk of the agent's voice that no interruption has overtaken.

    Attributes:
        data: Any length, in the output format.
        is_final: The last chunk of this response.
    """

    event_id: int
    data: bytes = field(repr=False)
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The caller spoke over the agent: what is not yet played must not be heard."""

    event_id: int
    """Audio up to and including this id that was told before is overtaken."""


@dataclass(frozen=True, slots=True)
class CallerSaid:
    """The transcript of one turn of the caller."""

    text: str
    event_id: int | None


@dataclass(frozen=True, slots=True)
class AgentSaid:
    """The text of a response as it was meant, before or after its audio."""

    text: str
    event_id: int | None


@dataclass(frozen=True, slots=True)
class AgentCorrected:
    """The text of an interrupted response as far as it was heard."""

    original: str
    corrected: str
    event_id: int | None


@dataclass(frozen=True, slots=True)
class ResponseComplete:
    """All audio of this response has been sent."""

    event_id: int | None


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """The agent asks for one of our tools."""

    name: str
    call_id: str
    parameters: dict[str, Any] = field(repr=False)
    expects_response: bool
    event_id: int | None


@dataclass(frozen=True, slots=True)
class TheirToolEnded:
    """A tool has run. `status`: success, error, blocked, skipped, or what older servers imply."""

    name: str
    call_id: str
    status: str
    is_error: bool


@dataclass(frozen=True, slots=True)
class Ending:
    """The agent ends the call: play out what is queued, then hang up. Comes once."""


@dataclass(frozen=True, slots=True)
class TheirToolBegan:
    """A tool of the agent's own service runs, which may take time."""

    name: str
    call_id: str
    seconds: float | None
    """How long at most; None: nobody said."""


class EndedBy(Enum):
    """The causes of a conversation's end."""

    AGENT = auto()
    """The agent, as agents do."""
    TIME = auto()
    """The longest duration that the agent allows."""
    LOSS = auto()
    """Anything else: it was lost."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The conversation is over.

    Attributes:
        reason: A stable slug.
        retryable: Another conversation may succeed at once.
        code: The close code of the connection, for the metrics.
        silent_seconds: How long nothing had come from an agent that was taken for dead; 0 for any
            other end.
    """

    reason: str
    by: EndedBy
    retryable: bool
    code: int = 1000
    silent_seconds: float = 0.0


AgentEvent = (
    Spoke
    | Interrupted
    | ResponseComplete
    | CallerSaid
    | AgentSaid
    | AgentCorrected
    | ToolCalled
    | TheirToolBegan
    | TheirToolEnded
    | Ending
    | Closed
)
TellAgentEvent = Callable[[AgentEvent], None]

# --- what an agent is told


@dataclass(frozen=True, slots=True)
class Resumed:
    """A lost conversation, for the new one that takes it up.

    Attributes:
        conversation_id: The lost one.
        transcript: What was said in it.
        first_message: What the agent says first; empty: it waits to be asked. Where the agent
            allows no other first message, it greets as always.
    """

    conversation_id: str
    transcript: str
    first_message: str


@dataclass(frozen=True, slots=True)
class Briefing:
    """The instructions of an agent before a conversation.

    Attributes:
        agent_id: Which agent.
        variables: Dynamic variables for its prompt.
        options: What else its service takes, in the service's own words: overrides, a user id.
        resumed: The conversation that this one goes on with; None: a new one.
    """

    agent_id: str
    variables: Mapping[str, Variable] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    resumed: Resumed | None = None

    def with_variables(self, variables: Mapping[str, Variable]) -> Briefing:
        """Return the same briefing with more variables."""
        return replace(self, variables={**self.variables, **variables})


class Conversation(Protocol):
    """A conversation with an agent. Sending never waits, and never raises for one that is over."""

    id: str
    hears: AudioFormat
    speaks: AudioFormat
    waits: bool
    """The agent says nothing until it is asked."""

    @property
    def is_open(self) -> bool:
        """Whether the conversation goes on: what is sent may still arrive."""
        ...

    @property
    def not_sent_bytes(self) -> int:
        """Bytes of the caller's sound, in the format `hears`, that were too late to be sent."""
        ...

    def hear(self, data: bytes) -> None:
        """Send sound of the caller's, in the format `hears`."""
        ...

    def tell(self, text: str, *, about: str | None = None) -> None:
        """Tell the agent something that it shall know and not answer.

        Args:
            text: What.
            about: A topic; what is told later of the same topic replaces this.
        """
        ...

    def ask(self, text: str, *, keys: bool = False) -> None:
        """Send a text as though the caller had said it, or, with `keys`, pressed it."""
        ...

    def still_here(self) -> None:
        """Tell the agent that the caller is there, so that it does not ask after a silence."""
        ...

    def answer_tool(self, tool_call_id: str, text: str, *, is_error: bool = False) -> None:
        """Answer a `ToolCalled`; `text` is for the model."""
        ...

    async def close(self) -> None:
        """End the conversation; when this returns `Closed` has been told. May be called twice."""
        ...


class Agents(Protocol):
    """The service that agents live in."""

    async def connect(
        self, briefing: Briefing, tell: TellAgentEvent, named: Callable[[str], None]
    ) -> Conversation:
        """Begin a conversation. Nothing is told before this has returned.

        Args:
            briefing: The agent, and what it is told.
            tell: Called with each `AgentEvent`.
            named: Called with the id of each conversation that is tried, where it is known before.

        Raises:
            AgentError: The conversation could not be begun.
        """
        ...

    def formats_of(self, agent_id: str) -> AgentFormats:
        """Return the formats that an agent announced the last time, or the default."""
        ...

    def problems(self) -> list[str]:
        """Return why no conversation can be begun now, in sentences; empty when all is well."""
        ...

    async def watch(self) -> None:
        """Look again and again whether a problem is over, until cancelled."""
        ...
