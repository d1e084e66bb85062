"""The legs of a call in Asterisk: the caller's (or callee's), and that of a transfer's target.

Each method makes requests in the order in which they must take effect, and raises what the ARI
client raises.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final

import structlog

from ari_app.audio.formats import AudioFormat
from ari_app.call.hearing import GreetingEar
from ari_app.call.plan import CallPolicy
from ari_app.call.signals import CalleeLost, ConsultRequested, SilenceHeard, SpeechHeard, TargetLost
from ari_app.call.states import State
from ari_app.line.asterisk.ari.client import Client
from ari_app.line.asterisk.ari.errors import (
    AriConflict,
    AriError,
    AriNotFound,
    AriServerError,
    AriTimeout,
    AriUnavailable,
)
from ari_app.line.asterisk.ari.rest import Errand
from ari_app.line.asterisk.dialplan import caller_id as as_caller_id
from ari_app.line.asterisk.dialplan import transfer_target, word
from ari_app.line.interface import Outcome, Result, Status, result_of
from audiosocket.frames import SLIN, SLIN16, SLIN24, LineFormat

if TYPE_CHECKING:
    from ari_app.call.call import CallSession


log = structlog.get_logger(__name__)

_LISTEN_SECONDS = 0.05


class Callee:
    """Whom a call goes to.

    Args:
        call: The call.

    Attributes:
        answered: They have.
    """

    def __init__(self, call: CallSession) -> None:
        self._call = call
        self._placing: asyncio.Task[None] | None = None
        self.answered = False

    def place(self) -> None:
        """Call them; CalleeRings, CalleeAnswered or CalleeLost follows."""
        self._placing = self._call.spawn(self._place())

    async def placed(self) -> None:
        """Wait until Asterisk has been told: a channel that is being made cannot be hung up."""
        placing, self._placing = self._placing, None
        if placing is not None:
            await asyncio.wait([placing])

    async def listen_to_greeting(self) -> None:
        """Report when a machine speaks, and when it has ended."""
        call = self._call
        ear, said = GreetingEar(call.audio_interface.rate_hz), False
        call.audio_interface.overhear = ear.heard
        while call.state is State.GREETING:
            await asyncio.sleep(_LISTEN_SECONDS)
            if ear.spoke and not said:
                said = True
                call.post(SpeechHeard())
            if ear.over(asyncio.get_running_loop().time()):
                call.post(SilenceHeard())
        call.audio_interface.overhear = None

    def lost(self) -> CalleeLost:
        """Say why their channel, which has ended, was never answered."""
        call = self._call
        rang = call.state is State.RINGING
        return CalleeLost(result_of(call.hangup_cause, call.sip_code, rang=rang).value)

    def result(self) -> str | None:
        """What became of the call; None while it is not known."""
        if self.answered:
            return Result.ANSWERED.value
        outcome = self._call.outcome
        if outcome is None:
            return None
        # A reason that somebody gave for ending the call may be any word.
        known = outcome.status is Status.FAILED and outcome.reason in set(Result)
        return outcome.reason if known else Result.FAILED.value

    async def _place(self) -> None:
        call = self._call
        try:
            await call.caller.place()
        except AriServerError as error:
            # "Allocation failed": the endpoint is not known, or nobody is registered there.
            log.info("callee_not_dialled", code=error.code, error=str(error))
            call.post(CalleeLost(Result.UNREACHABLE.value))
        except AriError as error:
            log.warning("callee_not_dialled", code=error.code, error=str(error))
            call.post(CalleeLost(Result.FAILED.value, present=True))


_CANDIDATES: Final = (SLIN, SLIN16, SLIN24)

# Asterisk's names of the codecs that carry more than 8 kHz (main/codec_builtin.c). What is not here
# counts as 8 kHz.
_WIDE_CODECS_HZ: Final = {
    "g722": 16000,
    "siren7": 16000,
    "speex16": 16000,
    "silk16": 16000,
    "slin16": 16000,
    "slin24": 24000,
    "silk24": 24000,
    "siren14": 32000,
    "speex32": 32000,
    "slin32": 32000,
    "slin44": 44100,
    "opus": 48000,
    "slin48": 48000,
    "slin96": 96000,
    "slin192": 192000,
}


@dataclass(frozen=True, slots=True)
class AgentFormats:
    """What an agent announced the last time.

    Attributes:
        hears: Its input format.
        speaks: Its output format.
    """

    hears: AudioFormat
    speaks: AudioFormat


# ElevenLabs' default for both, assumed of an agent that has not been met yet.
DEFAULT_AGENT_FORMATS: Final = AgentFormats(AudioFormat.pcm(16000), AudioFormat.pcm(16000))


def codec_rate_hz(codec: str) -> int:
    """The rate of one of Asterisk's codecs, such as `ulaw`, `g722` or `(opus)`."""
    return _WIDE_CODECS_HZ.get(codec.strip().strip("()").lower(), 8000)


def choose_line_format(
    wanted: str, *, wide: bool, caller_codec: str, agent: AgentFormats
) -> LineFormat:
    """Decide what is spoken on a call's line.

    Args:
        wanted: `AUDIOSOCKET_FORMAT`: a name, or `auto`.
        wide: This Asterisk has more than `slin`; an older one would label 16 kHz as 8 kHz.
        caller_codec: Asterisk's name of what the caller sends; empty when it is not known.
        agent: What the agent announced the last time.
    """
    if not wide:
        return SLIN
    if wanted != "auto":
        return LineFormat.by_name(wanted)
    caller_hz = codec_rate_hz(caller_codec)
    possible = [line for line in _CANDIDATES if line.rate_hz <= caller_hz]

    def effort(line: LineFormat) -> tuple[int, int]:
        conversions = sum(line.rate_hz != side.rate_hz for side in (agent.hears, agent.speaks))
        # At equal effort the better sound wins, up to what the agent can make use of.
        useful = min(line.rate_hz, max(agent.hears.rate_hz, agent.speaks.rate_hz))
        return conversions, -useful

    return min(possible, key=effort)


def media_channel_id(app: str, session_id: str) -> str:
    """The media channel of a session. Named by us, so that a later start can tell what is ours."""
    return f"{app}-media-{session_id}"


def placed_channel_id(app: str, session_id: str) -> str:
    """The channel of somebody whom we call."""
    return f"{app}-out-{session_id}"


def target_channel_id(app: str, session_id: str) -> str:
    """What the ids of the channels to a session's transfer targets begin with."""
    return f"{app}-target-{session_id}"


def bridge_id(app: str, session_id: str) -> str:
    """The bridge of a session."""
    return f"{app}-bridge-{session_id}"


async def quietly(request: Callable[[], Awaitable[object]], *, attempts: int = 1) -> bool:
    """Make a request that removes something; what is gone already counts as removed.

    Returns:
        Whether it is gone. A failure is logged; the manager's sweep finds what is left.
    """
    for _ in range(attempts):
        try:
            await request()
        except AriNotFound:
            return True
        except AriError as error:
            log.warning("release_request_failed", code=error.code, error=str(error))
        else:
            return True
    return False


async def give_back_caller(
    ari: Client,
    channel_id: str,
    outcome: Outcome,
    *,
    session_id: str = "",
    conversation_id: str = "",
    context: str | None = None,
) -> bool:
    """Let a channel go on in the dialplan, and tell it there how the agent's part ended.

    Args:
        ari: Asterisk.
        channel_id: The channel.
        outcome: How the agent's part ended.
        session_id, conversation_id: Ours, and ElevenLabs'.
        context: Go on there, at the extension ``s``; None: after ``Stasis()``.

    Returns:
        Whether the channel has left us; one that has hung up has, and one that is no longer in
        Stasis (409).
    """
    variables = {
        "AGENT_STATUS": outcome.status.value,
        "AGENT_REASON": word(outcome.reason),
        "AGENT_SESSION_ID": word(session_id),
        # The agent's service has chosen it.
        "AGENT_CONVERSATION_ID": word(conversation_id),
    }
    if outcome.transfer_to is not None:
        variables["AGENT_TRANSFER_TO"] = transfer_target(outcome.transfer_to)
    # Asterisk sets them one after the other, in the channel's own thread; nobody waits for each.
    there = await asyncio.gather(
        *(_set_variable(ari, channel_id, name, value) for name, value in variables.items())
    )
    if not all(there):
        return True
    extension = None if context is None else "s"

    async def let_go() -> None:
        try:
            await ari.channels.continue_in_dialplan(
                channel_id, context=context, extension=extension
            )
        except AriConflict:
            # It is in the dialplan: only the answer to the first attempt was lost.
            return

    left = await quietly(let_go, attempts=2)
    if not left:
        log.error("caller_not_released", call=channel_id)
    return left


async def _set_variable(ari: Client, channel_id: str, name: str, value: str) -> bool:
    """Set a variable of a channel. Returns whether the channel is still there, and in Stasis."""
    try:
        await ari.channels.set_channel_var(channel_id, name, value)
    except (AriNotFound, AriConflict):
        return False
    except AriError as error:
        # Going on without a variable is better than not going on.
        log.warning("variable_not_set", variable=name, code=error.code, error=str(error))
    return True


# We watch the ringing ourselves, for Asterisk did not say "no answer" before 20.18 and 22.8; its
# own limit is for the case that we are gone.
_SPARE_RING_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Placement:
    """A call that we place.

    Attributes:
        endpoint: Whom, as Asterisk dials it.
        caller_id: Whom the callee sees; empty leaves it to the endpoint.
        ring_seconds: How long it may ring.
        screened: AMD listens first.
    """

    endpoint: str
    caller_id: str = ""
    ring_seconds: float = 30.0
    screened: bool = False


@dataclass(frozen=True, slots=True)
class Party:
    """Who is on the line.

    Attributes:
        channel_id: The channel in Asterisk.
        placement: How we place the call; None: it came in.
    """

    channel_id: str
    caller_number: str = ""
    called_number: str = ""
    placement: Placement | None = None


class _Where(Enum):
    NEITHER = auto()
    JOINING = auto()  # on the way into the bridge
    BRIDGE = auto()
    MUSIC = auto()
    UNKNOWN = auto()  # an answer was lost


class CallerLeg:
    """The channel of whoever speaks with the agent.

    It hears music or is in the bridge. Whatever is wished last is brought about as soon as Asterisk
    can be reached, and a wish of which nothing has been begun until the next one costs nothing.

    Attributes:
        bridge_id: The call's bridge.
        placed: Asterisk has been told to call; the channel exists, or has existed.
    """

    def __init__(self, ari: Client, party: Party, bridge_id: str, policy: CallPolicy) -> None:
        self._ari = ari
        self._party = party
        self._id = party.channel_id
        self.bridge_id = bridge_id
        self._policy = policy
        self._where = _Where.NEITHER
        self.placed = party.placement is None
        # Music and bridge exclude each other, so each change waits for the one before it.
        self._changing = asyncio.Lock()
        self._wish = Errand()

    async def place(self) -> None:
        """Call the callee; the channel enters the application when it is answered."""
        placement = self._party.placement
        assert placement is not None, "only a call of ours is placed"
        try:
            await self._ari.channels.originate(
                self._id,
                placement.endpoint,
                caller_id=as_caller_id(placement.caller_id),
                ring_seconds=math.ceil(placement.ring_seconds) + _SPARE_RING_SECONDS,
            )
        except AriTimeout:
            self.placed = True  # as far as anybody knows
            raise
        except AriUnavailable as error:
            self.placed = error.may_be_done
            raise
        self.placed = True

    async def screen(self, errand: Errand) -> None:
        """Send the channel through the dialplan's AMD context, and go on hearing of it."""
        ari = self._ari.persistent(errand)
        await ari.applications.subscribe(f"channel:{self._id}")
        try:
            await ari.channels.continue_in_dialplan(
                self._id, context=self._policy.amd_context, extension="s", priority=1
            )
        except AriConflict:
            if not errand.in_doubt:
                raise
            # It is in the dialplan: only the answer was lost.

    async def join(self) -> bool:
        """Put the channel into the bridge; the music, if any, ends.

        Returns:
            Whether Asterisk may have nothing to report of it, for the channel was there before.
        """
        async with self._wishing() as wish:
            if not wish.wanted:
                return False
            if self._where is _Where.BRIDGE:
                return True
            unsure = self._where is _Where.UNKNOWN
            ari = self._ari.persistent(wish)
            if self._where is not _Where.NEITHER:
                await ari.channels.stop_moh(self._id)
            self._where = _Where.JOINING
            try:
                await ari.bridges.add_channel(self.bridge_id, self._id)
            except AriError:
                if self._where is _Where.JOINING:
                    self._where = _Where.UNKNOWN if wish.in_doubt else _Where.NEITHER
                raise
            self._where = _Where.BRIDGE
            return unsure or wish.in_doubt

    def joined(self) -> None:
        """Take note that the channel is in the bridge, whatever becomes of the answer."""
        if self._where is _Where.JOINING:
            self._where = _Where.BRIDGE
            self._wish.drop()

    async def music(self) -> None:
        """Play music; a channel in the bridge leaves it first."""
        async with self._wishing() as wish:
            if not wish.wanted or self._where is _Where.MUSIC:
                return
            ari = self._ari.persistent(wish)
            try:
                if self._where is not _Where.NEITHER:
                    await self._leave_bridge(ari, wish)
                await ari.channels.start_moh(self._id)
            except AriError:
                if wish.in_doubt:
                    self._where = _Where.UNKNOWN
                raise
            self._where = _Where.MUSIC

    async def _leave_bridge(self, ari: Client, wish: Errand) -> None:
        try:
            await ari.bridges.remove_channel(self.bridge_id, self._id)
        except AriConflict:
            if self._where is _Where.BRIDGE and not wish.in_doubt:
                raise
            # It has left it: only the answer was lost.
        self._where = _Where.NEITHER

    @contextlib.asynccontextmanager
    async def _wishing(self) -> AsyncIterator[Errand]:
        """Take the place of the last wish; what of it is under way is waited for."""
        self._wish.drop()
        wish = self._wish = Errand()
        async with self._changing:
            try:
                yield wish
            except AriError:
                # Of a wish that has been overtaken nobody needs to hear.
                if wish.wanted:
                    raise

    async def give_back(self, outcome: Outcome, *, session_id: str, conversation_id: str) -> None:
        """Let a caller go on in the dialplan; hang up on somebody whom we have called.

        One whom we have called and who is to be transferred goes on in the dialplan too.
        """
        placement, ari = self._party.placement, self._ari.persistent()
        if placement is not None and outcome.status is not Status.TRANSFER:
            if self.placed:
                no_answer = outcome.reason == Result.NO_ANSWER
                reason = "no_answer" if no_answer else "normal"
                await quietly(lambda: ari.channels.hangup(self._id, reason=reason), attempts=2)
            return
        async with self._wishing():
            if self._where in (_Where.MUSIC, _Where.UNKNOWN):
                await quietly(lambda: ari.channels.stop_moh(self._id))
        await give_back_caller(
            ari,
            self._id,
            outcome,
            session_id=session_id,
            conversation_id=conversation_id,
            context=None if placement is None else self._policy.transfer_context,
        )


class TargetLeg:
    """The channel of somebody to whom an attended transfer is to go; one after another.

    Attributes:
        channel_id: The present one; empty when there is none.
        rang: It rings, or has rung.
        answered: It has entered the application.
    """

    def __init__(self, ari: Client, prefix: str, bridge_id: str) -> None:
        self._ari = ari
        self._prefix = prefix
        self._bridge_id = bridge_id
        self._count = 0
        self.channel_id = ""
        self.rang = False
        self.answered = False

    def next(self) -> str:
        """The id of the channel to another target, which is the present one from now on."""
        self._count += 1
        self.channel_id = f"{self._prefix}.{self._count}"
        self.rang = self.answered = False
        return self.channel_id

    def forget(self) -> str:
        """There is no target any more; the id of the last one."""
        last, self.channel_id = self.channel_id, ""
        return last

    async def call(
        self, channel_id: str, endpoint: str, *, caller_id: str, ring_seconds: float
    ) -> None:
        """Call a target; its channel enters the application when it is answered."""
        await self._ari.channels.originate(
            channel_id,
            endpoint,
            caller_id=as_caller_id(caller_id),
            ring_seconds=math.ceil(ring_seconds) + _SPARE_RING_SECONDS,
        )

    async def join(self, errand: Errand) -> None:
        """Put the target into the bridge."""
        ari = self._ari.persistent(errand)
        await ari.bridges.add_channel(self._bridge_id, self.channel_id)

    async def hang_up(self, channel_id: str) -> None:
        """Hang a target up."""
        ari = self._ari.persistent()
        await quietly(lambda: ari.channels.hangup(channel_id), attempts=2)


_TARGET_THERE = (
    "The caller is being transferred and hears music. The person who takes the call hears you now; "
    "the two are connected when you are silent."
)
_TARGET_LOST = "The transfer came to nothing. The caller hears you again."


class Consultation:
    """The targets of one call's transfers, one after another.

    Args:
        call: The call.
    """

    def __init__(self, call: CallSession) -> None:
        self._call = call
        prefix = target_channel_id(call.services.app, call.session_id)
        self._leg = TargetLeg(call.services.ari, prefix, call.bridge_id)
        self._asked: asyncio.Future[str | None] | None = None
        self._calling: asyncio.Task[None] | None = None
        self._joining = Errand()

    @property
    def channel_id(self) -> str:
        """The target's channel; empty when there is none."""
        return self._leg.channel_id

    async def ask(self, endpoint: str) -> str | None:
        """Call a target; None when it hears the agent, otherwise why it does not."""
        if self._call.state is not State.TALKING:
            return "not_possible_now"
        self._asked = asyncio.get_running_loop().create_future()
        self._call.post(ConsultRequested(endpoint))
        return await self._asked

    # --- effects

    def dial(self, endpoint: str) -> None:
        """Call the target; TargetAnswered or TargetLost follows."""
        self._calling = self._call.spawn(self._dial(self._leg.next(), endpoint))

    async def join(self) -> None:
        """Put the target into the bridge; TargetJoined or TargetLost follows."""
        target = self.channel_id
        try:
            await self._leg.join(self._joining)
        except AriError as error:
            log.info("target_not_joined", code=error.code, error=str(error))
            self._lost(target, Result.FAILED)

    def drop(self) -> Coroutine[Any, Any, None]:
        """Hang the target up, if there is one; the next one may be called meanwhile."""
        self._joining.drop()
        self._joining = Errand()
        target, calling = self._leg.forget(), self._calling
        return self._drop(target, calling)

    async def _drop(self, target: str, calling: asyncio.Task[None] | None) -> None:
        # A channel that is still being made cannot be hung up.
        if calling is not None:
            await asyncio.wait([calling])
        if target:
            await self._leg.hang_up(target)

    def tell(self, lost: str | None) -> None:
        """Tell the agent that the target hears it, or why there is none."""
        if self._asked is not None and not self._asked.done():
            self._asked.set_result(lost)
        elif (agent := self._call.agent) is not None:
            # Nobody waits for an answer: the transfer was asked for from outside, or the target
            # has hung up after it was there.
            agent.send_contextual_update(
                _TARGET_THERE if lost is None else _TARGET_LOST, context_id="transfer"
            )

    # --- what Asterisk reports

    def rings(self) -> None:
        """Take note that it rings at the target."""
        self._leg.rang = True

    def answered(self) -> None:
        """Take note that the target has answered."""
        self._leg.answered = True

    def ended(self, cause: int | None, sip_code: int | None) -> TargetLost:
        """Say why the target has gone."""
        if self._leg.answered:
            return TargetLost("hung_up")
        return TargetLost(result_of(cause, sip_code, rang=self._leg.rang).value)

    async def _dial(self, target: str, endpoint: str) -> None:
        call = self._call
        try:
            await self._leg.call(
                target,
                endpoint,
                caller_id=call.caller_number,
                ring_seconds=call.services.policy.consult_ring_seconds,
            )
        except AriError as error:
            log.info("target_not_dialled", code=error.code, error=str(error))
            self._lost(target, Result.UNREACHABLE)

    def _lost(self, target: str, result: Result) -> None:
        # The next one is not lost with it.
        if target == self.channel_id:
            self._call.post(TargetLost(result.value))
