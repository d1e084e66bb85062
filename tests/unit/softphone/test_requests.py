"""Requests and answers that no well-behaved phone of ours would send."""

from __future__ import annotations

import pytest

from lab.softphone.agent import Registration
from lab.softphone.dialog import Dialog
from lab.softphone.digest import Credentials
from lab.softphone.ending import Ending
from lab.softphone.errors import SdpError, SipError
from lab.softphone.fields import Address, NameAddr, Uri, Via
from lab.softphone.incoming import Invited
from lab.softphone.leg import Answered, ChangeRefused, Ended, Leg, MediaChanged, Progressed
from lab.softphone.outgoing import OutgoingLeg
from lab.softphone.sdp import Direction
from lab.softphone.sip import Headers, Message, Request, Response, build_ack, build_response
from tests.unit.softphone.network import ALICE, BOB, Pair, media

STRANGER = Address("127.0.0.1", 5999)
CONTACT = ("Contact", f"<sip:x@{STRANGER.host}:{STRANGER.port}>")
CHALLENGE = ("WWW-Authenticate", 'Digest realm="r", nonce="n", qop="auth"')
OFFER = media(41000).offer().encode()


def request(method: str, *extra: tuple[str, str], branch: str = "1", body: bytes = b"") -> Request:
    """A request outside any dialog."""
    fields = (
        ("Via", f"SIP/2.0/UDP {STRANGER.host}:{STRANGER.port};branch=z9hG4bK{branch}"),
        ("From", "<sip:x@h>;tag=x"),
        ("To", "<sip:bob@h>"),
        ("Call-ID", "stray"),
        ("CSeq", f"1 {method}"),
        CONTACT,
        *extra,
    )
    if body:
        fields = (*fields, ("Content-Type", "application/sdp"))
    return Request(Headers(fields), body, method, "sip:bob@h")


def within(leg: Leg, method: str, cseq: int, *extra: tuple[str, str], body: bytes = b"") -> Request:
    """A request that the far end of `leg` could send to it."""
    assert leg.dialog is not None
    fields = (
        ("Via", f"SIP/2.0/UDP {STRANGER.host}:{STRANGER.port};branch=z9hG4bK{method}{cseq}"),
        ("From", str(leg.dialog.remote)),
        ("To", str(leg.dialog.local)),
        ("Call-ID", leg.call_id),
        ("CSeq", f"{cseq} {method}"),
        CONTACT,
        *extra,
    )
    if body:
        fields = (*fields, ("Content-Type", "application/sdp"))
    return Request(Headers(fields), body, method, "sip:bob@h")


def reply(pair: Pair, message: Message) -> int:
    """Send a message to Bob; the status of what he answers, 0 for nothing."""
    before = len(pair.sent)
    pair.inject(message, STRANGER, BOB)
    answers = [sent for sent in pair.sent[before:] if isinstance(sent, Response)]
    return answers[-1].status if answers else 0


@pytest.mark.parametrize(
    ("method", "status"),
    [("OPTIONS", 200), ("BYE", 481), ("CANCEL", 481), ("MESSAGE", 405), ("REFER", 405)],
)
def test_outside_any_dialog(method: str, status: int) -> None:
    pair = Pair()
    assert reply(pair, request(method)) == status
    assert reply(pair, request(method)) == status


def test_options_tells_what_we_can_do() -> None:
    pair = Pair()
    reply(pair, request("OPTIONS"))
    assert "INVITE" in pair.responses(200)[0].headers.all("Allow")


@pytest.mark.parametrize("method", ["BYE", "INVITE", "INFO"])
def test_a_dialog_that_is_not_there(method: str) -> None:
    pair = Pair()
    stray = request(method)
    tagged = stray.headers.replaced("To", "<sip:bob@h>;tag=unknown")
    assert reply(pair, Request(tagged, b"", method, stray.uri)) == 481


def test_acks_are_never_answered() -> None:
    pair = Pair()
    assert reply(pair, request("ACK")) == 0


def test_extensions_that_we_lack() -> None:
    pair = Pair()
    assert reply(pair, request("INVITE", ("Require", "100rel, replaces"))) == 420
    assert pair.responses(420)[0].headers.all("Unsupported") == ["100rel", "replaces"]


def test_answers_to_nothing_are_counted() -> None:
    pair = Pair()
    assert reply(pair, build_response(request("OPTIONS"), 200)) == 0
    assert pair.bob.strays == 1


def test_an_offer_that_cannot_be_read() -> None:
    pair = Pair()
    assert reply(pair, request("INVITE", body=b"v=1")) == 488


def test_the_same_invite_again_gets_the_same_answer() -> None:
    pair = Pair()
    invite = request("INVITE", body=OFFER)
    assert reply(pair, invite) == 0
    called = pair.invited()
    called.prepare(media(50000))
    called.ring(pair.now)
    assert reply(pair, invite) == 180
    called.reject(486, pair.now)
    busy = pair.responses(486)
    assert reply(pair, invite) == 486
    pair.inject(build_ack(invite, (busy or pair.responses(486))[0]), STRANGER, BOB)
    assert reply(pair, invite) == 0


def test_an_invite_without_an_offer_is_settled_by_the_ack() -> None:
    pair = Pair()
    reply(pair, request("INVITE"))
    called = pair.invited()
    assert called.prepare(media(50000)) is None
    called.ring(pair.now, early_media=True)
    called.answer(pair.now)
    pair.run(0.1)
    assert pair.responses(180)
    assert pair.responses(200)[0].has_sdp
    assert not any(isinstance(event, Answered) for event in pair.told_bob)
    wrong = within(called, "ACK", 7)
    pair.inject(wrong, STRANGER, BOB)
    pair.inject(within(called, "ACK", 1, body=OFFER), STRANGER, BOB)
    assert isinstance(event := pair.told_bob[-1], Answered)
    assert event.agreement.remote.port == 41000


def test_an_ack_without_the_answer_leaves_the_call_silent() -> None:
    pair = Pair()
    reply(pair, request("INVITE"))
    called = pair.invited()
    called.prepare(media(50000))
    called.answer(pair.now)
    pair.inject(within(called, "ACK", 1), STRANGER, BOB)
    assert called.agreement is None
    assert not called.is_over
    assert reply(pair, within(called, "BYE", 2)) == 200


def test_nobody_accepts_what_we_cannot_speak() -> None:
    pair = Pair()
    reply(pair, request("INVITE", body=OFFER.replace(b"RTP/AVP 0 8", b"RTP/AVP 3 4")))
    called = pair.invited()
    with pytest.raises(SdpError):
        called.prepare(media(50000))


def test_bye_before_the_answer() -> None:
    pair = Pair()
    _, called = pair.ring()
    assert reply(pair, within(called, "BYE", 2)) == 200
    assert pair.responses(487)
    assert called.is_over


def test_cancel_after_the_answer_comes_too_late() -> None:
    pair = Pair()
    invite = request("INVITE", body=OFFER)
    reply(pair, invite)
    called = pair.invited()
    called.prepare(media(50000))
    called.answer(pair.now)
    assert reply(pair, request("CANCEL")) == 200
    assert not called.is_over


def test_cancel_of_one_call_leaves_the_others() -> None:
    pair = Pair()
    _, ringing = pair.ring()
    reply(pair, request("INVITE", body=OFFER))
    pair.connect()
    pair.bob.invite("sip:x@h", media(40000), STRANGER, pair.now)
    reply(pair, request("CANCEL"))
    assert len(pair.responses(200, "CANCEL")) == len(pair.responses(487, "INVITE")) == 1
    assert not ringing.is_over


def test_within_a_call() -> None:
    pair = Pair()
    _, called = pair.connect()
    assert reply(pair, within(called, "OPTIONS", 10)) == 200
    assert reply(pair, within(called, "INFO", 11)) == 405
    assert reply(pair, within(called, "OPTIONS", 5)) == 500
    someone = within(called, "BYE", 12)
    headers = someone.headers.replaced("From", "<sip:x@h>;tag=other")
    assert reply(pair, Request(headers, b"", "BYE", "sip:bob@h")) == 481
    cause = ("Reason", 'SIP;cause=200, Q.850;cause=16;text="Normal"')
    assert reply(pair, within(called, "BYE", 13, ("Reason", "none"), cause)) == 200
    assert pair.told_bob[-1] == Ended(called, Ending("far", 200, "hung up", 16))


def test_a_change_without_an_offer() -> None:
    pair = Pair()
    _, called = pair.connect()
    assert reply(pair, within(called, "INVITE", 10)) == 200
    assert reply(pair, within(called, "INVITE", 11, body=OFFER)) == 500
    pair.inject(within(called, "ACK", 10, body=OFFER), STRANGER, BOB)
    assert isinstance(event := pair.told_bob[-1], MediaChanged)
    assert event.agreement.remote.port == 41000
    assert called.dialog is not None
    assert called.dialog.destination == STRANGER


def test_a_change_that_we_cannot_speak() -> None:
    pair = Pair()
    _, called = pair.connect()
    before = called.agreement
    bad = OFFER.replace(b"RTP/AVP 0 8", b"RTP/AVP 3 4")
    assert reply(pair, within(called, "INVITE", 10, body=bad)) == 488
    assert called.agreement == before


def test_a_call_that_is_ending_takes_no_change() -> None:
    pair = Pair()
    _, called = pair.connect()
    called.hang_up(pair.now)
    assert reply(pair, within(called, "INVITE", 10, body=OFFER)) == 500


def answer_to(pair: Pair, status: int, *extra: tuple[str, str], body: bytes = b"") -> OutgoingLeg:
    """Alice calls somebody who is no agent, and gets this answer."""
    calling = pair.alice.invite("sip:x@h", media(40000), STRANGER, pair.now)
    pair.run(0.01)
    invite = pair.requests("INVITE")[-1]
    answer = build_response(invite, status, to_tag="s", extra=extra, body=body)
    pair.inject(answer, STRANGER, ALICE)
    return calling


def test_provisional_answers() -> None:
    pair = Pair()
    answer_to(pair, 100)
    answer_to(pair, 180)
    answer_to(pair, 183, CONTACT, body=b"v=0")
    assert [event.status for event in pair.told_alice if isinstance(event, Progressed)] == [
        180,
        183,
    ]
    assert all(
        event.agreement is None for event in pair.told_alice if isinstance(event, Progressed)
    )


def test_an_answer_that_cannot_be_used_is_hung_up() -> None:
    pair = Pair()
    calling = answer_to(pair, 200, CONTACT)
    assert pair.requests("ACK")
    assert pair.requests("BYE")
    pair.inject(build_response(pair.requests("BYE")[0], 100), STRANGER, ALICE)
    assert not calling.is_over
    pair.inject(build_response(pair.requests("BYE")[0], 200), STRANGER, ALICE)
    assert pair.told_alice == [Ended(calling, Ending("us", 200, "hung up"))]


def test_the_way_goes_through_the_proxies() -> None:
    pair = Pair()
    routes = ("Record-Route", "<sip:127.0.0.3:5080;lr>, <sip:p2.example;lr>")
    body = media(50000).answer(media(40000).offer())[0].encode()
    calling = answer_to(pair, 200, CONTACT, routes, body=body)
    ack = pair.requests("ACK")[0]
    assert ack.headers.all("Route") == ["<sip:p2.example;lr>", "<sip:127.0.0.3:5080;lr>"]
    assert ack.uri == "sip:x@127.0.0.1:5999"
    assert calling.dialog is not None
    # A proxy's name is not looked up: the way is the one that the INVITE took.
    assert calling.dialog.destination == STRANGER


def test_a_dialog_needs_a_contact() -> None:
    stray = request("OPTIONS")
    with pytest.raises(SipError):
        Dialog.of_called(Request(stray.headers.without("Contact"), b"", "INVITE", "s"), "t", BOB)


def test_a_target_is_refreshed_by_a_contact_only() -> None:
    dialog = Dialog.of_called(request("INVITE"), "t", BOB)
    dialog.refresh_target(build_response(request("INVITE"), 200))
    assert dialog.remote_target == Uri.parse("sip:x@127.0.0.1:5999")
    bye = dialog.request("BYE", via=Via("h", None), contact=NameAddr("sip:bob@h"))
    assert bye.cseq.number == 1


class Registrar(Pair):
    """Bob challenges every request that carries no credentials."""

    def __init__(self) -> None:
        super().__init__()
        self.alice.credentials = Credentials("alice", "secret")

    def challenge(self, request: Request) -> None:
        self.inject(build_response(request, 401, to_tag="c", extra=(CHALLENGE,)), STRANGER, ALICE)


def test_an_invite_is_sent_again_with_credentials() -> None:
    pair = Registrar()
    calling = answer_to(pair, 401, CHALLENGE)
    assert not calling.is_over
    first, second = pair.requests("INVITE")
    assert second.headers.get("Authorization")
    assert (first.cseq.number, second.cseq.number) == (1, 2)
    body = media(50000).answer(media(40000).offer())[0].encode()
    accepted = build_response(second, 200, to_tag="s", extra=(CONTACT,), body=body)
    pair.inject(accepted, STRANGER, ALICE)
    assert pair.requests("ACK")[-1].headers.get("Authorization")
    calling.change(Direction.SEND, pair.now)
    pair.run(0.01)
    pair.challenge(pair.requests("INVITE")[-1])
    assert pair.requests("INVITE")[-1].cseq.number == 4
    refused = build_response(pair.requests("INVITE")[-1], 488, to_tag="s")
    pair.inject(refused, STRANGER, ALICE)
    assert pair.told_alice[-1] == ChangeRefused(calling, 488, "Not Acceptable Here")
    calling.change(Direction.SEND, pair.now)
    pair.run(0.01)
    empty = build_response(pair.requests("INVITE")[-1], 200, to_tag="s", extra=(CONTACT,))
    pair.inject(build_response(pair.requests("INVITE")[-1], 100), STRANGER, ALICE)
    pair.inject(empty, STRANGER, ALICE)
    assert isinstance(event := pair.told_alice[-1], ChangeRefused)
    assert event.status == 488
    calling.hang_up(pair.now)
    pair.run(0.01)
    pair.challenge(pair.requests("BYE")[-1])
    assert len(pair.requests("BYE")) == 2
    assert not calling.is_over
    pair.challenge(pair.requests("BYE")[-1])
    assert calling.is_over


def test_wrong_credentials() -> None:
    pair = Registrar()
    calling = answer_to(pair, 401, CHALLENGE)
    pair.challenge(pair.requests("INVITE")[-1])
    assert pair.told_alice == [Ended(calling, Ending("far", 401, ""))]


def test_a_cancelled_call_is_not_sent_again() -> None:
    pair = Registrar()
    calling = pair.alice.invite("sip:x@h", media(40000), STRANGER, pair.now)
    calling.hang_up(pair.now)
    pair.run(0.01)
    pair.challenge(pair.requests("INVITE")[-1])
    assert pair.told_alice == [Ended(calling, Ending("us", 401, ""))]


def test_registering() -> None:
    pair = Registrar()
    pair.alice.register("sip:registrar.example:5070", STRANGER, 60, pair.now)
    pair.run(0.01)
    first = pair.requests("REGISTER")[0]
    assert first.uri == "sip:registrar.example:5070"
    assert first.recipient.uri == "sip:user5061@registrar.example"
    assert first.headers.get("Expires") == "60"
    pair.inject(build_response(first, 100), STRANGER, ALICE)
    pair.challenge(first)
    second = pair.requests("REGISTER")[1]
    pair.inject(build_response(second, 200), STRANGER, ALICE)
    assert pair.told_alice == [Registration(200, "OK")]


def test_no_registrar() -> None:
    pair = Pair()
    pair.alice.register("sip:127.0.0.1:5999", STRANGER, 60, pair.now)
    pair.run(40.0)
    assert pair.told_alice == [Registration(408, "Request Timeout")]


def test_an_unknown_name_is_asked_where_it_came_from() -> None:
    pair = Pair()
    stray = request("INVITE", body=OFFER)
    named = stray.headers.replaced("Contact", "<sip:x@phone.example>")
    reply(pair, Request(named, OFFER, "INVITE", stray.uri))
    called = next(event.leg for event in pair.told_bob if isinstance(event, Invited))
    assert called.dialog.destination == STRANGER
