from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.tools import secrets
from ari_app.tools.secrets import HIDDEN, hide_secrets, may_hold_secrets

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


def spelled(sign: str) -> st.SearchStrategy[str]:
    code = f"{ord(sign):02x}"
    ways = [sign, f"%{code}", f"%25{code.upper()}", f"\\u00{code}", f"\\\\x{code}"]
    ways.append(f"&amp;#{ord(sign)};")
    return st.sampled_from(ways if sign.isalnum() else [*ways, f"\\{sign}"])


@given(st.data())
def test_whoever_asks_first_whether_there_may_be_a_key_misses_none(data: st.DataObject) -> None:
    signs = st.characters(min_codepoint=33, max_codepoint=126)
    key = data.draw(st.text(signs, min_size=8, max_size=12))
    around = st.text(st.sampled_from(r"\%05A2nrx &#;u,"), max_size=4)
    in_base64 = encoded(data.draw(st.sampled_from(["", "x", "xy"])) + key + "z")
    written = data.draw(st.sampled_from([key, key.encode().hex().upper(), in_base64]))
    escapes = data.draw(st.booleans())
    ends = st.sampled_from(["", "", "", "\n", "\\r\\n", "%0A", " "])
    parts = [data.draw(spelled(sign)) if escapes else sign for sign in written]
    if written == in_base64:
        parts = [part + data.draw(ends) for part in parts]
    text = data.draw(around) + "".join(parts) + data.draw(around)
    if hide_secrets(text, [key]) != text:
        assert may_hold_secrets(text, [key])


def test_an_answer_without_a_key_is_not_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def looked_for(headers: tuple[str, ...]) -> None:
        raise AssertionError

    text = json.dumps(
        [{"name": "Jörg O'Hara", "at": "/über uns?a=1&b=<2>", "q": html.escape("'\"")}] * 50
    )
    said = f"{text}\n{quote(text)}\n{encoded(text)}"
    monkeypatch.setattr(secrets, "_pattern", looked_for)
    assert not may_hold_secrets(said, [HEADER])
    assert not may_hold_secrets(said, ["Bearer words"])
    with pytest.raises(AssertionError):
        hide_secrets(KEY, [HEADER])


@pytest.mark.parametrize("key", [KEY, 'a,"{}<>-long-word'])
def test_a_long_answer_keeps_all_but_the_key(key: str) -> None:
    rows = [{"id": number, "said": key if number % 7 == 0 else "no"} for number in range(50)]
    hidden = [{**row, "said": HIDDEN if row["said"] == key else "no"} for row in rows]
    assert json.loads(hide_secrets(json.dumps(rows), [key])) == hidden
