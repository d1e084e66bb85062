"""The two voice codecs of the phone: G.711 in both laws, 8 kHz (RFC 3551, section 4.5.14)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ari_app.audio.g711 import alaw_to_pcm, pcm_to_alaw, pcm_to_ulaw, ulaw_to_pcm

RATE_HZ = 8000
SAMPLE_BYTES = 2


@dataclass(frozen=True, slots=True)
class Codec:
    """A payload format with one byte a sample. `encode` and `decode` take and give 16-bit PCM."""

    name: str
    payload_type: int
    encode: Callable[[bytes], bytes] = field(repr=False, compare=False)
    decode: Callable[[bytes], bytes] = field(repr=False, compare=False)


PCMU = Codec("PCMU", 0, pcm_to_ulaw, ulaw_to_pcm)
PCMA = Codec("PCMA", 8, pcm_to_alaw, alaw_to_pcm)
CODECS = {codec.name: codec for codec in (PCMU, PCMA)}
STATIC_CODECS = {codec.payload_type: codec for codec in (PCMU, PCMA)}


def codecs_named(*names: str) -> tuple[Codec, ...]:
    """The codecs of these names, in this order. Raise ValueError for a name that is not spoken."""
    unknown = [name for name in names if name not in CODECS]
    if unknown or not names:
        raise ValueError(f"the phone speaks {' and '.join(CODECS)}, not {', '.join(names)!r}")
    return tuple(CODECS[name] for name in names)
