from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from ari_app.agent.elevenlabs.codec import Masks, ping_frame, text_frame


def parse(data: bytes) -> Frame:
    """The frame as `websockets` reads it on the server's side."""
    reader = StreamReader()
    reader.feed_data(data)
    parser = Frame.parse(reader.read_exact, mask=True, max_size=None)
    with pytest.raises(StopIteration) as result:
        next(parser)
    reader.feed_eof()
    assert reader.at_eof(), "nothing is left over"
    frame: Frame = result.value.value
    return frame


def test_a_ping_is_what_a_server_reads() -> None:
    frame = parse(ping_frame())
    assert (frame.opcode, frame.fin, frame.data) == (Opcode.PING, True, b"")


@given(size=st.sampled_from([0, 1, 125, 126, 127, 65535, 65536, 70000]) | st.integers(0, 2000))
def test_a_text_frame_is_what_a_server_reads(size: int) -> None:
    payload = (b"0123456789" * (size // 10 + 1))[:size]
    frame = parse(text_frame(payload))
    assert (frame.opcode, frame.fin, frame.data) == (Opcode.TEXT, True, payload)
    assert not (frame.rsv1 or frame.rsv2 or frame.rsv3)


def test_no_mask_is_given_twice() -> None:
    masks = Masks()
    taken = [masks.take() for _ in range(3000)]
    assert {len(mask) for mask in taken} == {4}
    assert len(set(taken)) > 2990, "but for chance"
