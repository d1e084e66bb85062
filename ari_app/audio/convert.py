"""From one audio format to another: encoding and rate together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ari_app.audio.formats import SAMPLE_BYTES, AudioFormat, Encoding, SampleAligner

if TYPE_CHECKING:
    from ari_app.audio.resample import Resampler


class Converter:
    """One direction of one stream, from format `src` to format `dst`.

    Chunks may have any size and be cut anywhere. Where the formats are equal, `process` returns
    the very object that it was given, unless that was cut inside a sample.

    Raises:
        ValueError: the rates differ and one has no whole number of samples in 20 ms.
    """

    __slots__ = ("_aligner", "_decode", "_encode", "_resampler")

    def __init__(self, src: AudioFormat, dst: AudioFormat) -> None:
        # Here, for both take numpy, which a service without a call does without.
        self._decode: Callable[[bytes], bytes] | None = None
        self._encode: Callable[[bytes], bytes] | None = None
        if src != dst and Encoding.ULAW in (src.encoding, dst.encoding):
            from ari_app.audio.g711 import pcm_to_ulaw, ulaw_to_pcm

            self._decode = ulaw_to_pcm if src.encoding is Encoding.ULAW else None
            self._encode = pcm_to_ulaw if dst.encoding is Encoding.ULAW else None
        self._resampler: Resampler | None = None
        if src.rate_hz != dst.rate_hz:
            from ari_app.audio.resample import Resampler

            self._resampler = Resampler(src.rate_hz, dst.rate_hz)
        aligned = src.encoding is Encoding.ULAW or self._resampler is not None
        self._aligner = None if aligned else SampleAligner()

    @property
    def lookahead_samples(self) -> int:
        """Samples of the input held back until more come or the stream is flushed."""
        return self._resampler.lookahead_samples if self._resampler else 0

    def prime(self) -> None:
        """Begin anew with as much silence as is held back.

        From then on each piece of input gives its whole share of output at once, so much late in
        the stream. Without it the first piece gives less, by as much.
        """
        self.reset()
        if self._resampler is not None:
            self._resampler.process(bytes(self.lookahead_samples * SAMPLE_BYTES))

    def process(self, data: bytes) -> bytes:
        """Convert the next piece of the stream; may return less than came, or nothing."""
        if self._decode is not None:
            data = self._decode(data)
        if self._resampler is not None:
            data = self._resampler.process(data)
        elif self._aligner is not None:
            data = self._aligner.align(data)
        return data if self._encode is None else self._encode(data)

    def flush(self) -> bytes:
        """Return what was held back, as if silence followed. The next `process` begins anew.

        Only half a sample is kept, for a sender that paused in the middle of one.
        """
        tail = self._resampler.flush() if self._resampler is not None else b""
        return tail if self._encode is None else self._encode(tail)

    def reset(self) -> None:
        """Forget the stream, as after an interruption. The next `process` begins anew."""
        if self._resampler is not None:
            self._resampler.reset()
        elif self._aligner is not None:
            self._aligner.reset()
