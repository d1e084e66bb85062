"""Resampling of a live stream by a polyphase filter.

Between two rates the pattern of the interpolation repeats: `up` outputs for `down` inputs, the
rates divided by their greatest common divisor. So there are `up` sets of taps: a Kaiser-windowed
sinc, moved along. What is counted is whole periods and whole samples, so nothing drifts.

In C (`linekit/_native.c`) outputs that have the same taps are summed side by side. Where that has
not been compiled, a block of periods is a constant matrix whose columns are the taps, each where
its inputs are, and `windows @ matrix` turns all the blocks at hand into output at once.

The filter looks 24 samples of the lower rate ahead: 3 ms when that is 8 kHz. Relative to the lower
rate R it is flat up to 0.425 R and 90 dB down from 0.55 R on.

soxr sounds better still, but its stream holds back tens of milliseconds and hands them out in
bursts. It is right for files, not for a call.
"""

from __future__ import annotations

import contextlib
import functools
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

try:
    # The function behind `np.clip`, which takes as long again to find it.
    from numpy._core.umath import clip as _clip  # type: ignore[attr-defined]
except ImportError:  # pragma: no cover - a numpy that has it elsewhere
    from numpy import clip as _clip

from ari_app.audio.formats import SAMPLE_BYTES, SampleAligner

_native_filtered: Callable[[bytes, bytes, int, int, int, int], bytes] | None = None
with contextlib.suppress(ImportError):
    from linekit._native import filtered as _native_filtered

_Floats = npt.NDArray[np.float32]

_HALF_LENGTH: Final = 24
"""Half the filter's length, in samples of the lower rate."""
_CUTOFF: Final = 0.4875
"""Where the filter is 6 dB down, as a share of the lower rate."""
_STOP_BAND_DB: Final = 94
"""What a window of this length reaches with a transition of 0.125 of the lower rate."""

_BLOCK_SECONDS: Final = 0.002
"""Shortest block. Shorter ones make thin matrices, longer ones multiply by more zeros."""
_STEP_PRODUCTS: Final = 200_000
"""Multiplications in one matrix product. OpenBLAS wakes its threads from 262,144 on; for products
this small they cost more than they save."""

# Arrays, for numbers would be made into some each time.
_LOWEST, _HIGHEST = np.array(-32768, np.float32), np.array(32767, np.float32)
_PCM = np.dtype("<i2")


@dataclass(frozen=True, slots=True, eq=False)
class _Bank:
    """The filter that all resamplers between the same two rates share.

    Attributes:
        lookahead: Inputs that an output needs after its own instant.
        taps: (`up`, `2 * lookahead`) 32-bit floats, by how far an output is from the last input.
        matrix: (`block_in + 2 * lookahead - 1`, `block_out`): inputs around a block to its outputs.
        step_rows: Blocks in one matrix product.
    """

    up: int
    down: int
    block_in: int
    block_out: int
    lookahead: int
    taps: bytes
    matrix: _Floats
    step_rows: int


class _Views:
    """The parts of a room that one step needs: making them anew takes as long as using them.

    Attributes:
        windows: (blocks, inputs around each).
        outputs: (blocks, outputs of each).
        wanted: Those of the outputs that are given.
    """

    __slots__ = ("outputs", "wanted", "windows")

    def __init__(self, windows: _Floats, outputs: _Floats, wanted: _Floats) -> None:
        self.windows = windows
        self.outputs = outputs
        self.wanted = wanted


_MAX_VIEWS: Final = 64
"""Chunks of one stream have a few sizes."""


class _Room:
    """Where a step is computed. What stands there afterwards is nobody's: all resamplers of a
    thread between the same two rates take it in turn.
    """

    __slots__ = ("_bank", "_heads", "_inputs", "_outputs", "_views", "_windows")

    def __init__(self, bank: _Bank) -> None:
        self._bank = bank
        width, block_out = bank.matrix.shape
        # Before a step less than a block waits, and a last block may be begun: two more rows. A
        # flush adds the look-ahead to what waits.
        rows = bank.step_rows + 2 + -(-bank.lookahead // bank.block_in)
        self._inputs = np.zeros(rows * bank.block_in + width, np.float32)
        self._windows = np.lib.stride_tricks.as_strided(
            self._inputs,
            (rows, width),
            (bank.block_in * self._inputs.itemsize, self._inputs.itemsize),
            writeable=False,
        )
        self._outputs = np.empty((rows, block_out), np.float32)
        self._heads: dict[int, _Floats] = {}
        self._views: dict[tuple[int, int], _Views] = {}

    def outputs(self, pcm: bytes, start: int, end: int) -> bytes:
        """Return the outputs from `start` to `end` of these inputs, counted from the first block's.

        A block that is not complete is computed whole: its matrix has zeros wherever an output
        that is wanted meets an input that has not come.
        """
        self._put(pcm)
        views = self._views_of(start, end)
        wanted = views.wanted
        np.dot(views.windows, self._bank.matrix, out=views.outputs)
        _clip(wanted, _LOWEST, _HIGHEST, wanted)
        np.rint(wanted, wanted)
        return wanted.astype(_PCM).tobytes()

    def _put(self, pcm: bytes) -> None:
        size = len(pcm) // SAMPLE_BYTES
        head = self._heads.get(size)
        if head is None:
            if len(self._heads) >= _MAX_VIEWS:
                self._heads.clear()
            head = self._heads[size] = self._inputs[:size]
        head[...] = np.frombuffer(pcm, _PCM)

    def _views_of(self, start: int, end: int) -> _Views:
        views = self._views.get((start, end))
        if views is None:
            if len(self._views) >= _MAX_VIEWS:
                self._views.clear()
            rows = -(-end // self._bank.block_out)
            outputs = self._outputs[:rows]
            wanted = outputs.reshape(-1)[start:end]
            views = self._views[start, end] = _Views(self._windows[:rows], outputs, wanted)
        return views


_threads: Final = threading.local()


def _rooms() -> dict[_Bank, _Room]:
    """Return the rooms of this thread."""
    try:
        rooms: dict[_Bank, _Room] = _threads.rooms
    except AttributeError:
        rooms = _threads.rooms = {}
    return rooms


@functools.lru_cache(maxsize=64)
def _bank(from_hz: int, to_hz: int) -> _Bank:
    for rate_hz in (from_hz, to_hz):
        if rate_hz <= 0 or rate_hz % 50:
            raise ValueError(f"{rate_hz} Hz has no whole number of samples in 20 ms")
    if from_hz == to_hz:
        raise ValueError(f"nothing to resample between {from_hz} Hz and itself")
    common = math.gcd(from_hz, to_hz)
    up, down = to_hz // common, from_hz // common
    periods = math.ceil(_BLOCK_SECONDS * common)
    block_in, block_out = down * periods, up * periods
    lower_hz = min(from_hz, to_hz)
    lookahead = math.ceil(_HALF_LENGTH * from_hz / lower_hz)

    inputs = np.arange(block_in + 2 * lookahead - 1)[:, None] - (lookahead - 1)
    outputs = np.arange(block_out)[None, :] * (down / up)
    samples_of_lower = (inputs - outputs) * (lower_hz / from_hz)
    offset = samples_of_lower / _HALF_LENGTH
    inside = np.abs(offset) < 1
    beta = 0.1102 * (_STOP_BAND_DB - 8.7)
    window = np.zeros_like(offset)
    window[inside] = np.i0(beta * np.sqrt(1 - offset[inside] ** 2))
    matrix = np.sinc(2 * _CUTOFF * samples_of_lower) * window
    # Every output has exactly unit gain at 0 Hz: a steady level stays steady.
    matrix /= matrix.sum(axis=0)
    shared = np.ascontiguousarray(matrix, np.float32)
    shared.flags.writeable = False
    taps = np.empty((up, 2 * lookahead), np.float32)
    for output in range(up):
        before, fraction = divmod(output * down, up)
        taps[fraction] = shared[before : before + 2 * lookahead, output]
    step_rows = max(1, _STEP_PRODUCTS // shared.size)
    return _Bank(up, down, block_in, block_out, lookahead, taps.tobytes(), shared, step_rows)


class Resampler:
    """One direction of one stream of 16-bit mono PCM, from one rate to another.

    The output is aligned with the input: its first sample is the input's first. `process` gives
    every sample that the input so far determines, which is all but the last `lookahead_samples`;
    `flush` gives those, as if silence followed. So the output of a flushed stream is exactly as
    long as its input, rounded to a sample.

    Args:
        from_hz: rate of the input.
        to_hz: rate of the output.

    Raises:
        ValueError: the rates are equal, or one has no whole number of samples in 20 ms.
    """

    __slots__ = ("_aligner", "_bank", "_kept", "_skip", "_step_bytes", "from_hz", "to_hz")

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self.from_hz = from_hz
        self.to_hz = to_hz
        self._aligner = SampleAligner()
        self._bank = bank = _bank(from_hz, to_hz)
        self._step_bytes = bank.step_rows * bank.block_in * SAMPLE_BYTES
        # Of the inputs so far those that are still needed, less than around one block: from
        # `lookahead - 1` before the current one.
        self._kept = bytes((bank.lookahead - 1) * SAMPLE_BYTES)
        # Outputs of the current block that have been given already.
        self._skip = 0

    @property
    def lookahead_samples(self) -> int:
        """Inputs held back until more come or the stream is flushed."""
        return self._bank.lookahead

    def process(self, pcm: bytes) -> bytes:
        """Take the next piece of the stream, of any size, and return what it determines.

        `pcm` may end in the middle of a sample. Levels beyond 16 bits saturate.
        """
        pcm, size = self._aligner.align(pcm), self._step_bytes
        if len(pcm) <= size:
            return self._step(pcm)
        return b"".join(
            [self._step(pcm[start : start + size]) for start in range(0, len(pcm), size)]
        )

    def flush(self) -> bytes:
        """Return the samples held back, as if silence followed. The next `process` begins anew.

        Only half a sample is kept, for a sender that paused in the middle of one.
        """
        bank = self._bank
        received = len(self._kept) // SAMPLE_BYTES - (bank.lookahead - 1)
        end = (2 * received * bank.up + bank.down) // (2 * bank.down)
        tail = self._outputs(self._kept + bytes(bank.lookahead * SAMPLE_BYTES), end)
        self._rewind()
        return tail

    def reset(self) -> None:
        """Forget the stream, as after an interruption. The next `process` begins anew."""
        self._aligner.reset()
        self._rewind()

    def _rewind(self) -> None:
        self._kept = bytes((self._bank.lookahead - 1) * SAMPLE_BYTES)
        self._skip = 0

    def _step(self, pcm: bytes) -> bytes:
        bank = self._bank
        inputs = self._kept + pcm
        determined = len(inputs) // SAMPLE_BYTES - (2 * bank.lookahead - 1)
        end = -(-determined * bank.up // bank.down)
        outputs = self._outputs(inputs, end)
        done = max(0, end // bank.block_out)
        self._kept = inputs[done * bank.block_in * SAMPLE_BYTES :]
        self._skip = max(self._skip, end) - done * bank.block_out
        return outputs

    def _outputs(self, inputs: bytes, end: int) -> bytes:
        """Return the outputs from `_skip` up to `end`, counted from the current block's first."""
        bank, start = self._bank, self._skip
        if end <= start:
            return b""
        if _native_filtered is not None:
            return _native_filtered(inputs, bank.taps, bank.up, bank.down, start, end)
        rooms = _rooms()
        room = rooms.get(bank)
        if room is None:
            room = rooms[bank] = _Room(bank)
        return room.outputs(inputs, start, end)
