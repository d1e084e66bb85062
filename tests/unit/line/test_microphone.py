"""What is the microphone's own, beside the contract of all lines."""

from __future__ import annotations

import asyncio
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from ari_app.audio.formats import DEFAULT_AGENT_FORMATS
from ari_app.errors import ConfigError
from ari_app.line.interface import (
    Arrival,
    CallEnd,
    Connected,
    LineEvent,
    LineFailed,
    Opened,
    Outcome,
    Placing,
    Status,
)
from ari_app.line.microphone import (
    STALL_SECONDS,
    Levels,
    MicrophoneGateway,
    MicrophoneLine,
    PortAudio,
    devices,
)
from tests.unit.line.fake_card import FakeCard
from tests.unit.line.fake_sound import FakeSound

OVER = Outcome(Status.COMPLETED, "agent_ended")


class Talk:
    """A talk at a card whose blocks come when a test says so."""

    def __init__(self, gateway: MicrophoneGateway) -> None:
        self.line = gateway.place("s", "+15550100001", Placing())
        self.told: list[LineEvent] = []
        self.sound = FakeSound()
        self.line.listen(self.told.append)

    async def opens(self, seconds: float = 5) -> None:
        await self.line.prepare(DEFAULT_AGENT_FORMATS)
        self.line.open(self.sound, seconds)
        await asyncio.sleep(0.01)

    async def closes(self) -> None:
        await self.line.close(OVER, CallEnd("s"))


async def test_a_callback_that_stops_is_noticed() -> None:
    card = FakeCard(16000)
    talk = Talk(MicrophoneGateway(card))
    await talk.opens()
    talk.line.connect()
    for _ in range(100):
        await asyncio.sleep(0.02)
        card.beat()
    assert talk.told == [Opened(), Connected()]
    await asyncio.sleep(STALL_SECONDS * 1.5)
    assert talk.told[2:] == [LineFailed("microphone_stopped")]
    assert talk.line.problem == "The sound card has stopped: nothing came for 2 s."
    await talk.closes()


async def test_a_card_that_is_not_there_fails_the_call_and_is_told_until_one_is() -> None:
    gateway = MicrophoneGateway(FakeCard())
    talk = Talk(gateway)
    await talk.opens()
    assert talk.told == [LineFailed("microphone_unusable")]
    assert gateway.problems() == ["this machine has no sound device that can be used"]
    await talk.closes()
    gateway.card = FakeCard(48000)
    again = Talk(gateway)
    await again.opens()
    assert again.told == [Opened()]
    assert gateway.problems() == []
    await again.closes()


async def test_a_card_that_is_back_is_found_without_a_talk() -> None:
    gateway = MicrophoneGateway(FakeCard())
    run = asyncio.create_task(gateway.run(lambda arrival: None))
    talk = Talk(gateway)
    await talk.opens()
    await talk.closes()
    await asyncio.sleep(60)
    assert gateway.problems() == ["this machine has no sound device that can be used"]
    gateway.card = FakeCard(48000)
    await asyncio.sleep(6)
    assert gateway.problems() == []
    run.cancel()


async def test_a_card_that_refuses_to_start_is_given_back() -> None:
    card = FakeCard(16000)

    def refuse() -> None:
        raise OSError("busy")

    card.begun = refuse
    talk = Talk(MicrophoneGateway(card))
    await talk.opens()
    assert talk.told == [LineFailed("microphone_unusable")]
    assert (talk.line.problem, card.open_streams) == ("busy", 0)
    await talk.closes()


async def test_one_talk_at_a_time() -> None:
    card = FakeCard(16000)
    gateway = MicrophoneGateway(card)
    first, second, third = Talk(gateway), Talk(gateway), Talk(gateway)
    await first.opens()
    await second.opens()
    assert second.told == [LineFailed("microphone_in_use")]
    await second.closes()
    assert first.told == [Opened()], "and goes on"
    await first.closes()
    await third.opens()
    assert third.told == [Opened()]
    await third.closes()
    assert card.open_streams == 0


async def test_a_talk_that_ends_while_the_card_opens_gives_it_back() -> None:
    card, may = FakeCard(16000), threading.Event()
    card.begun = lambda: may.wait(10)  # type: ignore[assignment]
    gateway = MicrophoneGateway(card)
    talk, next_one = Talk(gateway), Talk(gateway)
    talk.line.open(talk.sound, 5)
    await asyncio.sleep(0)
    closing = asyncio.create_task(talk.closes())
    await next_one.line.prepare(DEFAULT_AGENT_FORMATS)
    next_one.line.open(next_one.sound, 5)
    await asyncio.sleep(0)
    assert next_one.told == [LineFailed("microphone_in_use")], "the card is not free yet"
    may.set()
    await closing
    assert (card.open_streams, talk.told) == (0, [])
    await next_one.closes()


async def test_a_device_at_another_rate_is_used_at_its_own() -> None:
    talk = Talk(MicrophoneGateway(FakeCard(48000)))
    assert (await talk.line.prepare(DEFAULT_AGENT_FORMATS)).rate_hz == 48000


async def test_the_callback_may_come_in_another_thread_and_levels_are_measured() -> None:
    card = FakeCard(16000)
    talk = Talk(MicrophoneGateway(card))
    await talk.opens()
    talk.line.connect()
    talk.sound.frames = [(988).to_bytes(2, "little") * 320] * 10
    for _ in range(4):
        await asyncio.to_thread(card.beat, 16384)
        await asyncio.sleep(0.02)
    assert talk.line.levels.microphone == pytest.approx(-6.0, abs=0.1)
    assert talk.line.levels.loudspeaker == pytest.approx(-30.4, abs=0.1)
    assert Levels() == Levels(-96.0, -96.0)
    await talk.closes()


async def test_a_talk_begins_as_soon_as_the_gateway_runs() -> None:
    gateway = MicrophoneGateway(FakeCard(16000))
    arrivals: list[Arrival] = []
    talk = asyncio.create_task(gateway.talk("agent_7", {"topic": "rain"}))
    await asyncio.sleep(0.1)
    assert not talk.done()
    run = asyncio.create_task(gateway.run(arrivals.append))
    line = await talk
    assert isinstance(line, MicrophoneLine) and line.answered and not line.placed
    assert arrivals == [Arrival(line, agent_id="agent_7", variables={"topic": "rain"})]
    run.cancel()


# --- PortAudio, whose library stands for itself


class PortAudioError(Exception):
    """As the library's."""


def library(
    monkeypatch: pytest.MonkeyPatch,
    *rates: int,
    found: int = 1,
    speaks: tuple[int, ...] | None = None,
    **extra: Any,
) -> None:
    """A `sounddevice` with so many devices, which work at these rates; loudspeakers at `speaks`."""

    def check(*, device: object, channels: int, dtype: str, samplerate: int) -> None:
        if device == "phones":
            raise ValueError("Multiple input devices found for 'phones':\n[0] one\n[1] two")
        if samplerate not in rates:
            raise PortAudioError("Invalid sample rate [PaErrorCode -9997]")

    def says(*, samplerate: int, **settings: object) -> None:
        if samplerate not in (speaks or ()):
            raise PortAudioError("Device unavailable [PaErrorCode -9985]")

    listed = [{"name": f"card {n}", "max_input_channels": 1, "max_output_channels": 2} for n in
              range(found)]  # fmt: skip
    module = SimpleNamespace(
        PortAudioError=PortAudioError,
        query_devices=lambda: listed,
        check_input_settings=check,
        check_output_settings=check if speaks is None else says,
        **extra,
    )
    monkeypatch.setitem(sys.modules, "sounddevice", module)


def test_the_wanted_rate_is_taken_and_else_one_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    library(monkeypatch, 8000, 48000)
    assert PortAudio().rate_hz(8000) == 8000
    assert PortAudio().rate_hz(16000) == 48000


def test_devices_are_listed_with_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    library(monkeypatch, found=2)
    assert devices() == ["0: card 0 (in 1, out 2)", "1: card 1 (in 1, out 2)"]


def test_what_is_wrong_with_a_device_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    library(monkeypatch, 44100)
    with pytest.raises(ConfigError, match=r"Invalid sample rate .* name one by its number\.$"):
        PortAudio("3").rate_hz(16000)
    library(monkeypatch, 16000)
    with pytest.raises(ConfigError) as error:
        PortAudio("phones").rate_hz(16000)
    assert "found for 'phones'. `ari-app talk --list-devices`" in str(error.value)
    library(monkeypatch, 44100, speaks=())
    with pytest.raises(ConfigError) as error:
        PortAudio().rate_hz(16000)
    assert str(error.value).startswith(
        "microphone cannot be used: Invalid sample rate [PaErrorCode -9997]; "
        "loudspeaker cannot be used: Device unavailable [PaErrorCode -9985]. "
    )
    library(monkeypatch, found=0)
    with pytest.raises(ConfigError, match="no sound device that can be used"):
        PortAudio().rate_hz(16000)


def test_a_stream_has_a_block_size_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    library(monkeypatch, 16000, RawStream=lambda **options: given.update(options))
    PortAudio("2").open(16000, 320, lambda *args: None)
    assert (given["blocksize"], given["samplerate"], given["device"]) == (320, 16000, 2)


def test_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Missing:
        def find_spec(self, name: str, *args: object) -> None:
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    with pytest.raises(ConfigError, match="apt-get install libportaudio2"):
        devices()
