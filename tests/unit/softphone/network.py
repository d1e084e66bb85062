"""A network in virtual time: user agents in one process, no sockets, no waiting."""

from __future__ import annotations

import random
from collections.abc import Callable

from lab.softphone.agent import Event, UserAgent
from lab.softphone.fields import Address
from lab.softphone.incoming import IncomingLeg, Invited
from lab.softphone.outgoing import OutgoingLeg
from lab.softphone.sdp import LocalMedia
from lab.softphone.sip import Message, Request, Response, parse

ALICE = Address("127.0.0.1", 5061)
BOB = Address("127.0.0.1", 5062)
DELAY_S = 0.01

Loses = Callable[[Message], bool]


class Network:
    """Carries datagrams between agents, `DELAY_S` each way, unless `loses` says otherwise."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.loses: Loses = lambda message: False
        self.sent: list[Message] = []
        self.agents: dict[Address, UserAgent] = {}
        self.events: dict[Address, list[Event]] = {}
        self._flying: list[tuple[float, bytes, Address, Address]] = []

    def add(
        self,
        address: Address,
        *,
        max_transactions: int = 64,
    ) -> UserAgent:
        agent = UserAgent(
            address,
            username=f"user{address.port}",
            rng=random.Random(address.port),
            max_transactions=max_transactions,
        )
        self.agents[address] = agent
        self.events[address] = []
        return agent

    def run(self, seconds: float) -> None:
        """Let time pass, from event to event."""
        end = self.now + seconds
        while True:
            self._collect()
            due = min([flight[0] for flight in self._flying] or [end])
            due = min(due, *(agent.deadline for agent in self.agents.values()))
            if due > end:
                break
            self.now = max(self.now, due)
            arrived = [flight for flight in self._flying if flight[0] <= self.now]
            if not arrived and due == end:
                break
            for flight in arrived:
                self._flying.remove(flight)
                _, data, source, destination = flight
                if destination in self.agents:
                    self.agents[destination].receive_datagram(data, source, self.now)
            for agent in self.agents.values():
                agent.handle_timer(self.now)
        self.now = end

    def inject(self, message: Message, source: Address, destination: Address) -> None:
        """A datagram from somebody who is no agent here."""
        self.agents[destination].receive_datagram(message.encode(), source, self.now)
        self._collect()

    def requests(self, method: str) -> list[Request]:
        return [
            message
            for message in self.sent
            if isinstance(message, Request) and message.method == method
        ]

    def responses(self, status: int, method: str | None = None) -> list[Response]:
        return [
            message
            for message in self.sent
            if isinstance(message, Response)
            and message.status == status
            and method in (None, message.cseq.method)
        ]

    def _collect(self) -> None:
        for address, agent in self.agents.items():
            self.events[address] += agent.events()
            for data, destination in agent.datagrams():
                message = parse(data)
                self.sent.append(message)
                if not self.loses(message):
                    self._flying.append((self.now + DELAY_S, data, address, destination))


class Pair(Network):
    """Alice and Bob, and the steps that most calls begin with."""

    def __init__(self, *, max_transactions: int = 64) -> None:
        super().__init__()
        self.alice = self.add(ALICE, max_transactions=max_transactions)
        self.bob = self.add(BOB, max_transactions=max_transactions)

    @property
    def told_alice(self) -> list[Event]:
        return self.events[ALICE]

    @property
    def told_bob(self) -> list[Event]:
        return self.events[BOB]

    def invite(self) -> OutgoingLeg:
        target = f"sip:bob@{BOB.host}:{BOB.port}"
        return self.alice.invite(target, media(40000), BOB, self.now)

    def ring(self) -> tuple[OutgoingLeg, IncomingLeg]:
        """Alice calls, and it rings at Bob's."""
        calling = self.invite()
        self.run(0.1)
        called = self.invited()
        called.prepare(media(50000))
        called.ring(self.now)
        self.run(0.1)
        return calling, called

    def connect(self) -> tuple[OutgoingLeg, IncomingLeg]:
        """Alice calls, and Bob answers."""
        calling, called = self.ring()
        called.answer(self.now)
        self.run(0.1)
        return calling, called

    def invited(self) -> IncomingLeg:
        """The last call that reached Bob."""
        return [event.leg for event in self.told_bob if isinstance(event, Invited)][-1]


def media(port: int) -> LocalMedia:
    return LocalMedia(Address("127.0.0.1", port))
