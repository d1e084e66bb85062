"""What is Twilio's and what is not, by the signature."""

from __future__ import annotations

import base64
import hashlib
from urllib.parse import quote, urlencode

import pytest

from ari_app.line.twilio.signature import FORM, Signatures, read_form, sign
from ari_app.line.websocket_input import BadInput

TOKEN = "0123456789abcdef0123456789abcdef"
PUBLIC = "https://bridge.example.com"
FIELDS = {"CallSid": "CA1", "From": "+15550001", "FromCity": "", "To": "+15550002"}
BODY = urlencode(FIELDS).encode()
# Computed with Twilio's own package, 9.13.0.
UPGRADE = "GsMJwEqAVYzV0OqIwmbN1CUsyIg="
POST = "ctJe3q+k7lWY+mYSEdL29YJeZJk="


def signatures(public: str = PUBLIC, *tokens: str) -> Signatures:
    return Signatures(public, tokens or (TOKEN,))


def signed(text: str, token: str = TOKEN) -> dict[str, str]:
    return {"X-Twilio-Signature": sign(token.encode(), text).decode()}


def reason(check: Signatures, path: str, headers: dict[str, str], body: bytes = BODY) -> str:
    with pytest.raises(BadInput) as refusal:
        check.check_webhook(path, headers, FORM, body)
    return refusal.value.reason


def test_the_vectors_of_twilios_own_package() -> None:
    check = signatures()
    form = check.check_webhook("/twilio/voice?a=1", {"X-Twilio-Signature": POST}, FORM, BODY)
    assert {name: values[0] for name, values in form.items()} == FIELDS
    check.check_upgrade("/twilio/media/tok1", {"X-Twilio-Signature": UPGRADE})


def test_an_empty_field_is_signed_as_well() -> None:
    without = urlencode({name: text for name, text in FIELDS.items() if text}).encode()
    headers = {"X-Twilio-Signature": POST}
    assert reason(signatures(), "/twilio/voice?a=1", headers, without) == "wrong_signature"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/twilio/voice?a=2", BODY),
        ("/twilio/voice", BODY),
        ("/twilio/voice/?a=1", BODY),
        ("/twilio/voice?a=1", BODY + b"&X=1"),
        ("/twilio/voice?a=1", BODY.replace(b"15550001", b"15550003")),
    ],
)
def test_whatever_was_changed_is_noticed(path: str, body: bytes) -> None:
    assert reason(signatures(), path, {"X-Twilio-Signature": POST}, body) == "wrong_signature"


@pytest.mark.parametrize("given", ["", "x", "ä", POST[:-1], POST + "=", POST.lower(), "\udcff"])
def test_a_signature_that_is_none(given: str) -> None:
    wanted = "unsigned" if not given else "wrong_signature"
    assert reason(signatures(), "/twilio/voice?a=1", {"X-Twilio-Signature": given}) == wanted


def test_without_the_header_it_is_unsigned() -> None:
    assert reason(signatures(), "/twilio/voice?a=1", {}) == "unsigned"
    with pytest.raises(BadInput, match="no X-Twilio-Signature"):
        signatures().check_upgrade("/twilio/media/tok1", {})


def test_a_shared_key_is_told_apart() -> None:
    headers = {
        "X-Twilio-Signature": "other",
        "X-Twilio-Webhooks-Signature-Settings": "key=a,algorithm=HMAC_SHA256",
    }
    assert reason(signatures(), "/twilio/voice?a=1", headers) == "shared_key"


def test_any_of_several_tokens_may_have_signed() -> None:
    check = signatures(PUBLIC, "new", TOKEN)
    for headers in (
        {"X-Twilio-Signature": POST},
        signed(f"{PUBLIC}/twilio/voice?a=1CallSidCA1From+15550001FromCityTo+15550002", "new"),
    ):
        check.check_webhook("/twilio/voice?a=1", headers, FORM, BODY)
    assert reason(signatures(PUBLIC, "new"), "/twilio/voice?a=1", {"X-Twilio-Signature": POST})


def test_an_empty_token_signs_nothing() -> None:
    for tokens in ([], [""], [TOKEN, ""]):
        with pytest.raises(ValueError, match="empty"):
            Signatures(PUBLIC, tokens)


@pytest.mark.parametrize("end", ["", "/"])
@pytest.mark.parametrize("given", ["", "/"])
def test_a_slash_may_stand_at_the_end_of_a_sockets_address(end: str, given: str) -> None:
    url = f"wss://bridge.example.com/twilio/media/tok1{end}"
    signatures().check_upgrade(f"/twilio/media/tok1{given}", signed(url))


def test_a_sockets_address_is_not_signed_as_https() -> None:
    with pytest.raises(BadInput):
        signatures().check_upgrade("/m/tok1", signed(f"{PUBLIC}/m/tok1"))
    with pytest.raises(BadInput):
        signatures().check_upgrade("/m/tok1", signed("wss://bridge.example.com/m/tok2"))


@pytest.mark.parametrize("port", ["", ":8443"])
def test_the_port_may_have_been_dropped(port: str) -> None:
    check = signatures("https://bridge.example.com:8443/calls")
    check.check_webhook("/v", signed(f"https://bridge.example.com{port}/calls/v"), FORM, b"")
    check.check_upgrade("/m", signed(f"wss://bridge.example.com{port}/calls/m"))


def test_values_of_one_name_are_signed_sorted_and_once() -> None:
    body = b"B=2&A=3&B=1&B=2"
    form = signatures().check_webhook("/s", signed(f"{PUBLIC}/sA3B1B2"), FORM, body)
    assert form == {"B": ["2", "1", "2"], "A": ["3"]}


# --- bodies that are no forms


def hashed(body: bytes, *more: str) -> str:
    return "/s?" + "&".join(
        f"bodySHA256={each}" for each in (hashlib.sha256(body).hexdigest(), *more)
    )


def test_another_body_is_known_by_its_hash_alone() -> None:
    body = b'{"CallSid": "CA1"}'
    path = hashed(body)
    headers = signed(PUBLIC + path)
    assert signatures().check_webhook(path, headers, "application/json", body) == {}
    for other in (b'{"CallSid": "CA2"}', body + b" "):
        with pytest.raises(BadInput) as refusal:
            signatures().check_webhook(path, headers, "application/json", other)
        assert refusal.value.reason == "wrong_body_hash"


def test_a_body_without_a_hash_is_refused() -> None:
    with pytest.raises(BadInput) as refusal:
        signatures().check_webhook("/s", signed(PUBLIC + "/s"), "application/json", b"{}")
    assert refusal.value.reason == "no_body_hash"


def test_each_of_two_hashes_has_to_fit() -> None:
    body = b"A=1"
    twice = hashed(body, hashlib.sha256(body).hexdigest().upper())
    signatures().check_webhook(twice, signed(f"{PUBLIC}{twice}A1"), FORM, body)
    wrong = hashed(body, "00")
    assert reason(signatures(), wrong, signed(f"{PUBLIC}{wrong}A1"), body) == "wrong_body_hash"


@pytest.mark.parametrize(
    "body",
    [
        b"\xff=1",
        b"A=%ff",
        b"A",
        b"A=1&&B=2",
        b"&".join(b"A%d=1" % number for number in range(300)),
    ],
)
def test_a_form_that_is_none(body: bytes) -> None:
    with pytest.raises(BadInput) as refusal:
        read_form(body)
    assert refusal.value.reason == "malformed"


def test_a_form_is_read_to_the_letter() -> None:
    text = " a+b=c&d \u00e4\u4e00 "
    assert read_form(f"A={quote(text, safe='')}&B=".encode()) == {"A": [text], "B": [""]}
    assert base64.b64decode(sign(b"k", text))
