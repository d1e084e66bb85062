"""One call: its line, its agent and its sound, and what the machine asks of them.

`ari_app.call.machine` decides; `Call` carries out. What the line tells comes in by `on_line`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from ari_app.call import taking_over
from ari_app.call.amd import OnMachine
from ari_app.call.checkpoint import (
    VERSION,
    Checkpoint,
    CheckpointWriter,
    PartsState,
    Restored,
    facts_of,
    lasting,
)
from ari_app.call.context import CallContext
from ari_app.call.conversation import HELD_BY_PHONE, AgentSide
from ari_app.call.course import CALL_ENDED
from ari_app.call.hearing import GreetingEar, ResponseTime
from ari_app.call.keypad import Keypad, for_record
from ari_app.call.plan import Announcement, CallPlan, Services
from ari_app.call.signals import (
    BringIn,
    CallAdopted,
    CalleeScreened,
    CallerArrived,
    CallTarget,
    CallWanted,
    CancelTimer,
    ConnectAgent,
    ConnectCaller,
    ConsultRequested,
    DropTarget,
    Effect,
    EndRequested,
    GiveBack,
    GiveBackRequested,
    HandOver,
    OpenLine,
    PlaceCall,
    PlayedOut,
    PlayKept,
    PlayMusic,
    PlayOut,
    PlayPhrase,
    PromptAgent,
    Refused,
    Release,
    Released,
    ReplaceAgent,
    ResumeAudio,
    RingCaller,
    ScreenCall,
    SetTimer,
    SilenceHeard,
    SpeechHeard,
    StartAudio,
    TakeOver,
    TakeOverEnded,
    TakeOverRequested,
    TellTarget,
    Timer,
    TimerFired,
    WatchSpeech,
)
from ari_app.call.sound import CallSound
from ari_app.call.speech import QUIET_SECONDS
from ari_app.call.states import OVER, TRANSFERABLE, State
from ari_app.call.supervision import Supervision
from ari_app.call.tools import NOT_POSSIBLE, ToolRunner, briefing_rules, why_lost
from ari_app.line.interface import (
    DECLINED,
    WORKER_LOST,
    Answered,
    CallEnd,
    CallerReplaced,
    Connected,
    EndCause,
    Ended,
    KeyPressed,
    Line,
    LineEvent,
    LineFailed,
    Noticed,
    Opened,
    Outcome,
    PhoneHeld,
    Result,
    Screened,
    Status,
    TargetConnected,
    TargetLost,
    TargetPressed,
)
from ari_app.records.events import (
    Adopted,
    AgentLost,
    AgentResumed,
    CallEnded,
    KeysPressed,
    Noted,
    Responded,
)
from ari_app.records.record import CallRecord, Leg

# The agent's client has the same deadline, and its error says more than this timer.
_SPARE_SECONDS = 0.2
_JOIN_SECONDS = 5.0
# AMD() takes 5 s at most (amd.conf, total_analysis_time); then there is still the way to and fro.
_SCREEN_SECONDS = 12.0
# A machine that says nothing for so long has spoken before it was known to be one.
_MACHINE_QUIET_SECONDS = 3.0
_GREETING_SECONDS = 60.0
# How long the agent may take until it begins to speak to a transfer's target, or answers it; and
# how long the two may speak.
_BRIEF_SECONDS = 4.0
_BRIEF_LIMIT_SECONDS = 60.0
# A caller takes a longer silence for the end of the call; an agent that returns sooner needs no
# cover.
_COVER_SECONDS = 1.0
_AT_ONCE_SECONDS = 0.01
# Deadlines are put off by this while the far end is away; what waits for its return is then done at
# once.
_OUTAGE_SECONDS = 1.0
# How long a model may take for its first word.
_RESUME_SECONDS = 4.0
# A caller whose process was lost has heard nothing for a while already.
_ADOPTED_COVER_SECONDS = 0.1
_LISTEN_SECONDS = 0.05
_MAX_LEGS = 50

_HEARS_KEYS = (State.TALKING, State.GREETING, State.RECOVERING, State.CLOSING)
_ADOPTED = "the process that carried the call was lost, and another goes on with it"
_TAKEN_BACK = "The caller is back and hears you again."
_ANOTHER_CALLER = (
    "(The call has been passed on: another person is on the line now and hears you. Tell them, in "
    "one short sentence, who you are, and go on.)"
)
_ANOTHER_COMES = "The call has been passed on: whom you hear from now on is another person."
_TARGET_THERE = (
    "The caller is being transferred and hears music. The target has answered and hears you now."
)
_TARGET_LOST = (
    "(The transfer came to nothing: {why}. The caller hears you again: tell them, in one short "
    "sentence.)"
)
_TARGET_LOST_MEANWHILE = (
    "The transfer that was under way when the connection was lost came to nothing: nobody has "
    "taken the call. The caller hears you again: tell them, in one short sentence."
)


class Call:
    """One call.

    Args:
        services: What every call uses.
        plan: What was decided about this one.
        line: The way to the caller; it has been prepared and named.
        record: The call's record.
        restored: The call as a lost process has kept it: see `take_up`; None: a new call.

    Attributes:
        context: What its parts share.
        line, sound, side, supervision, keypad: Its parts, until it has ended.
        ended: Set once everything has been given back.
    """

    def __init__(
        self,
        services: Services,
        plan: CallPlan,
        line: Line,
        record: CallRecord,
        restored: Restored | None = None,
    ) -> None:
        self.services = services
        self.plan = plan
        self.line = line
        self.record = record
        self.ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._was_answered = False
        # It still rings at whom the caller has passed the call on to.
        self._rings_on = False
        self._lost_at = 0.0
        self._asked: asyncio.Future[str | None] | None = None
        self._timers: dict[Timer, asyncio.TimerHandle] = {}
        # When the line's steps that are not over began, in seconds since the call did.
        self._steps: dict[str, float] = {}
        self._due: dict[Timer, float] = {}
        self._restored = restored
        self._told_early: list[LineEvent] = []
        self._was_over = restored is not None and restored.checkpoint.course.state in OVER
        self._sound_before = record.sound
        context = self.context = CallContext(
            record,
            services.policy,
            services.journal,
            None if restored is None else restored.checkpoint.course,
        )
        context.perform, context.changed = self._perform, self._changed
        record.agent_id = plan.briefing.agent_id
        record.way = line.way
        self._leg = Leg(
            "callee" if line.placed else "caller",
            record.called_number if line.placed else record.caller_number,
            answered=0.0 if line.answered else None,
        )
        self._target: Leg | None = None
        if record.legs:
            self._leg, *targets = record.legs
            self._target = next((leg for leg in reversed(targets) if leg.ended is None), None)
        else:
            record.legs = [self._leg]
        record.line_format = plan.line_format.name
        self.sound = CallSound(
            plan.line_format.rate_hz,
            chunk_ms=plan.uplink_chunk_ms,
            on_response=self._responded,
            take_back=line.take_back,
            on_announced=self._were_announced,
        )
        self._recorded = plan.recorded and services.recordings is not None
        self._recordings: list[float] = []
        self._audio_began = False
        # What the caller has been told; what they are being told; what they will be as soon as they
        # hear us.
        self._announced: set[Announcement] = set()
        self._announcing: list[Announcement] = []
        self._unannounced: list[Announcement] = []
        tools = ToolRunner(
            context,
            line,
            self.consult,
            self.decline,
            services.http_tools,
            None if services.recordings is None else self.set_recording,
        )
        self.side = AgentSide(
            context, self.sound, tools, has_phrase=services.loss_sound is not None
        )
        self.supervision = Supervision(context, self.sound, self.side)
        self.keypad = Keypad(services.policy.digit_collector(), self._entered)
        if restored is not None:
            self._restore(restored)
        self._announce_all()
        line.listen(self.on_line)

    # --- how it begins, or goes on

    def arrive(self, on_machine: OnMachine = OnMachine.TALK) -> None:
        """Begin a call whose caller has come in."""
        self._keep()
        self.context.post(CallerArrived(self.line.answered, on_machine))

    def place(self, *, screened: bool) -> None:
        """Begin a call that we place.

        Args:
            screened: Find out first whether a machine answers.
        """
        self._keep()
        self.context.post(CallWanted(screened))

    def refuse(self, outcome: Outcome) -> None:
        """Give the caller back at once, without an agent."""
        self.context.post(Refused(outcome))

    def take_up(self) -> None:
        """Go on with a call whose process was lost; call this once its line can be used."""
        restored, context = self._restored, self.context
        if restored is None or (context.over and not self._was_over):
            return  # its caller was gone, and it has ended
        self._restored = None
        checkpoint, now = restored.checkpoint, self._loop.time()
        gap = max(0.0, now - restored.last_seen)
        self._lost_at = now - gap
        context.log.warning("call_adopted", state=context.state.value, seconds=round(gap, 2))
        lost_at = max(0.0, context.duration() - gap)
        self.record.chronicle.ended(lost_at)
        self.record.leaves_agent(lost_at)
        context.say(Noted(_ADOPTED))
        self.supervision.heard_until(lost_at)
        context.note(Adopted(round(gap, 3)))
        for name, due in checkpoint.timers.items():
            self._start_timer(Timer(name), max(due - now, _AT_ONCE_SECONDS))
        self.side.waited_seconds = _COVER_SECONDS - _ADOPTED_COVER_SECONDS
        self.keypad.resume(checkpoint.parts.keys)
        # Whoever counts calls has not heard of it yet, and its state may stay as it is.
        context.note_state()
        context.post(
            CallAdopted(
                WORKER_LOST,
                self.line.answered,
                phrase=self.services.loss_sound is not None,
                agent_holds=checkpoint.parts.agent_holds,
            )
        )
        early, self._told_early = self._told_early, []
        for event in early:
            self.on_line(event)

    def fail(self, outcome: Outcome) -> None:
        """End a call that could not be taken up."""
        if self._was_over:
            # Nobody has given back yet what the lost process was about to.
            self._perform(Release(self.context.outcome or outcome))
        else:
            self.context.post(EndRequested(outcome))

    def _restore(self, restored: Restored) -> None:
        parts, context = restored.checkpoint.parts, self.context
        context.on_hold = parts.on_hold
        self._set_muted()
        self._recorded = parts.recorded and self.services.recordings is not None
        self._recordings = list(parts.recordings)
        if self.services.recordings is not None and self._recordings:
            self.services.recordings.goes_on(self.record, self._recordings)
        self._announced, self._audio_began = set(parts.announced), parts.audio_began
        self._was_answered = parts.was_answered
        for keys in parts.secrets:
            context.secrets.add(keys)
        self._keep_in(CheckpointWriter(restored.file, self._checkpoint, self.refresh))

    def _keep(self) -> None:
        """Keep the call from now on for another process, where its line can go on there."""
        checkpoints = self.services.checkpoints
        if checkpoints is not None and self.line.checkpoint() is not None:
            self._keep_in(CheckpointWriter(checkpoints.begin(), self._checkpoint, self.refresh))

    def _keep_in(self, keeper: CheckpointWriter) -> None:
        self.context.keeper = keeper
        self.record.chronicle.watch = keeper.sound

    def _checkpoint(self) -> Checkpoint:
        context = self.context
        return Checkpoint(
            VERSION,
            facts_of(self.record),
            context.course,
            self.plan,
            self.line.checkpoint() or {},
            lasting(self._due),
            PartsState(
                on_hold=context.on_hold,
                recorded=self._recorded,
                recordings=tuple(self._recordings),
                announced=frozenset(self._announced),
                audio_began=self._audio_began,
                was_answered=self._was_answered,
                agent_holds=self.side.holds,
                keys=self.keypad.begun,
                secrets=tuple(context.secrets),
            ),
        )

    # --- what others see

    @property
    def state(self) -> State:
        """Where the call is."""
        return self.context.state

    @property
    def counts(self) -> bool:
        """Whether the call holds an agent or is about to: it counts against the limit."""
        return self.context.counts

    @property
    def reachable(self) -> bool:
        """Whether the line takes requests now. A call of a lost process takes none until `take_up`,
        which makes all the requests that it needs."""
        return self._restored is None and self.line.reachable

    def refresh(self) -> None:
        """Bring the record's figures up to date, until the call has ended."""
        if self.ended.is_set():
            return
        record = self.record
        rtp = self.line.rtp
        record.sound = replace(
            self.sound.report(self.line.frames_not_read),
            not_sent_ms=self.side.not_sent_ms,
            rtp=None if rtp is None else asdict(rtp),
        ).after(self._sound_before)
        record.trunk = self.line.trunk
        cause = self.line.cause
        record.hangup_cause, record.sip_code = cause.hangup_cause, cause.sip_code
        record.detail = cause.detail

    def _result(self) -> str | None:
        if self._was_answered:
            return Result.ANSWERED.value
        outcome = self.context.outcome
        if outcome is None:
            return None
        # A reason that somebody gave for ending the call may be any word.
        known = outcome.status is Status.FAILED and outcome.reason in set(Result)
        return outcome.reason if known else Result.FAILED.value

    # --- what the line tells

    def on_line(self, event: LineEvent) -> None:
        """Take what has happened on the line."""
        context = self.context
        if context.over:
            return
        if self._restored is not None and not isinstance(event, Ended):
            # `take_up` asks for all that the call needs, and must not find it asked for already.
            self._told_early.append(event)
            return
        match event:
            case KeyPressed(digit):
                if context.state in _HEARS_KEYS:
                    self.side.speech.somebody_spoke()
                    self.keypad.press(digit)
                    context.mark()
                return
            case PhoneHeld(on):
                if on is context.on_hold:
                    return
                self._held_by_phone(on)
            case Answered():
                self._was_answered = True
                self._leg_answered(self._leg)
            case Opened():
                self._step_over("media")
            case Connected():
                self._step_over("answer")
                self._leg_answered(self._leg)
            case LineFailed(reason):
                for step in tuple(self._steps):
                    self._step_over(step, reason)
            case TargetConnected():
                self._leg_answered(self._target)
            case TargetPressed(digit):
                if self.state is State.BRIEFING and digit == self.services.policy.decline_key:
                    self.on_line(TargetLost(DECLINED))
                return
            case TargetLost(result, cause):
                self._leg_ended(self._target, result, cause)
            case Ended():
                self._leg_ended(self._leg)
            case Screened():
                self._screened(event)
                return
            case CallerReplaced(there):
                self._caller_replaced(there)
                return
            case Noticed(text):
                context.mark()
                context.say(Noted(text))
                return
            case _:
                pass
        context.post(event)
        if self._unannounced:
            self._announce_owed()

    def _held_by_phone(self, on: bool) -> None:
        self.context.on_hold = on
        if on:
            self._announce_later()
        self._set_muted()
        if self.state is not State.TAKEN_OVER:
            self.side.tell(HELD_BY_PHONE if on else _TAKEN_BACK, about="hold")
        self.context.mark()
        self.context.say(Noted("the caller holds" if on else "the caller is back"))

    def _caller_replaced(self, there: bool) -> None:
        self.context.mark()
        if there and self._rings_on:
            self.context.say(Noted("whom the caller has passed the call on to has answered"))
        else:
            self.context.say(Noted("the caller has passed the call on to somebody else"))
        self._rings_on = not there
        if there:
            # They have heard nothing of what was announced.
            self._announce_later()
            self._announced.clear()
            self._announce_all()
        if there and self.state is State.TALKING:
            # What an agent is only told it does not answer, and they would hear silence.
            self.side.ask(_ANOTHER_CALLER)
        else:
            self.side.tell(_ANOTHER_COMES, about="caller")

    def _step_over(self, step: str, failure: str | None = None) -> None:
        if (began := self._steps.pop(step, None)) is not None:
            self.context.took(step, began, failure)

    def _leg_answered(self, leg: Leg | None) -> None:
        if leg is not None and leg.answered is None:
            leg.answered = self.context.duration()

    def _leg_ended(
        self, leg: Leg | None, result: str | None = None, cause: EndCause | None = None
    ) -> None:
        if leg is None or leg.ended is not None:
            return
        leg.ended = self.context.duration()
        if result is not None:
            answered = leg.answered is not None and result != DECLINED
            leg.result = Result.ANSWERED.value if answered else result
        if cause is not None:
            leg.cause, leg.sip_code = cause.hangup_cause, cause.sip_code

    def _screened(self, found: Screened) -> None:
        known = found.known
        self.record.metadata.update(known)
        self.plan = replace(self.plan, briefing=self.plan.briefing.with_variables(known))
        self.context.mark()
        rules = self.services.policy.amd
        if self.plan.on_machine is not None:
            rules = replace(rules, machine=self.plan.on_machine)
        self.context.post(CalleeScreened(rules.decide(found)))

    # --- what is asked of it

    def mute(self, muted: bool) -> None:
        """Let the agent hear silence instead of the caller, or the caller again."""
        self.record.muted = muted
        self._set_muted()
        self.context.mark()

    def _set_muted(self) -> None:
        # The target of a transfer is heard, whatever the caller's telephone does meanwhile.
        caller_unheard = self.state is not State.BRIEFING and (
            self.record.muted or self.context.on_hold
        )
        self.sound.muted = caller_unheard or self.state is State.TAKEN_OVER

    async def consult(self, target: str) -> str | None:
        """Call a transfer's target, and wait until it hears the agent.

        Returns:
            None, or why it does not hear the agent: a slug.
        """
        if self.state not in TRANSFERABLE or self.context.calls_in:
            return NOT_POSSIBLE
        self._asked = self._loop.create_future()
        self.context.post(ConsultRequested(target))
        return await self._asked

    def decline(self) -> None:
        """Take the caller back: the target of a transfer, who hears the agent, does not want the
        call, as the agent says."""
        # It knows why, and needs nothing but the answer to its tool.
        self._asked = self._loop.create_future()
        self.on_line(TargetLost(DECLINED))

    def take_over(self, number: str, who: str) -> None:
        """Call a supervisor, who speaks with the caller instead of the agent, where that may be.

        Args:
            number: Their telephone, checked.
            who: Whose key asks for it.
        """
        if taking_over.refusal(self.state, rings=self.context.calls_in) is not None:
            return
        self.supervision.asked(number, who)
        self.context.post(TakeOverRequested(number))

    def give_back(self) -> None:
        """Let the agent speak with the caller again; the phone of a supervisor, or of a transfer's
        target, rings no more."""
        self.context.post(GiveBackRequested())

    def set_recording(self, on: bool) -> str | None:
        """Record the call from now on, pause, or go on.

        Returns:
            None, or why that was not done: a clause.
        """
        if self.services.recordings is None:
            return "calls are not recorded here"
        if self.context.over or self.state is State.HANDED_OVER:
            return "the caller does not speak with the agent any more"
        if on is self._recorded and (not on or not self._audio_began or self._is_recording):
            return None
        self._recorded = on
        self.context.mark()
        if on:
            self._announce(Announcement.RECORDING)
        if not self._audio_began:
            return None
        recorder, now = self.sound.recorder, self._loop.time()
        if not on:
            if recorder is None:
                return None
            recorder.pause(now)
            self.context.say(Noted("the recording pauses"))
        elif recorder is not None and recorder.lives:
            recorder.resume(now)
            self.context.say(Noted("the recording goes on"))
        elif not self._begin_recording(now):
            self._recorded = False
            self.context.say(Noted("the recording could not begin"))
            return "there is no room for a recording just now"
        else:
            self.context.say(Noted("the recording begins"))
        self.record.recording = "on" if on else "paused"
        return None

    def _announce_all(self) -> None:
        self._announce(Announcement.LISTENING)
        if self._recorded:
            self._announce(Announcement.RECORDING)

    def _announce(self, what: Announcement) -> None:
        told = (*self._announced, *self._announcing, *self._unannounced)
        if what in self.services.announcements and what not in told:
            self._unannounced.append(what)
            self._announce_owed()

    def _announce_owed(self) -> None:
        context = self.context
        if context.over or context.on_hold or context.course.music:
            return
        for what in self._unannounced:
            self.sound.announce(self.services.announcements[what].at(self.sound.rate_hz))
        self._announcing += self._unannounced
        self._unannounced.clear()

    def _were_announced(self) -> None:
        self._announced.update(self._announcing)
        self._announcing.clear()
        self.context.mark()

    def _announce_later(self) -> None:
        """Announce from its beginning what the caller hears no more, once they hear us again."""
        self.sound.announce_no_more()
        self._unannounced[:0] = self._announcing
        self._announcing.clear()

    @property
    def _is_recording(self) -> bool:
        recorder = self.sound.recorder
        return recorder is not None and recorder.lives and not recorder.paused

    def _begin_recording(self, now: float) -> bool:
        recordings = self.services.recordings
        assert recordings is not None, "nobody asks where calls are not recorded"
        if (before := self.sound.recorder) is not None:
            before.finish(now)
        self.sound.recorder = recordings.start(self.record, self.sound.rate_hz, now)
        if self.sound.recorder is None:
            return False
        self._recordings.append(round(self.context.duration(), 3))
        self.context.mark()
        return True

    # --- the machine's effects

    def _perform(self, effect: Effect) -> None:
        line, side = self.line, self.side
        match effect:
            case RingCaller():
                line.ring()
            case PlayMusic():
                self._announce_later()
                line.music()
            case PlaceCall():
                line.dial()
            case ScreenCall():
                line.screen()
            case OpenLine():
                self._steps["media"] = self.context.duration()
                line.open(self.sound, self.plan.connect_timeout_seconds)
            case ConnectCaller():
                # After music it is no beginning.
                if not self._audio_began:
                    self._steps["answer"] = self.context.duration()
                line.connect()
            case ConnectAgent():
                side.dial(self.services.agents, self.plan.briefing)
            case ReplaceAgent(heard):
                side.replace(self.services.agents, self.plan.briefing, heard=heard)
            case PlayPhrase():
                self._play_phrase()
            case PromptAgent():
                side.prompt()
            case PlayKept():
                side.speech.play_kept()
            case StartAudio():
                self._start_audio()
            case ResumeAudio():
                self._resume_audio()
            case WatchSpeech():
                self.context.spawn(self._listen_to_greeting())
            case CallTarget(target):
                self._target = self._add_leg(target)
                self.context.say(Noted("the target of a transfer is called"))
                line.consult(target, self.services.policy.consult_ring_seconds)
            case DropTarget():
                line.drop_target()
            case BringIn(target):
                self._target = self._add_leg(target, "supervisor")
                ring_seconds = self.services.policy.consult_ring_seconds
                line.bring_in(target, ring_seconds, self.sound.heard_target)
            case TakeOver():
                self.supervision.taken_over()
                self._set_muted()
            case TakeOverEnded(why):
                self._leg_ended(self._target, why)
                self.supervision.failed(why)
            case GiveBack():
                self._leg_ended(self._target, "hung_up")
                self._set_muted()
                self.supervision.given_back(effect)
                if effect.there and self.context.on_hold:
                    side.tell(HELD_BY_PHONE, about="hold")
            case TellTarget(lost):
                self._tell_target(lost)
            case HandOver():
                if self._target is not None:
                    self.record.transfer_to = self._target.number
                self.context.spawn(self._hand_over())
            case PlayOut():
                self.context.spawn(self._play_out())
            case SetTimer(timer):
                self._set_timer(timer)
            case CancelTimer(timer):
                self._cancel_timer(timer)
            case Release(outcome):
                self.context.spawn(self._release(outcome))

    def _changed(self, before: State) -> None:
        context, record, now = self.context, self.record, self._loop.time()
        state = context.state
        if self.line.placed:
            record.result = self._result()
        if before is State.HOLDING:
            self.side.holds_no_more()
        if State.BRIEFING in (before, state):
            self._set_muted()
        if before is State.BRIEFING and state is State.TALKING:
            self.side.briefs_no_more()
        if state is State.HANDED_OVER:
            context.say(Noted("the caller goes on without the agent"))
        if state is State.RECOVERING and self.side.was_there:
            self._lost_at = now
            context.log.warning("agent_lost", conversation=record.conversation_id)
            context.say(Noted("the agent was lost"))
            context.note(AgentLost(record.conversation_id))
        elif before is State.RECOVERING and state in (State.TALKING, State.CLOSING):
            seconds = round(now - self._lost_at, 3)
            context.log.info("agent_resumed", conversation=record.conversation_id, seconds=seconds)
            context.say(Noted("the agent is back"))
            context.note(AgentResumed(record.conversation_id, seconds))
            self.side.has_resumed()
        if state is State.ENDED:
            self._finish()
        context.note_state()
        if state is State.ENDED:
            context.note(
                CallEnded(record.agent_status, record.end_reason, round(context.duration(), 3))
            )
            if context.keeper is not None:
                context.keeper.end()
            self._let_go()
            self.ended.set()

    def _add_leg(self, target: str, kind: str = "target") -> Leg:
        leg = Leg(kind, target, self.context.duration())
        legs = self.record.legs
        if len(legs) < _MAX_LEGS:
            legs.append(leg)
        return leg

    def _let_go(self) -> None:
        """Cut the references between the parts, so that they are freed now and not by the next full
        garbage collection, which holds up every call."""
        self.context.let_go()
        del self.sound, self.side, self.keypad, self.supervision, self.line

    def _finish(self) -> None:
        self.refresh()
        record = self.record
        self._leg_ended(self._leg)
        self._leg_ended(self._target, CALL_ENDED)
        leg = self._leg
        leg.result, leg.cause, leg.sip_code = record.result, record.hangup_cause, record.sip_code
        self.supervision.ended()
        record.has_ended(self._loop.time())

    # --- sound

    def _start_audio(self) -> None:
        self.record.answered_at = datetime.now(UTC)
        self._audio_began = True
        if not self.sound.flows:
            self.record.chronicle.sound_began(self.context.duration())
        self._resume_audio()

    def _resume_audio(self) -> None:
        if self._recorded and self._begin_recording(self._loop.time()):
            self.record.recording = "on"
        self.side.speech.somebody_spoke()
        self.sound.start()
        self.context.spawn(self.side.attend())

    def _play_phrase(self) -> None:
        sound = self.services.loss_sound
        assert sound is not None, "the machine is told whether there is a phrase"
        self.sound.play(sound.at(self.sound.rate_hz))

    async def _play_out(self) -> None:
        # The agent may have said good-bye while the caller was on the way back from the music.
        with suppress(TimeoutError):
            async with asyncio.timeout(_JOIN_SECONDS):
                await self.side.speech.nothing_kept()
        await self.sound.drained()
        self.context.post(PlayedOut())

    async def _listen_to_greeting(self) -> None:
        """Post `SpeechHeard` once a machine speaks, `SilenceHeard` once its greeting is over."""
        ear, said = GreetingEar(self.sound.rate_hz), False
        self.sound.overhear = ear.heard
        while self.state is State.GREETING:
            await asyncio.sleep(_LISTEN_SECONDS)
            if ear.spoke and not said:
                said = True
                self.context.post(SpeechHeard())
            if ear.over(self._loop.time()):
                self.context.post(SilenceHeard())
        self.sound.overhear = None

    def _responded(self, response: ResponseTime) -> None:
        self.context.note(Responded(round(response.seconds, 3)))

    def _entered(self, digits: str) -> None:
        self.side.ask(digits, keys=True)
        sensitive = self.services.policy.digits_are_sensitive
        if sensitive:
            self.context.secrets.add(self.keypad.together or digits)
        self.context.say(KeysPressed(for_record(digits, sensitive=sensitive)))

    def _tell_target(self, lost: str | None) -> None:
        if lost is None:
            self.context.say(Noted("the target hears the agent"))
        else:
            self._leg_ended(self._target, lost)
            self.context.say(Noted(f"the transfer has come to nothing: {why_lost(lost)}"))
        if self._asked is not None and not self._asked.done():
            self._asked.set_result(lost)
        # Nobody waits for an answer: the transfer was asked for from outside, or the target was
        # there and has hung up.
        elif lost is None:
            rules = briefing_rules(self.services.policy.decline_key)
            self.side.tell(f"{_TARGET_THERE} {rules}", about="transfer")
        elif self.side.is_there:
            # What an agent is only told it does not answer, and the caller would hear silence.
            self.side.ask(_TARGET_LOST.format(why=why_lost(lost)))
        else:
            self.side.tell_the_next(_TARGET_LOST_MEANWHILE)

    # --- the way out

    def _stop_sound(self) -> None:
        self.record.chronicle.ended(self.context.duration())
        self.sound.stop()

    async def _hand_over(self) -> None:
        """Join caller and target, and let the agent go."""
        self._stop_sound()
        self.keypad.close()
        self.line.hand_over()
        await self.side.close()

    async def _release(self, outcome: Outcome) -> None:
        """Give everything back. Line and agent close side by side: if one fails, the other still
        does."""
        record, context = self.record, self.context
        self._stop_sound()
        self.keypad.close()
        parts: list[Coroutine[Any, Any, object]] = [
            self.line.close(outcome, CallEnd(record.session_id, record.conversation_id)),
            self.side.close(),
        ]
        for failure in await asyncio.gather(*parts, return_exceptions=True):
            if isinstance(failure, BaseException):
                context.log.error("release_part_failed", exc_info=failure)
        await context.stop_tasks()
        async with self.services.ends:
            await asyncio.sleep(0)
        context.log.info(
            "call_ended",
            status=outcome.status.value,
            reason=outcome.reason,
            seconds=round(context.duration(), 1),
        )
        context.post(Released())

    # --- timers

    def _set_timer(self, timer: Timer) -> None:
        """Start a timer, or start it anew; do nothing where its time is 0."""
        if timer in (Timer.CLOSE, Timer.BRIEF):
            self.side.speech.begin_quiet(_BRIEF_LIMIT_SECONDS if timer is Timer.BRIEF else None)
        if (seconds := self._seconds(timer)) > 0:
            self._start_timer(timer, seconds)

    def _cancel_timer(self, timer: Timer) -> None:
        self._due.pop(timer, None)
        if handle := self._timers.pop(timer, None):
            handle.cancel()

    def _seconds(self, timer: Timer) -> float:
        plan, policy = self.plan, self.services.policy
        match timer:
            case Timer.CALL:
                return plan.call_timeout_seconds
            case Timer.CONNECT | Timer.RECONNECT:
                return plan.connect_timeout_seconds + _SPARE_SECONDS
            case Timer.JOIN:
                return _JOIN_SECONDS
            case Timer.RING:
                return plan.ring_seconds
            case Timer.SCREEN:
                return _SCREEN_SECONDS
            case Timer.QUIET:
                return _MACHINE_QUIET_SECONDS
            case Timer.GREETING:
                return _GREETING_SECONDS
            case Timer.CONSULT | Timer.BRING_IN:
                return policy.consult_ring_seconds
            case Timer.SPEECH:
                return self._no_speech_seconds
            case Timer.HOLD:
                return policy.hold_timeout_seconds
            case Timer.CLOSE:
                return QUIET_SECONDS
            case Timer.BRIEF:
                return _BRIEF_SECONDS
            case Timer.COVER:
                return max(_COVER_SECONDS - self.side.waited_seconds, _AT_ONCE_SECONDS)
            case Timer.RESUME:
                return _RESUME_SECONDS

    @property
    def _no_speech_seconds(self) -> float:
        own = self.plan.no_speech_timeout_seconds
        return self.services.policy.no_speech_timeout_seconds if own is None else own

    def _start_timer(self, timer: Timer, seconds: float) -> None:
        self._cancel_timer(timer)
        self._timers[timer] = self._loop.call_later(seconds, self._timer_fired, timer)
        self._due[timer] = self._loop.time() + seconds
        self.context.mark()

    def _timer_fired(self, timer: Timer) -> None:
        self._timers.pop(timer, None)
        self._due.pop(timer, None)
        if (left := self._too_early(timer)) > 0:
            self._start_timer(timer, left)
        else:
            self.context.post(TimerFired(timer))

    def _too_early(self, timer: Timer) -> float:
        """Return for how many seconds more a timer has to run; 0 when it is really due."""
        speech = self.side.speech
        match timer:
            case Timer.CLOSE:
                return speech.still_speaking()
            case Timer.BRIEF:
                return speech.still_conversing(_BRIEF_SECONDS)
            case Timer.SPEECH:
                limit = self._no_speech_seconds
                # Whoever is on hold need not speak.
                waits = self.context.on_hold or self.state is not State.TALKING
                return limit if waits else speech.silence_lacks(limit)
            case Timer.CONNECT | Timer.JOIN if not self.line.reachable:
                # The far end is away, so the caller could not be given back either.
                return _OUTAGE_SECONDS
            case Timer.COVER:
                queued = speech.queued_seconds
                return queued + _COVER_SECONDS if queued else 0.0
            case _:
                return 0.0
