"""What was really said, against what is in the recording."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from ari_app.call.sound import CallSound
from lab.asterisk import LabAsterisk
from lab.softphone.sounds import babble
from tests.e2e.harness import Bench, bench, book
from tests.waiting import until

pytestmark = pytest.mark.e2e

RATE_HZ = 8000
LOUD = -35.0
# That it is a frame at most, whatever a phone's clock does, is proven in virtual time. Here the
# machine itself may let everybody wait, and what was late once stays so for a while.
IN_TIME = RATE_HZ // 10
FORMATS = {"user_input": "pcm_8000", "agent_output": "pcm_8000"}
FIRST, SECRET, LAST = (babble(1500, -18, seed=seed) for seed in (11, 12, 13))

Samples = npt.NDArray[np.float64]


def samples(pcm: bytes) -> Samples:
    return np.frombuffer(pcm, "<i2").astype(np.float64)


def place(side: Samples, said: Samples) -> tuple[int, float]:
    """Where something was said, and how well it is heard there (1: as it was said)."""
    size = 1 << (len(side) + len(said)).bit_length()
    product = np.fft.irfft(np.fft.rfft(side, size) * np.fft.rfft(said, size).conj(), size)
    at = int(np.argmax(product[: len(side)]))
    there = side[at : at + len(said)]
    there = np.pad(there, (0, len(said) - len(there)))
    power = np.sqrt((there**2).sum() * (said**2).sum())
    return at, float((there * said).sum() / power) if power else 0.0


def pieces(said: Samples) -> Iterator[tuple[int, Samples]]:
    """Fifths of a second in which something is heard, and where each begins.

    On a machine that is short of time there are holes of some hundredths of a second, as there are
    for who listens; what lies between them is whole all the same.
    """
    size = RATE_HZ // 5
    for start in range(0, len(said), size):
        if np.abs(piece := said[start : start + size]).max() > 500:
            yield start, piece


def three_of_four(alike: list[float]) -> float:
    """How well three of four pieces are heard at least."""
    return sorted(alike)[len(alike) // 4]


@dataclass
class Arrivals:
    """What a caller said, as the service got it."""

    pcm: bytes = b""
    at: list[tuple[int, float]] = field(default_factory=list)

    def when(self, sample: int) -> float:
        """When a sample was said: what comes at once, with its last one, was said before."""
        there, at = next((there, at) for there, at in self.at if there > sample)
        return at - (there - sample) / RATE_HZ


@pytest.fixture
def arrivals(monkeypatch: pytest.MonkeyPatch) -> Arrivals:
    """What callers say."""
    noted = Arrivals()
    hear = CallSound.heard

    def note(self: CallSound, pcm: bytes) -> None:
        noted.pcm += pcm
        noted.at.append((len(noted.pcm) // 2, time.monotonic()))
        hear(self, pcm)

    monkeypatch.setattr(CallSound, "heard", note)
    return noted


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def address(b: Bench) -> str:
    return "http://{}:{}".format(*b.bridge.api_address)


def files(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("kind", ["flac", "opus"])
async def test_what_was_said_is_in_the_recording_and_when(
    asterisk: LabAsterisk,
    spoken: list[bytes],
    arrivals: Arrivals,
    http: aiohttp.ClientSession,
    tmp_path: Path,
    kind: str,
) -> None:
    recordings = tmp_path / "recordings"
    async with bench(
        asterisk,
        book(
            formats=FORMATS, dialogue={"first_message": "Hello, how can I help you?", "turns": []}
        ),
        recordings_dir=recordings,
        recordings_format=kind,
        record_calls="asked",
        database_url=f"sqlite+aiosqlite:///{tmp_path}/calls.db",
    ) as b:
        call = await b.call("107")
        session = await b.session()
        await call.wait_for_sound(LOUD, since=0)
        heard_at = call.ear.sound_at(-60.0)
        assert heard_at is not None and session.sound.recorder is not None
        began = session.sound.recorder._file.started_at
        await until(lambda: session.sound.playout.idle)
        greeted = samples(b"".join(spoken))

        recording = f"{address(b)}/sessions/{session.session_id}/recording"
        await call.play(FIRST)
        await asyncio.sleep(0.3)
        async with http.post(recording, json={"on": False}) as response:
            assert response.status == 200
        await call.play(SECRET)
        await asyncio.sleep(0.3)
        async with http.post(recording, json={"on": True}) as response:
            assert response.status == 200
        await call.play(LAST)
        kept = f"{address(b)}/calls/{session.session_id}/recording"
        async with http.get(kept) as response:
            assert response.status == 409
        await asyncio.sleep(0.3)
        await call.hang_up()
        await b.all_gone()
        archive, call_log = b.bridge.recordings, b.bridge.call_log
        assert archive is not None and call_log is not None
        await until(lambda: not archive.is_busy(session.session_id))
        async with http.get(kept) as response:
            sound = await response.read()
            assert response.headers["Content-Type"] == {"flac": "audio/flac"}.get(kind, "audio/ogg")
        async with http.get(kept, headers={"Range": "bytes=100-199"}) as response:
            assert (response.status, await response.read()) == (206, sound[100:200])
        await call_log.settle()
        document = await call_log.find(session.session_id)
        assert document is not None
        (part,) = document["recordings"]
        assert files(recordings) == [part["path"]]
        assert await call_log.delete(session.session_id)
        async with http.get(kept) as response:
            assert response.status in (404, 409)
        assert files(recordings) == []

    pcm, rate_hz = soundfile.read(io.BytesIO(sound), dtype="int16")
    assert rate_hz == RATE_HZ
    caller, agent = pcm[:, 0].astype(np.float64), pcm[:, 1].astype(np.float64)
    assert part["seconds"] == pytest.approx(len(pcm) / RATE_HZ, abs=0.001)
    assert (part["format"], part["complete"], part["bytes"]) == (kind, True, len(sound))
    clear = 0.97 if kind == "flac" else 0.85

    came = samples(arrivals.pcm)
    for said in (FIRST, LAST):
        late, alike = [], []
        for _, piece in pieces(samples(said)):
            at, how = place(caller, piece)
            late.append(at - (arrivals.when(place(came, piece)[0]) - began) * RATE_HZ)
            alike.append(how)
        assert three_of_four(alike) > clear
        assert abs(np.median(late)) <= IN_TIME
    # Two of these voices are alike by a third.
    assert place(caller, samples(SECRET))[1] < 0.6, "it is not on the disk"
    since, until_ = (round(each * RATE_HZ) for each in part["pauses"][0])
    assert not np.abs(pcm[since + RATE_HZ // 50 : until_ - RATE_HZ // 50]).max() > 64

    found = [(start, *place(agent, each)) for start, each in pieces(greeted)]
    assert three_of_four([how for _, _, how in found]) > clear
    at = found[0][1] - found[0][0]
    phone_heard = round((heard_at - began) * RATE_HZ)
    # Asterisk hands it on with its next tick.
    assert 0 <= phone_heard - at <= IN_TIME
