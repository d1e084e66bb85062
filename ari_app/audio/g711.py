"""G.711 (ITU-T, 1988) by table: µ-law and A-law to 16-bit linear PCM and back.

A table holds every answer, so a frame costs one lookup a sample. Linear values are those of the
recommendation's tables, shifted up to 16 bits as Asterisk has them. Encoding cuts at its decision
values, with negative samples taken as one's complement, as ITU-T G.191 does.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

_ULAW_BIAS: Final = 0x84
_ALAW_TOGGLE: Final = 0x55
_SIGN: Final = 0x80


def ulaw_to_pcm(data: bytes) -> bytes:
    """Convert µ-law, one byte a sample, to 16-bit PCM."""
    return _decode(_ULAW_VALUES, data)


def alaw_to_pcm(data: bytes) -> bytes:
    """Convert A-law, one byte a sample, to 16-bit PCM."""
    return _decode(_ALAW_VALUES, data)


def pcm_to_ulaw(pcm: bytes) -> bytes:
    """Convert 16-bit PCM to µ-law.

    Raises:
        ValueError: There is half a sample.
    """
    return _encode(_ULAW_CODES, pcm)


def pcm_to_alaw(pcm: bytes) -> bytes:
    """Convert 16-bit PCM to A-law.

    Raises:
        ValueError: There is half a sample.
    """
    return _encode(_ALAW_CODES, pcm)


def _decode(values: npt.NDArray[np.int16], data: bytes) -> bytes:
    return np.take(values, np.frombuffer(data, np.uint8)).tobytes()


def _encode(codes: npt.NDArray[np.uint8], pcm: bytes) -> bytes:
    return np.take(codes, np.frombuffer(pcm, "<u2")).tobytes()


def _ulaw_values() -> npt.NDArray[np.int16]:
    """Return the linear value of each of the 256 µ-law codes."""
    code = ~np.arange(256) & 0xFF
    exponent, mantissa = code >> 4 & 7, code & 0xF
    magnitude = ((mantissa << 3) + _ULAW_BIAS << exponent) - _ULAW_BIAS
    return np.where(code & _SIGN, -magnitude, magnitude).astype("<i2")


def _alaw_values() -> npt.NDArray[np.int16]:
    """Return the linear value of each of the 256 A-law codes."""
    code = np.arange(256) ^ _ALAW_TOGGLE
    exponent, mantissa = code >> 4 & 7, code & 0xF
    linear = (mantissa << 4) + 8
    magnitude = np.where(exponent == 0, linear, linear + 0x100 << np.maximum(exponent - 1, 0))
    return np.where(code & _SIGN, magnitude, -magnitude).astype("<i2")


def _ulaw_codes() -> npt.NDArray[np.uint8]:
    """Return the µ-law code of each 16-bit sample, indexed by the sample's bits read as
    unsigned."""
    sample, magnitude = _samples()
    biased = np.minimum(magnitude, 0x7FFF - _ULAW_BIAS) + _ULAW_BIAS
    exponent = _segment(biased)
    code = 0xFF - (exponent << 4 | biased >> exponent + 3 & 0xF)
    return np.asarray(np.where(sample < 0, code & ~_SIGN, code | _SIGN), np.uint8)


def _alaw_codes() -> npt.NDArray[np.uint8]:
    """Return the A-law code of each 16-bit sample, indexed by the sample's bits read as
    unsigned."""
    sample, magnitude = _samples()
    exponent = _segment(magnitude)
    # The lowest two segments share one step size.
    shift = np.maximum(exponent, 1) + 3
    code = exponent << 4 | magnitude >> shift & 0xF
    return np.asarray(np.where(sample < 0, code, code | _SIGN) ^ _ALAW_TOGGLE, np.uint8)


def _samples() -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return every 16-bit sample in the order of its bits, and its magnitude in one's
    complement."""
    sample = np.arange(0x10000).astype(np.uint16).view(np.int16).astype(np.int32)
    return sample, np.where(sample < 0, ~sample, sample)


def _segment(magnitude: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Return the number of the segment: 0 below 256, then one more for each doubling."""
    first_of_segment = 2 ** np.arange(8, 15, dtype=np.int32)
    return np.searchsorted(first_of_segment, magnitude, side="right").astype(np.int32)


_ULAW_VALUES: Final = _ulaw_values()
_ALAW_VALUES: Final = _alaw_values()
_ULAW_CODES: Final = _ulaw_codes()
_ALAW_CODES: Final = _alaw_codes()
