from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.softphone.codec import PCMA, PCMU
from lab.softphone.errors import SoftphoneError
from lab.softphone.mouth import Mouth, MouthFull, Utterance
from lab.softphone.rtp import RtpPacket, TelephoneEvent

QUIET = PCMU.encode(bytes(320))


def mouth(**options: int) -> Mouth:
    speaking = Mouth(ssrc=7, **options)
    speaking.configure(PCMU, 0, 20, 101)
    speaking.paused = False
    return speaking


def ticks(speaking: Mouth, count: int) -> list[RtpPacket]:
    packets = [speaking.tick(index * 0.02) for index in range(count)]
    return [packet for packet in packets if packet is not None]


def loud(samples: int) -> bytes:
    return b"\x00\x20" * samples


def test_silence_is_sent_too() -> None:
    packets = ticks(mouth(sequence=65535, timestamp=2**32 - 160), 3)
    assert [packet.payload for packet in packets] == [QUIET] * 3
    assert [packet.sequence for packet in packets] == [65535, 0, 1]
    assert [packet.timestamp for packet in packets] == [2**32 - 160, 0, 160]
    assert [packet.marker for packet in packets] == [True, False, False]


def test_nothing_is_sent_before_anything_is_agreed() -> None:
    speaking = Mouth(ssrc=7)
    speaking.paused = False
    assert ticks(speaking, 3) == []


@given(st.lists(st.integers(0, 500), max_size=12), st.sampled_from([10, 20, 30]))
def test_speech_leaves_whole_and_without_a_seam(lengths: list[int], ptime_ms: int) -> None:
    speaking = mouth()
    speaking.configure(PCMA, 8, ptime_ms, None)
    said = b"".join(bytes([index + 1, 64]) * length for index, length in enumerate(lengths))
    offset = 0
    for length in lengths:
        speaking.say(Utterance(said[offset : offset + 2 * length]))
        offset += 2 * length
    packets = ticks(speaking, len(said) // (16 * ptime_ms) + 2)
    sent = b"".join(packet.payload for packet in packets)
    assert len(packets[0].payload) == 8 * ptime_ms
    assert sent.startswith(PCMA.encode(said))
    assert sent[len(said) // 2 :].strip(PCMA.encode(b"\0\0")) == b""
    assert speaking.pending_ms == 0


def test_an_utterance_knows_its_time() -> None:
    speaking = mouth()
    done: list[str] = []
    first, second = Utterance(loud(400), lambda: done.append("first")), Utterance(loud(10))
    speaking.say(first)
    speaking.say(second)
    assert speaking.pending_ms == pytest.approx(51.25)
    ticks(speaking, 3)
    assert (first.started_at, first.finished_at) == (0.0, 0.04)
    assert (second.started_at, second.finished_at, second.dropped) == (0.04, 0.04, False)
    assert done == ["first"]


def test_what_is_queued_can_be_dropped() -> None:
    speaking = mouth()
    utterance = Utterance(loud(400))
    speaking.say(utterance)
    ticks(speaking, 1)
    speaking.clear(9.0)
    assert (utterance.dropped, utterance.finished_at) == (True, 9.0)
    assert ticks(speaking, 1)[0].payload == QUIET


def test_the_queue_is_bounded() -> None:
    speaking = mouth(max_queue_ms=40)
    speaking.say(Utterance(loud(320)))
    with pytest.raises(MouthFull):
        speaking.say(Utterance(loud(1)))
    with pytest.raises(ValueError, match="half"):
        speaking.say(Utterance(b"\0"))


def test_muting_stops_packets_but_not_the_clock() -> None:
    speaking = mouth()
    utterance = Utterance(loud(160))
    ticks(speaking, 1)
    speaking.muted = True
    speaking.say(utterance)
    assert ticks(speaking, 5) == []
    assert utterance.started_at is None
    speaking.muted = False
    packet = ticks(speaking, 1)[0]
    assert (packet.sequence, packet.timestamp, packet.marker) == (1, 960, True)
    assert packet.payload == PCMU.encode(loud(160))


def test_silence_suppression() -> None:
    speaking = mouth()
    speaking.suppress_silence = True
    assert ticks(speaking, 2) == []
    speaking.say(Utterance(loud(200)))
    packets = ticks(speaking, 4)
    assert [(packet.timestamp, packet.marker) for packet in packets] == [(320, True), (480, False)]


def test_missed_packets_leave_a_gap_in_time_only() -> None:
    speaking = mouth()
    ticks(speaking, 1)
    speaking.skip(3)
    packet = ticks(speaking, 1)[0]
    assert (packet.sequence, packet.timestamp, packet.marker) == (1, 640, True)


def test_a_digit_as_rfc_4733_has_it() -> None:
    speaking = mouth()
    done: list[str] = []
    speaking.press("#", press_ms=50, gap_ms=40, on_finished=lambda: done.append("pressed"))
    speaking.say(Utterance(loud(160)))
    packets = ticks(speaking, 7)
    digits, sound = packets[:5], packets[5:]
    events = [TelephoneEvent.parse(packet.payload) for packet in digits]
    assert {packet.payload_type for packet in digits} == {101}
    assert {packet.timestamp for packet in digits} == {0}
    assert [packet.marker for packet in digits] == [True, False, False, False, False]
    assert {event.digit for event in events} == {"#"}
    assert [event.duration for event in events] == [160, 320, 400, 400, 400]
    assert [event.end for event in events] == [False, False, True, True, True]
    assert [(packet.timestamp, packet.payload_type) for packet in sound] == [(800, 0), (960, 0)]
    assert sound[0].payload == PCMU.encode(loud(160))
    assert done == []
    ticks(speaking, 1)
    assert done == ["pressed"]
    sequences = [packet.sequence for packet in packets]
    assert all(second == first + 1 for first, second in pairwise(sequences))


def test_several_digits() -> None:
    speaking = mouth()
    speaking.press("1a", press_ms=20, gap_ms=0)
    packets = ticks(speaking, 7)
    assert [packet.payload_type for packet in packets] == [101] * 6 + [0]
    assert {packet.timestamp for packet in packets[:6]} == {0, 480}
    assert TelephoneEvent.parse(packets[5].payload).digit == "A"


def test_digits_that_cannot_be_pressed() -> None:
    speaking = mouth(max_digits=2)
    for digits, press_ms, gap_ms in (("", 100, 0), ("x", 100, 0), ("1", 0, 0), ("1", 8001, 0)):
        with pytest.raises(ValueError, match="digit"):
            speaking.press(digits, press_ms=press_ms, gap_ms=gap_ms)
    with pytest.raises(ValueError, match="digit"):
        speaking.press("1", gap_ms=-1)
    with pytest.raises(MouthFull):
        speaking.press("123")
    speaking.configure(PCMU, 0, 20, None)
    with pytest.raises(SoftphoneError, match="no telephone events"):
        speaking.press("1")
