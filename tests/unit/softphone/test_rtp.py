from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.softphone.errors import RtpError
from lab.softphone.rtp import DIGITS, DigitReceiver, RtpPacket, TelephoneEvent, unwrap

packets = st.builds(
    RtpPacket,
    payload_type=st.integers(0, 63) | st.integers(96, 127),
    sequence=st.integers(0, 2**16 - 1),
    timestamp=st.integers(0, 2**32 - 1),
    ssrc=st.integers(0, 2**32 - 1),
    payload=st.binary(max_size=300),
    marker=st.booleans(),
)


@given(packets)
def test_packets_round_trip(packet: RtpPacket) -> None:
    assert RtpPacket.parse(packet.encode()) == packet


@given(st.binary(max_size=60))
def test_garbage_is_refused_or_read(data: bytes) -> None:
    try:
        packet = RtpPacket.parse(data)
    except RtpError:
        return
    assert len(packet.payload) <= len(data) - 12


def test_sources_extension_and_padding_are_skipped() -> None:
    header = struct.pack("!BBHII", 0x80 | 0x20 | 0x10 | 2, 0, 1, 2, 3)
    data = header + bytes(8) + b"\xbe\xde\x00\x01" + bytes(4) + b"voice" + b"\0\0\x03"
    assert RtpPacket.parse(data).payload == b"voice"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(12),
        b"\x80\xc8" + bytes(10),
        b"\x90\x00" + bytes(10),
        b"\x8f\x00" + bytes(10),
        b"\xa0\x00" + bytes(10) + b"\x00",
        b"\xa0\x00" + bytes(10) + b"\x09",
    ],
)
def test_refused(data: bytes) -> None:
    with pytest.raises(RtpError):
        RtpPacket.parse(data)


@given(st.integers(0, 15), st.booleans(), st.integers(0, 65535), st.integers(0, 63))
def test_events_round_trip(code: int, end: bool, duration: int, volume: int) -> None:
    event = TelephoneEvent(code, end, duration, volume)
    assert TelephoneEvent.parse(event.encode()) == event
    assert event.digit == DIGITS[code]


def test_events_that_are_no_digits() -> None:
    assert TelephoneEvent(16, False, 0).digit is None
    with pytest.raises(RtpError):
        TelephoneEvent.parse(b"\0\0\0")


def event(digit: str, timestamp: int, *, end: bool, duration: int, ssrc: int = 1) -> RtpPacket:
    payload = TelephoneEvent(DIGITS.index(digit), end, duration).encode()
    return RtpPacket(101, 0, timestamp, ssrc, payload)


def heard(receiver: DigitReceiver, *arrived: RtpPacket) -> list[tuple[str, float]]:
    return [
        (digit.digit, digit.duration_ms)
        for packet in arrived
        for digit in receiver.receive(packet, 0.0)
    ]


def test_one_digit_comes_of_many_packets() -> None:
    receiver = DigitReceiver(8000)
    press = [event("5", 100, end=False, duration=160 * n) for n in range(1, 5)]
    ends = [event("5", 100, end=True, duration=800)] * 3
    assert heard(receiver, *press, *ends) == [("5", 100.0)]
    assert receiver.flush() == []


def test_the_same_digit_twice() -> None:
    receiver = DigitReceiver(8000)
    first, second = (event("5", ts, end=True, duration=80) for ts in (100, 2000))
    assert heard(receiver, first, first, second, second) == [("5", 10.0), ("5", 10.0)]


def test_a_digit_whose_ends_are_lost() -> None:
    receiver = DigitReceiver(8000)
    first = event("1", 100, end=False, duration=160)
    second = event("2", 900, end=False, duration=80)
    assert heard(receiver, first, second) == [("1", 20.0)]
    assert [digit.digit for digit in receiver.flush()] == ["2"]


def test_packets_of_an_older_digit_come_too_late() -> None:
    receiver = DigitReceiver(8000)
    first = event("1", 100, end=True, duration=160)
    second = event("2", 900, end=False, duration=80)
    assert heard(receiver, first, second, first) == [("1", 20.0)]
    assert heard(receiver, event("3", 50, end=True, duration=8, ssrc=2)) == [
        ("2", 10.0),
        ("3", 1.0),
    ]


def test_a_packet_overtaken_within_a_digit_does_not_shorten_it() -> None:
    receiver = DigitReceiver(8000)
    late = event("1", 100, end=False, duration=160)
    assert heard(receiver, event("1", 100, end=False, duration=320), late) == []
    assert [digit.duration_ms for digit in receiver.flush()] == [40.0]


def test_other_events_are_no_digits() -> None:
    receiver = DigitReceiver(8000)
    flash = RtpPacket(101, 0, 0, 1, TelephoneEvent(16, True, 80).encode())
    assert heard(receiver, flash) == []


@given(st.integers(0, 2**40), st.integers(-(2**15) + 1, 2**15 - 1))
def test_unwrapping_finds_the_nearest_number(last: int, step: int) -> None:
    assert unwrap(last, (last + step) % 2**16, 16) == last + step
