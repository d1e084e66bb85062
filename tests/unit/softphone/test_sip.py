from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.softphone.errors import SipError
from lab.softphone.sip import (
    Headers,
    Request,
    Response,
    build_ack,
    build_cancel,
    build_response,
    parse,
    retried,
)

INVITE = (
    b"INVITE sip:bob@127.0.0.1 SIP/2.0\r\n"
    b"v: SIP/2.0/UDP one:5060;branch=z9hG4bK1, SIP/2.0/UDP two;branch=z9hG4bK2\r\n"
    b"Via: SIP/2.0/UDP three;branch=z9hG4bK3\r\n"
    b"f: Alice <sip:alice@127.0.0.1>;tag=a\r\n"
    b"t: <sip:bob@127.0.0.1>\r\n"
    b"i: call\r\n"
    b"CSEQ: 1 INVITE\r\n"
    b"m: <sip:alice@127.0.0.1:5061>\r\n"
    b"Record-Route: <sip:proxy;lr>\r\n"
    b"Route: <sip:next;lr>\r\n"
    b"Subject: first\r\n"
    b"  second\r\n"
    b"c: application/sdp; charset=utf-8\r\n"
    b"l: 3\r\n"
    b"\r\n"
    b"v=0 and what lies behind"
)
OPTIONS = (
    b"OPTIONS sip:b SIP/2.0\nVia: SIP/2.0/UDP h\nFrom: <sip:a>;tag=1\nTo: <sip:b>\n"
    b"Call-ID: c\nCSeq: 1 OPTIONS\n\n"
)


def request() -> Request:
    message = parse(INVITE)
    assert isinstance(message, Request)
    return message


def test_a_request_is_read() -> None:
    message = request()
    assert (message.method, message.uri, message.body) == ("INVITE", "sip:bob@127.0.0.1", b"v=0")
    assert message.via.branch == "z9hG4bK1"
    assert len(message.headers.all("Via")) == 3
    assert message.headers.get("Subject") == "first second"
    assert message.sender.display == "Alice"
    assert message.recipient.tag is None
    assert message.call_id == "call"
    assert message.has_sdp
    assert message.contact is not None


def test_bare_line_feeds_and_no_length_are_taken() -> None:
    message = parse(OPTIONS + b"body")
    assert message.body == b"body"
    assert not message.has_sdp
    assert message.contact is None


def test_messages_round_trip() -> None:
    message = request()
    again = parse(message.encode())
    assert isinstance(again, Request)
    assert again.headers.without("Content-Length") == message.headers.without("Content-Length")
    assert again.body == message.body


token = st.text("abcXYZ019-._", min_size=1)
text = st.text(st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp", "Zs")))


@given(
    fields=st.lists(st.tuples(token.map(lambda name: f"X-{name}"), text)),
    body=st.binary(),
    status=st.integers(100, 699),
    reason=text,
)
def test_any_response_round_trips(
    fields: list[tuple[str, str]], body: bytes, status: int, reason: str
) -> None:
    headers = parse(OPTIONS).headers.added(*fields)
    sent = Response(headers, body, status, reason)
    received = parse(sent.encode())
    assert received == Response(
        headers.added(("Content-Length", str(len(body)))), body, status, reason
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"l: 3", b"l: 300"),
        (b"l: 3", b"l: three"),
        (b"l: 3", b"no colon"),
        (b"l: 3", b"bad name: 3"),
        (b"SIP/2.0\r\nv:", b"SIP/3.0\r\nv:"),
        (b"i: call\r\n", b""),
        (b"f: Alice <sip:alice@127.0.0.1>;tag=a\r\n", b""),
        (b"CSEQ: 1 INVITE", b"CSeq: 1 BYE"),
        (b"CSEQ: 1 INVITE", b"CSeq: one INVITE"),
        (b"m: <sip:alice@127.0.0.1:5061>\r\n", b""),
        (b"m: <sip:alice@127.0.0.1:5061>", b"m: *"),
        (b"<sip:proxy;lr>", b"<tel:1>"),
        (b"Subject: first", b"Subject: fir\rst"),
    ],
)
def test_refused(old: bytes, new: bytes) -> None:
    assert old in INVITE
    with pytest.raises(SipError):
        parse(INVITE.replace(old, new))


def test_contacts_of_other_messages_may_be_anything() -> None:
    moved = build_response(request(), 302, extra=(("Contact", "<tel:1>"),))
    assert parse(moved.encode()) is not None
    ringing = build_response(request(), 180)
    assert parse(ringing.encode()).contact is None
    with pytest.raises(SipError):
        parse(build_response(request(), 200).encode())


def test_a_line_break_never_leaves() -> None:
    message = Request(Headers((("X", "a\r\nVia: b"),)), b"", "OPTIONS", "sip:h")
    with pytest.raises(ValueError, match="line break"):
        message.encode()


def test_headers() -> None:
    headers = Headers((("A", "1"), ("B", "2"), ("a", "3")))
    assert headers.all("a") == ["1", "3"]
    assert headers.replaced("a", "9").fields == (("A", "9"), ("B", "2"))
    assert headers.replaced("C", "4").get("c") == "4"
    assert headers.without("A", "b").fields == ()
    assert headers.get("D") is None


def test_a_response_repeats_what_names_the_transaction() -> None:
    response = build_response(request(), 200, to_tag="b", body=b"v=0")
    assert len(response.headers.all("Via")) == 3
    assert response.headers.get("Record-Route") == "<sip:proxy;lr>"
    assert response.recipient.tag == "b"
    assert (response.reason, response.has_sdp) == ("OK", True)
    assert build_response(request(), 299).reason == ""
    assert build_response(request(), 299, reason="Fine").reason == "Fine"


def test_a_tag_is_given_once() -> None:
    tagged = request().headers.replaced("To", "<sip:bob@h>;tag=first")
    message = Request(tagged, b"", "INVITE", "sip:bob")
    assert build_response(message, 200, to_tag="second").recipient.tag == "first"
    assert build_response(request(), 100).recipient.tag is None


def test_ack_and_cancel_belong_to_the_invite() -> None:
    invite = request()
    busy = build_response(invite, 486, to_tag="b")
    ack, cancel = build_ack(invite, busy), build_cancel(invite)
    for message in (ack, cancel):
        assert message.headers.all("Via") == [str(invite.via)]
        assert message.headers.all("Route") == ["<sip:next;lr>"]
        assert message.uri == invite.uri
        assert parse(message.encode()).cseq.number == 1
    assert ack.recipient.tag == "b"
    assert cancel.recipient.tag is None


def test_a_retry_is_a_new_transaction() -> None:
    again = retried(request(), "z9hG4bKnew", ("Authorization", "x"))
    assert again.via.branch == "z9hG4bKnew"
    assert again.cseq.number == 2
    assert again.headers.get("Authorization") == "x"
