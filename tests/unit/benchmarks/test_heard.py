from __future__ import annotations

import numpy as np

from benchmarks.heard import Packets, Track, onset_arrival, percentiles
from benchmarks.marked import sweep

SECONDS = 2.0
SOUND = [sweep(SECONDS, 8000)[at : at + 160].tobytes() for at in range(0, 16000, 160)]
QUIET = bytes(320)


def packets(sounds: list[bytes]) -> Packets:
    return Packets([1.0 + 0.02 * number for number in range(len(sounds))], sounds)


def test_sound_and_silence_are_found() -> None:
    heard = packets([QUIET] * 5 + SOUND[:10] + [QUIET] * 5)

    assert heard.first_sound(0.0) == 1.1
    assert heard.first_silence(1.1) == 1.3
    assert heard.first_sound(1.3) is None
    assert heard.first_silence(2.0) is None


def test_the_last_audible_sample_is_found_within_its_packet() -> None:
    cut = np.zeros(160, "<i2")
    cut[:16] = 9000
    cut[16:] = 90  # below -50 dBFS
    heard = packets([QUIET] + SOUND[:10] + [cut.tobytes()] + [QUIET] * 5 + SOUND[:5])

    assert heard.last_audible(1.1) == 1.22 + 16 / 8000
    assert packets([QUIET] * 3).last_audible(0.0) is None
    assert packets(SOUND).last_audible(0.0) is None, "it never ends"


def test_nothing_at_all_is_silence() -> None:
    assert packets([b""]).first_silence(0.0) == 1.0


def test_a_whole_sweep_lost_nothing() -> None:
    assert packets(SOUND).track(0.0, 10.0, SECONDS) == Track(98, 0, 0, 20.0)


def test_a_frame_left_out_is_lost() -> None:
    assert packets(SOUND[:40] + SOUND[41:]).track(0.0, 10.0, SECONDS).lost == 1


def test_a_frame_said_again_is_doubled() -> None:
    track = packets(SOUND[:40] + SOUND[39:]).track(0.0, 10.0, SECONDS)

    assert (track.lost, track.doubled) == (0, 1)


def test_a_pause_shows_as_a_gap_and_not_as_a_loss() -> None:
    times = [0.02 * number + (0.2 if number > 50 else 0.0) for number in range(100)]

    assert Packets(times, SOUND).track(0.0, 10.0, SECONDS) == Track(98, 0, 0, 220.0)


def test_only_what_is_heard_between_the_times_counts() -> None:
    heard = packets(SOUND)

    assert heard.track(1.5, 1.7, SECONDS).frames == 8
    assert heard.track(5.0, 6.0, SECONDS) == Track()


def test_gaps_are_between_packets() -> None:
    assert np.allclose(packets(SOUND).gaps_ms(), 20.0)


def test_the_onset_is_in_the_first_message_with_sound() -> None:
    messages = [(1.0, SOUND[3]), (1.1, QUIET), (1.2, QUIET + SOUND[0]), (1.3, SOUND[1])]

    assert onset_arrival(messages, 1.05) == 1.2
    assert onset_arrival(messages, 1.4) is None


def test_percentiles_of_nothing_are_zero() -> None:
    assert percentiles([]) == {"count": 0, "p50": 0.0, "p99": 0.0, "max": 0.0}
    assert percentiles([1.0, 2.0, 3.0]) == {"count": 3, "p50": 2.0, "p99": 2.98, "max": 3.0}


def test_a_faint_frame_is_no_place_in_the_sweep() -> None:
    faint = (np.frombuffer(SOUND[40], "<i2") // 6).astype("<i2").tobytes()

    assert packets([*SOUND[:40], faint, *SOUND[41:]]).track(0.0, 10.0, SECONDS).lost == 1
