"""Whole calls between two user agents, in virtual time."""

from __future__ import annotations

import random
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.softphone.agent import UserAgent
from lab.softphone.ending import Ending
from lab.softphone.fields import Address
from lab.softphone.incoming import Invited
from lab.softphone.leg import Answered, ChangeRefused, Ended, Leg, MediaChanged, Progressed
from lab.softphone.sdp import Direction
from lab.softphone.sip import Message, Request, Response, build_response
from tests.unit.softphone.network import ALICE, BOB, DELAY_S, Pair, media

STRANGER = Address("127.0.0.1", 5999)


def test_a_call_from_ringing_to_the_end() -> None:
    pair = Pair()
    calling, called = pair.connect()
    assert [type(event) for event in pair.told_alice] == [Progressed, Answered]
    assert [type(event) for event in pair.told_bob] == [Invited, Answered]
    assert calling.agreement is not None
    assert calling.agreement.remote.port == 50000
    assert called.agreement is not None
    assert called.agreement.remote.port == 40000
    assert called.caller.uri == "sip:user5061@127.0.0.1"
    assert called.called == "sip:bob@127.0.0.1:5062"
    assert "up" in repr(called)
    calling.hang_up(pair.now)
    pair.run(1.0)
    assert pair.told_alice[-1] == Ended(calling, Ending("us", 200, "hung up"))
    assert pair.told_bob[-1] == Ended(called, Ending("far", 200, "hung up"))
    assert calling.is_over
    assert called.is_over
    calling.hang_up(pair.now)
    pair.run(60.0)
    assert len(pair.requests("BYE")) == 1
    assert (pair.alice.deadline, pair.bob.deadline) == (inf, inf)
    assert not pair.alice.legs
    assert not pair.bob.legs


def test_the_called_side_hangs_up() -> None:
    pair = Pair()
    calling, called = pair.connect()
    called.hang_up(pair.now)
    pair.run(1.0)
    assert pair.told_alice[-1] == Ended(calling, Ending("far", 200, "hung up"))
    assert pair.requests("BYE")[0].cseq.number == 1


def test_both_hang_up_at_once() -> None:
    pair = Pair()
    for leg in pair.connect():
        leg.hang_up(pair.now)
    pair.run(1.0)
    for told in (pair.told_alice, pair.told_bob):
        assert sum(isinstance(event, Ended) for event in told) == 1


@pytest.mark.parametrize("status", [486, 603, 480])
def test_a_refusal(status: int) -> None:
    pair = Pair()
    calling = pair.invite()
    pair.run(0.1)
    called = pair.invited()
    called.reject(status, pair.now)
    called.reject(status, pair.now)
    pair.run(60.0)
    assert pair.told_alice == [Ended(calling, Ending("far", status, pair.sent[1].reason))]  # type: ignore[union-attr]
    assert len(pair.requests("ACK")) == 1
    assert pair.bob.deadline == inf


def test_hanging_up_while_it_rings_here_declines() -> None:
    pair = Pair()
    _, called = pair.ring()
    called.hang_up(pair.now)
    pair.run(1.0)
    assert isinstance(event := pair.told_alice[-1], Ended)
    assert event.ending.status == 603


def test_a_cancelled_call() -> None:
    pair = Pair()
    calling, called = pair.ring()
    calling.hang_up(pair.now)
    calling.hang_up(pair.now)
    pair.run(60.0)
    assert pair.told_alice[-1] == Ended(calling, Ending("us", 487, "Request Terminated"))
    assert pair.told_bob[-1] == Ended(called, Ending("far", 487, "cancelled"))
    assert len(pair.requests("CANCEL")) == 1
    assert pair.alice.deadline == pair.bob.deadline == inf


def test_cancel_waits_for_the_first_provisional_answer() -> None:
    pair = Pair()
    calling = pair.invite()
    calling.hang_up(pair.now)
    pair.run(0.1)
    assert not pair.requests("CANCEL")
    called = pair.invited()
    called.prepare(media(50000))
    called.ring(pair.now)
    called.ring(pair.now)
    pair.run(1.0)
    assert len(pair.requests("CANCEL")) == 1
    assert isinstance(event := pair.told_alice[-1], Ended)
    assert event.ending == Ending("us", 487, "Request Terminated")
    called.ring(pair.now)


def test_an_answer_that_crosses_the_cancel_is_hung_up() -> None:
    pair = Pair()
    calling, called = pair.ring()
    calling.hang_up(pair.now)
    called.answer(pair.now)
    pair.run(1.0)
    assert pair.told_alice[-1] == Ended(calling, Ending("us", 200, "hung up"))
    assert pair.told_bob[-1] == Ended(called, Ending("far", 200, "hung up"))
    assert not any(isinstance(event, Answered) for event in pair.told_alice)


def test_a_far_end_that_is_deaf_to_cancel() -> None:
    pair = Pair()
    calling, _ = pair.ring()
    pair.loses = lambda message: True
    calling.hang_up(pair.now)
    pair.run(31.0)
    assert not calling.is_over
    pair.run(2.0)
    assert pair.told_alice[-1] == Ended(calling, Ending("us", 408, "Request Timeout"))


def test_nobody_answers() -> None:
    pair = Pair()
    calling = pair.invite()
    pair.loses = lambda message: True
    pair.run(40.0)
    assert pair.told_alice == [Ended(calling, Ending("network", 408, "Request Timeout"))]


def test_a_bye_that_is_never_answered() -> None:
    pair = Pair()
    calling, _ = pair.connect()
    pair.loses = lambda message: True
    calling.hang_up(pair.now)
    pair.run(40.0)
    assert pair.told_alice[-1] == Ended(calling, Ending("us", 200, "hung up"))


def test_an_answer_that_is_never_acknowledged() -> None:
    pair = Pair()
    bystander, _ = pair.connect()
    pair.loses = lambda message: message.cseq.method == "ACK"
    calling, called = pair.connect()
    called.hang_up(pair.now)
    pair.run(1.0)
    assert not pair.requests("BYE")
    pair.run(40.0)
    assert pair.told_bob[-1] == Ended(called, Ending("us", 200, "hung up"))
    assert pair.told_alice[-1] == Ended(calling, Ending("far", 200, "hung up"))
    assert not bystander.is_over


def test_a_bye_stands_for_the_ack_that_was_lost() -> None:
    pair = Pair()
    pair.loses = lambda message: message.cseq.method == "ACK"
    calling, called = pair.connect()
    calling.hang_up(pair.now)
    pair.run(1.0)
    sent = len(pair.responses(200, "INVITE"))
    pair.run(60.0)
    assert called.is_over
    assert len(pair.responses(200, "INVITE")) == sent


def test_the_called_side_waits_for_the_ack_before_its_bye() -> None:
    pair = Pair()
    calling, called = pair.ring()
    called.answer(pair.now)
    called.hang_up(pair.now)
    pair.run(DELAY_S / 2)
    assert not pair.requests("BYE")
    pair.run(1.0)
    assert len(pair.requests("BYE")) == 1
    assert calling.is_over


class Once:
    """Loses the first message of each kind."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, int | None]] = set()

    def __call__(self, message: Message) -> bool:
        status = message.status if isinstance(message, Response) else None
        kind = (message.cseq.method, status)
        first = kind not in self._seen
        self._seen.add(kind)
        return first


def test_a_call_survives_the_loss_of_every_first_message() -> None:
    pair = Pair()
    pair.loses = Once()
    calling = pair.invite()
    pair.run(1.0)
    called = pair.invited()
    called.prepare(media(50000))
    called.ring(pair.now)
    pair.run(1.0)
    called.answer(pair.now)
    pair.run(5.0)
    assert calling.agreement == pair.told_alice[-1].agreement  # type: ignore[union-attr]
    calling.hang_up(pair.now)
    pair.run(60.0)
    assert [type(event) for event in pair.told_alice] == [Progressed, Answered, Ended]
    assert [type(event) for event in pair.told_bob] == [Invited, Answered, Ended]
    assert pair.alice.deadline == pair.bob.deadline == inf


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.floats(0, 0.5))
def test_on_a_bad_network_both_sides_come_to_rest(seed: int, loss: float) -> None:
    pair = Pair()
    rng = random.Random(seed)
    pair.loses = lambda message: rng.random() < loss
    calling = pair.invite()
    pair.run(10.0)
    for event in list(pair.told_bob):
        if isinstance(event, Invited):
            event.leg.prepare(media(50000))
            event.leg.answer(pair.now)
    pair.run(10.0)
    calling.hang_up(pair.now)
    pair.run(200.0)
    assert calling.is_over
    assert sum(isinstance(event, Ended) for event in pair.told_alice) == 1
    # The other side may stay up when every BYE was lost, but it is at rest.
    assert pair.alice.deadline == pair.bob.deadline == inf


def test_early_media() -> None:
    pair = Pair()
    calling = pair.invite()
    pair.run(0.1)
    called = pair.invited()
    called.prepare(media(50000))
    called.ring(pair.now, early_media=True)
    pair.run(0.1)
    assert isinstance(event := pair.told_alice[-1], Progressed)
    assert event.status == 183
    assert event.agreement is not None
    assert event.agreement.remote.port == 50000
    called.answer(pair.now)
    pair.run(0.1)
    assert calling.agreement == event.agreement


def directions(*legs: Leg) -> list[Direction | None]:
    return [leg.agreement.direction if leg.agreement else None for leg in legs]


@pytest.mark.parametrize("caller_holds", [True, False])
def test_hold_and_unhold(caller_holds: bool) -> None:
    pair = Pair()
    calling, called = pair.connect()
    legs: tuple[Leg, Leg] = (calling, called) if caller_holds else (called, calling)
    legs[0].change(Direction.SEND, pair.now)
    pair.run(0.1)
    assert directions(*legs) == [Direction.SEND, Direction.RECEIVE]
    legs[0].change(Direction.BOTH, pair.now)
    pair.run(0.1)
    assert directions(*legs) == [Direction.BOTH, Direction.BOTH]


def test_changes_that_cross_are_both_refused() -> None:
    pair = Pair()
    legs: tuple[Leg, ...] = pair.connect()
    for leg in legs:
        leg.change(Direction.SEND, pair.now)
    pair.run(1.0)
    for leg, told in zip(legs, (pair.told_alice, pair.told_bob), strict=True):
        assert told[-1] == ChangeRefused(leg, 491, "Request Pending")
        assert not leg.is_over


def test_one_change_at_a_time() -> None:
    pair = Pair()
    calling, called = pair.ring()
    with pytest.raises(RuntimeError, match="not up"):
        calling.change(Direction.SEND, pair.now)
    called.answer(pair.now)
    with pytest.raises(RuntimeError, match="under way"):
        called.change(Direction.SEND, pair.now)
    pair.run(0.1)
    calling.change(Direction.SEND, pair.now)
    with pytest.raises(RuntimeError, match="under way"):
        calling.change(Direction.BOTH, pair.now)


def test_a_change_that_nobody_answers_ends_the_call() -> None:
    pair = Pair()
    calling, _ = pair.connect()
    pair.loses = lambda message: message.cseq.method == "INVITE"
    calling.change(Direction.SEND, pair.now)
    pair.run(40.0)
    assert pair.told_alice[-2] == ChangeRefused(calling, 408, "Request Timeout")
    assert pair.told_alice[-1] == Ended(calling, Ending("us", 200, "hung up"))


def test_a_change_of_a_call_that_the_far_end_has_forgotten() -> None:
    pair = Pair()
    calling, called = pair.connect()
    pair.bob.forget(called)
    calling.change(Direction.SEND, pair.now)
    pair.run(1.0)
    assert pair.told_alice[-1] == Ended(
        calling, Ending("far", 481, "Call/Transaction Does Not Exist")
    )


def test_hanging_up_while_a_change_is_under_way() -> None:
    pair = Pair()
    calling, called = pair.connect()
    calling.change(Direction.SEND, pair.now)
    calling.hang_up(pair.now)
    pair.run(1.0)
    assert calling.is_over
    assert called.is_over
    assert not any(isinstance(event, MediaChanged) for event in pair.told_alice)


def test_repeated_acceptances_get_the_same_ack() -> None:
    pair = Pair()
    dropped: list[Message] = []

    def loses(message: Message) -> bool:
        if isinstance(message, Request) and message.method == "ACK" and len(dropped) < 2:
            dropped.append(message)
            return True
        return False

    pair.loses = loses
    calling, called = pair.connect()
    pair.run(5.0)
    acks = pair.requests("ACK")
    assert len(acks) == 3
    assert acks[0] == acks[2]
    pair.loses = Once()
    calling.change(Direction.SEND, pair.now)
    pair.run(5.0)
    assert called.agreement is not None
    assert called.agreement.direction is Direction.RECEIVE
    assert not called.is_over


def test_a_second_phone_that_answers_is_let_go() -> None:
    pair = Pair()
    calling, _ = pair.connect()
    first = pair.responses(200, "INVITE")[0]
    fork = build_response(
        pair.requests("INVITE")[0],
        200,
        to_tag="another",
        extra=(("Contact", f"<sip:fork@{STRANGER.host}:{STRANGER.port}>"),),
    )
    assert fork.recipient.tag != first.recipient.tag
    pair.inject(fork, STRANGER, ALICE)
    ack, bye = pair.sent[-2:]
    assert isinstance(ack, Request)
    assert isinstance(bye, Request)
    assert (ack.method, bye.method) == ("ACK", "BYE")
    assert bye.uri == f"sip:fork@{STRANGER.host}:{STRANGER.port}"
    pair.inject(build_response(bye, 200), STRANGER, ALICE)
    assert not calling.is_over


def test_the_same_agent_calls_itself() -> None:
    pair = Pair()
    target = f"sip:me@{ALICE.host}:{ALICE.port}"
    calling = pair.alice.invite(target, media(40000), ALICE, pair.now)
    pair.run(0.1)
    called = next(event.leg for event in pair.told_alice if isinstance(event, Invited))
    called.prepare(media(40002))
    called.answer(pair.now)
    pair.run(0.1)
    called.hang_up(pair.now)
    pair.run(1.0)
    assert calling.is_over
    assert called.is_over


def test_no_answer_before_prepare_and_none_twice() -> None:
    pair = Pair()
    pair.invite()
    pair.run(0.1)
    called = pair.invited()
    with pytest.raises(RuntimeError, match="prepare"):
        called.answer(pair.now)
    called.prepare(media(50000))
    assert called.is_waiting
    called.answer(pair.now)
    with pytest.raises(RuntimeError, match="waiting"):
        called.answer(pair.now)
    called.reject(486, pair.now)
    assert not called.is_over


def test_transactions_are_bounded() -> None:
    pair = Pair(max_transactions=2)
    for _ in range(3):
        pair.invite()
    pair.run(0.1)
    assert sum(isinstance(event, Invited) for event in pair.told_bob) == 2
    assert pair.bob.overflow == 1


@given(st.binary(max_size=200))
def test_garbage_is_counted(data: bytes) -> None:
    agent = UserAgent(ALICE)
    agent.receive_datagram(data, BOB, 0.0)
    assert agent.malformed == bool(data.strip(b"\r\n\0 "))
    assert agent.datagrams() == []


@settings(max_examples=200)
@given(st.data())
def test_damaged_messages_never_raise(data: st.DataObject) -> None:
    """Whatever happens to the messages of a call, both agents carry on."""
    pair = Pair()
    pair.connect()
    original = data.draw(st.sampled_from(pair.sent)).encode()
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(damaged) - 1))
        end = data.draw(st.integers(start, min(len(damaged), start + 12)))
        damaged[start:end] = data.draw(st.binary(max_size=6))
    for agent in (pair.alice, pair.bob):
        agent.receive_datagram(bytes(damaged), STRANGER, pair.now)
    pair.run(100.0)
