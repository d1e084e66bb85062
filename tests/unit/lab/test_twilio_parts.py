"""The pure parts of the lab's Twilio: signatures, TwiML, what is played when."""

from __future__ import annotations

import pytest

from lab.twilio.playout import Gap, Played, Playout
from lab.twilio.signatures import sign, signed_url
from lab.twilio.twiml import TwimlError, read

TOKEN = "0123456789abcdef0123456789abcdef"


def response(inner: str) -> bytes:
    return f"<Response>{inner}</Response>".encode()


def test_signatures_are_those_of_twilios_own_package() -> None:
    """Made with twilio 9.13.0 for Python; the second fails without its empty field."""
    fields = {"CallSid": "CA1", "From": "+15550001", "FromCity": "", "To": "+15550002"}
    upgrade = sign("wss://bridge.example.com/twilio/media/tok1", (), TOKEN)
    post = sign("https://bridge.example.com/twilio/voice?a=1", fields.items(), TOKEN)
    assert upgrade == "GsMJwEqAVYzV0OqIwmbN1CUsyIg="
    assert post == "ctJe3q+k7lWY+mYSEdL29YJeZJk="


@pytest.mark.parametrize(
    ("url", "signed"),
    [
        ("https://a.test:8443/x?b=1#rc=2", "https://a.test/x?b=1"),
        ("https://user:secret@a.test/x", "https://a.test/x"),
        ("http://a.test:8080/x", "http://a.test:8080/x"),
        ("wss://a.test:443/m/t", "wss://a.test/m/t"),
    ],
)
def test_what_of_an_address_is_signed(url: str, signed: str) -> None:
    assert signed_url(url) == signed


def test_a_stream_with_its_parameters() -> None:
    body = response(
        '<Connect action="/after"><Stream url="wss://a.test/m/t">'
        '<Parameter name="plan" value="gold"/></Stream></Connect><Hangup/>'
    )
    connect, hangup = read(body, "application/xml; charset=utf-8", "https://a.test/voice").verbs
    (stream,) = connect.children
    assert (connect.get("action"), stream.get("url")) == ("/after", "wss://a.test/m/t")
    assert stream.parameters == {"plan": "gold"}
    assert hangup.name == "Hangup"


def test_plain_text_is_spoken() -> None:
    (say,) = read(b"ok", "text/plain").verbs
    assert (say.name, say.text) == ("Say", "ok")


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [
        (b"<Response><Hangup></Response>", "text/xml", 12100),
        (b"<Answer/>", "text/xml", 12100),
        (b"", "text/xml", 12100),
        (b"<!DOCTYPE x><Response/>", "text/xml", 12100),
        (b"{}", "application/json", 12300),
        (b"<Response/>", "", 12300),
        (response(" " * 64_000), "text/xml", 11750),
        (response("<Connect/>"), "text/xml", 12200),
        (response("<Dial/>"), "text/xml", 13221),
        (response("<Dial><Number>nobody</Number></Dial>"), "text/xml", 13224),
        (response("<Dial><Sip>sip:a@b.test?Via=x</Sip></Dial>"), "text/xml", 13252),
        (
            response('<Connect><Stream url="wss://a" track="both_tracks"/></Connect>'),
            "text/xml",
            31941,
        ),
        (
            response(
                '<Connect><Stream url="wss://a"><Parameter name="a" value="'
                + "x" * 500
                + '"/></Stream></Connect>'
            ),
            "text/xml",
            12200,
        ),
    ],
)
def test_what_cannot_be_carried_out(body: bytes, content_type: str, code: int) -> None:
    with pytest.raises(TwimlError) as refused:
        read(body, content_type)
    assert refused.value.code == code


@pytest.mark.parametrize(
    "inner",
    [
        '<Hangup reason="x"/>',
        "<Dance/>",
        "<Stream url='wss://a'/>",
        '<Reject reason="later"/>',
        '<Dial timeout="soon">+15550100001</Dial>',
    ],
)
def test_what_twiml_does_not_have_is_left_out(inner: str) -> None:
    document = read(response(f"{inner}<Hangup/>"))
    assert len(document.warnings) == 1
    assert document.verbs[-1].name == "Hangup"


def test_a_mark_comes_back_when_all_before_it_was_played() -> None:
    playout = Playout()
    playout.media(bytes(240), 0.0)
    assert playout.mark("goodbye", 0.0) == []
    assert playout.frame(0.02) == (bytes(160), [])
    assert playout.frame(0.04) == (bytes(80) + b"\xff" * 80, [])
    assert playout.frame(0.06) == (b"\xff" * 160, ["goodbye"])
    assert playout.heard_until == pytest.approx(0.05)
    assert playout.mark("at once", 0.07) == ["at once"]


def test_clear_gives_every_mark_back_though_nothing_was_heard() -> None:
    playout = Playout()
    for name in ("one", "two"):
        playout.media(bytes(800), 0.0)
        playout.mark(name, 0.0)
    playout.frame(0.02)
    assert playout.clear(0.03) == ["one", "two"]
    assert playout.played == [Played(0.03, "one", cleared=True), Played(0.03, "two", cleared=True)]
    assert playout.frame(0.04) == (b"\xff" * 160, [])
    assert playout.waiting_ms == 0
    playout.media(bytes(160), 0.05)
    playout.frame(0.06)
    assert not playout.gaps, "what was cleared leaves no hole"


def test_a_hole_in_the_sound_is_found() -> None:
    playout = Playout()
    playout.media(bytes(200), 0.0)
    for at in (0.02, 0.04, 0.06):
        playout.frame(at)
    playout.media(bytes(160), 0.07)
    playout.frame(0.08)
    assert playout.gaps == [Gap(pytest.approx(0.045), 35.0)]  # type: ignore[arg-type]


def test_more_than_ten_minutes_are_not_taken() -> None:
    playout = Playout()
    assert playout.media(bytes(8 * 600_000), 0.0)
    assert not playout.media(b"\0", 0.0)
    assert playout.waiting_ms == 600_000
