"""Audio formats: an encoding and a rate for one direction of a conversation."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, Self

LINE_RATES_HZ: Final = (8000, 12000, 16000, 24000)
"""The rates that a call may run at on the AudioSocket side."""

SAMPLE_BYTES: Final = 2
"""Bytes of one sample of linear PCM (signed 16-bit little-endian mono, everywhere)."""


class Encoding(enum.Enum):
    """The encoding of a sample. The value is ElevenLabs' word for it."""

    PCM = "pcm"
    ULAW = "ulaw"


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """An encoding and a sampling rate; always mono."""

    encoding: Encoding
    rate_hz: int

    @classmethod
    def pcm(cls, rate_hz: int) -> Self:
        """Return linear PCM at `rate_hz`: what Asterisk calls slin."""
        return cls(Encoding.PCM, rate_hz)

    @classmethod
    def parse(cls, name: str) -> Self:
        """Return the format that ElevenLabs calls `name`, for example `pcm_16000` or `ulaw_8000`.

        The names are those of `agent_output_audio_format` and `user_input_audio_format` in
        `conversation_initiation_metadata`.

        Raises:
            ValueError: it is none of `AGENT_FORMATS`.
        """
        if name not in AGENT_FORMATS:
            raise ValueError(f"unknown audio format {name!r}, expected one of {AGENT_FORMATS}")
        encoding, _, rate = name.partition("_")
        return cls(Encoding(encoding), int(rate))

    @property
    def name(self) -> str:
        """ElevenLabs' name, the inverse of `parse`."""
        return f"{self.encoding.value}_{self.rate_hz}"

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample."""
        return SAMPLE_BYTES if self.encoding is Encoding.PCM else 1

    def duration_ms(self, size: int) -> float:
        """Return how long `size` bytes last."""
        return size * 1000 / (self.sample_bytes * self.rate_hz)


AGENT_FORMATS: Final = (
    "pcm_8000",
    "pcm_16000",
    "pcm_22050",
    "pcm_24000",
    "pcm_44100",
    "pcm_48000",
    "ulaw_8000",
)
"""Every format that an agent can announce, in either direction."""


class SampleAligner:
    """Cuts a stream of PCM bytes between samples, never inside one.

    A sender may split its stream anywhere, also in the middle of a sample. The odd byte waits for
    the next chunk, so that one odd chunk does not turn everything after it into noise.
    """

    __slots__ = ("_odd",)

    def __init__(self) -> None:
        self._odd = b""

    def align(self, data: bytes) -> bytes:
        """Return whole samples: the byte that was kept, then `data`, less its own odd byte.

        In the usual case nothing is kept and `data` itself is returned.
        """
        if self._odd:
            data = self._odd + data
            self._odd = b""
        if len(data) % SAMPLE_BYTES:
            self._odd = data[-1:]
            return data[:-1]
        return data

    def reset(self) -> None:
        """Forget half a sample."""
        self._odd = b""


@dataclass(frozen=True, slots=True)
class AgentFormats:
    """The sound formats of an agent.

    Attributes:
        hears: What it wants to hear.
        speaks: What it sends.
    """

    hears: AudioFormat
    speaks: AudioFormat


DEFAULT_AGENT_FORMATS: Final = AgentFormats(AudioFormat.pcm(16000), AudioFormat.pcm(16000))
"""ElevenLabs' default for both, assumed of an agent that has not been met yet."""
