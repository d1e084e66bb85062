from __future__ import annotations

import asyncio
import socket
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from audiosocket.connection import ConnectionHandler, peer_name
from audiosocket.frames import (
    SLIN,
    SLIN16,
    SLIN192,
    Audio,
    Dtmf,
    Error,
    Hangup,
    Identify,
    Kind,
    Message,
    encode,
)
from audiosocket.server import AudioSocketServer
from linekit.clock import FrameClock
from linekit.listener import ConnectionLimits, Networks
from tests.unit.audiosocket.client import tone_source
from tests.unit.audiosocket.doubles import Bench, Handler, Peer
from tests.waiting import PATIENCE_SECONDS, until

SILENCE = Audio(Kind.SLIN8, bytes(320))
TONE = Audio(Kind.SLIN8, b"\x01\x02" * 160)


async def test_silence_from_the_uuid_on(bench: Bench) -> None:
    handler = Handler()
    peer, line = await bench.connect(handler)
    assert bench.server.lines == 1
    assert bench.server.half_open == 0
    bench.tick(3)
    assert await peer.messages(3) == [SILENCE] * 3
    assert handler.ticks == [1, 1, 1]
    assert line.stats.frames_sent == 3
    sock = peer.writer.get_extra_info("sockname")
    assert line.peer == f"127.0.0.1:{sock[1]}"


async def test_frames_from_the_source(bench: Bench) -> None:
    handler = Handler()
    peer, line = await bench.connect(handler, SLIN16)
    frames = [b"\x01\x00" * 320, None, b"\x02\x00" * 320]
    line.next_frame = lambda: frames.pop(0)
    bench.tick(3)
    assert await peer.messages(3) == [
        Audio(Kind.SLIN16, b"\x01\x00" * 320),
        Audio(Kind.SLIN16, bytes(640)),
        Audio(Kind.SLIN16, b"\x02\x00" * 320),
    ]


async def test_a_stall_is_made_good(bench: Bench) -> None:
    handler = Handler()
    peer, _ = await bench.connect(handler)
    bench.manual.stall(0.065)
    assert await peer.messages(3) == [SILENCE] * 3
    bench.manual.stall(1.0)
    assert await peer.messages(1) == [SILENCE]
    assert handler.ticks == [3, 1]


async def test_what_asterisk_sends_arrives_in_order(bench: Bench) -> None:
    handler = Handler()
    uuid = uuid4()
    bench.server.expect(uuid, handler, SLIN)
    peer = await bench.dial()
    sent: list[Message] = [
        Identify(uuid),
        Audio(Kind.SLIN8, b"\x01\x00" * 80),
        Audio(Kind.SLIN8, b"\x02\x00" * 240),
        Dtmf("5"),
        Audio(Kind.SLIN16, b"\x03\x00" * 320),
        Dtmf("#"),
    ]
    data = b"".join(encode(message) for message in sent)
    for start in range(0, len(data), 150):
        peer.send(data[start : start + 150])
        await asyncio.sleep(0)
    await until(lambda: len(handler.digits) == 2)
    assert handler.audio == [(m.kind, m.payload) for m in sent if isinstance(m, Audio)]
    assert handler.digits == ["5", "#"]
    assert handler.calls == [
        "line_connected",
        "audio_received",
        "audio_received",
        "digit_received",
        "audio_received",
        "digit_received",
    ]


async def test_everything_in_one_segment(bench: Bench) -> None:
    handler = Handler()
    uuid = uuid4()
    bench.server.expect(uuid, handler, SLIN)
    peer = await bench.dial()
    peer.send(encode(Identify(uuid)) + encode(TONE) + encode(Dtmf("1")) + b"\x55")
    assert await peer.rest() == [Hangup()]
    await until(lambda: bool(handler.lost))
    assert handler.calls == ["line_connected", "audio_received", "digit_received", "line_lost"]
    assert handler.lost == ["malformed"]
    assert bench.refused == ["malformed"]


async def identified(bench: Bench, uuid: UUID) -> Peer:
    peer = await bench.dial()
    peer.send(encode(Identify(uuid)))
    return peer


async def test_refusals_disturb_nobody(bench: Bench) -> None:
    handler = Handler()
    used = uuid4()
    good, line = await bench.connect(handler, uuid=used)

    expired = uuid4()
    bench.server.expect(expired, Handler(), SLIN, ttl=0)
    garbage = await bench.dial()
    garbage.send(b"GET / HTTP/1.1\r\n\r\n")
    audio_first = await bench.dial()
    audio_first.send(encode(TONE))
    refused = [
        await identified(bench, uuid4()),
        await identified(bench, expired),
        await identified(bench, used),
        garbage,
        audio_first,
    ]
    for peer in refused:
        assert await peer.rest() == [Hangup()]
    reasons = ["expired", "malformed", "malformed", "reused", "unknown_uuid"]
    assert sorted(bench.refused) == reasons
    assert sorted(bench.server.refusals.elements()) == reasons
    await until(lambda: bench.server.half_open == 0)

    bench.tick()
    assert await good.messages(1) == [SILENCE]
    assert not line.closing
    assert handler.lost == []


async def test_a_silent_connection_is_closed() -> None:
    refused: list[tuple[str, str]] = []
    server = AudioSocketServer(
        FrameClock(),
        identify_timeout=0.05,
        on_refused=lambda reason, peer: refused.append((reason, peer.partition(":")[0])),
    )
    host, port = await server.start("127.0.0.1", 0)
    silent = Peer(*await asyncio.open_connection(host, port))
    slow = Peer(*await asyncio.open_connection(host, port))
    slow.send(encode(Identify(uuid4()))[:10])
    for peer in (silent, slow):
        assert await peer.rest() == [Hangup()]
        await peer.close()
    assert refused == [("no_uuid_in_time", "127.0.0.1")] * 2
    await server.close()


async def test_a_connection_may_just_go_away(bench: Bench) -> None:
    peer = await bench.dial()
    await until(lambda: bench.server.half_open == 1)
    await peer.close()
    await until(lambda: bench.server.half_open == 0)
    assert bench.refused == []


async def server_with(
    limits: ConnectionLimits | None = None, *, allow: str = ""
) -> tuple[AudioSocketServer, str, int]:
    server = AudioSocketServer(FrameClock(), limits=limits, allow=Networks(allow))
    return server, *await server.start("127.0.0.1", 0)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (ConnectionLimits(half_open=1), "limit"),
        (ConnectionLimits(connections=1), "limit"),
        (ConnectionLimits(half_open_per_address=1), "address_limit"),
        (ConnectionLimits(connections_per_address=1), "address_limit"),
    ],
)
async def test_the_oldest_stranger_makes_room(limits: ConnectionLimits, reason: str) -> None:
    server, host, port = await server_with(limits)
    first = Peer(*await asyncio.open_connection(host, port))
    await until(lambda: server.half_open == 1)
    handler, uuid = Handler(), uuid4()
    server.expect(uuid, handler, SLIN)
    second = Peer(*await asyncio.open_connection(host, port))
    assert await first.rest() == [Hangup()]
    second.send(encode(Identify(uuid)))
    await until(lambda: handler.line is not None)
    assert server.refusals == {reason: 1}
    await second.close()
    await server.close()


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (ConnectionLimits(connections=1), "limit"),
        (ConnectionLimits(connections_per_address=1), "address_limit"),
    ],
)
async def test_a_line_does_not_make_room(limits: ConnectionLimits, reason: str) -> None:
    server, host, port = await server_with(limits)
    handler, uuid = Handler(), uuid4()
    server.expect(uuid, handler, SLIN)
    first = Peer(*await asyncio.open_connection(host, port))
    first.send(encode(Identify(uuid)))
    await until(lambda: handler.line is not None)
    second = Peer(*await asyncio.open_connection(host, port))
    assert await second.rest() == [Hangup()]
    assert server.refusals == {reason: 1}
    assert handler.lost == []
    await first.close()
    await until(lambda: server.lines == 0)
    third = Peer(*await asyncio.open_connection(host, port))
    await until(lambda: server.half_open == 1)
    await third.close()
    await server.close()


async def test_only_some_networks_may_connect() -> None:
    server, host, port = await server_with(allow="10.0.0.0/8, 127.0.0.2")
    uuid = uuid4()
    server.expect(uuid, Handler(), SLIN)
    stranger = Peer(*await asyncio.open_connection(host, port))
    assert await stranger.rest() == [Hangup()]
    assert server.refusals == {"not_allowed": 1}
    friend = Peer(*await asyncio.open_connection(host, port, local_addr=("127.0.0.2", 0)))
    friend.send(encode(Identify(uuid)))
    await until(lambda: server.lines == 1)
    await friend.close()
    await server.close()


async def test_a_flood_is_told_in_few_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audiosocket.server.WINDOW_SECONDS", 0.1)
    server, host, port = await server_with(allow="10.0.0.0/8")
    with capture_logs() as logs:
        for _ in range(60):
            await Peer(*await asyncio.open_connection(host, port)).rest()
        await until(lambda: any(entry["event"] == "connections refused" for entry in logs))
        await server.close()
    one_by_one = [entry for entry in logs if entry["event"] == "connection refused"]
    together = [entry for entry in logs if entry["event"] == "connections refused"]
    assert server.refusals == {"not_allowed": 60}
    assert len(one_by_one) + sum(entry["number"] for entry in together) == 60
    assert one_by_one[0]["peer"].startswith("127.0.0.1:")
    assert together[0]["by_reason"] == {"not_allowed": together[0]["number"]}


async def test_a_peer_that_sends_a_byte_at_a_time(bench: Bench) -> None:
    handler, uuid = Handler(), uuid4()
    bench.server.expect(uuid, handler, SLIN)
    peer = await bench.dial()
    for byte in encode(Identify(uuid)) + encode(Dtmf("1")):
        peer.send(bytes((byte,)))
        await asyncio.sleep(0)
    await until(lambda: handler.digits == ["1"])


@pytest.mark.parametrize("start", [b"\x02", b"\x01\x01", b"\x01\x00\x11", b"\x01\xff\xff"])
async def test_a_wrong_header_is_not_waited_for(bench: Bench, start: bytes) -> None:
    peer = await bench.dial()
    peer.send(start + b"\0" * (3 - len(start)))
    assert await peer.rest() == [Hangup()]
    assert bench.refused == ["malformed"]


async def test_sound_may_be_held_up_but_a_flood_ends_the_line(bench: Bench) -> None:
    handler = Handler()
    peer, _ = await bench.connect(handler)
    frame = encode(TONE)
    peer.send(frame * 1400)
    await until(lambda: len(handler.audio) == 1400)
    bench.tick()
    assert handler.lost == []
    peer.send(frame * 1400)
    await until(lambda: len(handler.audio) == 2800)
    bench.tick()
    assert (await peer.rest())[-1] == Hangup()
    await until(lambda: bool(handler.lost))
    assert handler.lost == bench.refused == ["too_fast"]


async def test_a_failing_refusal_hook(bench: Bench) -> None:
    def fail(reason: str, peer: str) -> None:
        raise RuntimeError(reason)

    bench.server._on_refused = fail
    peer = await identified(bench, uuid4())
    assert await peer.rest() == [Hangup()]
    assert bench.server.refusals == {"unknown_uuid": 1}


async def test_hanging_up(bench: Bench) -> None:
    handler = Handler()
    peer, line = await bench.connect(handler)
    bench.tick()
    line.hang_up()
    line.hang_up("again")
    assert handler.lost == []
    bench.tick()
    assert await peer.rest() == [SILENCE, Hangup()]
    await until(lambda: bool(handler.lost))
    line.hang_up()
    bench.tick()
    assert handler.lost == ["hung_up"]
    assert handler.ticks == [1]
    assert bench.server.lines == 0
    assert not bench.clock.ticking


@pytest.mark.parametrize("way", ["eof", "reset", "half_close"])
async def test_the_peer_goes_away(bench: Bench, way: str) -> None:
    handler = Handler()
    peer, _ = await bench.connect(handler)
    bench.tick()
    match way:
        case "eof":
            await peer.close()
        case "reset":
            peer.reset()
        case _:
            peer.writer.write_eof()
    await until(lambda: bool(handler.lost))
    bench.tick()
    assert handler.lost == ["peer_closed"]
    assert handler.ticks == [1]
    assert bench.refused == []


@pytest.mark.parametrize(
    ("data", "reason", "refused"),
    [
        (encode(Hangup()), "peer_hangup", []),
        (encode(Hangup()) + b"\x99", "peer_hangup", []),
        (encode(Error(1)), "peer_error", []),
        (encode(Identify(UUID(int=1))), "malformed", ["malformed"]),
        (b"\x10\x00\x00", "malformed", ["malformed"]),
        (b"\x10\x00\x03abc", "malformed", ["malformed"]),
        (b"\x99", "malformed", ["malformed"]),
    ],
)
async def test_the_peer_ends_it(bench: Bench, data: bytes, reason: str, refused: list[str]) -> None:
    handler = Handler()
    peer, _ = await bench.connect(handler)
    peer.send(encode(TONE) + data + encode(Dtmf("1")))
    assert await peer.rest() == [Hangup()]
    await until(lambda: bool(handler.lost))
    assert handler.lost == [reason]
    assert len(handler.audio) == 1
    assert handler.digits == []
    assert bench.refused == refused


@pytest.mark.parametrize(
    "call", ["line_connected", "audio_received", "digit_received", "tick", "line_lost"]
)
async def test_a_failing_handler_loses_its_own_line_only(bench: Bench, call: str) -> None:
    failing, healthy = Handler(fails_in=call), Handler()
    peer, _ = await bench.connect(failing)
    other, _ = await bench.connect(healthy)
    if call == "line_lost":
        await peer.close()
    else:
        peer.send(encode(TONE) + encode(Dtmf("1")))
        if call != "line_connected":
            await until(lambda: call == "tick" or call in failing.calls)
        bench.tick()
        assert (await peer.rest())[-1] == Hangup()
    await until(lambda: bool(failing.lost))
    assert failing.lost == ["peer_closed" if call == "line_lost" else "handler_error"]
    bench.tick()
    messages = await other.messages(len(healthy.ticks))
    assert set(messages) == {SILENCE}
    assert healthy.lost == []


async def test_a_handler_may_hang_up_within_a_tick(bench: Bench) -> None:
    class Brief(Handler):
        def tick(self, frames_due: int) -> None:
            super().tick(frames_due)
            assert self.line is not None
            self.line.hang_up("enough")

    handler = Brief()
    peer, _ = await bench.connect(handler)
    bench.tick()
    assert await peer.rest() == [Hangup()]
    await until(lambda: bool(handler.lost))
    assert handler.lost == ["enough"]


async def test_what_comes_after_the_end_is_not_heard(bench: Bench) -> None:
    handler = Handler()
    peer, line = await bench.connect(handler)
    line.hang_up()
    assert await peer.messages(1) == [Hangup()]
    for _ in range(3):
        peer.send(encode(TONE))
        await asyncio.sleep(0.001)
    assert await peer.rest() == []
    await until(lambda: bool(handler.lost))
    assert handler.lost == ["hung_up"]
    assert handler.audio == []


@pytest.mark.parametrize("frame", [b"", bytes(318), bytes(322)])
async def test_a_source_must_give_whole_frames(bench: Bench, frame: bytes) -> None:
    handler = Handler()
    peer, line = await bench.connect(handler)
    line.next_frame = lambda: frame
    bench.tick()
    assert await peer.rest() == [Hangup()]
    await until(lambda: bool(handler.lost))
    assert handler.lost == ["handler_error"]


async def small_window_peer(bench: Bench, handler: ConnectionHandler) -> Peer:
    """A peer that does not read, and whose kernel takes little for it."""
    uuid = uuid4()
    bench.server.expect(uuid, handler, SLIN192)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (bench.host, bench.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=1024)
    peer = Peer(reader, writer)
    bench.peers.append(peer)
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
    peer.send(encode(Identify(uuid)))
    return peer


async def test_frames_are_skipped_while_the_peer_does_not_read(bench: Bench) -> None:
    handler = Handler()
    peer = await small_window_peer(bench, handler)
    await until(lambda: handler.line is not None)
    line = handler.line
    assert line is not None
    line.next_frame = tone_source(SLIN192)
    for _ in range(200):
        bench.tick()
        await asyncio.sleep(0)
    stats = line.stats
    assert stats.frames_skipped_backpressure > 100
    assert stats.frames_sent + stats.frames_skipped_backpressure == 200
    assert line._transport.get_write_buffer_size() <= 4 * 7683

    peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
    sent = stats.frames_sent
    received = await peer.messages(sent)
    source = tone_source(SLIN192)
    assert received == [Audio(Kind.SLIN192, source() or b"") for _ in range(sent)]
    bench.tick()
    assert stats.frames_sent == sent + 1
    assert await peer.messages(1) == [Audio(Kind.SLIN192, source() or b"")]
    assert handler.lost == []


async def test_a_peer_that_never_reads_is_given_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audiosocket.connection.ABORT_SECONDS", 0.05)
    bench.server._stall_timeout = 0.05
    handler = Handler()
    await small_window_peer(bench, handler)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not handler.lost:
            bench.tick()
            await asyncio.sleep(0.001)
    assert handler.lost == ["stalled"]
    assert bench.server.lines == 0


async def test_closing_the_server(bench: Bench) -> None:
    handler = Handler()
    peer, _ = await bench.connect(handler)
    half_open = await bench.dial()
    await until(lambda: bench.server.half_open == 1)
    bench.server.expect(uuid4(), Handler(), SLIN)
    ends = asyncio.gather(peer.rest(), half_open.rest())
    await bench.server.close()
    assert list(await ends) == [[Hangup()], [Hangup()]]
    assert not bench.server.listening
    assert handler.lost == ["server_closed"]
    assert bench.server.expected == bench.server.lines == bench.server.half_open == 0
    assert bench.refused == []
    await bench.server.close()
    with pytest.raises(OSError, match=r".+"):
        await bench.dial()

    bench.host, bench.port = await bench.server.start("127.0.0.1", 0)
    peer, _ = await bench.connect(Handler())
    bench.tick()
    assert await peer.messages(1) == [SILENCE]


async def test_starting_twice(bench: Bench) -> None:
    with pytest.raises(RuntimeError, match="listens already"):
        await bench.server.start("127.0.0.1", 0)
    with pytest.raises(OSError, match=r".+"):
        await AudioSocketServer(bench.clock).start(bench.host, bench.port)


async def test_expecting_and_forgetting(bench: Bench) -> None:
    uuid = uuid4()
    bench.server.expect(uuid, Handler(), SLIN)
    assert bench.server.expected == 1
    with pytest.raises(ValueError, match="expected already"):
        bench.server.expect(uuid, Handler(), SLIN)
    assert bench.server.forget(uuid)
    assert not bench.server.forget(uuid)
    peer = await identified(bench, uuid)
    assert await peer.rest() == [Hangup()]
    assert bench.refused == ["unknown_uuid"]


async def test_many_lines_in_one_tick(bench: Bench) -> None:
    connected = [await bench.connect(Handler()) for _ in range(40)]
    bench.tick(2)
    for peer, _ in connected:
        assert await peer.messages(2) == [SILENCE] * 2
    assert len(bench.manual.waiting) == 1


class Address(asyncio.Transport):
    def __init__(self, peername: object) -> None:
        super().__init__({"peername": peername})


def test_names_of_peers() -> None:
    assert peer_name(Address(("127.0.0.1", 80))) == "127.0.0.1:80"
    assert peer_name(Address(("::1", 80, 0, 0))) == "[::1]:80"
    assert peer_name(Address(None)) == "unknown"
