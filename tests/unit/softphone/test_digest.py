from __future__ import annotations

import pytest

from lab.softphone.digest import Challenge, Credentials, authorised
from lab.softphone.sip import Headers, Request, Response, build_response

MUFASA = Credentials("Mufasa", "Circle Of Life")


def test_the_example_of_rfc_2617() -> None:
    challenge = Challenge.parse(
        'Digest realm="testrealm@host.com", qop="auth,auth-int", '
        'nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41"'
    )
    assert challenge is not None
    answer = challenge.answer(MUFASA, "GET", "/dir/index.html", "0a4f113b")
    assert 'response="6629fae49393a05397450978507c4ef1"' in answer
    assert 'nc=00000001, cnonce="0a4f113b"' in answer
    assert 'opaque="5ccc069c403ebaf9f0171e9517f40e41"' in answer


def test_the_sha_256_example_of_rfc_7616() -> None:
    challenge = Challenge.parse(
        'Digest realm="http-auth@example.org", qop="auth", algorithm=SHA-256, '
        'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"'
    )
    assert challenge is not None
    answer = challenge.answer(
        Credentials("Mufasa", "Circle of Life"),
        "GET",
        "/dir/index.html",
        "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
    )
    assert 'response="753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"' in answer


def test_without_qop_as_rfc_2069() -> None:
    challenge = Challenge.parse('Digest realm="r", nonce="n"')
    assert challenge is not None
    answer = challenge.answer(MUFASA, "REGISTER", "sip:h", "c")
    assert "cnonce" not in answer
    assert "opaque" not in answer


@pytest.mark.parametrize(
    "value",
    [
        "",
        'Basic realm="x"',
        'Digest realm="r"',
        'Digest realm="r", nonce="n", algorithm=MD5-sess',
        'Digest realm="r", nonce="n", qop="auth-int"',
    ],
)
def test_challenges_that_cannot_be_met(value: str) -> None:
    assert Challenge.parse(value) is None


def test_the_password_does_not_show() -> None:
    assert "Circle" not in repr(MUFASA)


def request(*extra: tuple[str, str]) -> Request:
    fields = (
        ("Via", "SIP/2.0/UDP h;branch=z9hG4bK1"),
        ("From", "<sip:a@h>;tag=1"),
        ("To", "<sip:h>"),
        ("Call-ID", "c"),
        ("CSeq", "1 REGISTER"),
        *extra,
    )
    return Request(Headers(fields), b"", "REGISTER", "sip:h")


def refusal(of: Request, status: int = 401, *challenges: str) -> Response:
    name = "WWW-Authenticate" if status == 401 else "Proxy-Authenticate"
    return build_response(of, status, extra=tuple((name, value) for value in challenges))


GOOD = 'Digest realm="r", nonce="n"'


def test_the_first_challenge_that_can_be_met_is_answered() -> None:
    first = request()
    for status, name in ((401, "Authorization"), (407, "Proxy-Authorization")):
        answer = refusal(first, status, 'Basic realm="r"', GOOD)
        again = authorised(first, answer, MUFASA, branch="z9hG4bK2", cnonce="c")
        assert again is not None
        assert (again.headers.get(name) or "").startswith("Digest username=")
        assert again.cseq.number == 2


def test_no_second_try_unless_the_nonce_was_stale() -> None:
    tried = request(("Authorization", "Digest ..."))

    def again(challenge: str) -> Request | None:
        answer = refusal(tried, 401, challenge)
        return authorised(tried, answer, MUFASA, branch="z9hG4bK2", cnonce="c")

    assert again(GOOD) is None
    retry = again(GOOD + ", stale=TRUE")
    assert retry is not None
    assert len(retry.headers.all("Authorization")) == 1


def test_nothing_to_answer_with() -> None:
    first = request()
    assert authorised(first, refusal(first, 401, GOOD), None, branch="b", cnonce="c") is None
    assert authorised(first, refusal(first, 401), MUFASA, branch="b", cnonce="c") is None
    assert authorised(first, refusal(first, 403), MUFASA, branch="b", cnonce="c") is None
