"""What is sent to chan_websocket and when, by the clock of a test."""

from __future__ import annotations

import orjson
import pytest

from ari_app.line.asterisk.chan_websocket import (
    FLUSH,
    OPTIONS,
    REPORT_DRAINED,
    Complaint,
    Drained,
    Feed,
    Key,
    MarkReached,
    Message,
    Started,
    Stop,
    mark,
    pieces,
    read_event,
)

FRAME = b"\1" * 320


class Play:
    """A feed, and an Asterisk that plays what comes of it in its own time.

    Attributes:
        now: The time.
        ahead: What Asterisk has and has not played: frames and marks.
        played: All that it has played; None where it had nothing.
        plays: Whether it does.
        sent: How many messages came.
        punctual: For how many ticks we have not been held up.
    """

    def __init__(self) -> None:
        self.feed = Feed(len(FRAME))
        self.now = 100.0
        self.ahead: list[bytes | str] = []
        self.played: list[bytes | None] = []
        self.plays = True
        self.sent = 0
        self.punctual = 0

    def sends(self, messages: list[Message]) -> None:
        for message in messages:
            self.sent += 1
            if message == FLUSH:
                self.ahead.clear()
            elif isinstance(message, str):
                self.ahead.append(orjson.loads(message)["correlation_id"])
            else:
                assert len(message) % len(FRAME) == 0, "whole frames only"
                self.ahead += [FRAME if message[:1] == FRAME[:1] else b""] * (len(message) // 320)

    def passes(self, ticks: int, *, says: int = 0, we: bool = True) -> None:
        """Let time pass; `says` is how many frames the agent has to say, `we` whether we run."""
        for _ in range(ticks):
            self.now += 0.02
            if self.plays:
                self._play()
            if not we:
                self.punctual = 0
                continue
            feed = self.feed
            feed.look(self.now, punctual=self.punctual > 1)
            self.punctual += 1
            if says and (room := min(says, feed.room(self.now))):
                self.sends(feed.say([FRAME] * room, self.now))
                says -= room
            elif not says:
                self.sends(feed.pause(self.now))

    def _play(self) -> None:
        while self.ahead:
            first = self.ahead.pop(0)
            if isinstance(first, bytes):
                self.played.append(first)
                return
            self.feed.hear(MarkReached(first), self.now, punctual=self.punctual > 1)
        self.played.append(None)

    @property
    def frames_ahead(self) -> int:
        return sum(isinstance(each, bytes) for each in self.ahead)


def test_a_short_part_lies_ahead_and_comes_in_few_messages() -> None:
    play = Play()
    play.passes(500, says=1000)
    assert 8 <= play.frames_ahead <= 21
    assert set(play.played[1:]) == {FRAME}, "without a hole"
    assert play.sent < 500 / 8


def test_a_stall_of_ours_is_not_heard() -> None:
    play = Play()
    play.passes(100, says=1000)
    play.passes(10, we=False)
    play.passes(100, says=1000)
    assert set(play.played[1:]) == {FRAME}
    assert play.frames_ahead <= 23


def test_silence_goes_out_when_nothing_is_said() -> None:
    play = Play()
    play.passes(500)
    assert set(play.played[1:]) == {b""}
    assert play.sent < 500 / 15


def test_what_is_said_after_silence_overtakes_it() -> None:
    play = Play()
    play.passes(60)
    assert play.frames_ahead > 5
    play.passes(1, says=3)
    play.passes(1)
    assert play.played[-1] == FRAME


def test_a_pause_in_a_sentence_flushes_nothing_of_it() -> None:
    play = Play()
    play.sends(play.feed.say([FRAME] * 2, play.now))
    # It seems to run dry, silence is sent, and it goes on before the last of it is heard.
    play.passes(2)
    play.passes(1, says=2)
    play.passes(20)
    assert play.played.count(FRAME) == 4


def test_an_interruption_throws_away_what_is_not_heard_and_tells_how_much() -> None:
    play = Play()
    play.passes(100, says=1000)
    ahead = play.frames_ahead * 20
    taken_ms = play.feed.flush(play.now)
    assert taken_ms == pytest.approx(ahead, abs=40)
    assert play.feed.flush(play.now) == 0


def test_silence_is_not_told_as_taken_back() -> None:
    play = Play()
    play.passes(100)
    assert play.feed.flush(play.now) == 0
    play.passes(40, says=10)
    play.passes(40)
    assert play.feed.flush(play.now) == 0


def test_a_far_end_that_stood_still_is_reckoned_with() -> None:
    play = Play()
    play.passes(100, says=1000)
    play.plays = False
    play.passes(20, says=1000)
    play.plays = True
    play.passes(100, says=1000)
    assert play.frames_ahead <= 24, "the backlog does not stay for ever"
    taken_ms = play.feed.flush(play.now)
    assert taken_ms == pytest.approx(play.frames_ahead * 20, abs=40)


def test_a_far_end_that_stands_still_gets_no_more_and_is_given_up() -> None:
    play = Play()
    play.passes(100, says=10_000)
    play.plays = False
    play.passes(200, says=10_000)
    assert play.feed.blocked
    assert not play.feed.stalled
    assert play.frames_ahead < 150
    play.passes(150, says=10_000)
    assert play.feed.stalled


def test_our_own_long_stall_is_not_taken_for_the_far_ends() -> None:
    play = Play()
    play.passes(100, says=1000)
    play.passes(400, we=False)
    play.passes(1)
    assert not play.feed.blocked
    play.passes(100, says=1000)
    assert set(play.played[-50:]) == {FRAME}


def test_a_mark_that_is_read_late_does_not_starve_the_far_end() -> None:
    play = Play()
    play.passes(100, says=1000)
    names = [each for each in play.ahead if isinstance(each, str)]
    while not names:
        play.passes(1, says=1000)
        names = [each for each in play.ahead if isinstance(each, str)]
    # Nobody read anything for 200 ms, then all at once.
    play.passes(10, we=False)
    play.feed.hear(MarkReached(names[0]), play.now, punctual=False)
    play.passes(50, says=1000)
    assert set(play.played[1:]) == {FRAME}


def test_xoff_is_obeyed_until_xon() -> None:
    play = Play()
    play.feed.hear(Stop(on=True), play.now)
    assert (play.feed.room(play.now), play.feed.pause(play.now)) == (0, [])
    play.feed.hear(Stop(on=False), play.now)
    assert play.feed.room(play.now) > 0


def test_what_was_not_heard_of_a_lost_channel_is_said_again() -> None:
    play = Play()
    numbered = [bytes([number]) * 320 for number in range(1, 100)]
    said = 0
    while said < 40:
        play.now += 0.02
        play.feed.look(play.now, punctual=True)
        room = play.feed.room(play.now)
        play.feed.say(numbered[said : said + room], play.now)
        said += room
    again = play.feed.lost(play.now)
    assert 8 <= len(again) <= 23
    assert again == numbered[said - len(again) : said]
    assert play.feed.lost(play.now) == []


def test_marks_that_a_flush_took_along_are_not_waited_for() -> None:
    play = Play()
    play.passes(1, says=20)
    assert [each for each in play.ahead if isinstance(each, str)] == ["1"]
    play.feed.flush(play.now)
    play.ahead.clear()
    play.passes(300, says=10_000)
    assert not play.feed.blocked
    play.feed.hear(MarkReached("1"), play.now)
    assert set(play.played[-100:]) == {FRAME}


def test_it_has_ended_for_a_moment_after_its_end() -> None:
    play = Play()
    assert not play.feed.has_ended(play.now)
    play.passes(1, says=5)
    assert not play.feed.has_ended(play.now)
    play.passes(6)
    assert play.feed.has_ended(play.now)
    play.passes(50)
    assert not play.feed.has_ended(play.now)


@pytest.mark.parametrize("frame_bytes", [320, 640, 960, 1920])
@pytest.mark.parametrize("packet_bytes", [1000, 1220, 1448])
def test_no_message_comes_in_ten_pieces(frame_bytes: int, packet_bytes: int) -> None:
    messages = list(pieces([bytes(frame_bytes)] * 100, frame_bytes))
    assert all(len(message) % frame_bytes == 0 for message in messages)
    assert sum(map(len, messages)) == 100 * frame_bytes
    longest = max(map(len, messages))
    for begins_at in range(packet_bytes):
        packets = (begins_at + longest - 1) // packet_bytes + 1
        assert packets < 10, "Asterisk ends a channel at the tenth piece of a message"


EVENTS = {
    b'{"event":"MEDIA_START","connection_id":"x","channel":"WebSocket/INCOMING/0x7f","channel_id":'
    b'"m","format":"slin","optimal_frame_size":320,"ptime":20}': Started("m", "slin", 320),
    b'{"event":"MEDIA_MARK_PROCESSED","channel_id":"m","correlation_id":"7"}': MarkReached("7"),
    b'{"event":"MEDIA_XOFF","channel_id":"m"}': Stop(on=True),
    b'{"event":"MEDIA_XON","channel_id":"m"}': Stop(on=False),
    b'{"event":"QUEUE_DRAINED","channel_id":"m"}': Drained(),
    b'{"event":"ERROR","error_text":"Unable to parse JSON command"}': Complaint(
        "Unable to parse JSON command"
    ),
    b'{"event":"DTMF_END","channel_id":"m","digit":"5"}': Key("5"),
    b'{"event":"MEDIA_MARK_PROCESSED"}': None,
    b"[]": None,
    b"MEDIA_XOFF channel_id:m": Complaint("what came is no JSON"),
}


@pytest.mark.parametrize("text", EVENTS)
def test_what_asterisk_says_is_read(text: bytes) -> None:
    assert read_event(text) == EVENTS[text]


def test_what_we_say_is_short_enough() -> None:
    for text in (FLUSH, REPORT_DRAINED, mark("123456789")):
        assert orjson.loads(text)["command"]
        assert len(text) <= 128, "Asterisk drops longer ones"
    assert OPTIONS == "f(json)"
