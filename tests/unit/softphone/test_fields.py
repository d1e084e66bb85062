from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.softphone.errors import SipError
from lab.softphone.fields import (
    Address,
    CSeq,
    NameAddr,
    Uri,
    Via,
    parse_parameters,
    quote,
    split_outside,
    unquote,
)

PEER = Address("127.0.0.9", 5999)


def test_lists_split_outside_quotes_and_brackets() -> None:
    text = r'"a, \" b" <sip:x,y@h>, <sip:z@h>;p="1,2" ,, last'
    assert split_outside(text, ",") == [
        r'"a, \" b" <sip:x,y@h>',
        '<sip:z@h>;p="1,2"',
        "last",
    ]


def test_parameters() -> None:
    assert parse_parameters(';Tag=a;lr;x="q;\\"r"') == (("tag", "a"), ("lr", None), ("x", 'q;"r'))


@given(st.text())
def test_quoting_is_undone(text: str) -> None:
    text = text.replace("\n", "")
    assert unquote(quote(text)) == text


def test_unquoted_text_stays() -> None:
    assert unquote('"') == '"'
    assert unquote("a") == "a"


@pytest.mark.parametrize(
    "text",
    [
        "sip:100@127.0.0.1:5060",
        "sip:127.0.0.1",
        "sips:a@example.com;transport=udp?x=y",
        "sip:a@[::1]:5060",
    ],
)
def test_uris_round_trip(text: str) -> None:
    assert str(Uri.parse(text)) == text


def test_uri_parts() -> None:
    uri = Uri.parse("SIP:100@Host.example;lr")
    assert uri == Uri("Host.example", "100", scheme="sip", tail=";lr")
    assert uri.address == Address("Host.example", 5060)
    assert Uri.parse("sip:h:99").address.port == 99


@pytest.mark.parametrize(
    "text", ["", "tel:100", "sip:", "sip:a@", "sip:a@h:0", "sip:a@h:65536", "sip:a b@h", "*"]
)
def test_no_uri(text: str) -> None:
    with pytest.raises(SipError):
        Uri.parse(text)


def test_addresses_with_brackets() -> None:
    address = NameAddr.parse('"J. \\"Doe <x>\\"" <sip:a@h;p=1>;tag=t;q')
    assert address.uri == "sip:a@h;p=1"
    assert address.display == 'J. "Doe <x>"'
    assert address.tag == "t"
    assert NameAddr.parse(str(address)) == address


def test_addresses_without_brackets_own_their_parameters() -> None:
    address = NameAddr.parse("sip:a@h;tag=t")
    assert (address.uri, address.tag, address.display) == ("sip:a@h", "t", "")
    assert address.with_tag("u").tag == "u"
    assert NameAddr.parse("sip:a@h").tag is None


@pytest.mark.parametrize("text", ["", "<>", "<sip:a@h", "<sip:a b>", ";tag=x", '"only a name'])
def test_no_address(text: str) -> None:
    with pytest.raises(SipError):
        NameAddr.parse(text)


def test_via() -> None:
    via = Via.parse('SIP / 2.0 / udp Host:5070 ;branch=z9hG4bKx;rport;maddr="a b"')
    assert (via.branch, via.sent_by, via.transport) == ("z9hG4bKx", ("host", 5070), "UDP")
    assert Via.parse(str(via)) == via
    assert Via.parse("SIP/2.0/UDP h").branch == ""
    assert str(Via.parse("SIP/2.0/UDP h")) == "SIP/2.0/UDP h"


@pytest.mark.parametrize("text", ["", "SIP/1.0/UDP h", "SIP/2.0/UDP", "SIP/2.0/UDP h:99999"])
def test_no_via(text: str) -> None:
    with pytest.raises(SipError):
        Via.parse(text)


def test_answers_go_to_the_source_port_when_rport_is_asked_for() -> None:
    asked = Via.parse("SIP/2.0/UDP h:5070;branch=b;rport;received=old")
    received = asked.received_from(PEER)
    assert dict(received.parameters) == {
        "branch": "b",
        "rport": "5999",
        "received": "127.0.0.9",
    }
    assert asked.reply_address(PEER) == PEER


def test_answers_go_to_the_port_of_the_via_otherwise() -> None:
    plain = Via.parse("SIP/2.0/UDP h:5070;branch=b")
    assert plain.reply_address(PEER) == ("127.0.0.9", 5070)
    assert Via.parse("SIP/2.0/UDP h").reply_address(PEER).port == 5060
    assert ("received", PEER.host) in plain.received_from(PEER).parameters
    same = Via.parse("SIP/2.0/UDP 127.0.0.9:5070;branch=b")
    assert same.received_from(PEER) == same


def test_cseq() -> None:
    assert CSeq.parse(" 7  INVITE ") == CSeq(7, "INVITE")
    assert str(CSeq(7, "BYE")) == "7 BYE"


@pytest.mark.parametrize("text", ["", "INVITE", "7", "-1 BYE", "2147483648 BYE", "7 A B"])
def test_no_cseq(text: str) -> None:
    with pytest.raises(SipError):
        CSeq.parse(text)
