"""What a process does with its memory before it serves; in one of its own, as it is for good."""

from __future__ import annotations

import subprocess
import sys

import pytest

GROWING = """
import ctypes, gc, sys
from ari_app.process.limits import settle_memory

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def mapped():
    with open("/proc/self/smaps_rollup") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Rss"))

if sys.argv[1] == "settled" and not settle_memory():
    sys.exit(77)
# One block that is freed teaches glibc that blocks of this size belong into the heap.
libc.free(libc.malloc(256 * 1024))
blocks = []
for _ in range(200):
    large = libc.malloc(256 * 1024)
    ctypes.memset(large, 1, 256 * 1024)
    blocks.append(large)
    # Small ones in between keep the heap from shrinking.
    ctypes.memset(libc.malloc(1024), 1, 1024)
held = mapped()
for block in blocks:
    libc.free(block)
print(held - mapped())
"""


def given_back_kb(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", GROWING, how], capture_output=True, text=True, timeout=60
    )
    if done.returncode == 77:
        pytest.skip("this C library has no mallopt")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_large_buffers_go_back_to_the_system() -> None:
    assert given_back_kb("settled") > 45_000
    assert given_back_kb("as it is") < 5_000, "glibc does it by itself: the setting can go"


def test_what_lives_for_ever_is_out_of_the_collectors_sight() -> None:
    code = (
        "import gc; from ari_app.process.limits import settle_memory; import ari_app.bridge; settle_memory();"
        "print(gc.get_freeze_count() > 10_000, len(gc.get_objects()) < 1000, gc.get_threshold()[2])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["True", "True", "3"]
