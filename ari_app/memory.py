"""How a process that serves for months treats its memory."""

from __future__ import annotations

import ctypes
import gc

_M_MMAP_THRESHOLD = -3
"""The name of a parameter of glibc's mallopt (malloc.h)."""
_LARGE_BYTES = 192 * 1024
"""More than any message of an agent's, less than the 256 KiB of a TLS connection (uvloop)."""


def settle_memory() -> bool:
    """Prepare for serving: to be called when all that lives as long as the process is there.

    Garbage collection looks away from what there is now. What is left of an ended call are circles,
    which only a full collection frees; it comes the more often and takes the shorter, and does not
    wait until those weigh a quarter of what there was before: the second collection lets it forget
    that.

    The buffers of TLS connections are given back to the system as calls end. By itself glibc takes
    them into its heap once one was freed, and the heap grows with every new arrangement of them.

    Returns:
        Whether the C library could be told; musl cannot.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(700, 10, 3)
    gc.collect()
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES) == 1
