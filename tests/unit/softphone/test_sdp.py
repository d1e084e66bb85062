from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.softphone.codec import PCMA, PCMU, codecs_named
from lab.softphone.errors import SdpError
from lab.softphone.fields import Address
from lab.softphone.sdp import Direction, LocalMedia, Media, Session

HERE = Address("127.0.0.1", 40000)
THERE = Address("127.0.0.2", 50000)

ASTERISK = b"""v=0
o=- 1783 2 IN IP4 127.0.0.2
s=Asterisk
c=IN IP4 127.0.0.2
t=0 0
m=audio 50000 RTP/AVP 8 0 101
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000/1
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=ptime:20
a=maxptime:140
a=sendrecv
"""


def session(text: bytes = ASTERISK, **changes: bytes) -> Session:
    for old, new in changes.items():
        text = text.replace(old.encode(), new)
    return Session.parse(text)


def test_an_offer_and_its_answer() -> None:
    caller, called = LocalMedia(HERE, (PCMA, PCMU)), LocalMedia(THERE)
    answer, theirs = called.answer(Session.parse(caller.offer().encode()))
    ours = caller.conclude(Session.parse(answer.encode()))
    assert (ours.remote, theirs.remote) == (THERE, HERE)
    assert ours.codec == theirs.codec == PCMA
    assert ours.event_payload_type == theirs.event_payload_type == 101
    assert ours.direction is theirs.direction is Direction.BOTH
    assert ours.may_send


@given(
    st.lists(st.sampled_from(["PCMU", "PCMA"]), min_size=1, unique=True),
    st.sampled_from([10, 20, 30]),
    st.sampled_from(Direction),
    st.booleans(),
)
def test_descriptions_round_trip(
    names: list[str], ptime_ms: int, direction: Direction, events: bool
) -> None:
    media = LocalMedia(HERE, codecs_named(*names), ptime_ms, direction, events=events)
    offer = media.offer()
    assert Session.parse(offer.encode()) == offer


def test_asterisk_is_understood() -> None:
    answer, agreement = LocalMedia(HERE).answer(session())
    assert agreement.codec == PCMA
    assert agreement.remote == THERE
    assert answer.media[0].formats == ("8", "101")


def test_numbers_of_their_own() -> None:
    theirs = session(
        ASTERISK.replace(b"8 0 101", b"99 98 x 200").replace(b"rtpmap:0", b"rtpmap:99"),
        **{"rtpmap:101": b"rtpmap:98"},
    )
    agreement = LocalMedia(HERE).conclude(theirs)
    assert (agreement.payload_type, agreement.event_payload_type) == (99, 98)
    assert agreement.codec == PCMU


def test_static_numbers_need_no_map() -> None:
    plain = Session("o", "127.0.0.2", media=(Media("audio", 5, "RTP/AVP", ("3", "0")),))
    agreement = LocalMedia(HERE).conclude(plain)
    assert (agreement.codec, agreement.event_payload_type) == (PCMU, None)


def test_no_events_when_not_wanted() -> None:
    local = LocalMedia(HERE, events=False)
    answer, agreement = local.answer(session())
    assert agreement.event_payload_type is None
    assert answer.media[0].formats == ("8",)


def test_other_streams_are_refused_in_their_place() -> None:
    video = b"m=video 6000 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    second = b"m=audio 7000 RTP/AVP 0\n"
    before, line, after = ASTERISK.partition(b"m=audio")
    answer, agreement = LocalMedia(HERE).answer(
        Session.parse(before + video + line + after + second)
    )
    assert [(media.kind, media.port) for media in answer.media] == [
        ("video", 0),
        ("audio", 40000),
        ("audio", 0),
    ]
    assert agreement.remote == THERE


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"8 0 101", b"3 101"),
        (b"m=audio 50000", b"m=audio 0"),
        (b"RTP/AVP", b"RTP/SAVP"),
        (b"c=IN IP4 127.0.0.2\n", b""),
        (b"m=audio", b"m=text"),
    ],
)
def test_nothing_in_common(old: bytes, new: bytes) -> None:
    theirs = Session.parse(ASTERISK.replace(old, new))
    with pytest.raises(SdpError):
        LocalMedia(HERE).answer(theirs)
    with pytest.raises(SdpError):
        LocalMedia(HERE).conclude(theirs)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"v=1\n",
        b"v=0\ns=-\n",
        b"v=0\no=x\nc=IN IP6 ::1\n",
        b"v=0\no=x\nm=audio\n",
        b"v=0\no=x\nm=audio 65536 RTP/AVP 0\n",
    ],
)
def test_no_description(body: bytes) -> None:
    with pytest.raises(SdpError):
        Session.parse(body)


def test_an_answer_without_streams() -> None:
    with pytest.raises(SdpError):
        LocalMedia(HERE).conclude(Session("o"))


@pytest.mark.parametrize(
    ("ours", "theirs", "agreed"),
    [
        (Direction.BOTH, "sendrecv", Direction.BOTH),
        (Direction.BOTH, "sendonly", Direction.RECEIVE),
        (Direction.BOTH, "recvonly", Direction.SEND),
        (Direction.BOTH, "inactive", Direction.NONE),
        (Direction.SEND, "recvonly", Direction.SEND),
        (Direction.SEND, "sendrecv", Direction.SEND),
        (Direction.RECEIVE, "recvonly", Direction.NONE),
    ],
)
def test_directions(ours: Direction, theirs: str, agreed: Direction) -> None:
    media = LocalMedia(HERE, direction=ours)
    assert media.conclude(session(sendrecv=theirs.encode())).direction is agreed


def test_a_direction_for_the_whole_session() -> None:
    text = ASTERISK.replace(b"a=sendrecv\n", b"").replace(b"t=0 0\n", b"t=0 0\na=sendonly\n")
    assert LocalMedia(HERE).conclude(Session.parse(text)).direction is Direction.RECEIVE
    bare = ASTERISK.replace(b"a=sendrecv\n", b"")
    assert LocalMedia(HERE).conclude(Session.parse(bare)).direction is Direction.BOTH


def test_the_old_way_to_hold() -> None:
    text = ASTERISK.replace(b"c=IN IP4 127.0.0.2", b"c=IN IP4 0.0.0.0")
    agreement = LocalMedia(HERE).conclude(Session.parse(text))
    assert agreement.direction is Direction.RECEIVE
    assert not agreement.may_send


def test_an_address_of_the_stream_wins() -> None:
    text = ASTERISK.replace(b"a=ptime:20", b"c=IN IP4 127.0.0.7/127\na=ptime:30")
    assert LocalMedia(HERE).conclude(Session.parse(text)).remote.host == "127.0.0.7"


@pytest.mark.parametrize(
    ("line", "agreed"), [(b"ptime:30", 30), (b"ptime:60", 10), (b"ptime", 10), (b"x", 10)]
)
def test_the_caller_chooses_the_packet_length_where_we_can_send_it(
    line: bytes, agreed: int
) -> None:
    theirs = Session.parse(ASTERISK.replace(b"ptime:20", line))
    local = LocalMedia(HERE, ptime_ms=10)
    answer, agreement = local.answer(theirs)
    assert agreement.ptime_ms == agreed
    assert answer.media[0].values("ptime") == [str(agreed)]
    assert local.conclude(theirs).ptime_ms == 10


def test_a_change_is_a_new_version() -> None:
    media = LocalMedia(HERE)
    held = media.changed(Direction.SEND, 30)
    assert (held.version, held.direction, held.ptime_ms) == (2, Direction.SEND, 30)
    assert replace(held, version=1, direction=Direction.BOTH, ptime_ms=20) == media


def test_what_the_phone_does_not_speak() -> None:
    with pytest.raises(ValueError, match="ptime"):
        LocalMedia(HERE, ptime_ms=60)
    with pytest.raises(ValueError, match="G729"):
        codecs_named("PCMU", "G729")
    with pytest.raises(ValueError, match="PCMU and PCMA"):
        codecs_named()
