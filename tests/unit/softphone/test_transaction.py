from __future__ import annotations

from math import inf

import pytest

from lab.softphone.fields import Address
from lab.softphone.sip import Headers, Request, Response, build_response, parse
from lab.softphone.transaction import ClientTransaction, ServerTransaction, State

PEER = Address("127.0.0.1", 5060)


def request(method: str) -> Request:
    fields = (
        ("Via", "SIP/2.0/UDP h;branch=z9hG4bK1"),
        ("From", "<sip:a@h>;tag=1"),
        ("To", "<sip:b@h>"),
        ("Call-ID", "c"),
        ("CSeq", f"1 {method}"),
        ("Contact", "<sip:a@h>"),
    )
    return Request(Headers(fields), b"", method, "sip:b@h")


def answer(of: Request, status: int) -> Response:
    return build_response(of, status, to_tag="2")


def client(method: str) -> ClientTransaction:
    return ClientTransaction(request(method), PEER, 0.0)


def run(transaction: ClientTransaction | ServerTransaction, until: float) -> list[float]:
    """Play the timers; give back when something was sent, and the time-out as its negative."""
    times: list[float] = []
    transaction.outgoing.clear()
    while transaction.deadline <= until:
        now = transaction.deadline
        if transaction.handle_timer(now):
            times.append(-now)
        times += [now] * len(transaction.outgoing)
        transaction.outgoing.clear()
    return times


def test_an_invite_is_repeated_until_it_times_out() -> None:
    invite = client("INVITE")
    assert invite.outgoing == [(invite.request.encode(), PEER)]
    assert run(invite, 100) == [0.5, 1.5, 3.5, 7.5, 15.5, 31.5, -32.0]
    assert invite.state is State.TERMINATED
    assert invite.receive(answer(invite.request, 200), 33.0) is None


def test_other_requests_are_repeated_every_four_seconds_at_most() -> None:
    bye = client("BYE")
    expected = [0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5, -32.0]
    assert run(bye, 100) == expected


def test_a_provisional_answer_ends_the_repetition_of_an_invite() -> None:
    invite = client("INVITE")
    ringing = answer(invite.request, 180)
    assert invite.receive(ringing, 0.1) is ringing
    assert invite.deadline == inf
    assert invite.receive(ringing, 0.2) is ringing


def test_a_provisional_answer_slows_other_requests_down() -> None:
    bye = client("BYE")
    bye.receive(answer(bye.request, 100), 0.1)
    assert run(bye, 10) == [0.5, 4.5, 8.5]


def test_a_refusal_is_acknowledged_as_often_as_it_comes() -> None:
    invite = client("INVITE")
    busy = answer(invite.request, 486)
    assert invite.receive(busy, 1.0) is busy
    assert invite.receive(busy, 2.0) is None
    assert invite.receive(answer(invite.request, 180), 2.0) is None
    acks = [parse(data) for data, _ in invite.outgoing[1:]]
    assert [ack.cseq.method for ack in acks] == ["ACK", "ACK"]
    assert run(invite, 100) == []
    assert invite.state is State.TERMINATED


def test_an_acceptance_comes_up_every_time() -> None:
    invite = client("INVITE")
    accepted = answer(invite.request, 200)
    assert invite.receive(accepted, 1.0) is accepted
    assert invite.receive(accepted, 2.0) is accepted
    assert invite.receive(answer(invite.request, 486), 2.0) is None
    assert len(invite.outgoing) == 1
    assert run(invite, 100) == []


def test_repeated_answers_to_other_requests_are_absorbed() -> None:
    bye = client("BYE")
    done = answer(bye.request, 200)
    assert bye.receive(done, 1.0) is done
    assert bye.receive(done, 2.0) is None
    assert bye.deadline == 6.0
    assert run(bye, 100) == []


def test_patience_can_be_shortened_while_there_is_no_final_answer() -> None:
    invite = client("INVITE")
    invite.receive(answer(invite.request, 180), 0.1)
    invite.give_up_after(5.0, 1.0)
    assert run(invite, 100) == [-6.0]
    invite.give_up_after(5.0, 7.0)
    assert invite.deadline == inf


def server(method: str) -> ServerTransaction:
    return ServerTransaction(request(method), PEER)


def test_an_acceptance_is_repeated_until_its_ack_is_here() -> None:
    invite = server("INVITE")
    assert invite.deadline == inf
    invite.respond(answer(invite.request, 180), 0.0)
    assert invite.is_open
    invite.respond(answer(invite.request, 200), 0.0)
    assert run(invite, 4) == [0.5, 1.5, 3.5]
    invite.receive_again()
    assert invite.outgoing == []
    invite.acknowledge(4.0)
    assert run(invite, 100) == []
    assert invite.state is State.TERMINATED


def test_an_acceptance_that_nobody_acknowledges_is_lost() -> None:
    invite = server("INVITE")
    invite.respond(answer(invite.request, 200), 0.0)
    times = run(invite, 100)
    assert times[:5] == [0.5, 1.5, 3.5, 7.5, 11.5]
    assert times[-1] == -32.0


def test_a_refusal_is_repeated_until_its_ack_is_here() -> None:
    invite = server("INVITE")
    invite.respond(answer(invite.request, 486), 0.0)
    invite.receive_again()
    assert len(invite.outgoing) == 2
    assert run(invite, 1) == [0.5]
    invite.acknowledge(1.0)
    assert invite.state is State.CONFIRMED
    invite.receive_again()
    assert run(invite, 100) == []
    unheard = server("INVITE")
    unheard.respond(answer(unheard.request, 486), 0.0)
    assert -32.0 not in run(unheard, 100)


def test_other_answers_are_repeated_on_demand_only() -> None:
    bye = server("BYE")
    bye.receive_again()
    assert bye.outgoing == []
    bye.respond(answer(bye.request, 200), 0.0)
    bye.receive_again()
    assert len(bye.outgoing) == 2
    assert run(bye, 100) == []


def test_there_is_one_final_answer() -> None:
    bye = server("BYE")
    bye.respond(answer(bye.request, 200), 0.0)
    with pytest.raises(ValueError, match="final"):
        bye.respond(answer(bye.request, 481), 0.0)
