from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.audio.convert import Converter
from ari_app.audio.formats import AGENT_FORMATS, AudioFormat
from ari_app.call.sound import Uplink

RATE_HZ = 8000
FRAME_SAMPLES = 160
FRAME_BYTES = 320
SLACK_MS = 60
SLACK_SAMPLES = 480
START = 100.0


def converter(agent: str = "pcm_8000") -> Converter:
    return Converter(AudioFormat.pcm(RATE_HZ), AudioFormat.parse(agent))


def uplink(agent: str = "pcm_8000", chunk_ms: int = 20) -> Uplink:
    made = Uplink(RATE_HZ, converter(agent), chunk_ms, SLACK_MS)
    made.start(START)
    return made


def frame(number: int) -> bytes:
    """A frame that is not silence and can be told from others."""
    return (number % 0x7FFF + 1).to_bytes(2, "little") * FRAME_SAMPLES


def tick_time(index: int) -> float:
    return START + index * 0.02


@pytest.mark.parametrize("chunk_ms", [20, 40, 60, 100, 240])
@pytest.mark.parametrize("agent", AGENT_FORMATS)
def test_every_chunk_has_the_configured_length(agent: str, chunk_ms: int) -> None:
    agent_format = AudioFormat.parse(agent)
    stream = uplink(agent, chunk_ms)
    frames = chunk_ms // 20 * 5 if chunk_ms % 20 == 0 else 50
    chunks = [
        chunk
        for index in range(frames)
        for chunk in stream.push(frame(index), tick_time(index + 1))
    ]
    assert len(chunks) == frames * 20 // chunk_ms
    exact = agent_format.rate_hz * chunk_ms / 1000
    for chunk in chunks:
        assert abs(len(chunk) / agent_format.sample_bytes - exact) < 1
    total = sum(len(chunk) for chunk in chunks) / agent_format.sample_bytes
    assert abs(total - exact * len(chunks)) < 1


def test_a_chunk_leaves_with_the_frame_that_completes_it() -> None:
    stream = uplink("pcm_16000", chunk_ms=40)
    sizes = [[len(c) for c in stream.push(frame(i), tick_time(i + 1))] for i in range(6)]
    assert sizes == [[], [1280], [], [1280], [], [1280]]


def test_a_phone_that_falls_silent_is_heard_as_silence() -> None:
    stream = uplink()
    for index in range(1, 11):
        assert stream.push(frame(index), tick_time(index)) == [frame(index)]
        assert stream.tick(tick_time(index)) == []
    silent = [stream.tick(tick_time(index)) for index in range(11, 61)]
    assert silent == [[]] * 3 + [[bytes(FRAME_BYTES)]] * 47
    assert stream.stats.received_samples == 10 * FRAME_SAMPLES
    assert stream.stats.filled_samples == 47 * FRAME_SAMPLES


@pytest.mark.parametrize("packet_ms", [10, 20, 30, 40, 60])
def test_after_a_pause_no_word_is_torn_by_a_packet_that_is_a_little_late(packet_ms: int) -> None:
    """A phone that sends nothing while its caller is silent, at any moment between our ticks."""
    rnd, late = random.Random(1), min(0.018, packet_ms / 1000)
    for _ in range(50):
        stream = uplink()
        begins = 2 + rnd.uniform(0, 0.02)
        word = [(n + 1).to_bytes(2, "little") * (8 * packet_ms) for n in range(600 // packet_ms)]
        events = [(tick_time(index), b"") for index in range(1, 140)] + [
            (START + begins + (n + 1) * packet_ms / 1000 + rnd.uniform(0, late), pcm)
            for n, pcm in enumerate(word)
        ]
        heard = b""
        for at, pcm in sorted(events, key=lambda event: event[0]):
            came = stream.push(pcm, at) if pcm else stream.tick(at)
            heard += b"".join(came)
        heard += b"".join(stream.finish())
        assert b"".join(word) in heard
        # It is as long as time is, too.
        assert abs(len(heard) / 16 - 139 * 20) <= SLACK_MS + 20 + packet_ms


def test_a_phone_that_never_speaks_is_silence_from_the_start() -> None:
    stream = uplink(chunk_ms=100)
    chunks = [chunk for index in range(1, 501) for chunk in stream.tick(tick_time(index))]
    assert chunks == [bytes(1600)] * 99


def test_late_audio_is_kept_and_spares_later_filling() -> None:
    stream = uplink()
    for index in range(1, 14):
        stream.tick(tick_time(index))
    assert stream.stats.filled_samples == 10 * FRAME_SAMPLES
    burst = b"".join(frame(index) for index in range(13))
    assert b"".join(stream.push(burst, tick_time(13))) == burst
    # 200 ms ahead of the clock: only after those and the slack is anything filled again.
    quiet = [stream.tick(tick_time(index)) for index in range(14, 27)]
    assert quiet == [[]] * 13
    assert stream.tick(tick_time(27)) == [bytes(FRAME_BYTES)]


def test_being_held_up_ourselves_is_no_gap() -> None:
    stream = uplink()
    stream.tick(tick_time(1))
    # For half a second nothing ran; the clock is served before the socket is.
    assert stream.tick(tick_time(26)) == []
    late = b"".join(frame(index) for index in range(26))
    assert b"".join(stream.push(late, tick_time(26))) == late
    assert stream.tick(tick_time(27)) == []
    assert stream.stats.filled_samples == 0


def test_a_tick_right_after_a_late_one_comes_before_anything_was_read() -> None:
    stream = uplink()
    for index in range(1, 11):
        stream.push(frame(index), tick_time(index))
        stream.tick(tick_time(index))
    # The loop serves its timers first: a late one, the next on the grid, and only then the sockets.
    assert stream.tick(tick_time(20) + 0.019) == []
    assert stream.tick(tick_time(21)) == []
    late = b"".join(frame(index) for index in range(10, 21))
    stream.push(late, tick_time(21))
    assert stream.tick(tick_time(22)) == []
    assert stream.stats.filled_samples == 0


def test_seldom_ticks_fill_too_one_tick_later() -> None:
    stream = uplink()
    for second in range(1, 11):
        stream.tick(START + second)
    assert stream.stats.filled_samples == pytest.approx(9 * RATE_HZ - SLACK_SAMPLES, abs=160)


def test_a_slow_phone_is_mended_in_whole_frames() -> None:
    stream = uplink()
    # 0.5 % slow: a frame every 20.1 ms, for ten minutes.
    sent = 0
    for index in range(1, 30_000):
        while START + sent * 0.0201 <= tick_time(index):
            stream.push(frame(sent), tick_time(index))
            sent += 1
        stream.tick(tick_time(index))
    assert stream.stats.filled_samples % FRAME_SAMPLES == 0
    total = (stream.stats.received_samples + stream.stats.filled_samples) / RATE_HZ
    assert total == pytest.approx(600, rel=0.001)


def test_before_the_start_ticks_do_nothing_and_audio_starts() -> None:
    stream = Uplink(RATE_HZ, converter(), 20)
    assert stream.tick(START) == []
    assert stream.push(frame(1), START + 5) == [frame(1)]
    assert stream.tick(START + 5.02) == []
    assert stream.stats.filled_samples == 0


def test_finish_gives_the_rest_once() -> None:
    stream = uplink("pcm_16000", chunk_ms=40)
    assert stream.push(frame(1), START) == []
    (rest,) = stream.finish()
    # The frame, and the silence that the converter was primed with.
    assert len(rest) == 2 * FRAME_BYTES + 2 * 2 * converter("pcm_16000").lookahead_samples
    assert stream.finish() == []
    assert stream.tick(START + 10) == []


def test_finish_without_a_rest() -> None:
    stream = uplink()
    stream.push(frame(1), START)
    assert stream.finish() == []


def test_a_finished_uplink_can_begin_again() -> None:
    stream = uplink()
    stream.push(frame(1) * 50, START)
    stream.finish()
    stream.start(START + 50)
    ticks = [stream.tick(START + 50 + index * 0.02) for index in range(1, 5)]
    assert ticks == [[], [], [], [bytes(FRAME_BYTES)]]


# --- more than there is time for


def is_quiet(pcm: bytes) -> bool:
    return not any(pcm)


def offer(stream: Uplink, pcm: bytes, now: float) -> int:
    """Give it a packet; how much comes out."""
    if stream.is_surplus(pcm, now, is_quiet):
        return 0
    return sum(map(len, stream.push(pcm, now)))


@pytest.mark.parametrize("streams", [2, 3])
@pytest.mark.parametrize("jitter", [0.0, 0.004, 0.015])
def test_of_several_streams_the_voice_is_left(streams: int, jitter: float) -> None:
    chance = random.Random(1)
    packets = []
    for index in range(5000):
        at = START + 0.1 + index * 0.02
        packets.append((at + chance.uniform(0, jitter), frame(index)))
        for number in range(1, streams):
            late = number * 0.02 / streams + chance.uniform(0, jitter)
            packets.append((at + late, bytes(FRAME_BYTES)))
    stream = uplink()
    for now, pcm in sorted(packets, key=lambda packet: packet[0]):
        offer(stream, pcm, now)
    stats = stream.stats
    total = (stats.received_samples + stats.filled_samples) / RATE_HZ
    assert total == pytest.approx(100.1, abs=0.1)
    assert stats.surplus_samples == 0
    assert stats.surplus_quiet_samples == pytest.approx(5000 * 160 * (streams - 1), abs=2000)


def test_of_several_voices_as_much_is_left_as_there_is_time_for() -> None:
    stream = uplink()
    for index in range(1, 5001):
        for number in range(3):
            offer(stream, frame(index), tick_time(index) + number * 0.006)
        stream.tick(tick_time(index))
    stats = stream.stats
    assert (stats.received_samples + stats.filled_samples) / RATE_HZ == pytest.approx(100, abs=0.1)
    assert stats.surplus_samples == 15_000 * FRAME_SAMPLES - stats.received_samples


def test_after_a_hold_too() -> None:
    stream = uplink()
    for index in range(1, 5001):
        on_hold = 500 <= index < 1000
        for number in range(0 if on_hold else 3):
            offer(stream, frame(index) if number != 1 else bytes(320), tick_time(index))
        stream.tick(tick_time(index))
    stats = stream.stats
    assert (stats.received_samples + stats.filled_samples) / RATE_HZ == pytest.approx(100, abs=0.1)


AT_ONCE = [(0, 10_000)]
# As TCP brought it after 2 s without a packet, and round trips of 40 and of 100 ms: ms since the
# first of it, and how many ms of sound.
ROUND_TRIPS_40 = [(0, 60), (42, 160), (82, 640), (88, 180), (122, 360), (126, 360), (132, 10_000)]
ROUND_TRIPS_100 = [
    (0, 20),
    (104, 160),
    (201, 160),
    (206, 380),
    (215, 280),
    (302, 360),
    (313, 10_000),
]


@pytest.mark.parametrize(
    ("held_up_ms", "every_ms", "flights"),
    [
        (200, 200, AT_ONCE),
        (300, 2000, AT_ONCE),
        (2000, 8000, AT_ONCE),
        (2000, 8000, ROUND_TRIPS_40),
        (2000, 8000, ROUND_TRIPS_100),
    ],
)
def test_no_word_is_lost_where_speech_without_a_pause_is_held_up_again_and_again(
    held_up_ms: int, every_ms: int, flights: list[tuple[int, int]]
) -> None:
    stream = uplink()
    waiting: list[bytes] = []
    offered = 0
    for now_ms in range(1, 40_000):
        since_ms = now_ms % every_ms - held_up_ms % every_ms
        now = START + now_ms / 1000
        if now_ms % 20 == 0:
            waiting.append(frame(now_ms // 20))
        came = next((ms for at, ms in flights if at == since_ms), 0)
        if since_ms > flights[-1][0] or now_ms < every_ms:
            came = 0 if held_up_ms == every_ms else 20
        for pcm in waiting[: came // 20]:
            offer(stream, pcm, now)
            offered += FRAME_SAMPLES
        del waiting[: came // 20]
        if now_ms % 20 == 4:
            stream.tick(now)
    assert offered >= 38 * RATE_HZ
    assert stream.stats.received_samples == offered, "no word is lost"
    assert stream.stats.filled_samples <= (held_up_ms + 100) * RATE_HZ // 1000, "torn once only"


@pytest.mark.parametrize("held_up", [10, 100])
def test_what_was_held_up_is_late_and_no_surplus(held_up: int) -> None:
    stream = uplink()
    speech = [frame(index) if index % 100 < 80 else bytes(FRAME_BYTES) for index in range(2001)]
    for index in range(1, 2001):
        if not 500 <= index < 500 + held_up:
            offer(stream, speech[index], tick_time(index))
        if index == 500 + held_up:
            for late in range(held_up):
                offer(stream, speech[500 + late], tick_time(index) + late * 0.001)
        stream.tick(tick_time(index))
    stats = stream.stats
    assert stats.surplus_samples == 0, "no word is lost"
    total = (stats.received_samples + stats.filled_samples) / RATE_HZ
    assert total == pytest.approx(40, abs=0.35), "silence has made up for it"


Arrivals = st.lists(st.lists(st.integers(1, 4 * FRAME_SAMPLES), max_size=3), max_size=120)


@given(arrivals=Arrivals, chunk_ms=st.sampled_from([20, 40, 100]))
def test_any_arrivals_never_lag_and_lose_nothing(arrivals: list[list[int]], chunk_ms: int) -> None:
    stream = uplink(chunk_ms=chunk_ms)
    output: list[bytes] = []
    received = b""
    needed = 0
    numbers = itertools.count()
    for index, sizes in enumerate(arrivals, start=1):
        now = tick_time(index)
        for size in sizes:
            audio = (next(numbers) % 0x7FFF + 1).to_bytes(2, "little") * size
            received += audio
            output += stream.push(audio, now)
        output += stream.tick(now)
        expected = index * FRAME_SAMPLES
        total = len(received) // 2 + stream.stats.filled_samples
        assert total >= expected - SLACK_SAMPLES
        # No more silence than ever was missing, rounded up to a frame.
        needed = max(needed, expected - SLACK_SAMPLES - len(received) // 2)
        assert stream.stats.filled_samples == math.ceil(needed / FRAME_SAMPLES) * FRAME_SAMPLES
    output += stream.finish()
    sent = b"".join(output)
    assert len(sent) == len(received) + 2 * stream.stats.filled_samples
    assert spoken(sent) == received


def spoken(pcm: bytes) -> bytes:
    samples = (pcm[start : start + 2] for start in range(0, len(pcm), 2))
    return b"".join(sample for sample in samples if sample != b"\x00\x00")


@given(
    fates=st.lists(st.sampled_from(["sent", "lost", "late"]), min_size=50, max_size=400),
    agent=st.sampled_from(["pcm_8000", "pcm_16000", "ulaw_8000"]),
)
def test_the_output_keeps_pace_with_the_wall_clock(fates: list[str], agent: str) -> None:
    """Frames that are lost or come 40 ms late, for whatever stretches."""
    agent_format = AudioFormat.parse(agent)
    stream = uplink(agent)
    sent_bytes = 0
    late: dict[int, int] = {}
    for index, fate in enumerate(fates, start=1):
        frames = late.pop(index, 0) + (fate == "sent")
        if fate == "late":
            late[index + 2] = 1
        for _ in range(frames):
            sent_bytes += sum(map(len, stream.push(frame(index), tick_time(index))))
        sent_bytes += sum(map(len, stream.tick(tick_time(index))))
        ahead_ms = agent_format.duration_ms(sent_bytes) - index * 20
        # At most a frame of each fill and the late ones too much; the slack too little.
        assert -SLACK_MS - 0.2 <= ahead_ms <= 60


def test_it_is_counted_how_late_ticks_come() -> None:
    stream = uplink()
    for index in range(1, 4):
        stream.push(frame(index), tick_time(index))
        stream.tick(tick_time(index))
    stream.tick(tick_time(3) + 0.15)
    stream.tick(tick_time(3) + 0.151)
    assert stream.stats.late_ticks == 1
    assert stream.stats.latest_seconds == pytest.approx(0.13)


def test_what_is_quiet_comes_in_longer_pieces_and_waits_for_nothing_else() -> None:
    stream = Uplink(RATE_HZ, converter(), 40, SLACK_MS, quiet_chunk_ms=200)
    stream.start(START)
    sizes = [
        [len(chunk) // FRAME_BYTES for chunk in stream.push(frame(i), tick_time(i + 1), i < 28)]
        for i in range(32)
    ]
    # Two pieces of ten frames, eight that waited with the first that is not quiet, and pairs.
    expected: list[list[int]] = [[] for _ in range(32)]
    expected[9] = expected[19] = [10]
    expected[28], expected[30] = [9], [2]
    assert sizes == expected


def test_silence_made_here_comes_in_longer_pieces_too() -> None:
    stream = Uplink(RATE_HZ, converter(), 40, SLACK_MS, quiet_chunk_ms=200)
    stream.start(START)
    chunks = [chunk for i in range(1, 504) for chunk in stream.tick(tick_time(i), True)]
    assert chunks == [bytes(10 * FRAME_BYTES)] * 50
