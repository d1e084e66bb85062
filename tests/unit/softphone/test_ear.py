from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.softphone.codec import PCMA, PCMU
from lab.softphone.ear import Ear
from lab.softphone.rtp import RtpPacket, TelephoneEvent
from lab.softphone.sounds import FLOOR_DBFS, tone

TONE = PCMU.encode(tone(400, 20, -10))
QUIET = PCMU.encode(bytes(320))


def ear(**options: int) -> Ear:
    listening = Ear(**options)
    listening.expect(PCMU, 0, 101)
    return listening


def packet(
    index: int, payload: bytes = TONE, *, payload_type: int = 0, ssrc: int = 1, start: int = 0
) -> bytes:
    return RtpPacket(
        payload_type, (start + index) & 0xFFFF, index * 160 & 0xFFFFFFFF, ssrc, payload
    ).encode()


def test_sound_is_put_together() -> None:
    listening = ear()
    for index in range(3):
        arrival = listening.hear(packet(index), 1.0 + index * 0.02)
        assert arrival is not None
        assert arrival == listening.last
    assert listening.pcm() == PCMU.decode(TONE) * 3
    stats = listening.stats()
    assert (stats.packets, stats.lost, stats.duplicated, stats.out_of_order) == (3, 0, 0, 0)
    assert stats.gap_p50_ms == pytest.approx(20)
    assert stats.jitter_ms == pytest.approx(0, abs=1e-6)


def test_an_ear_that_heard_nothing() -> None:
    listening = ear()
    assert (listening.pcm(), listening.last, listening.arrivals) == (b"", None, ())
    assert listening.stats().packets == listening.stats().lost == 0
    assert listening.level(100, 5.0) == FLOOR_DBFS
    assert listening.sound_at() is None
    assert listening.last_sound_at() is None


def test_what_is_missing_is_silence() -> None:
    listening = ear()
    for index in (0, 3):
        listening.hear(packet(index), 1.0 + index * 0.02)
    pcm = PCMU.decode(TONE)
    assert listening.pcm() == pcm + bytes(640) + pcm
    assert listening.stats().lost == 2
    assert listening.stats().gap_max_ms == pytest.approx(60)


@given(st.permutations(range(12)), st.integers(0, 65535))
def test_order_does_not_matter(order: list[int], start: int) -> None:
    listening = ear()
    payloads = [bytes([index] * 160) for index in range(12)]
    for place, index in enumerate(order):
        listening.hear(packet(index, payloads[index], start=start), 1.0 + place * 0.02)
    assert listening.pcm() == b"".join(PCMU.decode(payload) for payload in payloads)
    stats = listening.stats()
    assert (stats.packets, stats.lost, stats.duplicated) == (12, 0, 0)
    assert (stats.out_of_order == 0) == (list(order) == sorted(order))


@given(st.integers(0, 1000))
def test_loss_and_repetition_are_counted(seed: int) -> None:
    rng = random.Random(seed)
    listening = ear()
    copies = [1, *(rng.choice([0, 1, 1, 2]) for _ in range(50)), 1]
    for index, count in enumerate(copies):
        for _ in range(count):
            listening.hear(packet(index, start=65500), 1.0 + index * 0.02)
    stats = listening.stats()
    assert stats.lost == copies.count(0)
    assert stats.duplicated == copies.count(2)
    assert stats.packets == len(copies) - stats.lost


def test_a_long_call_passes_every_wrap() -> None:
    listening = ear(max_packets=10)
    count = 70_000
    for index in range(count):
        timestamp = (2**32 - 100 + index * 160) & 0xFFFFFFFF
        quiet = RtpPacket(0, index & 0xFFFF, timestamp, 1, QUIET)
        listening.hear(quiet.encode(), 1.0 + index * 0.02)
    assert (listening.stats().packets, listening.stats().lost) == (count, 0)
    assert len(listening.arrivals) == 10
    assert listening.arrivals[-1].position == (count - 1) * 160


def test_another_source_goes_on_by_the_clock() -> None:
    listening = ear()
    listening.hear(packet(0), 1.0)
    listening.hear(packet(500, ssrc=2, start=999), 1.1)
    assert [arrival.position for arrival in listening.arrivals] == [0, 800]
    assert listening.stats().lost == 0
    assert listening.stats().packets == 2


def test_a_timeline_that_jumps_goes_on_by_the_clock() -> None:
    listening = ear()
    listening.hear(packet(0), 1.0)
    far = RtpPacket(0, 1, 2**31 - 5, 1, TONE)
    listening.hear(far.encode(), 1.02)
    listening.hear(RtpPacket(0, 2, far.timestamp + 160, 1, TONE).encode(), 1.04)
    assert [arrival.position for arrival in listening.arrivals] == [0, 160, 320]


def test_levels_and_onsets() -> None:
    listening = ear()
    for index, payload in enumerate([QUIET, QUIET, TONE, TONE, QUIET]):
        listening.hear(packet(index, payload), 1.0 + index * 0.02)
    assert listening.sound_at() == pytest.approx(1.04)
    assert listening.last_sound_at() == pytest.approx(1.06)
    assert listening.sound_at(since=1.05) == pytest.approx(1.06)
    assert listening.last_sound_at(since=1.07) is None
    assert listening.last_sound_at(threshold_dbfs=0) is None
    assert listening.level(30, 1.085) == pytest.approx(-13.0, abs=0.5)
    assert listening.level(5, 1.08) == FLOOR_DBFS
    assert listening.level(1000, 1.08) == pytest.approx(-14, abs=0.5)


def test_digits_are_heard_and_counted_but_are_no_sound() -> None:
    listening = ear()
    listening.hear(packet(0), 1.0)
    press = TelephoneEvent(1, True, 400).encode()
    for index in (1, 2, 3):
        event = RtpPacket(101, index, 160, 1, press)
        assert listening.hear(event.encode(), 1.0 + index * 0.02) is None
    listening.hear(packet(4), 1.08)
    assert [digit.digit for digit in listening.digits] == ["1"]
    assert listening.stats().lost == 0
    assert len(listening.arrivals) == 2
    unfinished = RtpPacket(101, 5, 900, 1, TelephoneEvent(2, False, 80).encode())
    listening.hear(unfinished.encode(), 1.1)
    listening.finish()
    assert [digit.digit for digit in listening.digits] == ["1", "2"]


def test_what_nobody_agreed_on() -> None:
    listening = ear()
    assert listening.hear(b"garbage", 1.0) is None
    assert listening.hear(packet(0, payload_type=96), 1.0) is None
    assert listening.hear(RtpPacket(101, 0, 0, 1, b"\0").encode(), 1.0) is None
    assert (listening.malformed, listening.unexpected) == (2, 1)


def test_both_codecs_of_a_call_that_changed() -> None:
    listening = ear()
    listening.hear(packet(0), 1.0)
    listening.expect(PCMA, 8, None)
    alaw = PCMA.encode(tone(400, 20))
    arrival = listening.hear(packet(1, alaw, payload_type=8), 1.02)
    assert arrival is not None
    assert arrival.pcm == PCMA.decode(alaw)
    assert listening.hear(packet(2), 1.04) is not None


@given(st.lists(st.binary(max_size=40)))
def test_garbage_never_raises(datagrams: list[bytes]) -> None:
    listening = ear()
    for index, data in enumerate(datagrams):
        listening.hear(data, float(index))
    listening.pcm()
    listening.stats()
