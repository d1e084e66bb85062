from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.process.peers import Decoder, Message, Peer, encode, listen
from tests.waiting import until

MESSAGES = st.lists(st.dictionaries(st.text(max_size=5), st.integers(0, 9) | st.text(max_size=20)))


@given(MESSAGES, st.lists(st.integers(1, 40)))
def test_any_split_of_the_bytes_gives_the_same_messages(
    messages: list[dict[str, Any]], cuts: list[int]
) -> None:
    data = b"".join(map(encode, messages))
    decoder, found = Decoder(), []
    for cut in [*cuts, len(data)]:
        piece, data = data[:cut], data[cut:]
        found += decoder.feed(piece)
    assert found == messages


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\0\0\0\2[]", b"\0\0\0\1{"])
def test_what_is_no_message(data: bytes) -> None:
    with pytest.raises(ValueError):
        Decoder().feed(data)


class Ends:
    """Everything that either end has heard."""

    def __init__(self) -> None:
        self.heard: list[Message] = []
        self.opened: list[Peer] = []
        self.closed: list[Peer] = []

    def peer(self) -> Peer:
        return Peer(
            lambda peer, message: self.heard.append(message),
            on_open=self.opened.append,
            on_closed=self.closed.append,
        )


async def connect(path: Path, ends: Ends) -> Peer:
    _, peer = await asyncio.get_running_loop().create_unix_connection(ends.peer, str(path))
    return peer


async def test_messages_arrive_in_order_and_an_end_is_told(tmp_path: Path) -> None:
    ours, theirs = Ends(), Ends()
    server = await listen(tmp_path / "front", ours.peer)
    peer = await connect(tmp_path / "front", theirs)
    for number in range(100):
        assert peer.send({"number": number})
    await until(lambda: len(ours.heard) == 100)
    assert [message["number"] for message in ours.heard] == list(range(100))
    ours.opened[0].close()
    await until(lambda: theirs.closed == [peer])
    assert not peer.is_open
    assert not peer.send({}), "nobody is there"
    server.close()


async def test_a_second_listener_takes_the_place_of_the_first(tmp_path: Path) -> None:
    first, second, theirs = Ends(), Ends(), Ends()
    path = tmp_path / "front"
    one = await listen(path, first.peer)
    two = await listen(path, second.peer)
    peer = await connect(path, theirs)
    peer.send({"to": "the second"})
    await until(lambda: second.heard == [{"to": "the second"}])
    assert first.opened == []
    peer.close()
    one.close()
    two.close()


async def test_who_talks_nonsense_is_hung_up_on(tmp_path: Path) -> None:
    ours = Ends()
    server = await listen(tmp_path / "front", ours.peer)
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "front"))
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert await reader.read() == b""
    assert len(ours.closed) == 1
    writer.close()
    server.close()


async def test_what_is_sent_at_leisure_waits_until_the_other_reads(tmp_path: Path) -> None:
    ours = Ends()
    server = await listen(tmp_path / "front", ours.peer)
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "front"), limit=1 << 10)
    await until(lambda: bool(ours.opened))
    peer = ours.opened[0]
    for number in range(800):
        peer.send_at_leisure({"number": number, "much": "x" * 10_000})
    assert peer.send({"urgent": True})
    assert peer.is_open, "though it has read none of 8 MB"
    decoder, heard = Decoder(), list[Message]()
    while len(heard) < 801:
        heard += decoder.feed(await reader.read(1 << 16))
    urgent = [message.get("urgent") for message in heard].index(True)
    assert urgent < 400, "it waits only behind what was on its way"
    del heard[urgent]
    assert [message["number"] for message in heard] == list(range(800))
    # To one that never reads not more is kept than that.
    for number in range(12_000):
        peer.send_at_leisure({"number": number, "much": "x" * 1000})
    await until(lambda: ours.closed == [peer])
    writer.close()
    server.close()
