"""Sound over chan_websocket: what is peculiar to it. All else runs in `test_calls.py` and its like,
which take the `transport`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
from structlog.testing import capture_logs

from ari_app.call.states import State
from ari_app.checks.all import check_all
from ari_app.checks.finding import Verdict
from lab.asterisk import LabAsterisk
from lab.faults import TcpProxy
from lab.practice_agent import PracticeAgent
from lab.softphone.sounds import level_dbfs, tone
from tests.e2e.harness import (
    HUMAN_HZ,
    Bench,
    bench,
    book,
    loud_seconds,
    practice_config,
    settings_for,
)
from tests.e2e.test_asterisk_faults import hears
from tests.waiting import until

pytestmark = pytest.mark.e2e

LOUD = -35.0
WEBSOCKET = {"media_transport": "websocket"}
NARROW = {"user_input": "pcm_8000", "agent_output": "pcm_8000"}
# No sentence like another: its end is looked for in what is heard.
LONG = (
    "This is a long story that the caller listens to with patience. "
    "It goes on about many things, one after the other. "
    "And at last, when nobody expects it, comes the end of all."
)


@asynccontextmanager
async def proxied(
    asterisk: LabAsterisk, *, packet_bytes: int = 0, line: str = "slin", **parts: object
) -> AsyncIterator[tuple[Bench, TcpProxy]]:
    """A bench whose media go through a proxy, as all that goes to Asterisk does."""
    host, _, port = asterisk.ari_url.removeprefix("http://").rpartition(":")
    async with TcpProxy(host, int(port), mark=b"GET /media/", packet_bytes=packet_bytes) as proxy:
        where = {"ari_url": f"http://{proxy.address}", "audiosocket_format": line, **WEBSOCKET}
        async with bench(asterisk, book(**parts), **where) as b:
            yield b, proxy


async def test_what_is_used_is_told(asterisk: LabAsterisk) -> None:
    with capture_logs() as logs:
        async with bench(asterisk, media_transport="auto") as b:
            assert b.bridge.readiness().media_transport == "websocket"
            call, _ = await b.talk()
            names = [channel.name for channel in await b.bridge.ari.channels.list()]
            assert [name for name in names if name.startswith("WebSocket/INCOMING")]
            assert b.lines == 0
            await call.hang_up()
            await b.all_gone()
    [told] = [entry for entry in logs if entry["event"] == "media_transport"]
    assert told["transport"] == "websocket"


async def test_the_check_goes_the_way_that_sound_takes(asterisk: LabAsterisk) -> None:
    async with PracticeAgent(practice_config()) as agent:
        settings = settings_for(asterisk, agent, media_transport="auto")
        found = [finding async for finding in check_all(settings)]
        await asterisk.wait_until_empty()
    [audio] = [finding for finding in found if finding.what == "Audio"]
    assert audio.verdict is Verdict.OK
    assert f"we reach {asterisk.ari_url}/media/" in audio.detail


@pytest.mark.parametrize("line", ["slin16", "slin24"])
async def test_sound_comes_over_a_link_that_brings_one_packet_at_a_time(
    asterisk: LabAsterisk, line: str
) -> None:
    if asterisk.installation.major < 20:
        pytest.skip("speaks 8 kHz only")
    story = {"first_message": "This is quite a short story.", "turns": []}
    with capture_logs() as logs:
        async with proxied(asterisk, packet_bytes=1448, line=line, dialogue=story) as (b, _):
            call, session = await b.talk()
            await call.wait_for_sound(LOUD, since=0)
            await until(lambda: session.sound.playout.idle)
            # Silence lies further ahead than speech, so more of it comes at once.
            await asyncio.sleep(1.5)
            assert session.state is State.TALKING
            await call.hang_up()
            await b.all_gone()
    assert not [entry for entry in logs if entry["event"].startswith("media_")][1:]


async def test_a_media_socket_that_breaks_is_replaced_and_nothing_said_is_lost(
    asterisk: LabAsterisk, spoken: list[bytes]
) -> None:
    story = {"first_message": LONG, "turns": []}
    with capture_logs() as logs:
        async with proxied(asterisk, dialogue=story, formats=NARROW) as (b, proxy):
            call, session = await b.talk()
            await call.wait_for_sound(LOUD, since=0)
            await asyncio.sleep(1)
            assert proxy.marked == 1
            proxy.cut(marked_only=True)
            await until(lambda: session.sound.playout.idle)
            await asyncio.sleep(0.6)
            record = await b.conversation()
            assert (len(b.agent.conversations), record.closing) == (1, None)
            assert session.state is State.TALKING
            await call.play(tone(1000, 600, -10))
            await until(lambda: loud_seconds(record) > 0.25)  # counted as if at 16 kHz
            await call.hang_up()
            await b.all_gone()
    [renewed] = [entry for entry in logs if entry["event"] == "media_renewed"]
    assert renewed["ms"] < 1000, "it is replaced at once"
    said = np.frombuffer(b"".join(spoken), "<i2").astype(np.float64)
    heard = np.frombuffer(call.heard_pcm(), "<i2").astype(np.float64)

    def place(piece: np.ndarray) -> int:
        return int(np.argmax(np.correlate(heard, piece, "valid")))

    first, last = place(said[:4000]), place(said[-8000:])
    longer_ms = (last - first - (said.size - 8000)) / 8
    # Heard to the end, later by no more than that took; what Asterisk had and had not played was
    # said again.
    assert -40 <= longer_ms <= renewed["ms"] + 200
    assert np.isclose(said[:4000].std(), heard[first : first + 4000].std(), rtol=0.1)


async def test_a_media_socket_that_stays_away_ends_the_call_as_a_lost_line_does(
    asterisk: LabAsterisk,
) -> None:
    quiet = {"first_message": "", "turns": []}
    async with proxied(asterisk, dialogue=quiet) as (b, proxy):
        call, session = await b.talk()
        await proxy.refuse(marked_only=True)
        await hears(call, HUMAN_HZ)
        assert session.end_reason == "line_peer_closed"
        await proxy.restore()
        await call.hang_up()
        await b.all_gone()


async def test_a_media_channel_that_somebody_hangs_up_is_not_replaced(
    asterisk: LabAsterisk,
) -> None:
    async with bench(asterisk, book(dialogue={"first_message": "", "turns": []}), **WEBSOCKET) as b:
        call, session = await b.talk()
        # Not the one in Asterisk's list: a channel is now and then in it twice.
        await b.bridge.ari.channels.hangup(session.media_id)
        await hears(call, HUMAN_HZ)
        assert session.end_reason in ("media_channel_gone", "line_peer_closed")
        await call.hang_up()
        await b.all_gone()


async def test_packets_flow_also_when_nobody_speaks(asterisk: LabAsterisk) -> None:
    async with bench(asterisk, book(dialogue={"first_message": "", "turns": []}), **WEBSOCKET) as b:
        call, _ = await b.talk()
        since, began = len(call.ear.arrivals), time.monotonic()
        await asyncio.sleep(3)
        # However much later it is by then.
        seconds = time.monotonic() - began
        arrivals = call.ear.arrivals[since:]
        assert len(arrivals) == pytest.approx(50 * seconds, abs=8)
        assert max(level_dbfs(each.pcm) for each in arrivals) < -60
        await call.hang_up()
        await b.all_gone()
