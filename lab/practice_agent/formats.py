"""The audio formats of the agent's socket, as samples and as bytes.

Source: ElevenLabs *Agent WebSocket* reference: the same seven names are valid in both directions;
PCM is signed 16-bit little-endian mono, and there is no A-law and no compressed codec.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from ari_app.audio.g711 import pcm_to_ulaw, ulaw_to_pcm

Samples = NDArray[np.int16]


class AudioFormat(StrEnum):
    """A format's name on the wire; the number in it is the sampling rate in Hz."""

    PCM_8000 = "pcm_8000"
    PCM_16000 = "pcm_16000"
    PCM_22050 = "pcm_22050"
    PCM_24000 = "pcm_24000"
    PCM_44100 = "pcm_44100"
    PCM_48000 = "pcm_48000"
    ULAW_8000 = "ulaw_8000"

    @property
    def rate_hz(self) -> int:
        """Samples per second."""
        return int(self.value.partition("_")[2])

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample: 1 for µ-law, 2 for PCM."""
        return 1 if self is AudioFormat.ULAW_8000 else 2

    def to_bytes(self, samples: Samples) -> bytes:
        """Return mono int16 samples as bytes of this format."""
        pcm = samples.astype("<i2", copy=False).tobytes()
        return pcm_to_ulaw(pcm) if self is AudioFormat.ULAW_8000 else pcm

    def to_samples(self, payload: bytes) -> Samples:
        """Return bytes of this format as mono int16 samples.

        Raises ``ValueError`` when PCM ends in the middle of a sample.
        """
        if len(payload) % self.sample_bytes:
            raise ValueError(f"{len(payload)} bytes of {self} end in the middle of a sample")
        pcm = ulaw_to_pcm(payload) if self is AudioFormat.ULAW_8000 else payload
        return np.frombuffer(pcm, dtype="<i2").astype(np.int16, copy=False)

    def seconds(self, byte_count: int) -> float:
        """How long ``byte_count`` bytes of this format last."""
        return byte_count / self.sample_bytes / self.rate_hz


@dataclass(frozen=True, slots=True)
class Chunk:
    """One message's worth of agent audio."""

    payload: bytes
    starts_at_s: float
    """Where it begins within its response, in seconds."""


def split(
    audio: bytes, audio_format: AudioFormat, chunk_ms: tuple[int, ...], *, torn: bool = False
) -> tuple[Chunk, ...]:
    """Cut a response into chunks.

    The first chunk lasts ``chunk_ms[0]``, the second ``chunk_ms[1]``; the last length named
    repeats. Lengths need not be whole frames. With ``torn`` each cut falls one byte later, in the
    middle of a PCM sample.
    """
    chunks: list[Chunk] = []
    position = 0
    while position < len(audio):
        length_ms = chunk_ms[min(len(chunks), len(chunk_ms) - 1)]
        sample_count = max(1, audio_format.rate_hz * length_ms // 1000)
        end = position + sample_count * audio_format.sample_bytes
        if torn and not chunks:
            end += 1
        chunks.append(Chunk(audio[position:end], audio_format.seconds(position)))
        position = end
    return tuple(chunks)
