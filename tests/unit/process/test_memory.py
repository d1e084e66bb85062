"""The garbage collector and the heap, in a process that carries calls."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from ari_app.process.memory import load_for_good


def test_no_collection_comes_while_they_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "comes_later.py").write_text("import gc\ncollects = gc.isenabled()\n")
    try:
        load_for_good(["comes_later"])
        assert sys.modules["comes_later"].collects is False
        assert gc.isenabled()
        frozen = gc.get_freeze_count()
        assert frozen
        load_for_good(["comes_later"])
        assert gc.get_freeze_count() == frozen
    finally:
        sys.modules.pop("comes_later", None)
        gc.unfreeze()


def test_one_that_cannot_be_loaded_leaves_collections_as_they_were() -> None:
    with pytest.raises(ModuleNotFoundError):
        load_for_good(["there_is_no_such_module"])
    assert gc.isenabled()


# --- each in a process of its own, for what it does is for good

GROWING = """
import ctypes, gc, sys
from ari_app.process.memory import settle_memory

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
        "import gc; from ari_app.process.memory import settle_memory; "
        "import ari_app.bridge; settle_memory();"
        "print(gc.get_freeze_count() > 10_000, len(gc.get_objects()) < 1000, gc.get_threshold()[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["True", "True", "5"]


LEFT = """
import asyncio, gc, weakref
from ari_app.process import memory

class Node:
    pass

async def run():
    memory.settle_memory()
    memory._LOOK_EVERY_SECONDS = 0.01
    idle = False
    task = asyncio.create_task(memory.collect_leftovers(lambda: idle))
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
from ari_app.process import memory

sys.path.append(sys.argv[1])

async def run():
    memory.settle_memory()
    memory._LOOK_EVERY_SECONDS = 0.01
    task = asyncio.create_task(memory.collect_leftovers(lambda: True))
    await asyncio.sleep(0)
    before = gc.get_freeze_count()
    memory.load_for_good(["much"])
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
