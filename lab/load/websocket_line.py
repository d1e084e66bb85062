"""One call's media as chan_websocket carries it: Asterisk paces what the application sends."""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence

from lab.load.media_socket import MediaChannel


class WebSocketLine:
    """Plays a frame of what was sent, and says one, at each `tick` from `talk` on.

    Args:
        channel: The channel.
        frames: What is said in turn, again and again.
        offset: The frame to begin with.

    Attributes:
        arrivals: When each frame was played, in ns on the wall clock.
        voiced_frames: Those that were not silence.
        frames_sent: How many frames were said.
        talking: The caller is in the bridge.
    """

    def __init__(self, channel: MediaChannel, frames: Sequence[bytes], *, offset: int = 0) -> None:
        self.arrivals = array("q")
        self.voiced_frames = self.frames_sent = 0
        self.talking = False
        self._channel = channel
        self._frames = frames
        self._pause = frames[0]
        self._silence = bytes(len(frames[0]))
        self._next = offset % len(frames)
        self._quiet = False

    def talk(self) -> None:
        """Begin: the channel is in a bridge with the caller."""
        self.talking = self._channel.started = True

    def be_quiet(self) -> None:
        """Say the pause only, from the next frame on."""
        self._quiet = True

    def begin_window(self) -> None:
        """Forget what was heard so far: what counts begins now."""
        self.arrivals = array("q")

    def tick(self) -> None:
        """Play a frame, and say one."""
        frame = self._channel.queue.tick()
        if not self.talking:
            return
        if frame is not None:
            self.arrivals.append(time.time_ns())
            self.voiced_frames += frame != self._silence
        self._channel.say(self._pause if self._quiet else self._frames[self._next])
        self._next = (self._next + 1) % len(self._frames)
        self.frames_sent += 1

    def close(self) -> None:
        """Hang up from Asterisk's side. May be called twice."""
        self.talking = False
        self._channel.hang_up()
