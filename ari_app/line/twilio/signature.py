"""Whether a request is Twilio's: its signature over the address at which we are reached. Pure.

Twilio signs the address that it was given, with the fields of the form that it posts. What our
server sees of the address may be a proxy's, so the configured public one stands for it.

Source: https://www.twilio.com/docs/usage/security
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from ari_app.line.websocket_input import BadInput

HEADER: Final = "X-Twilio-Signature"
SHARED_KEY_HEADER: Final = "X-Twilio-Webhooks-Signature-Settings"
FORM: Final = "application/x-www-form-urlencoded"
_BODY_HASH: Final = "bodySHA256"
_MAX_FIELDS: Final = 200

Form = Mapping[str, Sequence[str]]


def read_form(body: bytes) -> dict[str, list[str]]:
    """Return the fields of a form, empty ones included.

    Raises:
        BadInput: It is not one, or has too many fields.
    """
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=_MAX_FIELDS,
        )
    except ValueError:
        raise BadInput("malformed", "The body is not the form that its type says.") from None
    form: dict[str, list[str]] = {}
    for name, value in pairs:
        form.setdefault(name, []).append(value)
    return form


class Signatures:
    """Checks what comes by our auth tokens.

    Args:
        public_url: How Twilio reaches us, without a slash at its end.
        tokens: Any of them may have signed.

    Raises:
        ValueError: There is no token: an empty one would let anybody sign.
    """

    def __init__(self, public_url: str, tokens: Sequence[str]) -> None:
        if not tokens or not all(tokens):
            raise ValueError("an auth token is empty")
        self._public_url = public_url
        self._tokens = [token.encode() for token in tokens]

    def check_webhook(
        self, path: str, headers: Mapping[str, str], content_type: str, body: bytes
    ) -> dict[str, list[str]]:
        """Return the fields of a webhook that is Twilio's; none where its body is no form.

        Args:
            path: As the request has it, with its query.
            headers: Of the request, whose names are found in any case.
            content_type: Without parameters.
            body: As it came.

        Raises:
            BadInput: It is not.
        """
        hashes = [
            value
            for name, value in parse_qsl(path.partition("?")[2], keep_blank_values=True)
            if name == _BODY_HASH
        ]
        is_form = content_type == FORM or not body
        form = read_form(body) if is_form else {}
        self._check(self._public_url + path, form, headers)
        # Nothing else says that a body which is no form was not put in another's place.
        if not is_form and not hashes:
            raise BadInput(
                "no_body_hash", "The body is no form, and the address has no hash of it."
            )
        digest = hashlib.sha256(body).hexdigest()
        if not all(hmac.compare_digest(digest.encode(), each.lower().encode()) for each in hashes):
            raise BadInput("wrong_body_hash", "The body is not the one that was signed.")
        return form

    def check_upgrade(self, path: str, headers: Mapping[str, str]) -> None:
        """Make sure that the handshake of a WebSocket is Twilio's.

        Raises:
            BadInput: It is not.
        """
        self._check("ws" + self._public_url.removeprefix("http") + path, {}, headers)

    def _check(self, url: str, form: Form, headers: Mapping[str, str]) -> None:
        given = headers.get(HEADER, "")
        if not given:
            raise BadInput("unsigned", f"There is no {HEADER}.")
        fields = "".join(name + value for name in sorted(form) for value in sorted(set(form[name])))
        fits = False
        for spelling in _spellings(url):
            for token in self._tokens:
                wanted = sign(token, spelling + fields)
                # Each is compared, so that the time tells nothing.
                fits |= hmac.compare_digest(wanted, given.encode("utf-8", "surrogateescape"))
        if fits:
            return
        if SHARED_KEY_HEADER in headers:
            raise BadInput("shared_key", "It is signed with a key of a Webhook Rule, not a token.")
        raise BadInput("wrong_signature", "The signature is none of our tokens'.")


def sign(token: bytes, text: str) -> bytes:
    """Sign an address, with the fields that follow it."""
    data = text.encode("utf-8", "surrogateescape")
    return base64.b64encode(hmac.digest(token, data, "sha1"))


def _spellings(url: str) -> Iterator[str]:
    """Give the forms in which Twilio may have signed an address.

    It drops the port of an https one; a slash may stand at the end of a wss one.
    """
    parts = urlsplit(url)
    without = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2].partition(":")[0]))
    urls = [url]
    if parts.port is not None and not parts.netloc.startswith("["):
        urls.append(without)
    for each in urls:
        yield each
        if parts.scheme.startswith("ws"):
            yield each.removesuffix("/") if each.endswith("/") else each + "/"
