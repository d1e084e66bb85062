"""The sound that goes over a call's WebSocket, and how much of it has come and gone. Pure: time is
an argument.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ari_app.audio.g711 import alaw_to_pcm, pcm_to_alaw, pcm_to_ulaw, ulaw_to_pcm
from ari_app.line.websocket_input import BadInput, FloodGuard

_FILES: Final = (b"OggS", b"fLaC", b"ID3", b".snd")


# --- how it is written


def _same(data: bytes) -> bytes:
    return data


@dataclass(frozen=True, slots=True)
class Coding:
    """How sound is written on the WebSocket.

    Attributes:
        rate_hz: Samples a second, as on the line.
        sample_bytes: Of one sample as it is written.
        decode, encode: To 16-bit linear PCM, and from it.
    """

    rate_hz: int
    sample_bytes: int
    decode: Callable[[bytes], bytes]
    encode: Callable[[bytes], bytes]

    @property
    def bytes_a_second(self) -> int:
        """How much a second of it has."""
        return self.rate_hz * self.sample_bytes

    def read(self, data: bytes, *, first: bool = False) -> bytes:
        """Return what a binary message holds, as 16-bit linear PCM.

        Args:
            data: The message.
            first: Nothing came before it. Later on a few bytes that look like the beginning of a
                file are most likely sound.

        Raises:
            BadInput: It is not in this format.
        """
        is_wave = data[:4] == b"RIFF" and data[8:12] == b"WAVE"
        if is_wave or (first and data.startswith(_FILES)):
            raise BadInput(
                "audio_with_header", "That is a sound file: send bare samples, without a header."
            )
        if not data or len(data) % self.sample_bytes:
            raise BadInput(
                "audio_length",
                f"{len(data)} bytes of sound: a sample has {self.sample_bytes} bytes.",
            )
        return self.decode(data)


CODINGS: Final = MappingProxyType(
    {
        "pcm_16000": Coding(16000, 2, _same, _same),
        "pcm_8000": Coding(8000, 2, _same, _same),
        "ulaw_8000": Coding(8000, 1, ulaw_to_pcm, pcm_to_ulaw),
        "alaw_8000": Coding(8000, 1, alaw_to_pcm, pcm_to_alaw),
    }
)


# --- how much comes


class Inflow:
    """Watches how fast a dialer sends.

    Args:
        name: The format that was announced, one of `CODINGS`.
        now: The time, in seconds.
    """

    _WINDOW_SECONDS: Final = 2.0
    _WINDOWS: Final = 3
    _STEADY: Final = 0.06
    _FAR: Final = 0.25
    _LEAST: Final = 0.2
    """Below this little is sent, in whatever format: somebody leaves silence out."""

    def __init__(self, name: str, now: float) -> None:
        self._name, self._coding = name, CODINGS[name]
        self._flood = FloodGuard(now)
        self._window_began: float | None = None
        self._window_bytes = 0
        self._ratios: deque[float] = deque(maxlen=self._WINDOWS)
        self._told = False

    def text_came(self, now: float) -> None:
        """Count a text message.

        Raises:
            BadInput: That is a flood.
        """
        self._flood.text_came(now)

    def sound_came(self, size: int, now: float) -> str | None:
        """Count a binary message of so many bytes.

        Returns:
            That its rate is not the one that was announced, a sentence; told once.

        Raises:
            BadInput: That is a flood.
        """
        self._flood.sound_came(size / self._coding.bytes_a_second, now)
        if self._window_began is None:
            # What lies before a pause says nothing: from here on bytes are laid against time.
            self._window_began, self._window_bytes = now, 0
            return None
        self._window_bytes += size
        seconds = now - self._window_began
        if seconds < self._WINDOW_SECONDS:
            return None
        self._ratios.append(self._window_bytes / seconds / self._coding.bytes_a_second)
        self._window_began, self._window_bytes = now, 0
        return self._judged()

    def pause(self) -> None:
        """Note that no sound is owed for a while."""
        self._window_began = None
        self._ratios.clear()

    def _judged(self) -> str | None:
        ratios = self._ratios
        if self._told or len(ratios) < self._WINDOWS:
            return None
        mean = sum(ratios) / len(ratios)
        # Sound that comes now faster and now slower has a bad way, or pauses that are left out.
        steady = max(ratios) - min(ratios) <= self._STEADY * mean
        if not steady or abs(mean - 1) < self._FAR or mean < self._LEAST:
            return None
        self._told = True
        announced = self._coding.bytes_a_second
        came = mean * announced
        like = [
            name
            for name, coding in CODINGS.items()
            if abs(came / coding.bytes_a_second - 1) < self._STEADY
        ]
        guess = f", which would be {' or '.join(like)}" if like else ""
        return (
            f"{came:,.0f} bytes of sound come in a second where {self._name} has {announced:,}"
            f"{guess}."
        )


# --- how far the caller has heard


class Lead:
    """What a dialer that paces by itself was sent, and has not played yet.

    Every 40 ms we send a mark. Its answer says that the caller has heard all up to there;
    that is also what makes room for more.
    """

    _MARK_FRAMES: Final = 2
    _MOST_FRAMES: Final = 50

    def __init__(self) -> None:
        self._sent = self._heard = self._marked = self._cleared = 0

    @property
    def frames(self) -> int:
        """How many frames are not known to have been heard."""
        return self._sent - self._heard

    @property
    def runs_out(self) -> bool:
        """Whether the dialer soon has nothing more to play."""
        return self.frames <= self._MARK_FRAMES

    @property
    def has_room(self) -> bool:
        """Whether one more may be sent."""
        return self.frames < self._MOST_FRAMES

    def sent(self, *, last: bool) -> str | None:
        """Note a frame that is sent, or with `last` that there is none; the mark to follow."""
        if not last:
            self._sent += 1
        unmarked = self._sent - self._marked
        if not unmarked or (unmarked < self._MARK_FRAMES and not last):
            return None
        self._marked = self._sent
        return str(self._sent)

    def heard(self, name: str) -> None:
        """Note that a mark has been answered. One that was sent before a `clear` says nothing.

        Raises:
            BadInput: No mark of this name was sent.
        """
        if not (name.isascii() and name.isdigit()) or not 0 < int(name) <= self._marked:
            raise BadInput("unknown_mark", "A mark is answered that was not sent.")
        if int(name) > self._cleared:
            self._heard = max(self._heard, int(name))

    def clear(self) -> int:
        """Note that what lies ahead will not be heard; how many frames."""
        lost = self.frames
        self._heard = self._marked = self._cleared = self._sent
        return lost
