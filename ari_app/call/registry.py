"""All calls, by their own names and by those of their channels."""

from __future__ import annotations

from ari_app.call.plan import CallPlan
from ari_app.call.release import target_channel_id
from ari_app.call.session import CallSession


class Registry:
    """Finds calls.

    Args:
        app: Our Stasis application.

    Attributes:
        sessions: By session id; ended ones are there until they are forgotten.
        arriving: Channels that have entered and are about to become calls.
    """

    def __init__(self, app: str) -> None:
        self.sessions: dict[str, CallSession] = {}
        self.arriving: set[str] = set()
        self._by_channel: dict[str, CallSession] = {}
        self._target_prefix = target_channel_id(app, "")

    def add(self, session: CallSession) -> None:
        """Know a call."""
        self.sessions[session.session_id] = session
        self._by_channel[session.call_id] = session
        self._by_channel[session.media_id] = session

    def rename(self, session: CallSession, plan: CallPlan, session_id: str) -> None:
        """Give a waiting call its agent, under another name."""
        self.sessions.pop(session.session_id, None)
        self._by_channel.pop(session.media_id, None)
        session.assign(plan, session_id)
        self.sessions[session_id] = session
        self._by_channel[session.media_id] = session

    def release_channels(self, session: CallSession) -> None:
        """Its channels are another's now: a caller who comes back is another session's."""
        for channel_id in (session.call_id, session.media_id):
            if self._by_channel.get(channel_id) is session:
                del self._by_channel[channel_id]

    def forget_ended(self, most: int) -> None:
        """Forget the oldest of those that have ended, if there are more."""
        ended = [key for key, held in self.sessions.items() if held.ended.is_set()]
        for key in ended[:-most]:
            del self.sessions[key]

    def not_ended(self) -> list[CallSession]:
        """The calls that are not over."""
        return [session for session in self.sessions.values() if not session.ended.is_set()]

    def of_caller(self, channel_id: str) -> CallSession | None:
        """The call whose caller, or callee, has this channel."""
        session = self._by_channel.get(channel_id)
        return session if session is not None and session.call_id == channel_id else None

    def of_channel(self, channel_id: str) -> CallSession | None:
        """The call to which a channel belongs: the caller's, the media channel, or a target's."""
        session = self._by_channel.get(channel_id)
        if session is None and channel_id.startswith(self._target_prefix):
            name = channel_id.removeprefix(self._target_prefix).rpartition(".")[0]
            session = self.sessions.get(name)
            # One that has been given up may still report.
            return session if session is not None and session.target_id == channel_id else None
        return session
