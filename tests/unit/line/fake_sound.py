"""A call's sound, as far as its line sees it."""

from __future__ import annotations


class FakeSound:
    """Writes down what the line brings, and says what a test wants.

    Attributes:
        came: What was heard, piece by piece.
        frames: What is still to be said.
        asked: How often the line asked for a frame.
        pulled: How many it was given.
        ticks: How often it told the time.
        knows: As a call's sound does its line, for `take_back`.
    """

    frames_at_once = 1
    knows: object = None

    def __init__(self) -> None:
        self.came: list[bytes] = []
        self.frames: list[bytes] = []
        self.asked = self.pulled = self.ticks = 0

    @property
    def bytes_heard(self) -> bytes:
        return b"".join(self.came)

    def heard(self, pcm: bytes) -> None:
        assert len(pcm) % 2 == 0, "whole samples"
        self.came.append(pcm)

    @property
    def frames_ready(self) -> int:
        return len(self.frames)

    def next_frame(self) -> bytes | None:
        self.asked += 1
        if not self.frames:
            return None
        self.pulled += 1
        return self.frames.pop(0)

    def heard_target(self, pcm: bytes) -> None:
        """Take what a supervisor says."""

    def tick(self) -> None:
        self.ticks += 1
