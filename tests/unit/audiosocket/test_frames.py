from __future__ import annotations

from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiosocket.frames import (
    FORMATS,
    SLIN,
    SLIN16,
    SLIN24,
    SLIN44,
    SLIN192,
    Audio,
    Decoder,
    Dtmf,
    Error,
    Hangup,
    Identify,
    InvalidDigit,
    Kind,
    Message,
    NotIdentified,
    ProtocolError,
    SlinFormat,
    UnknownKind,
    WrongLength,
    audio_header,
    encode,
)

ID = UUID("40325ec2-5efd-4bd3-805f-53576e581d13")
AUDIO_KINDS = [kind for kind in Kind if kind.is_audio]

audio = st.builds(
    Audio,
    st.sampled_from(AUDIO_KINDS),
    st.binary(min_size=1, max_size=400).map(lambda half: half + half),
)
messages = st.one_of(
    audio,
    st.just(Hangup()),
    st.builds(Identify, st.uuids()),
    st.builds(Dtmf, st.sampled_from("0123456789ABCD*#")),
    st.builds(Error, st.integers(0, 255)),
)
streams = st.lists(messages, max_size=12)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]


def decode_all(decoder: Decoder, pieces: list[bytes]) -> tuple[list[Message], ProtocolError | None]:
    found: list[Message] = []
    for piece in pieces:
        try:
            found += decoder.feed(piece)
        except ProtocolError as error:
            return [*found, *error.before], error
    return found, None


@pytest.mark.parametrize(
    ("message", "data"),
    [
        (Hangup(), b"\x00\x00\x00"),
        (Identify(ID), b"\x01\x00\x10" + ID.bytes),
        (Dtmf("#"), b"\x03\x00\x01#"),
        (Audio(Kind.SLIN8, b"\x01\x02" * 160), b"\x10\x01\x40" + b"\x01\x02" * 160),
        (Audio(Kind.SLIN192, b"\x01\x02" * 3840), b"\x18\x1e\x00" + b"\x01\x02" * 3840),
        (Error(4), b"\xff\x00\x01\x04"),
    ],
)
def test_wire_format(message: Message, data: bytes) -> None:
    assert encode(message) == data
    assert Decoder(expect_identify=False).feed(data) == [message]


@given(streams, st.lists(st.integers(0)))
def test_any_split_gives_the_same_messages(stream: list[Message], places: list[int]) -> None:
    data = b"".join(encode(message) for message in stream)
    decoder = Decoder(expect_identify=False)
    assert decode_all(decoder, cut(data, places)) == (stream, None)
    assert decoder.buffered == 0


@given(streams, st.binary(max_size=12), st.lists(st.integers(0)), st.booleans())
def test_any_split_gives_the_same_error(
    stream: list[Message], garbage: bytes, places: list[int], server: bool
) -> None:
    data = b"".join(encode(message) for message in stream) + garbage
    whole, fault = decode_all(Decoder(server), [data])
    pieces, same_fault = decode_all(Decoder(server), cut(data, places))
    assert pieces == whole
    assert (type(fault), str(fault)) == (type(same_fault), str(same_fault))


def test_byte_by_byte() -> None:
    stream: list[Message] = [Identify(ID), Audio(Kind.SLIN16, bytes(640)), Dtmf("5")]
    data = b"".join(encode(message) for message in stream)
    decoder = Decoder()
    assert decode_all(decoder, [data[i : i + 1] for i in range(len(data))]) == (stream, None)


@pytest.mark.parametrize("size", [160, 320, 480, 640, 65534])
def test_audio_of_any_duration(size: int) -> None:
    decoder = Decoder(expect_identify=False)
    message = Audio(Kind.SLIN8, bytes(size))
    data = encode(message)
    assert decoder.feed(data[:100]) == []
    assert decoder.buffered == 100
    assert decoder.feed(data[100:]) == [message]


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (b"\x02", UnknownKind, "kind 0x02 is unknown"),
        (b"\x0f", UnknownKind, "kind 0x0f is unknown"),
        (b"\x19", UnknownKind, "kind 0x19 is unknown"),
        (b"\xfe", UnknownKind, "kind 0xfe is unknown"),
        (b"GET / HTTP/1.1\r\n", UnknownKind, "kind 0x47 is unknown"),
        (b"\x00\x00\x01", WrongLength, "kind 0x00: 1 bytes, not 0"),
        (b"\x01\x00\x0f", WrongLength, "kind 0x01: 15 bytes, not 16"),
        (b"\x03\x00\x00", WrongLength, "kind 0x03: 0 bytes, not 1"),
        (b"\xff\x00\x02", WrongLength, "kind 0xff: 2 bytes, not 1"),
        (b"\x10\x00\x00", WrongLength, "kind 0x10: 0 bytes are no samples"),
        (b"\x12\x01\x41", WrongLength, "kind 0x12: 321 bytes are no samples"),
        (b"\x03\x00\x01E", InvalidDigit, "byte 0x45 is no DTMF digit"),
        (b"\x03\x00\x01\xdf", InvalidDigit, "byte 0xdf is no DTMF digit"),
    ],
)
def test_faults_are_refused_as_soon_as_they_show(
    data: bytes, error: type[ProtocolError], text: str
) -> None:
    decoder = Decoder(expect_identify=False)
    with pytest.raises(error, match=text):
        decoder.feed(data)


@pytest.mark.parametrize("first", [Hangup(), Dtmf("1"), Audio(Kind.SLIN8, bytes(320)), Error(1)])
def test_a_server_wants_the_uuid_first(first: Message) -> None:
    decoder = Decoder()
    with pytest.raises(NotIdentified, match="came before the UUID"):
        decoder.feed(encode(first)[:1])


def test_an_error_is_final_and_loses_nothing() -> None:
    decoder = Decoder()
    with pytest.raises(UnknownKind) as caught:
        decoder.feed(encode(Identify(ID)) + encode(Dtmf("1")) + b"\x77")
    assert caught.value.before == (Identify(ID), Dtmf("1"))
    assert caught.value.reason == "unknown_kind"
    for _ in range(2):
        with pytest.raises(UnknownKind, match="kind 0x77 is unknown") as again:
            decoder.feed(encode(Dtmf("2")))
        assert again.value.before == ()


def test_lower_case_digits_are_the_same_keys() -> None:
    assert Decoder(expect_identify=False).feed(b"\x03\x00\x01d") == [Dtmf("D")]


@pytest.mark.parametrize(
    "message",
    [
        Audio(Kind.SLIN8, b""),
        Audio(Kind.SLIN8, bytes(321)),
        Audio(Kind.SLIN8, bytes(65536)),
        Audio(Kind.DTMF, bytes(320)),
        Dtmf("12"),
        Dtmf("d"),
        Dtmf(""),
        Error(256),
    ],
)
def test_what_the_protocol_cannot_carry_is_not_encoded(message: Message) -> None:
    with pytest.raises(ValueError, match=r".+"):
        encode(message)


@given(st.sampled_from(AUDIO_KINDS), st.integers(1, 32767).map(lambda samples: samples * 2))
def test_an_audio_header_stands_for_its_payload(kind: Kind, length: int) -> None:
    assert audio_header(kind, length) == encode(Audio(kind, bytes(length)))[:3]


@pytest.mark.parametrize(
    ("fmt", "frame_bytes"),
    [(SLIN, 320), (SLIN16, 640), (SLIN24, 960), (SLIN44, 1764), (SLIN192, 7680)],
)
def test_a_frame_is_20_ms(fmt: SlinFormat, frame_bytes: int) -> None:
    assert fmt.frame_bytes == frame_bytes
    assert fmt.frame_samples * 50 == fmt.rate_hz


def test_formats_are_found_by_name() -> None:
    assert SlinFormat.by_name("slin") is SLIN
    assert [SlinFormat.by_name(fmt.name) for fmt in FORMATS] == list(FORMATS)
    assert [kind for kind in Kind if kind.is_audio] == [fmt.kind for fmt in FORMATS]


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="no AudioSocket format 'ulaw'; there are slin, slin12"):
        SlinFormat.by_name("ulaw")
