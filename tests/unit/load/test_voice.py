from __future__ import annotations

import numpy as np
import pytest

from audiosocket.frames import SLIN, SLIN16, Audio, Decoder, SlinFormat
from lab.load.voice import TalkPattern, render_messages

PATTERN = TalkPattern(talk_seconds=1.0, pause_seconds=2.0)


@pytest.mark.parametrize("fmt", [SLIN, SLIN16], ids=lambda fmt: fmt.name)
def test_a_period_is_whole_frames_of_the_format(fmt: SlinFormat) -> None:
    messages = render_messages(PATTERN, fmt)

    assert len(messages) == PATTERN.period_seconds * 50 == 150
    decoded = Decoder(expect_identify=False).feed(b"".join(messages))
    assert all(isinstance(message, Audio) and message.kind is fmt.kind for message in decoded)
    assert {len(message.payload) for message in decoded if isinstance(message, Audio)} == {
        fmt.frame_bytes
    }


def test_the_caller_pauses_before_he_speaks() -> None:
    pcm = [np.frombuffer(message[3:], "<i2") for message in render_messages(PATTERN, SLIN)]

    levels = [float(np.abs(frame.astype(float)).max()) for frame in pcm]
    assert 0 < max(levels[:100]) < 10
    assert max(levels[100:110]) > 1000


def test_everybody_says_the_same() -> None:
    assert render_messages(PATTERN, SLIN) == render_messages(PATTERN, SLIN)
