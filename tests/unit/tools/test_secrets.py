from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.tools.secrets import HIDDEN, hide_secrets

# Made up, with what each of the spellings escapes.
KEY = 'made-up/4"a+b&c<d>=='
HEADER = f"Bearer {KEY}"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


SPELLINGS = {
    "as it was sent": KEY,
    "JSON": json.dumps(KEY)[1:-1],
    "JSON with slashes": json.dumps(KEY)[1:-1].replace("/", r"\/"),
    "JSON in JSON in JSON": json.dumps(json.dumps(json.dumps(KEY))),
    "JSON, every character": "".join(f"\\u{ord(sign):04X}" for sign in KEY),
    "URL": quote(KEY, safe=""),
    "URL, small letters": quote_plus(KEY).lower(),
    "URL, twice": quote(quote(KEY, safe=""), safe=""),
    "URL, every character": "".join(f"%{ord(sign):02x}" for sign in KEY),
    "HTML": html.escape(KEY),
    "HTML, by number": "".join(f"&#{ord(sign)};" for sign in KEY),
    "hexadecimal": KEY.encode().hex(),
    "base64": encoded(KEY),
    "base64 of the header": encoded(f"authorization: {HEADER}\r\n"),
    "base64 in a URL": quote(encoded(HEADER), safe=""),
    "base64 of URLs": base64.urlsafe_b64encode(f"x{KEY}".encode()).decode(),
    "base64 in lines": "\n".join(encoded(HEADER)[at : at + 8] for at in range(0, 40, 8)),
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_a_key_is_found_in_every_spelling(spelling: str) -> None:
    said = hide_secrets(f'{{"error": "{spelling} is not welcome"}}', [HEADER])
    assert HIDDEN in said
    assert said.endswith(' is not welcome"}')
    assert spelling[len(spelling) // 3 : -len(spelling) // 3] not in said


@given(st.integers(0, 5), st.integers(0, 5))
def test_base64_is_found_wherever_the_key_stands_in_it(before: int, after: int) -> None:
    assert HIDDEN in hide_secrets(encoded("x" * before + KEY + "y" * after), [KEY])


def test_a_password_in_base64_is_hidden_in_clear() -> None:
    said = hide_secrets("operator:long-word, long-word", [f"Basic {encoded('operator:long-word')}"])
    assert said == f"{HIDDEN}, {HIDDEN}"


def test_other_words_stay() -> None:
    text = 'Bearer tokens are "made\\u002dup" 100% & more: bWFkZS11'
    assert hide_secrets(text, [HEADER]) == text
    assert hide_secrets("short words stay", ["Bearer words"]) == "short words stay"
    assert hide_secrets("text", []) == "text"
