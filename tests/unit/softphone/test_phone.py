"""Phones that call each other over loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from math import inf
from pathlib import Path
from typing import Any

import pytest

from lab.softphone import (
    Answer,
    Call,
    CallFailed,
    CallOver,
    Ending,
    Impairment,
    Phone,
    Ring,
    SoftphoneError,
    Timers,
)
from lab.softphone.datagrams import bind_udp
from lab.softphone.driver import resolve
from lab.softphone.fields import Address
from lab.softphone.rtp import RtpPacket
from lab.softphone.sip import Request, build_response, parse
from lab.softphone.sounds import babble, level_dbfs, silence, tone, tone_dbfs, write_wav
from tests.waiting import until

QUICK = Timers(t1=0.002, t2=0.008, t4=0.01)
GENEROUS_S = 60.0
MS = 16  # bytes of PCM


@pytest.fixture
async def alice() -> AsyncIterator[Phone]:
    async with Phone(username="alice", display="Alice") as phone:
        yield phone


@pytest.fixture
async def bob() -> AsyncIterator[Phone]:
    async with Phone(username="bob") as phone:
        yield phone


async def connect(caller: Phone, called: Phone, **options: Any) -> tuple[Call, Call]:
    call = await caller.call(called.uri, timeout=GENEROUS_S, **options)
    other = await called.incoming(GENEROUS_S)
    await other.answered()
    return call, other


@pytest.mark.parametrize("codec", ["PCMU", "PCMA"])
@pytest.mark.parametrize("ptime_ms", [10, 20, 30])
async def test_sound_both_ways(alice: Phone, bob: Phone, codec: str, ptime_ms: int) -> None:
    call, other = await connect(alice, bob, codec=codec, ptime_ms=ptime_ms)
    await asyncio.gather(call.play(tone(440, 120)), other.play(tone(700, 120)))
    await asyncio.gather(
        call.wait_for_silence(60, timeout=GENEROUS_S),
        other.wait_for_silence(60, timeout=GENEROUS_S),
    )
    assert call.agreement is not None
    assert (call.agreement.codec.name, call.agreement.ptime_ms) == (codec, ptime_ms)
    assert {len(arrival.payload) for arrival in other.ear.arrivals} == {8 * ptime_ms}
    for ear, freq_hz in ((other, 440), (call, 700)):
        onset = ear.ear.sound_at()
        assert onset is not None
        sound = b"".join(arrival.pcm for arrival in ear.ear.arrivals if arrival.at >= onset)
        assert tone_dbfs(sound[: 120 * MS], freq_hz) == pytest.approx(-10, abs=0.5)
        assert level_dbfs(sound[: 120 * MS]) == pytest.approx(-10, abs=0.5)
    assert call.stats().lost == 0
    assert other.stats().packets >= 120 / ptime_ms


async def test_ringing_and_hanging_up(alice: Phone, bob: Phone) -> None:
    bob.on_incoming = Ring()
    call = await alice.dial(bob.uri)
    progress = await call.rung()
    assert (progress.status, progress.early_media) == (180, False)
    assert call.progress == (progress,)
    other = await bob.incoming(GENEROUS_S)
    assert (call.is_incoming, other.is_incoming) == (False, True)
    assert (call.is_up, call.id) == (False, other.id)
    await other.answer()
    await call.answered()
    assert (call.is_up, other.is_up) == (True, True)
    assert (call.answered_at or 0) >= progress.at >= call.started_at
    assert alice.calls == (call,)
    assert await other.hang_up() == Ending("us", 200, "hung up")
    assert await call.ended == Ending("far", 200, "hung up")
    assert await call.hang_up() == call.ending
    assert call.ended_at is not None
    assert alice.calls == bob.calls == ()


async def test_answering_by_hand_before_that(alice: Phone, bob: Phone) -> None:
    bob.on_incoming = Answer(after_s=0.05)
    call = await alice.dial(bob.uri)
    other = await bob.incoming(GENEROUS_S)
    await other.answer()
    await call.answered()
    await asyncio.sleep(0.1)
    assert (call.is_up, other.is_up) == (True, True)


async def test_refusing_by_hand(alice: Phone, bob: Phone) -> None:
    bob.on_incoming = Ring()
    call = await alice.dial(bob.uri)
    other = await bob.incoming(GENEROUS_S)
    with pytest.raises(RuntimeError, match="goes out"):
        call.reject()
    other.reject(486)
    with pytest.raises(CallFailed, match="486"):
        await call.answered()
    with pytest.raises(CallFailed, match="486"):
        await call.rung(183)


async def test_a_caller_without_patience(alice: Phone, bob: Phone) -> None:
    bob.on_incoming = Answer(after_s=60)
    with pytest.raises(CallFailed, match=r"not answered within 0\.1 s") as failure:
        await alice.call(bob.uri, timeout=0.1)
    assert failure.value.status == 408
    other = await bob.incoming(GENEROUS_S)
    assert (await other.ended).status == 487


async def test_a_caller_who_is_cancelled(alice: Phone, bob: Phone) -> None:
    bob.on_incoming = Ring()
    calling = asyncio.create_task(alice.call(bob.uri))
    other = await bob.incoming(GENEROUS_S)
    calling.cancel()
    assert (await other.ended).status == 487
    with pytest.raises(asyncio.CancelledError):
        await calling


async def test_digits_both_ways(alice: Phone, bob: Phone) -> None:
    call, other = await connect(alice, bob)
    await asyncio.gather(
        call.send_digits("12#", press_ms=40, gap_ms=40), other.send_digits("*D", press_ms=40)
    )
    assert await other.wait_for_digits(3, GENEROUS_S) == "12#"
    assert await call.wait_for_digits(2, GENEROUS_S) == call.digits == "*D"
    assert other.ear.digits[0].duration_ms == 40
    with pytest.raises(TimeoutError):
        await other.wait_for_digits(4, timeout=0.01)


async def test_no_digits_without_telephone_events(alice: Phone, bob: Phone) -> None:
    call, _ = await connect(alice, bob, telephone_events=False)
    with pytest.raises(SoftphoneError):
        await call.send_digits("1")


async def test_hold_and_unhold(alice: Phone, bob: Phone) -> None:
    call, other = await connect(alice, bob)
    for holder, held in ((call, other), (other, call)):
        await held.wait_for_sound(-100, GENEROUS_S)
        await holder.hold()
        assert (holder.mouth.paused, held.mouth.paused) == (True, True)
        await holder.unhold()
        # The far end may hear of our ACK later than we of its answer.
        await held.wait_for_sound(-100, GENEROUS_S)
        await holder.wait_for_sound(-100, GENEROUS_S)
        assert (holder.mouth.paused, held.mouth.paused) == (False, False)


async def test_what_a_call_cannot_do_any_more(alice: Phone, bob: Phone) -> None:
    call, other = await connect(alice, bob)
    other_end = asyncio.create_task(call.wait_for_sound(timeout=GENEROUS_S))
    playing = asyncio.create_task(call.play(silence(60_000)))
    pressing = asyncio.create_task(other.send_digits("1" * 100))
    await asyncio.sleep(0.05)
    await call.hang_up()
    await other.ended
    for waiting in (other_end, playing, pressing):
        with pytest.raises(CallOver):
            await waiting
    with pytest.raises(CallOver):
        call.send(b"")
    with pytest.raises(CallOver):
        await call.hold()


async def test_the_end_while_a_change_is_under_way(alice: Phone, bob: Phone) -> None:
    call, other = await connect(alice, bob)
    other.leg.hang_up(0.0)
    holding = asyncio.create_task(call.hold())
    with pytest.raises((CallOver, CallFailed)):
        await holding


async def test_silence_and_its_suppression(alice: Phone, bob: Phone) -> None:
    call, other = await connect(alice, bob)
    await other.wait_for_sound(-100, GENEROUS_S)
    call.mute_rtp(True)
    heard = -1
    while heard != other.stats().packets:  # what is still on its way
        heard = other.stats().packets
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.1)
    assert other.stats().packets == heard
    assert other.level(50) == -100
    call.mute_rtp(False)
    call.suppress_silence(True)
    await call.play(tone(440, 60))
    await other.wait_for_sound(timeout=GENEROUS_S, since=call.started_at)
    await until(lambda: other.stats().packets >= heard + 3)
    await asyncio.sleep(0.1)
    assert other.stats().packets == heard + 3
    assert other.stats().lost == 0
    assert len(other.heard_pcm()) // 320 > other.stats().packets


async def test_waiting_in_vain(alice: Phone, bob: Phone) -> None:
    call, other = await connect(alice, bob)
    with pytest.raises(TimeoutError):
        await call.wait_for_sound(timeout=0.05)
    other.send(tone(440, 2000))
    await call.wait_for_sound(timeout=GENEROUS_S)
    with pytest.raises(TimeoutError):
        await call.wait_for_silence(timeout=0.05)
    other.be_silent()
    await call.wait_for_silence(100, timeout=GENEROUS_S)


async def test_a_wav_file_can_be_said(alice: Phone, bob: Phone, tmp_path: Path) -> None:
    write_wav(tmp_path / "said.wav", tone(440, 100))
    call, other = await connect(alice, bob)
    utterance = await call.play(tmp_path / "said.wav")
    assert utterance.finished_at is not None
    await other.wait_for_sound(since=call.started_at, timeout=GENEROUS_S)
    await call.hang_up()
    await other.ended


async def test_a_bad_line(bob: Phone) -> None:
    harm = Impairment(loss=0.2, duplicate=0.2, jitter_ms=50, seed=1)
    async with Phone(impairment=harm) as alice:
        call, other = await connect(alice, bob, ptime_ms=10)
        await call.play(babble(600))
        stats = other.stats()
        assert stats.lost > 0
        assert stats.duplicated > 0
        assert stats.out_of_order > 0


async def test_strangers_and_garbage(alice: Phone, bob: Phone) -> None:
    call, other = await connect(alice, bob)
    await other.wait_for_sound(-100, GENEROUS_S)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.sendto(RtpPacket(0, 0, 0, 9, bytes(160)).encode(), other.stream.address)
        stranger.sendto(b"no sip\r\n\r\n", bob.address)
        call.stream._send_now(b"no rtp")
        await until(lambda: other.stream.strangers == 1)
        await until(lambda: other.ear.malformed == 1)
        await until(lambda: bob.agent.malformed == 1)
    assert {arrival.ssrc for arrival in other.ear.arrivals} == {other.ear.arrivals[0].ssrc}


async def test_nothing_in_common(alice: Phone) -> None:
    async with Phone(codecs=("PCMA",)) as bob:
        with pytest.raises(CallFailed, match="488"):
            await alice.call(bob.uri, codec="PCMU")
        call, _ = await connect(alice, bob, codec=("PCMU", "PCMA"))
        assert call.agreement is not None
        assert call.agreement.codec.name == "PCMA"


async def test_calls_that_nobody_takes_are_bounded(alice: Phone) -> None:
    async with Phone(max_incoming=1) as bob:
        await alice.call(bob.uri)
        with pytest.raises(CallFailed, match="486"):
            await alice.call(bob.uri)


async def test_switching_off_ends_everything(alice: Phone) -> None:
    bob = Phone()
    await bob.start()
    call, other = await connect(alice, bob)
    bob.on_incoming = Answer(after_s=60)
    ringing = await alice.dial(bob.uri)
    await bob.incoming(GENEROUS_S)
    await bob.close()
    await bob.close()
    assert (await call.ended).by == "far"
    assert (await ringing.ended).status == 603
    assert other.ending == Ending("us", 200, "hung up")
    assert bob.calls == ()
    bind_udp(*bob.address).close()


async def test_switching_off_without_an_answer(bob: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = Phone()
    await alice.start()
    call, _ = await connect(alice, bob)
    ringing = await alice.dial("sip:x@127.0.0.1:9")
    alice.on_incoming = Answer(after_s=60)
    await bob.dial(alice.uri)
    await alice.incoming(GENEROUS_S)
    monkeypatch.setattr(bob.agent, "receive_datagram", lambda *_: None)
    await alice.close(timeout=0.05)
    off = Ending("us", 408, "the phone was switched off")
    assert (call.ending, ringing.ending) == (off, off)
    call.finish(Ending("us", 200, "again"))
    assert call.ending == off
    await bob.close(timeout=0.05)


async def test_a_call_that_comes_while_switching_off(alice: Phone) -> None:
    bob = Phone()
    await bob.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        unanswered = await bob.dial(f"sip:x@127.0.0.1:{silent.getsockname()[1]}")
        closing = asyncio.create_task(bob.close(timeout=GENEROUS_S))
        await asyncio.sleep(0)
        with pytest.raises(CallFailed, match="480"):
            await alice.call(bob.uri)
        unanswered.finish(Ending("us", 408, "no answer"))
        await closing


async def test_no_rtp_port(alice: Phone, bob: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no port")

    uri = bob.uri
    call = alice.dial(uri)
    monkeypatch.setattr("lab.softphone.phone.MediaStream", refuse)
    with pytest.raises(OSError, match="no port"):
        await call
    monkeypatch.undo()
    monkeypatch.setattr(bob, "_host", "192.0.2.1")
    with pytest.raises(CallFailed, match="503"):
        await alice.call(uri)


async def test_what_cannot_be_dialled(alice: Phone) -> None:
    with pytest.raises(SoftphoneError):
        await alice.dial("tel:100")
    with pytest.raises(ValueError, match="G729"):
        await alice.dial("sip:x@127.0.0.1", codec="G729")
    with pytest.raises(ValueError, match="ptime"):
        Phone(ptime_ms=15)
    with pytest.raises(RuntimeError, match="not switched on"):
        await Phone().dial("sip:x@127.0.0.1")
    await Phone().close()


async def test_a_port_that_is_taken(alice: Phone) -> None:
    with pytest.raises(OSError, match="in use"):
        await Phone(port=alice.address.port).start()


async def test_names_are_looked_up() -> None:
    assert await resolve(Address("localhost", 5)) == Address("127.0.0.1", 5)
    assert await resolve(Address("127.0.0.2", 5)) == Address("127.0.0.2", 5)


class Registrar(asyncio.DatagramProtocol):
    """Answers every request with the next status; None for no answer."""

    def __init__(self, statuses: list[int | None]) -> None:
        self.statuses = statuses
        self.requests: list[str] = []
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        request = parse(data)
        assert isinstance(request, Request)
        self.requests.append(request.headers.get("Expires") or "")
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if status is not None:
            self._transport.sendto(build_response(request, status).encode(), addr)


async def test_a_registrar_that_answers_too_late() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        async with Phone(timers=QUICK) as phone:
            with pytest.raises(CallFailed, match="408 no answer"):
                await phone.register(f"sip:127.0.0.1:{silent.getsockname()[1]}", timeout=0.01)
            await until(lambda: phone.agent.deadline == inf)


@pytest.mark.parametrize("statuses", [[200], [403], [None], [200, None]])
async def test_registering(statuses: list[int | None]) -> None:
    registrar = Registrar(list(statuses))
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: registrar, local_addr=("127.0.0.1", 0)
    )
    target = f"sip:127.0.0.1:{transport.get_extra_info('sockname')[1]}"
    phone = Phone(password="secret")
    try:
        await phone.start()
        if statuses[0] == 200:
            await phone.register(target, expires=90)
            assert registrar.requests == ["90"]
        else:
            patience = GENEROUS_S if statuses[0] else 0.1
            registering = asyncio.create_task(phone.register(target, timeout=patience))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="under way"):
                await phone.register(target)
            with pytest.raises(CallFailed, match=str(statuses[0] or 408)):
                await registering
    finally:
        await phone.close(timeout=0.2)
        transport.close()
    assert ("0" in registrar.requests) == (statuses[0] == 200)
