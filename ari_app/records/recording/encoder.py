"""Has recordings encoded by a program of its own, one after the other."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import orjson
import structlog

from ari_app.records.recording.names import for_log

log = structlog.get_logger(__name__)

_MAX_WAITING: Final = 10_000
_MAX_SECONDS: Final = 3600.0
# Our own environment has keys in it.
_NEEDED: Final = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "HOME", "LANG")
_PROGRAM: Final = (sys.executable, "-m", "ari_app.records.recording.encode")


@dataclass(frozen=True, slots=True)
class Encoded:
    """What has become of a WAV file.

    Attributes:
        wav: The file that was to be encoded.
        path: The one that was made; None: the WAV file is still there, and complete.
        size: In bytes.
    """

    wav: Path
    path: Path | None = None
    size: int = 0


class Encoder:
    """A queue of recordings, and the thread that has them encoded.

    A fault of the program, its end, or a job that takes an hour leave a WAV file as it is.

    Args:
        kind: `flac` or `opus`.
        on_encoded: Told, in the thread, what has become of each.
        program: The command; for tests.
        max_waiting: How many may wait: one more is left as it is.
        max_seconds: How long one may take.

    Attributes:
        failed: How many were left as they are.
    """

    def __init__(
        self,
        kind: str,
        on_encoded: Callable[[Encoded], None],
        *,
        program: tuple[str, ...] = _PROGRAM,
        max_waiting: int = _MAX_WAITING,
        max_seconds: float = _MAX_SECONDS,
    ) -> None:
        self.failed = 0
        self._kind = kind
        self._on_encoded = on_encoded
        self._program = program
        self._max_seconds = max_seconds
        self._jobs: queue.Queue[Path | None] = queue.Queue(max_waiting)
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many are not done; the one that is being encoded is not counted."""
        return self._jobs.qsize()

    def put(self, wav: Path) -> bool:
        """Have a file encoded some time; False when too many wait. Never waits."""
        try:
            self._jobs.put_nowait(wav)
        except queue.Full:
            self.failed += 1
            log.error("recording_not_encoded", file=for_log(wav.name), error="too many wait")
            return False
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="encoder", daemon=True)
            self._thread.start()
        return True

    def close(self, timeout_seconds: float = 2.0) -> None:
        """Let the file at hand be finished, for so long at most; the others stay as they are.

        Waits: to be called in a thread.
        """
        self._closed = True
        with suppress(queue.Full):
            self._jobs.put_nowait(None)
        if self._thread is not None:
            self._thread.join(timeout_seconds)
            if self._thread.is_alive():
                self._kill()
                self._thread.join(timeout_seconds)

    # --- in the thread

    def _run(self) -> None:
        while (wav := self._jobs.get()) is not None and not self._closed:
            done = Encoded(wav)
            try:
                done = self._encode(wav)
            except Exception as error:
                if not isinstance(error, _Refused):
                    self._kill()
                    self._end()
                self.failed += 1
                log.error(
                    "recording_not_encoded",
                    file=for_log(wav.name),
                    error=str(error) or type(error).__name__,
                )
            self._on_encoded(done)
        self._end()

    def _encode(self, wav: Path) -> Encoded:
        process = self._started()
        given, taken = _pipes(process)
        watch = threading.Timer(self._max_seconds, process.kill)
        watch.daemon = True
        watch.start()
        try:
            given.write(orjson.dumps({"wav": str(wav), "kind": self._kind}) + b"\n")
            given.flush()
            line = taken.readline()
        finally:
            watch.cancel()
        if not line:
            raise EOFError(f"the encoder has ended, with {process.wait()}")
        answer = orjson.loads(line)
        if "error" in answer:
            raise _Refused(answer["error"])
        path = Path(answer["path"])
        log.info("recording_encoded", file=for_log(path.name), bytes=answer["size"])
        return Encoded(wav, path, answer["size"])

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            # In a session of its own: what is pressed on our terminal does not end it.
            self._process = subprocess.Popen(
                self._program,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={name: os.environ[name] for name in _NEEDED if name in os.environ},
                start_new_session=True,
            )
        return self._process

    def _kill(self) -> None:
        if (process := self._process) is not None:
            process.kill()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            given, taken = _pipes(process)
            with suppress(OSError):
                given.close()
            process.wait()
            taken.close()


class _Refused(Exception):
    """The encoder could not do a job, and goes on with the next."""


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    assert process.stdin is not None, "it was started with pipes"
    assert process.stdout is not None, "it was started with pipes"
    return process.stdin, process.stdout
