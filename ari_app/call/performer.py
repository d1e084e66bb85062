"""Carries out the machine's effects: a method or a request each."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ari_app.ari import AriError, Client, Errand
from ari_app.call.owner import bridge_name
from ari_app.call.release import quietly
from ari_app.call.signals import (
    AnswerCaller,
    BridgeMade,
    CallerAnswered,
    CallerJoined,
    CallTarget,
    CancelTimer,
    ConnectAgent,
    ControlFailed,
    DropAgent,
    DropTarget,
    Effect,
    Event,
    JoinCaller,
    JoinMedia,
    JoinTarget,
    MakeBridge,
    OpenMedia,
    Outcome,
    PlaceCall,
    PlayedOut,
    PlayKept,
    PlayMusic,
    PlayOut,
    PlayPhrase,
    PromptAgent,
    Release,
    Released,
    ReplaceAgent,
    RingCaller,
    ScreenCall,
    SetTimer,
    StartAudio,
    TellTarget,
    WatchSpeech,
)

if TYPE_CHECKING:
    from ari_app.call.session import CallSession


class Performer:
    """Does what the machine asks for, and posts what came of it.

    Args:
        call: The call.
    """

    def __init__(self, call: CallSession) -> None:
        self._call = call
        self._making: list[asyncio.Task[None]] = []
        self._uuid = uuid.uuid4()
        # What is asked for until the caller is joined; then nobody needs it any more.
        self._set_up = Errand()

    def perform(self, effect: Effect) -> None:
        """Carry out one effect; never waits."""
        call = self._call
        set_up = self._set_up
        ari = call.services.ari.persistent(set_up)
        match effect:
            case RingCaller():
                self._request(call.services.ari.channels.ring(call.call_id), essential=False)
            case PlayMusic():
                self._request(call.caller.music())
            case ConnectAgent():
                call.agent_side.dial(call.services.agents, call.plan.agent_id, call.plan.initiation)
            case ReplaceAgent(heard):
                self._replace_agent(heard)
            case PlayPhrase():
                self._play_phrase()
            case PromptAgent():
                call.agent_side.prompt()
            case PlayKept():
                call.agent_side.speech.play_kept()
            case MakeBridge():
                made = ari.bridges.create_with_id(
                    call.bridge_id, type="mixing", name=bridge_name(call.call_id)
                )
                self._making.append(self._request(made, then=BridgeMade(), errand=set_up))
            case OpenMedia():
                self._making.append(self._request(self._open_media(ari), errand=set_up))
            case JoinMedia():
                joined = ari.bridges.add_channel(call.bridge_id, call.media_id)
                self._request(joined, errand=set_up)
            case AnswerCaller():
                answered = ari.channels.answer(call.call_id)
                self._request(answered, then=CallerAnswered(), errand=set_up)
            case JoinCaller():
                self._request(self._join_caller())
            case StartAudio():
                self._start_audio()
            case PlayOut():
                call.spawn(self._play_out())
            case SetTimer(timer):
                call.timers.set(timer)
            case CancelTimer(timer):
                call.timers.cancel(timer)
            case Release(outcome, caller_present):
                call.spawn(self._release(outcome, caller_present))
            case DropAgent():
                call.spawn(self._drop_agent())
            case PlaceCall():
                call.callee.place()
            case ScreenCall():
                self._request(call.caller.screen(set_up), errand=set_up)
            case WatchSpeech():
                set_up.drop()
                call.spawn(call.callee.listen_to_greeting())
            case CallTarget(endpoint):
                call.consultation.dial(endpoint)
            case JoinTarget():
                call.spawn(call.consultation.join())
            case DropTarget():
                call.spawn(call.consultation.drop())
            case TellTarget(lost):
                call.consultation.tell(lost)

    def _request(
        self,
        request: Coroutine[Any, Any, object],
        *,
        then: Event | None = None,
        essential: bool = True,
        errand: Errand | None = None,
    ) -> asyncio.Task[None]:
        async def request_of_call() -> None:
            try:
                await request
            except AriError as error:
                self._call.log.info("ari_request_failed", code=error.code, error=str(error))
                if essential and (errand is None or errand.wanted):
                    self._call.post(ControlFailed(error.code))
            else:
                if then is not None:
                    self._call.post(then)

        return self._call.spawn(request_of_call())

    async def _join_caller(self) -> None:
        if await self._call.caller.join():
            self._call.post(CallerJoined())

    # --- the agent

    def _replace_agent(self, heard: bool) -> None:
        call = self._call
        dialled = call.services.agents, call.plan.agent_id, call.plan.initiation
        if heard:
            call.agent_side.dial_again(*dialled)
        else:
            # What the lost one has said is queued, and would be heard before the new greeting.
            call.agent_side.speech.interrupt()
            call.agent_side.dial(*dialled)

    def _play_phrase(self) -> None:
        sound, audio = self._call.services.loss_sound, self._call.audio_interface
        assert sound is not None, "the machine is told whether there is a phrase"
        audio.write_audio_chunk(sound.at(audio.rate_hz))
        audio.end_response()

    # --- sound

    async def _open_media(self, ari: Client) -> None:
        # Both names are known to us before Asterisk hears of them: the connection and StasisStart
        # may come before the answer to this request.
        call = self._call
        call.services.lines.expect(
            self._uuid,
            call.audio_interface,
            call.plan.line_format,
            ttl=call.plan.connect_timeout_seconds,
        )
        await ari.channels.external_media(
            call.media_id,
            call.services.audiosocket_target,
            format=call.plan.line_format.name,
            data=str(self._uuid),
        )

    def _start_audio(self) -> None:
        self._set_up.drop()
        call = self._call
        call.answered_at = datetime.now(UTC)
        audio, path = call.audio_interface, call.plan.recording_path
        if path is not None:
            now = asyncio.get_running_loop().time()
            audio.recorder = call.services.recordings.start(
                path, audio.rate_hz, now, session_id=call.session_id
            )
        assert call.streamer is not None, "the agent was ready before the caller could join"
        call.agent_side.speech.somebody_spoke()
        call.spawn(call.streamer.run())
        call.spawn(call.agent_side.attend())

    async def _play_out(self) -> None:
        await self._call.audio_interface.drained()
        self._call.post(PlayedOut())

    def _hang_up_line(self) -> None:
        self._call.audio_interface.hang_up()
        self._finish_recording()
        self._call.services.lines.forget(self._uuid)
        self._call.keypad.close()

    def _finish_recording(self) -> None:
        if (recorder := self._call.audio_interface.recorder) is not None:
            recorder.finish()

    # --- the way out

    async def _drop_agent(self) -> None:
        """Caller and target go on without the agent and without us."""
        call = self._call
        self._hang_up_line()
        channels = call.services.ari.persistent().channels
        await asyncio.gather(
            call.agent_side.close(),
            quietly(lambda: channels.hangup(call.media_id), attempts=2),
        )

    async def _release(self, outcome: Outcome, caller_present: bool) -> None:
        """Give everything back; each part for itself, so that one that fails holds up no other."""
        # The line goes first: a thread of Asterisk's that waits for our next frame holds the
        # channel's lock, and the requests below would wait with it (asterisk#2078).
        call = self._call
        self._hang_up_line()
        self._set_up.drop()
        parts: list[Coroutine[Any, Any, object]] = [
            call.agent_side.close(),
            self._remove_resources(),
            call.consultation.drop(),
        ]
        if caller_present:
            parts.append(self._give_back_caller(outcome))
        for failure in await asyncio.gather(*parts, return_exceptions=True):
            if isinstance(failure, BaseException):
                call.log.error("release_part_failed", exc_info=failure)
        # Requests that nobody needs an answer to any more.
        await call.tasks.stop()
        # An agent that came at the last moment may have been given the line.
        call.audio_interface.hang_up()
        call.log.info(
            "call_ended",
            status=outcome.status.value,
            reason=outcome.reason,
            seconds=round(call.duration(), 1),
        )
        call.post(Released())

    async def _give_back_caller(self, outcome: Outcome) -> None:
        call = self._call
        await call.callee.placed()
        await call.caller.give_back(
            outcome, session_id=call.session_id, conversation_id=call.conversation_id
        )

    async def _remove_resources(self) -> None:
        making, self._making = self._making, []
        if not making:
            return
        # What is still being made must be there before it can be removed; every request has a
        # deadline.
        await asyncio.wait(making)
        call, ari = self._call, self._call.services.ari.persistent()
        await asyncio.gather(
            quietly(lambda: ari.channels.hangup(call.media_id), attempts=2),
            quietly(lambda: ari.bridges.destroy(call.bridge_id), attempts=2),
        )
