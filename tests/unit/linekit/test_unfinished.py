from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from linekit.unfinished import Unfinished


def test_bytes_are_held_back_until_there_are_enough() -> None:
    rest = Unfinished()
    assert rest.before(b"ab") == b"ab"
    rest.hold(b"ab", 4)
    assert (rest.before(b"c"), len(rest)) == (b"", 3)
    assert (rest.before(b"de"), len(rest)) == (b"abcde", 0)


@given(st.lists(st.binary(max_size=5)), st.lists(st.integers(1, 8)))
def test_any_split_gives_the_same_messages(messages: list[bytes], sizes: list[int]) -> None:
    """Each message has its length before it, in one byte."""
    stream = b"".join(bytes([len(message)]) + message for message in messages)
    rest, found = Unfinished(), []
    while stream:
        size = sizes.pop() if sizes else len(stream)
        data, stream = rest.before(stream[:size]), stream[size:]
        while data and len(data) > data[0]:
            found.append(data[1 : 1 + data[0]])
            data = data[1 + data[0] :]
        if data:
            rest.hold(data, 1 + data[0])
    assert (found, len(rest)) == (messages, 0)
