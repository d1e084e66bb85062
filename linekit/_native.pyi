"""What `_native.c` does; none of it ever waits."""

from typing import Any

def receive(fd: int, size: int, /) -> bytes | None:
    """Return what a socket has received, up to `size` bytes and 64 KB; None: nothing yet, b"": the
    peer has ended.

    Raises:
        OSError: The connection is lost.
    """

def send(fd: int, data: bytes | bytearray | memoryview[Any], /) -> int:
    """Let a socket send, and return how many bytes it has taken.

    Raises:
        OSError: The connection is lost.
    """

def drain(fd: int, /) -> None:
    """Take from a timer of the kernel's that it has fired, so that it is not ready any more.

    Raises:
        OSError: It cannot be read.
    """

def swing(pcm: bytes, start: int, size: int, /) -> int:
    """Return the way from the lowest to the highest of some samples of a frame, which has `size`
    bytes from `start` on. See `ari_app.call.hearing`.

    Raises:
        ValueError: The frame goes beyond its PCM.
    """

def filtered(pcm: bytes, taps: bytes, up: int, down: int, start: int, end: int, /) -> bytes:
    """Return the outputs `start` to `end` of a polyphase filter, as PCM, saturated.

    Args:
        pcm: 16-bit samples. Output n is of those from the sample n * down // up on.
        taps: 32-bit floats, as many for each of the `up` places that an output has between samples.
        up, down: So many outputs there are for so many inputs.

    Raises:
        ValueError: Not all of these outputs are determined by these inputs.
    """
