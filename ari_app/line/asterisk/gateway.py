"""Hands Asterisk's events to the calls that they concern."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ari_app.call.call import CallSession
from ari_app.call.calls import Registry
from ari_app.call.plan import CallPolicy
from ari_app.call.signals import (
    CalleeAnswered,
    CalleeRings,
    CalleeScreened,
    CallerAnswered,
    CallerLeft,
    MediaEntered,
    MediaJoined,
    MediaLost,
    TargetAnswered,
    TargetJoined,
)
from ari_app.call.states import State
from ari_app.line.asterisk.ari.events import (
    AriEvent,
    ChannelDestroyed,
    ChannelDtmfReceived,
    ChannelEnteredBridge,
    ChannelHangupRequest,
    ChannelHold,
    ChannelStateChange,
    ChannelUnhold,
    Dial,
    StasisEnd,
    StasisStart,
)
from ari_app.line.asterisk.ari.models import Channel
from ari_app.line.asterisk.dialplan import parse_arguments
from ari_app.line.asterisk.line import media_channel_id, placed_channel_id, target_channel_id

_RINGING: Final = frozenset({"RINGING", "PROGRESS"})


class EventRouter:
    """Turns what Asterisk reports into what happens to a call.

    Args:
        registry: The calls.
        app: Our Stasis application.
        policy: What an answering machine's result means.
        on_caller: A caller has entered.
        on_late: A channel of ours has entered whose call is over.
        on_foreign: A channel has left that belongs to no call of ours.
    """

    def __init__(
        self,
        registry: Registry,
        app: str,
        policy: CallPolicy,
        *,
        on_caller: Callable[[StasisStart], None],
        on_late: Callable[[str], None],
        on_foreign: Callable[[str], None],
    ) -> None:
        self._registry = registry
        self._policy = policy
        self._on_caller = on_caller
        self._on_late = on_late
        self._on_foreign = on_foreign
        self._ours = (
            media_channel_id(app, ""),
            placed_channel_id(app, ""),
            target_channel_id(app, ""),
        )

    def handle(self, event: AriEvent) -> None:
        """Take one event, of any kind."""
        match event:
            case StasisStart():
                self._entered(event)
            case ChannelEnteredBridge(channel=Channel() as channel):
                session = self._registry.of_channel(channel.id)
                if session is not None and event.bridge.id == session.bridge_id:
                    _joined(session, channel.id)
            case ChannelHangupRequest(channel=channel):
                if (session := self._registry.of_caller(channel.id)) is not None:
                    session.caller_hung_up = True
                    session.caller_ended(event.cause, event.tech_cause)
            case Dial(peer=channel):
                if event.dialstatus in _RINGING:
                    self._rings(channel.id)
            case StasisEnd(channel=channel):
                self._left(channel.id)
            case ChannelDestroyed():
                self._destroyed(event)
            case ChannelStateChange(channel=Channel(state="Ringing") as channel):
                self._rings(channel.id)
            case ChannelStateChange(channel=Channel(state="Up") as channel):
                if (session := self._registry.of_caller(channel.id)) is not None:
                    session.post(CallerAnswered())
            case ChannelDtmfReceived(channel=channel):
                if (session := self._registry.of_caller(channel.id)) is not None:
                    session.key_pressed(event.digit)
            case ChannelHold(channel=channel) | ChannelUnhold(channel=channel):
                if (session := self._registry.of_caller(channel.id)) is not None:
                    session.held_by_phone(isinstance(event, ChannelHold))
            case _:
                pass

    def _entered(self, event: StasisStart) -> None:
        channel = event.channel
        session = self._registry.of_channel(channel.id)
        if session is not None and not session.ended.is_set():
            if _came_back(session, channel.id):
                self._on_caller(event)
            else:
                self._entered_again(session, event)
        elif channel.id.startswith(self._ours):
            # Its call ended while Asterisk was making it.
            self._on_late(channel.id)
        else:
            self._on_caller(event)

    def _entered_again(self, session: CallSession, event: StasisStart) -> None:
        channel_id = event.channel.id
        if channel_id == session.media_id:
            session.post(MediaEntered())
        elif channel_id == session.target_id:
            session.target_answered()
            session.post(TargetAnswered())
        elif session.state is State.SCREENING:
            found = parse_arguments(event.args).variables
            status = found.get("amd_status", "")
            session.callee_screened(status, found.get("amd_cause", ""))
            session.post(CalleeScreened(self._policy.on_amd_status(status)))
        elif session.placed_by_us:
            session.callee_answered()
            session.post(CalleeAnswered())

    def _rings(self, channel_id: str) -> None:
        session = self._registry.of_channel(channel_id)
        if session is None:
            return
        if channel_id == session.target_id:
            session.target_rings()
        elif session.placed_by_us:
            session.post(CalleeRings())

    def _left(self, channel_id: str) -> None:
        self._registry.arriving.discard(channel_id)
        session = self._registry.of_channel(channel_id)
        if session is None:
            self._on_foreign(channel_id)
        elif session.state is State.SCREENING:
            pass  # the dialplan has it for a while
        elif channel_id == session.call_id:
            # Without a hang-up somebody else has taken the caller: a transfer from outside, a
            # redirect.
            session.post(CallerLeft("caller_hung_up" if session.caller_hung_up else "caller_left"))
        elif channel_id == session.media_id:
            session.post(MediaLost("media_channel_gone"))
        else:
            session.post(session.target_ended(None, None))

    def _destroyed(self, event: ChannelDestroyed) -> None:
        channel_id = event.channel.id
        self._registry.arriving.discard(channel_id)
        session = self._registry.of_channel(channel_id)
        if session is None:
            return
        if channel_id == session.target_id:
            session.post(session.target_ended(event.cause, event.tech_cause))
        elif channel_id == session.media_id:
            session.post(MediaLost("media_channel_gone"))
        else:
            session.caller_ended(event.cause, event.tech_cause)
            if session.state in (State.DIALLING, State.RINGING):
                session.post(session.callee_lost())
            else:
                session.post(CallerLeft("caller_hung_up"))


def _joined(session: CallSession, channel_id: str) -> None:
    match channel_id:
        case session.media_id:
            session.post(MediaJoined())
        case session.call_id:
            session.caller_joined()
        case _:
            session.post(TargetJoined())


def _came_back(session: CallSession, channel_id: str) -> bool:
    """Whether a dialplan brings a caller back before all of the last call has been given back.

    It may pass them from one agent to the next.
    """
    return channel_id == session.call_id and session.state is State.RELEASING
