from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from lab.softphone.codec import PCMU
from lab.softphone.datagrams import arrival_time
from lab.softphone.fields import Address
from lab.softphone.media import MediaStream
from lab.softphone.mouth import Utterance
from lab.softphone.rtp import RtpPacket
from lab.softphone.sdp import Agreement, Direction
from tests.waiting import PATIENCE_SECONDS, until

HOST = "127.0.0.1"


@pytest.fixture
def far_end() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, 0))
        sock.settimeout(PATIENCE_SECONDS)
        yield sock


def agreement(far_end: socket.socket) -> Agreement:
    remote = Address(*far_end.getsockname())
    return Agreement(remote, PCMU, 0, 101, 20, Direction.BOTH)


async def test_the_port_is_even_and_free_again_after_close() -> None:
    stream = MediaStream(HOST)
    assert stream.address.port % 2 == 0
    stream.close()
    stream.close()
    stream.start_sending()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(stream.address)


async def test_packets_leave_in_time_and_not_before_they_may(far_end: socket.socket) -> None:
    stream = MediaStream(HOST)
    stream.start_sending()
    stream.start_sending()
    stream.agree(agreement(far_end))
    stream.mouth.paused = False
    loop = asyncio.get_running_loop()
    packets = [
        RtpPacket.parse(await loop.run_in_executor(None, far_end.recv, 2048)) for _ in range(5)
    ]
    stream.close()
    first = packets[0].sequence
    assert [packet.sequence - first & 0xFFFF for packet in packets] == [0, 1, 2, 3, 4]


async def test_after_a_standstill_some_packets_are_made_up_for(far_end: socket.socket) -> None:
    stream = MediaStream(HOST)
    stream.agree(agreement(far_end))
    stream.mouth.paused = False
    stream.start_sending()
    first = RtpPacket.parse(far_end.recv(2048))
    stream.mouth.say(utterance := Utterance(bytes(1600)))
    stream._deadline -= 0.6
    stream._tick()
    made_up = [RtpPacket.parse(far_end.recv(2048)) for _ in range(10)]
    stream.close()
    assert [packet.sequence - first.sequence & 0xFFFF for packet in made_up] == list(range(1, 11))
    skipped = (made_up[0].timestamp - first.timestamp) % 2**32 // 160
    assert 15 <= skipped <= 25
    assert utterance.started_at is not None and utterance.finished_at is not None
    assert utterance.finished_at - utterance.started_at == pytest.approx(0.08)


async def test_datagrams_that_cannot_leave_are_counted(far_end: socket.socket) -> None:
    stream = MediaStream(HOST)
    stream._send_now(b"nowhere to go")
    stream.agree(agreement(far_end))
    stream._send_now(bytes(70_000))
    assert stream.send_errors == 1
    stream.close()
    stream._send_now(b"too late")
    stream._readable()
    assert stream.send_errors == 1


async def test_what_comes_before_the_agreement_is_heard(far_end: socket.socket) -> None:
    stream = MediaStream(HOST)
    stream.ear.expect(PCMU, 0, None)
    for index in range(100):
        packet = RtpPacket(0, index, index * 160, 1, bytes(160))
        far_end.sendto(packet.encode(), stream.address)
    await until(lambda: stream.ear.stats().packets == 100)
    stream.close()
    assert len(stream.ear.arrivals) == 100


async def test_where_the_kernel_tells_no_time(
    far_end: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.kernel_time.SO_TIMESTAMPNS", None)
    stream = MediaStream(HOST)
    stream.ear.expect(PCMU, 0, None)
    heard = asyncio.Event()
    stream.on_packet = lambda arrival: heard.set()
    before = time.monotonic()
    far_end.sendto(RtpPacket(0, 0, 0, 1, bytes(160)).encode(), stream.address)
    await heard.wait()
    stream.close()
    assert before <= stream.ear.arrivals[0].at <= time.monotonic()


async def test_speech_that_is_left_over_is_dropped() -> None:
    stream = MediaStream(HOST)
    utterance = Utterance(bytes(320))
    stream.mouth.say(utterance)
    stream.close()
    assert utterance.dropped


async def test_no_port(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="assign"):
        MediaStream("192.0.2.1")

    class Odd(socket.socket):
        def getsockname(self) -> tuple[str, int]:
            return HOST, 40001

    monkeypatch.setattr(socket, "socket", Odd)
    with pytest.raises(OSError, match="even"):
        MediaStream(HOST)


def stamp(at: float) -> list[tuple[int, int, bytes]]:
    data = struct.pack("@ll", int(at), int(at % 1 * 1e9))
    return [(socket.SOL_SOCKET, 99, data), (socket.SOL_SOCKET, 35, data)]


def test_the_time_of_the_kernel_is_taken() -> None:
    assert time.monotonic() - arrival_time(stamp(time.time() - 2)) == pytest.approx(2, abs=0.5)


def test_no_time_of_the_kernel_or_one_that_cannot_be() -> None:
    for ancillary in ([], stamp(time.time() - 3600), stamp(time.time() + 3600)):
        assert time.monotonic() - arrival_time(ancillary) == pytest.approx(0, abs=0.5)
