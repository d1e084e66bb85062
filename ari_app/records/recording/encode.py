"""Makes FLAC or Opus of finished recordings: `python -m ari_app.records.recording.encode`.

A program of its own, so that the time that it takes, a fault in it, or its end hurt no call. It
reads a job a line, JSON on standard input, and answers each with a line. It ends with its input.

The WAV file goes only when what was made of it has been read back and found to hold the same, and
is on the disk. Killed at any moment it leaves the WAV, or both.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import orjson
import soundfile

from ari_app.process.files import sync_folder
from ari_app.records.recording.wav import PART, lock

_Block = npt.NDArray[np.int16]
_Loudness = npt.NDArray[np.float64]

_KINDS: Final = {"flac": ("FLAC", "PCM_16"), "opus": ("OGG", "OPUS")}
_OPUS_RATES: Final = (8000, 12000, 16000, 24000, 48000)
_ENVELOPE_MS: Final = 20
# What is below cannot be heard, and an encoder need not keep it.
_SILENT_RMS: Final = 30.0
# Correlation of the loudness; and no other place within 100 ms may be more alike.
_ALIKE: Final = 0.9
_LAGS: Final = 5
# Noise and tones vary by so much of their loudness.
_STEADY: Final = 0.15


class NotTheSame(Exception):
    """The encoded file does not hold what the WAV file does."""


def encode(wav: Path, kind: str) -> Path:
    """Make an encoded file of a WAV file, beside it, and remove that one.

    Args:
        wav: A finished recording.
        kind: `flac` or `opus`.

    Returns:
        The encoded file.

    Raises:
        NotTheSame: It was not made well; the WAV file stays.
        OSError: It cannot be read or written; the WAV file stays.
        soundfile.SoundFileError: The same.
    """
    target = wav.with_suffix(f".{kind}")
    made = False
    try:
        # One that is there already was made, and not told of, by a process that was killed, or is
        # just being told of by another one.
        while not (made or target.exists()):
            made = _write(wav, target, kind)
        if not made:
            check(wav, target, exact=kind == "flac")
        wav.unlink()
    except (NotTheSame, OSError, soundfile.SoundFileError):
        # Another process may have done it: it has looked for what waited, too.
        if wav.exists() or not target.exists():
            raise
    sync_folder(wav.parent)
    return target


def _write(wav: Path, target: Path, kind: str) -> bool:
    """Make the encoded file; False: another process was at it, and is done with it."""
    part = target.with_name(target.name + PART)
    container, coding = _KINDS[kind]
    file = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        lock(file)
        if not _is(part, file):
            return False
        os.ftruncate(file, 0)
        with soundfile.SoundFile(wav) as source:
            if not source.frames:
                raise NotTheSame("there is nothing in it")
            if kind == "opus" and source.samplerate not in _OPUS_RATES:
                raise NotTheSame(f"Opus has no rate of {source.samplerate} Hz")
            with soundfile.SoundFile(
                os.dup(file), "w", source.samplerate, source.channels, coding, format=container
            ) as made:
                for block in _blocks(source):
                    made.write(block)
        os.fsync(file)
        check(wav, part, exact=kind == "flac")
        part.rename(target)
        sync_folder(target.parent)
    except BaseException:
        if _is(part, file):
            part.unlink()
        raise
    finally:
        os.close(file)
    return True


def _is(path: Path, file: int) -> bool:
    """Whether an open file still has its name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False


def check(wav: Path, made: Path, *, exact: bool) -> None:
    """Compare an encoded file with what it was made of.

    Args:
        wav, made: The two.
        exact: Every sample must be the same; otherwise what is loud when, on each side.

    Raises:
        NotTheSame: They differ.
    """
    with soundfile.SoundFile(wav) as source, soundfile.SoundFile(made) as result:
        shape = (source.samplerate, source.channels, source.frames)
        if shape != (result.samplerate, result.channels, result.frames):
            raise NotTheSame("it has another rate, another length, or other sides")
        loud: tuple[list[_Loudness], list[_Loudness]] = ([], [])
        size = source.samplerate * _ENVELOPE_MS // 1000
        for block in _blocks(source):
            other = result.read(len(block), dtype="int16", always_2d=True)
            if len(other) != len(block) or (exact and not np.array_equal(block, other)):
                raise NotTheSame("it has other samples, or fewer")
            for kept, each in zip(loud, (block, other), strict=True):
                kept.append(_loudness(each, size))
    if not exact and loud[0]:
        _compare(np.concatenate(loud[0]), np.concatenate(loud[1]))


def _compare(was: _Loudness, now: _Loudness) -> None:
    for side, (before, after) in enumerate(zip(was.T, now.T, strict=True)):
        if not _alike(before, after):
            raise NotTheSame(f"side {side} does not sound the same")


def _alike(before: _Loudness, after: _Loudness) -> bool:
    """Whether two sides are as loud at the same times."""
    if before.max() < _SILENT_RMS:
        return bool(after.max() < 2 * _SILENT_RMS)
    if not 0.5 < after.mean() / before.mean() < 2:
        return False
    if before.std() < _STEADY * before.mean():
        # As loud all the time: there is nothing else to go by.
        return bool(after.std() < 2 * _STEADY * after.mean())
    likeness = [_likeness(before, after, lag) for lag in range(-_LAGS, _LAGS + 1)]
    return likeness[_LAGS] > _ALIKE and max(likeness) == likeness[_LAGS]


def _likeness(before: _Loudness, after: _Loudness, lag: int) -> float:
    """Return the correlation of two sides of which one is so many pieces later."""
    one = before[max(0, -lag) : len(before) - max(0, lag)]
    other = after[max(0, lag) : len(after) - max(0, -lag)]
    if len(one) < 2 or not one.std() or not other.std():
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def _loudness(block: _Block, size: int) -> _Loudness:
    """Return the loudness of each 20 ms of each side."""
    whole = block[: max(1, len(block) // size) * size].astype(np.float64)
    pieces = whole.reshape(max(1, len(whole) // size), -1, block.shape[1])
    return np.asarray(np.std(pieces, axis=1))


def _blocks(source: soundfile.SoundFile) -> Iterator[_Block]:
    while len(block := source.read(source.samplerate, dtype="int16", always_2d=True)):
        yield block


def _words(error: Exception) -> str:
    """Say what is wrong, without the file's name: there is a number in it."""
    match error:
        case NotTheSame():
            return str(error)
        case OSError(strerror=str(words)):
            return words
        case soundfile.LibsndfileError():
            return str(error.error_string)
        case _:
            return type(error).__name__


def main() -> None:
    """Do the jobs that come, one after the other."""
    os.setpriority(os.PRIO_PROCESS, 0, 19)
    for line in sys.stdin.buffer:
        job = orjson.loads(line)
        try:
            made = encode(Path(job["wav"]), job["kind"])
            answer = {"path": str(made), "size": made.stat().st_size}
        except Exception as error:
            answer = {"error": _words(error)}
        sys.stdout.buffer.write(orjson.dumps(answer) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
