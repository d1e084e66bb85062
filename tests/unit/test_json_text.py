from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.json_text import MAX_DEPTH, NotJson, read_json


def nested(depth: int) -> bytes:
    return b'[{"a":' * (depth // 2) + b"1" + b"}]" * (depth // 2)


def test_a_byte_order_mark_is_passed_over() -> None:
    assert read_json('\ufeff{"name": "Jörg"}'.encode()) == {"name": "Jörg"}


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        (b"", "it is empty"),
        (b"\xef\xbb\xbf \n", "it is empty"),
        (b'{"a":\n1', "it is not JSON: line 2, column 2"),
        ('{"name": "Jörg"}'.encode("latin-1"), "it is not UTF-8: byte 12 is 0xF6"),
        ('{"name": "J"}'.encode("utf-16"), "it is not UTF-8: byte 1 is 0xFF"),
        (nested(MAX_DEPTH + 2), f"more than {MAX_DEPTH} deep"),
    ],
)
def test_what_cannot_be_read_is_told_apart(text: bytes, clause: str) -> None:
    with pytest.raises(NotJson, match=clause):
        read_json(text)


def test_the_deepest_that_is_taken() -> None:
    assert read_json(nested(MAX_DEPTH))


@given(st.binary(max_size=40))
def test_nothing_raises_anything_else(text: bytes) -> None:
    try:
        read_json(text)
    except NotJson as error:
        assert str(error)
