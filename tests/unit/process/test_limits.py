"""What the system lets a process have: file descriptors and memory."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from ari_app.checks import Verdict, check_descriptors
from ari_app.process import limits
from ari_app.settings import load_settings


class Kernel:
    """Limits that a test may set without setting its own process'."""

    def __init__(self, soft: int, hard: int) -> None:
        self.limits = (soft, hard)

    def getrlimit(self, which: int) -> tuple[int, int]:
        assert which == resource.RLIMIT_NOFILE
        return self.limits

    def setrlimit(self, which: int, wanted: tuple[int, int]) -> None:
        assert which == resource.RLIMIT_NOFILE
        self.limits = wanted


INFINITE = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("before", "after", "got"),
    [
        ((1024, 4096), (4096, 4096), 4096),
        ((4096, 4096), (4096, 4096), 4096),
        ((1024, INFINITE), (1 << 20, INFINITE), 1 << 20),
        ((INFINITE, INFINITE), (INFINITE, INFINITE), 1 << 20),
    ],
)
def test_as_many_as_may_be(
    monkeypatch: pytest.MonkeyPatch, before: tuple[int, int], after: tuple[int, int], got: int
) -> None:
    kernel = Kernel(*before)
    monkeypatch.setattr(resource, "getrlimit", kernel.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", kernel.setrlimit)
    assert limits.raise_limit() == got
    assert kernel.limits == after


def test_too_few_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(1024, 1024)
    monkeypatch.setattr(resource, "getrlimit", kernel.getrlimit)
    few = load_settings(None, max_concurrent_calls=10)
    many = load_settings(None, max_concurrent_calls=1000)
    assert check_descriptors(few).verdict is Verdict.OK
    finding = check_descriptors(many)
    assert finding.verdict is Verdict.WARNING
    assert "may have 1024" in finding.detail


def test_what_is_needed_grows_with_calls_and_connections() -> None:
    least = limits.needed(10, 100)
    assert limits.needed(11, 100) > least
    assert limits.needed(10, 101) == least + 1


# --- memory, each in a process of its own, as it is for good

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
# One block that is freed teaches glibc that blocks up to its size belong into the heap. It is
# larger than any room there, from which it would come without teaching anything.
libc.free(libc.malloc(8 * 1024 * 1024))
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
        "import gc; from ari_app.process.limits import settle_memory; "
        "import ari_app.bridge; settle_memory();"
        "print(gc.get_freeze_count() > 10_000, len(gc.get_objects()) < 1000, gc.get_threshold()[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["True", "True", "5"]


LEFT = """
import asyncio, gc, weakref
from ari_app.process import leftovers, limits

class Node:
    pass

async def run():
    limits.settle_memory()
    leftovers._LOOK_EVERY_SECONDS = 0.01
    idle = False
    task = asyncio.create_task(leftovers.collect_leftovers(lambda: idle))
    await asyncio.sleep(0)
    before = gc.get_freeze_count()
    nodes = [Node() for _ in range(30_000)]
    for node in nodes:
        node.self = node
    gone = weakref.ref(nodes[0])
    gc.collect()
    frozen = gc.get_freeze_count() - before
    del nodes, node
    gc.collect()
    await asyncio.sleep(0.1)
    print(frozen > 30_000, gone() is not None)
    idle = True
    await asyncio.sleep(0.1)
    print(gone() is None, gc.get_freeze_count() < before + 1000)
    task.cancel()

asyncio.run(run())
"""


def test_circles_are_left_until_nothing_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEFT], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["True"] * 4


LOADED = """
import asyncio, gc, sys
from ari_app.process import later, leftovers, limits

sys.path.append(sys.argv[1])

async def run():
    limits.settle_memory()
    leftovers._LOOK_EVERY_SECONDS = 0.01
    task = asyncio.create_task(leftovers.collect_leftovers(lambda: True))
    await asyncio.sleep(0)
    before = gc.get_freeze_count()
    later.load_for_good(["much"])
    looks = []
    gc.callbacks.append(lambda phase, info: looks.append(info["generation"]))
    await asyncio.sleep(0.1)
    print(gc.get_freeze_count() - before > 30_000, 2 in looks)
    task.cancel()

asyncio.run(run())
"""


def test_what_was_loaded_later_is_no_leftover(tmp_path: Path) -> None:
    (tmp_path / "much.py").write_text("much = [[] for _ in range(30_000)]\n")
    command = [sys.executable, "-c", LOADED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_a_busy_thread_holds_up_the_loop_less_than_a_frame() -> None:
    before = sys.getswitchinterval()
    try:
        limits.share_interpreter()
        assert sys.getswitchinterval() == pytest.approx(0.001)
    finally:
        sys.setswitchinterval(before)
