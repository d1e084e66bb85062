from __future__ import annotations

import hashlib
import hmac

import pytest

from ari_app.records.webhooks.signing import BadSignature, SignatureCheck, secrets_of, sign

NOW = 1_700_000_000
BODY = '{"who": "Jürgen"}'.encode()
A, B = b"old secret", b"new secret"


def check(header: str | None, body: bytes = BODY, now: float = NOW) -> str:
    """What is wrong with a signature; empty: nothing."""
    try:
        checked = SignatureCheck(header, [A], now)
        for place in range(len(body)):
            checked.update(body[place : place + 1])
        checked.finish()
    except BadSignature as error:
        return error.reason
    return ""


def test_what_is_signed_is_the_time_a_dot_and_the_body() -> None:
    wanted = hmac.new(A, f"{NOW}.".encode() + BODY, hashlib.sha256).hexdigest()
    assert sign([A], BODY, NOW) == f"t={NOW},v1={wanted}"


def test_a_right_signature_proves_it() -> None:
    assert check(sign([A], BODY, NOW)) == ""
    assert check(sign([A], BODY, NOW).upper().replace("T=", "t=").replace("V1=", "v1=")) == ""


def test_any_of_several_secrets_will_do() -> None:
    both = sign([B, A], BODY, NOW)
    assert both.count("v1=") == 2
    assert check(both) == ""


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (None, "no_signature"),
        ("", "no_signature"),
        ("t=", "malformed_signature"),
        (f"t={NOW}", "malformed_signature"),
        (f"t={NOW},v1=", "malformed_signature"),
        (f"t={NOW},v1=zz", "malformed_signature"),
        (f"t={NOW},v0=" + 64 * "0", "malformed_signature"),
        (f"t=1{NOW}000,v1=" + 64 * "0", "malformed_signature"),
        (f"t=-{NOW},v1=" + 64 * "0", "malformed_signature"),
        (f"t=٣{NOW},v1=" + 64 * "0", "malformed_signature"),
        (f"t={NOW},t={NOW},v1=" + 64 * "0", "malformed_signature"),
        (f"t={NOW}," + ",".join(17 * ["v1=" + 64 * "0"]), "malformed_signature"),
        (f"t={NOW},v1=" + 64 * "0" + 2048 * " ", "malformed_signature"),
        (sign([B], BODY, NOW), "wrong_signature"),
        (sign([A], BODY + b" ", NOW), "wrong_signature"),
        (sign([A], BODY, NOW - 301), "too_old"),
        (sign([A], BODY, NOW + 301), "from_the_future"),
        (sign([A], BODY, NOW).replace(f"t={NOW}", f"t={NOW + 1}"), "wrong_signature"),
    ],
)
def test_what_is_wrong_has_a_reason(header: str | None, reason: str) -> None:
    assert check(header) == reason


def test_clocks_may_differ_a_little() -> None:
    assert check(sign([A], BODY, NOW - 299)) == check(sign([A], BODY, NOW + 299)) == ""


def test_secrets_stand_in_one_setting() -> None:
    assert secrets_of(" one, two ,,three") == [b"one", b"two", b"three"]
