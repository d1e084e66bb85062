"""The port through which calls meet telephones: what a line is, can do, and tells.

A `Gateway` is one way in and out (Asterisk, the microphone of this machine), a `Line` one caller's
way to us. `ari_app.call` knows these and nothing behind them; a new way in is a new pair of them.

The order of things on a line:

- `listen` comes first: whoever takes the line is told what happens on it from then on.
- A line that was placed is `dial`led; `Rings`, `Answered` or `Ended` follow. `screen` finds out
  who has answered; `Screened` follows.
- `open` makes a way for sound; `Opened` or `LineFailed` follows. The far side still hears ringing.
- `connect` lets both hear each other; `Connected` or `LineFailed` follows. After `music` it does
  so again.
- `close` gives everything back. It is the last that is asked of a line.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Flag, StrEnum, auto
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Protocol

from ari_app.audio.formats import AgentFormats

if TYPE_CHECKING:
    from aiohttp.web import RouteDef


class Status(StrEnum):
    """`AGENT_STATUS`: what the dialplan is told when the agent's part has ended."""

    COMPLETED = "COMPLETED"
    TRANSFER = "TRANSFER"
    TIMEOUT = "TIMEOUT"
    REJECTED = "REJECTED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a call.

    Attributes:
        status: For the dialplan.
        reason: A stable slug such as `agent_ended` or `agent_timeout`.
        transfer_to: Where the agent wants the caller to go; only with `TRANSFER`.
    """

    status: Status
    reason: str
    transfer_to: str | None = None


WORKER_LOST: Final = Outcome(Status.FAILED, "worker_lost")
"""How a call ends whose process was lost, where nothing else had been decided."""


class Result(StrEnum):
    """The result of a call that we placed."""

    ANSWERED = "answered"
    BUSY = "busy"
    NO_ANSWER = "no_answer"
    REJECTED = "rejected"
    UNREACHABLE = "unreachable"
    INVALID_NUMBER = "invalid_number"
    FAILED = "failed"


# --- what a line can do


class Ability(Flag):
    """The abilities of a line beyond sound; what it cannot do is not offered to the agent."""

    NOTHING = 0
    RING = auto()
    """Let the caller hear ringing before it is answered."""
    MUSIC = auto()
    """Let the caller hear music instead of us."""
    SEND_KEYS = auto()
    SET_VARIABLE = auto()
    """Note something for the systems that go on with the caller."""
    TRANSFER = auto()
    """Pass the caller on when it is closed, to where `Outcome.transfer_to` says."""
    CONSULT = auto()
    """Call a third party, let it hear us, and join the caller with it."""
    BRING_IN = auto()
    """Call a third party who speaks with the caller instead of us, and let it go again."""
    SCREEN = auto()
    """Find out whether a person or a machine has answered."""


@dataclass(frozen=True, slots=True)
class LineFormat:
    """The sound of a line: 16-bit linear PCM, mono.

    Attributes:
        name: What the line calls it, for people.
        rate_hz: Samples a second.
    """

    name: str
    rate_hz: int


# --- what a line tells


@dataclass(frozen=True, slots=True)
class Rings:
    """It rings at whom we call, or there is early sound from there."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The callee has answered."""


@dataclass(frozen=True, slots=True)
class Screened:
    """It is known who has answered, after `Line.screen`.

    Attributes:
        status: `HUMAN`, `MACHINE`, `NOTSURE`, `HANGUP`, or empty.
        cause: What told so, for the record.
    """

    status: str
    cause: str = ""

    @property
    def known(self) -> dict[str, str]:
        """What there is of it, for the record and the agent."""
        found = {"amd_status": self.status, "amd_cause": self.cause}
        return {name: text for name, text in found.items() if text}


@dataclass(frozen=True, slots=True)
class Opened:
    """Sound can flow; the caller may still hear ringing."""


@dataclass(frozen=True, slots=True)
class Connected:
    """The caller is answered and hears us, for the first time or again."""


@dataclass(frozen=True, slots=True)
class KeyPressed:
    """The caller has pressed a key.

    Attributes:
        digit: One of `0` to `9`, `*`, `#`, `A` to `D`.
    """

    digit: str


@dataclass(frozen=True, slots=True)
class PhoneHeld:
    """The caller's phone has put us on hold, or taken us back."""

    on: bool


@dataclass(frozen=True, slots=True)
class CallerReplaced:
    """The caller's telephone has passed the call on: somebody else is on the line from now on.

    Attributes:
        there: They are; otherwise their telephone still rings, as `PhoneHeld` has told before, and
            this is told again once they have answered.
    """

    there: bool


@dataclass(frozen=True, slots=True)
class Noticed:
    """Something about the line is worth a note in the call's record; nothing else follows from it.

    Attributes:
        text: A clause, without what could be personal.
    """

    text: str


@dataclass(frozen=True, slots=True)
class TargetConnected:
    """The third party has answered and hears us; one that was brought in speaks with the caller."""


@dataclass(frozen=True, slots=True)
class TargetPressed:
    """The third party has pressed a key; not every line tells that.

    Attributes:
        digit: As for `KeyPressed`.
    """

    digit: str


DECLINED: Final = "declined"
"""Why there is no third party who had answered: they do not want the call."""


@dataclass(frozen=True, slots=True)
class TargetLost:
    """The third party did not answer, hung up, or does not want the call.

    Attributes:
        result: A `Result`, `hung_up` or `DECLINED`.
        cause: Why its leg has ended, as far as that is known.
    """

    result: str
    cause: EndCause | None = None


@dataclass(frozen=True, slots=True)
class SoundLost:
    """The way for sound is gone, though the caller may still be there.

    A third party who speaks with the caller needs none; where that is otherwise it is `LineFailed`.

    Attributes:
        reason: As for `LineFailed`.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class LineFailed:
    """Something without which the call cannot go on was not done; the caller may still be there.

    Attributes:
        reason: A stable slug, which becomes `AGENT_REASON`.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The far side has gone: it hung up, was taken away by somebody else, or never answered.

    Attributes:
        reason: A stable slug, such as `caller_hung_up`.
        result: Of a line that was placed and not answered: why.
    """

    reason: str
    result: Result | None = None


LineEvent = (
    Rings
    | Answered
    | Screened
    | Opened
    | Connected
    | KeyPressed
    | PhoneHeld
    | CallerReplaced
    | Noticed
    | TargetConnected
    | TargetPressed
    | TargetLost
    | SoundLost
    | LineFailed
    | Ended
)
Tell = Callable[[LineEvent], None]
Hear = Callable[[bytes], None]


class LineSound(Protocol):
    """A call's sound, as its line sees it. The line drives it; nothing here waits.

    Attributes:
        frames_at_once: So many frames of the caller's, 1 to 3, may be brought together by a line
            that saves by it: earlier ones would wait for the last of them all the same.
    """

    frames_at_once: int

    def heard(self, pcm: bytes) -> None:
        """Take the caller's sound: whole samples at the line's rate, any number of them."""
        ...

    def next_frame(self) -> bytes | None:
        """Give the agent's next 20 ms at the line's rate; None is silence."""
        ...

    @property
    def frames_ready(self) -> int:
        """How many frames of sound `next_frame` has: so many may be taken ahead of time.

        One more, taken before it is due, may be the end of something that goes on: what has run
        dry is faded out, and counts as heard.
        """
        ...

    def tick(self) -> None:
        """Count 20 ms, whatever has come; called before the frame of the same moment."""
        ...


# --- a line and what it is made with


@dataclass(frozen=True, slots=True)
class CallEnd:
    """The facts that the far side may be told about a call that is over.

    Attributes:
        session_id: The call.
        conversation_id: The conversation with the agent, the last one; empty if there was none.
    """

    session_id: str
    conversation_id: str = ""


@dataclass(frozen=True, slots=True)
class EndCause:
    """The cause of the far side's end, as far as its network says.

    Attributes:
        hangup_cause: ITU-T Q.850.
        sip_code: SIP status.
        detail: Why somebody could not be called at all: a sentence.
    """

    hangup_cause: int | None = None
    sip_code: int | None = None
    detail: str | None = None


OwnAudioFormat = Literal["pcm_16000", "pcm_8000", "ulaw_8000", "alaw_8000"]
OwnAudioAbility = Literal["hold", "attended_transfer", "take_over"]
_ABILITIES: Final[Mapping[OwnAudioAbility, Ability]] = MappingProxyType(
    {
        "hold": Ability.MUSIC,
        # The caller waits meanwhile.
        "attended_transfer": Ability.CONSULT | Ability.MUSIC,
        "take_over": Ability.BRING_IN,
    }
)


@dataclass(frozen=True, slots=True)
class RtpReport:
    """The report on a telephone's packets, by whoever exchanges them with it.

    Attributes:
        received, sent: Packets from the telephone, and to it.
        received_lost: So many from it were lost on the way; None where the call was too short for
            that to be known.
        received_jitter_ms: How unevenly they came.
        final: This is how it was at the end, and not up to 20 s before.
        rtcp: The telephone reported what it received. Without such reports nothing is known of
            `sent_lost`, `sent_jitter_ms` (the same, of what was sent to it) and `round_trip_ms`.
    """

    received: int
    sent: int
    received_lost: int | None
    received_jitter_ms: float
    rtcp: bool
    final: bool = False
    sent_lost: int | None = None
    sent_jitter_ms: float | None = None
    round_trip_ms: float | None = None


@dataclass(frozen=True, slots=True)
class OwnAudio:
    """Sound that whoever asks for a call has for it, over a WebSocket.

    Attributes:
        format: What it is written in; None: the dialer is to be asked, by its own name for the
            call.
        theirs: They set the pace of what we send; otherwise our clock does.
        url: Where we come to for it; None: they bring it to our HTTP server.
        abilities: What they can do beyond sound and a blind transfer.
        token: What they come with, once; nobody else knows it.
        seconds: How long they may take to come.
    """

    PATH: ClassVar[str] = "/dialer/audio/{token}"

    format: OwnAudioFormat | None = None
    theirs: bool = False
    url: str | None = field(default=None, repr=False)
    abilities: Ability = Ability.NOTHING
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False, compare=False)
    seconds: float = 30.0

    @staticmethod
    def abilities_of(names: Iterable[OwnAudioAbility]) -> Ability:
        """Return what a dialer says that it can do."""
        found = Ability.NOTHING
        for name in names:
            found |= _ABILITIES[name]
        return found

    @property
    def is_brought(self) -> bool:
        """Whether they come to us."""
        return self.format is not None and self.url is None

    @property
    def path(self) -> str:
        """Where they come to."""
        return self.PATH.format(token=self.token)


@dataclass(frozen=True, slots=True)
class Placing:
    """The way in which somebody is to be called.

    Attributes:
        caller_id: Whom they see; empty leaves it to the line.
        ring_seconds: How long it may ring.
        screened: Find out first whether a machine answers.
        audio: They are called already, and this is their sound; None: we call.
        reference: Under which name whoever asks knows the call; empty: they gave none.
        channel_variables: What the callee's channel is to have for the dialplan, by name.
        sip_headers: What the callee's telephone system is to be told in the request to it, by name.
    """

    caller_id: str = ""
    ring_seconds: float = 30.0
    screened: bool = False
    audio: OwnAudio | None = None
    reference: str = ""
    channel_variables: Mapping[str, str] = field(default_factory=dict)
    sip_headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def needs_channel(self) -> bool:
        """Whether something of it needs a channel in Asterisk."""
        return bool(self.channel_variables or self.sip_headers)


class Line(Protocol):
    """One caller's way to us, or one way to somebody whom we call.

    Every method that is not a coroutine returns at once; what came of it is told as a `LineEvent`.

    Attributes:
        way: The way in or out, by the name that `DIALER_TYPE` has for it.
        trunk: What the call takes on that way, where that has a name and it is known: in Asterisk
            the endpoint. Otherwise empty.
        id: The line's own name for the call: a channel of Asterisk's, a SID of Twilio's.
        answered: The far side is up already.
        placed: We call; otherwise the call came in.
    """

    way: str
    trunk: str
    id: str
    caller: str
    called: str
    answered: bool
    placed: bool

    @property
    def abilities(self) -> Ability:
        """What may be asked of it beyond sound."""
        ...

    def listen(self, tell: Tell) -> None:
        """Tell `tell` what happens from now on, and nobody else; an end that has come already, or a
        phone that holds us, is told at once."""
        ...

    def name(self, session_id: str) -> None:
        """Take the name of the call, before `open`, `dial` and `consult`."""
        ...

    async def prepare(self, agent: AgentFormats) -> LineFormat:
        """Decide on the sound of the line. Never raises."""
        ...

    def ring(self) -> None:
        """Let the caller hear ringing, until it is answered."""
        ...

    def dial(self) -> None:
        """Call; `Rings`, `Answered` or `Ended` follow."""
        ...

    def screen(self) -> None:
        """Find out who has answered; `Screened` follows."""
        ...

    def open(self, sound: LineSound, seconds: float) -> None:
        """Make a way for sound within `seconds`; `Opened` or `LineFailed` follows."""
        ...

    def connect(self) -> None:
        """Answer, and let both hear each other; `Connected` follows. Ends music."""
        ...

    def music(self) -> None:
        """Let the caller hear music instead of us, until `connect`."""
        ...

    def consult(self, target: str, ring_seconds: float) -> None:
        """Call a third party, who hears us then; `TargetConnected` or `TargetLost` follows.

        The caller hears music meanwhile, which has been asked for.
        """
        ...

    def bring_in(self, target: str, ring_seconds: float, hear: Hear) -> None:
        """Call a third party, while the caller and we go on; `TargetConnected` or `TargetLost`
        follows.

        From `TargetConnected` on the two hear each other, and we are silent. `LineSound.heard` gets
        both of them, or the caller alone where the line has them apart.

        Args:
            target: Whom.
            ring_seconds: How long it may ring there.
            hear: Gets the third party then, whole samples at the line's rate: only to keep and to
                listen to.
        """
        ...

    def drop_target(self) -> None:
        """Give up the third party. A caller with whom it spoke hears us again."""
        ...

    def hand_over(self) -> None:
        """Join caller and third party, without us. `TargetLost` or `Ended` tells that one left."""
        ...

    def take_back(self) -> float:
        """Throw away what was taken ahead of time and is not yet heard; how much, in ms."""
        ...

    async def send_keys(self, keys: str) -> None:
        """Press keys towards the caller.

        Raises:
            LineError: It was refused.
        """
        ...

    async def set_variable(self, name: str, value: str) -> None:
        """Note something for the systems that go on with the caller.

        Raises:
            LineError: It was refused.
        """
        ...

    @property
    def reachable(self) -> bool:
        """Whether something may be asked of the far end just now."""
        ...

    @property
    def cause(self) -> EndCause:
        """Why the far side has ended, as far as it is known."""
        ...

    @property
    def frames_not_read(self) -> int:
        """How many frames were left out because the far end did not read."""
        ...

    @property
    def rtp(self) -> RtpReport | None:
        """What is known of the telephone's packets, once the line has been closed."""
        ...

    def checkpoint(self) -> Mapping[str, Any] | None:
        """Return what another process needs to go on with it, as plain JSON: `Gateway.adopt` takes
        it. None: it ends with this process."""
        ...

    async def close(self, outcome: Outcome, end: CallEnd) -> None:
        """Stop the sound at once, then give everything back; never raises.

        Args:
            outcome: How the call ended, for whoever goes on with the caller.
            end: What that one may be told.
        """
        ...


@dataclass(frozen=True, slots=True)
class CallLimits:
    """The limits of one call, in seconds; None leaves each to the settings.

    Attributes:
        call_timeout_seconds: It ends when it has lasted so long; the settings may say sooner.
        no_speech_timeout_seconds: It ends when nobody has spoken for so long; 0: never.
    """

    call_timeout_seconds: float | None = None
    no_speech_timeout_seconds: float | None = None

    def or_else(self, others: CallLimits) -> CallLimits:
        """Return them, with those of `others` where they leave one open."""
        call, speech = self.call_timeout_seconds, self.no_speech_timeout_seconds
        return CallLimits(
            others.call_timeout_seconds if call is None else call,
            others.no_speech_timeout_seconds if speech is None else speech,
        )


AS_SET: Final = CallLimits()
"""As the settings have it."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Somebody has come in and wants an agent.

    Attributes:
        line: The way to them.
        agent_id: The agent that is named; None leaves it to the settings.
        variables: Dynamic variables for the agent.
        overrides: What of the agent's own configuration is otherwise for this call, in the words of
            its service.
        limits: The limits of the call.
        wait_seconds: Wait so long for a request that names this line; None: talk at once.
        recorded: Whether the call is recorded from its beginning; None leaves it to the settings.
        screened: What is known about who has answered, where somebody else has called them.
        traceparent: The trace that it is part of, as W3C Trace Context has it; empty: none.
        problems: What of the arrival could not be used: a sentence each.
        has_room: Whether there is a place for the call, where that is decided already.
    """

    line: Line
    agent_id: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    limits: CallLimits = AS_SET
    wait_seconds: float | None = None
    recorded: bool | None = None
    screened: Screened | None = None
    traceparent: str = ""
    problems: tuple[str, ...] = ()
    has_room: bool | None = None


class Gateway(Protocol):
    """One way in and out.

    Attributes:
        name: Its name in the log.
    """

    name: str

    @property
    def routes(self) -> Sequence[RouteDef]:
        """What it serves on the HTTP server, where it checks by itself who comes."""
        ...

    async def run(self, take: Callable[[Arrival], object]) -> None:
        """Take calls in until cancelled; each is handed to `take`, which never raises.

        Raises:
            ConfigError: It cannot be used at all.
        """
        ...

    def serves(self, how: Placing) -> bool:
        """Whether it is a way out for a call that is placed like this."""
        ...

    def place(self, session_id: str, number: str, how: Placing) -> Line:
        """Make a line to somebody, whose number has been checked, where it `serves`.

        `Line.dial` calls them; one that is never dialled holds nothing, and need not be closed.

        Raises:
            LineError: What is asked for may not be done; a sentence for whoever asks.
        """
        ...

    @property
    def connected(self) -> bool:
        """Whether calls can be placed now."""
        ...

    def problems(self) -> list[str]:
        """Say why no call can come in or go out now; empty when all is well."""
        ...

    def adopt(
        self, session_id: str, kept: Mapping[str, Any], begin: Callable[[], None]
    ) -> Line | None:
        """Make the line of a call whose process was lost, before `mend`.

        Sound does not flow: `open` makes another way for it. Where it was connected it still is.

        Args:
            session_id: The call.
            kept: What `Line.checkpoint` has told of it.
            begin: Called once something can be asked of it, in `run`.

        Returns:
            None: it cannot be gone on with.
        """
        ...

    async def mend(self, *, expected: bool, adopting: bool = False) -> None:
        """Give back what a lost process has left, and no line that was adopted holds, before `run`.

        Args:
            expected: There was such a process.
            adopting: Its callers are gone on with where that is possible: who had just come comes
                anew.
        """
        ...

    async def close(self) -> None:
        """Stop everything. Lines must have been closed."""
        ...
