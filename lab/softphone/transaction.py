"""SIP transactions over UDP (RFC 3261, section 17; RFC 6026): one request and its answers.

Pure. Datagrams to send gather in `outgoing`, which transactions may share; `deadline` says when
`handle_timer` wants to be called; `now` is monotonic seconds.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from math import inf

from lab.softphone.fields import Address
from lab.softphone.sip import Request, Response, build_ack

Outgoing = list[tuple[bytes, Address]]
"""Datagrams to send, in order, and where to."""


@dataclass(frozen=True, slots=True)
class Timers:
    """The base timers in seconds (RFC 3261, table 4)."""

    t1: float = 0.5
    """The round trip assumed: the first pause before a repetition."""
    t2: float = 4.0
    """The longest pause between repetitions."""
    t4: float = 5.0
    """How long a message may stay in the network."""

    @property
    def give_up(self) -> float:
        """Timers B, F, H, J, L and M."""
        return 64 * self.t1


class State(enum.Enum):
    """Where a transaction stands. Both sides and all methods share the names of RFC 3261."""

    TRYING = "trying"
    """Sent or received, nothing answered yet (`Calling` for a client's INVITE)."""
    PROCEEDING = "proceeding"
    """Answered provisionally."""
    ACCEPTED = "accepted"
    """An INVITE answered with 2xx (RFC 6026)."""
    COMPLETED = "completed"
    """Answered finally; repetitions are absorbed."""
    CONFIRMED = "confirmed"
    """A server's INVITE, refused, and its ACK is here."""
    TERMINATED = "terminated"


class ClientTransaction:
    """A request of ours. Repeats it until it is answered, and acknowledges refusals."""

    def __init__(
        self,
        request: Request,
        destination: Address,
        now: float,
        *,
        timers: Timers | None = None,
        outgoing: Outgoing | None = None,
    ) -> None:
        self.request = request
        self.destination = destination
        self.state = State.TRYING
        self.outgoing: Outgoing = [] if outgoing is None else outgoing
        self._timers = timers or Timers()
        self._data = request.encode()
        self._is_invite = request.method == "INVITE"
        self._pause = self._timers.t1
        self._repeat_at = now + self._pause
        self._over_at = now + self._timers.give_up
        self._ack = b""
        self.outgoing.append((self._data, self.destination))

    @property
    def deadline(self) -> float:
        """When `handle_timer` is due; infinity while only the far end can move it on."""
        return min(self._repeat_at, self._over_at)

    def receive(self, response: Response, now: float) -> Response | None:
        """Take a response. It comes back when it is news to whoever sent the request.

        Repeated 2xx answers to an INVITE are news: each must be acknowledged again.
        """
        match self.state:
            case State.TRYING | State.PROCEEDING if response.is_provisional:
                self.state = State.PROCEEDING
                if self._is_invite:
                    self._repeat_at = self._over_at = inf
                else:
                    self._pause = self._timers.t2
                return response
            case State.TRYING | State.PROCEEDING:
                self._complete(response, now)
                return response
            case State.ACCEPTED if response.is_success:
                return response
            case State.COMPLETED if self._ack and not response.is_provisional:
                self.outgoing.append((self._ack, self.destination))
        return None

    def give_up_after(self, seconds: float, now: float) -> None:
        """Wait no longer than this for a final answer (section 9.1: after CANCEL)."""
        if self.state in (State.TRYING, State.PROCEEDING):
            self._over_at = min(self._over_at, now + seconds)

    def handle_timer(self, now: float) -> bool:
        """Do what is due. True when the request has timed out: nobody will answer it."""
        if now >= self._over_at:
            timed_out = self.state in (State.TRYING, State.PROCEEDING)
            self.state = State.TERMINATED
            self._repeat_at = self._over_at = inf
            return timed_out
        if now >= self._repeat_at:
            self.outgoing.append((self._data, self.destination))
            self._pause = _next_pause(self._pause, inf if self._is_invite else self._timers.t2)
            self._repeat_at = now + self._pause
        return False

    def _complete(self, response: Response, now: float) -> None:
        self._repeat_at = inf
        if not self._is_invite:
            self.state = State.COMPLETED
            self._over_at = now + self._timers.t4
            return
        self._over_at = now + self._timers.give_up
        if response.is_success:
            self.state = State.ACCEPTED
        else:
            self.state = State.COMPLETED
            self._ack = build_ack(self.request, response).encode()
            self.outgoing.append((self._ack, self.destination))


class ServerTransaction:
    """A request of theirs. Repeats the answer as often as the request comes again; repeats the
    final answer to an INVITE by itself until the ACK is here.
    """

    def __init__(
        self,
        request: Request,
        reply_to: Address,
        *,
        timers: Timers | None = None,
        outgoing: Outgoing | None = None,
    ) -> None:
        self.request = request
        self.reply_to = reply_to
        self.state = State.TRYING
        self.acknowledged = False
        self.outgoing: Outgoing = [] if outgoing is None else outgoing
        self._timers = timers or Timers()
        self._is_invite = request.method == "INVITE"
        self._data = b""
        self._pause = self._timers.t1
        self._repeat_at = inf
        self._over_at = inf

    @property
    def deadline(self) -> float:
        """When `handle_timer` is due; infinity while the request waits for our answer."""
        return min(self._repeat_at, self._over_at)

    @property
    def is_open(self) -> bool:
        """Whether a final answer is still to be given."""
        return self.state in (State.TRYING, State.PROCEEDING)

    def respond(self, response: Response, now: float) -> None:
        """Answer. Raise ValueError when the final answer was given before."""
        if not self.is_open:
            raise ValueError("the request has had its final answer")
        self._data = response.encode()
        self.outgoing.append((self._data, self.reply_to))
        if response.is_provisional:
            self.state = State.PROCEEDING
            return
        self._over_at = now + self._timers.give_up
        accepted = self._is_invite and response.is_success
        self.state = State.ACCEPTED if accepted else State.COMPLETED
        if self._is_invite:
            self._repeat_at = now + self._pause

    def receive_again(self) -> None:
        """The request came once more: repeat what we said last, if anything."""
        repeats = self.state in (State.PROCEEDING, State.COMPLETED)
        if repeats and self._data:
            self.outgoing.append((self._data, self.reply_to))

    def acknowledge(self, now: float) -> None:
        """The ACK is here: nothing is repeated any more."""
        self._repeat_at = inf
        self.acknowledged = True
        if self.state is State.COMPLETED:
            self.state = State.CONFIRMED
            self._over_at = now + self._timers.t4

    def handle_timer(self, now: float) -> bool:
        """Do what is due. True when a 2xx was never acknowledged: the call must be ended."""
        if now >= self._over_at:
            lost = self.state is State.ACCEPTED and not self.acknowledged
            self.state = State.TERMINATED
            self._repeat_at = self._over_at = inf
            return lost
        if now >= self._repeat_at:
            self.outgoing.append((self._data, self.reply_to))
            self._pause = _next_pause(self._pause, self._timers.t2)
            self._repeat_at = now + self._pause
        return False


def _next_pause(pause: float, longest: float) -> float:
    return min(2 * pause, longest)
