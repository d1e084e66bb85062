"""What `_native.c` does; none of it ever waits."""

from typing import Any

# See `linekit.native`. As much as 64 KB is received at once.
def receive(fd: int, size: int, /) -> bytes | None: ...
def send(fd: int, data: bytes | bytearray | memoryview[Any], /) -> int: ...
def drain(fd: int, /) -> None: ...
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
