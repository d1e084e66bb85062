from __future__ import annotations

import itertools

import numpy as np
import pytest

from ari_app.audio.convert import Converter
from ari_app.audio.formats import AGENT_FORMATS, LINE_RATES_HZ, AudioFormat
from ari_app.audio.g711 import pcm_to_ulaw, ulaw_to_pcm
from tests.unit.audio.signals import inner, sinad_db, to_samples, tone

ULAW = AudioFormat.parse("ulaw_8000")
PCM_8000 = AudioFormat.pcm(8000)
PCM_16000 = AudioFormat.pcm(16000)
BOTH_WAYS = [
    pair
    for rate_hz, name in itertools.product(LINE_RATES_HZ, AGENT_FORMATS)
    for pair in itertools.permutations((AudioFormat.pcm(rate_hz), AudioFormat.parse(name)))
]


@pytest.mark.parametrize(("src", "dst"), BOTH_WAYS, ids=lambda value: value.name)
def test_between_every_line_and_every_agent(src: AudioFormat, dst: AudioFormat) -> None:
    pcm = tone(1000, src.rate_hz, 0.5)
    converter = Converter(src, dst)
    data = pcm_to_ulaw(pcm) if src is ULAW or src == ULAW else pcm
    output = converter.process(data) + converter.flush()
    assert abs(dst.duration_ms(len(output)) - 500) < 0.1
    heard = to_samples(ulaw_to_pcm(output) if dst == ULAW else output)
    floor_db = 35 if ULAW in (src, dst) else 80
    assert sinad_db(inner(heard, dst.rate_hz), 1000, dst.rate_hz) > floor_db


@pytest.mark.parametrize("same", [PCM_8000, ULAW], ids=lambda value: value.name)
def test_equal_formats_pass_through_uncopied(same: AudioFormat) -> None:
    converter = Converter(same, same)
    data = bytes(range(160))
    converter.prime()
    assert converter.process(data) is data
    assert converter.flush() == b""
    assert converter.lookahead_samples == 0


def test_half_a_sample_is_kept_on_the_way_through() -> None:
    converter = Converter(PCM_8000, PCM_8000)
    assert converter.process(b"abc") == b"ab"
    assert converter.flush() == b""
    assert converter.process(b"def") == b"cdef"
    assert converter.process(b"g") == b""
    converter.reset()
    assert converter.process(b"hi") == b"hi"


def test_half_a_sample_is_kept_before_encoding() -> None:
    pcm = tone(440, 8000, 0.02)
    converter = Converter(PCM_8000, ULAW)
    assert converter.process(pcm[:101]) + converter.process(pcm[101:]) == pcm_to_ulaw(pcm)


def test_ulaw_of_odd_size_is_decoded_whole() -> None:
    converter = Converter(ULAW, PCM_8000)
    converter.reset()
    assert converter.process(b"\xff\x80\x00") == np.array([0, 32124, -32124], "<i2").tobytes()


def test_a_primed_converter_gives_its_share_at_once_and_late_by_its_delay() -> None:
    converter = Converter(PCM_8000, PCM_16000)
    converter.process(tone(440, 8000, 0.01))
    converter.prime()
    click = np.zeros(160, "<i2")
    click[50] = 10000
    output = to_samples(converter.process(click.tobytes()))
    assert len(output) == 320
    assert int(np.argmax(output)) == 2 * (50 + converter.lookahead_samples)
    assert converter.lookahead_samples * 1000 / 8000 == 3


def test_a_reset_converter_begins_anew() -> None:
    pcm = tone(440, 8000, 0.05)
    fresh, used = Converter(PCM_8000, PCM_16000), Converter(PCM_8000, PCM_16000)
    used.process(pcm[:333])
    used.reset()
    assert used.process(pcm) == fresh.process(pcm)
