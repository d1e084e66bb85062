"""What every frame goes through, compiled from the same sources, where that has been done.

`scripts.compiled` compiles the modules below with mypyc into `ari_app/_compiled`, in a folder that
is named after their sources and this Python. So what was compiled from other sources is never used,
and without any of it the modules run as they are, at a third more of CPU time.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Final

MODULES: Final = (
    "linekit.clock",
    "linekit.jitter",
    "linekit.playout",
    "linekit.transport",
    "linekit.unfinished",
    "audiosocket.connection",
    "audiosocket.frames",
    "audiosocket.rhythm",
    "ari_app.audio.convert",
    "ari_app.audio.formats",
    "ari_app.audio.g711",
    "ari_app.audio.resample",
    "ari_app.call.hearing",
    "ari_app.call.listening",
    "ari_app.call.sound",
    "ari_app.line.asterisk.chan_websocket",
    "ari_app.line.asterisk.media",
    "ari_app.line.asterisk.websocket_media",
    "ari_app.line.dialer.sound",
    "ari_app.line.twilio.stream",
    "ari_app.agent.elevenlabs.codec",
    "ari_app.agent.elevenlabs.connection",
    "ari_app.agent.elevenlabs.protocol",
)
NATIVE: Final = "linekit._native"
"""What is in C, `linekit/_native.c`; each of its functions has one in Python that does the same."""
SHARED: Final = "ari_app__mypyc"
"""The library that all of the others are in; each has a small one of its own that points there."""
SOURCES: Final = Path(__file__).parents[2]
COMPILED: Final = SOURCES / "ari_app" / "_compiled"
SWITCH: Final = "ARI_APP_COMPILED"
"""The environment variable that turns it off, when it is `0`."""


def source_of(module: str) -> Path:
    """Return where a module's source is."""
    suffix = ".c" if module == NATIVE else ".py"
    return SOURCES / (module.replace(".", "/") + suffix)


def library_of(folder: Path, module: str) -> Path:
    """Return where a compiled module is, in a folder of them."""
    return folder / (module.replace(".", "/") + EXTENSION_SUFFIXES[0])


@cache
def folder_for() -> Path:
    """Return where what was compiled from the present sources, for this Python, is or would be."""
    digest = hashlib.sha256()
    for module in (NATIVE, *MODULES):
        digest.update(source_of(module).read_bytes())
    return (
        COMPILED / f"{sys.implementation.cache_tag}-{platform.machine()}-{digest.hexdigest()[:16]}"
    )


def is_compiled() -> bool:
    """Return whether there is something to use."""
    try:
        return library_of(folder_for(), SHARED).is_file()
    except OSError:
        return False


def in_use() -> bool:
    """Return whether compiled modules are what is imported."""
    return any(isinstance(finder, _Finder) for finder in sys.meta_path)


def use_compiled(environment: Mapping[str, str] = os.environ) -> bool:
    """Let the compiled modules be imported from now on, where there are any; return whether.

    What is imported already stays as it is.
    """
    if in_use():
        return True
    if environment.get(SWITCH, "1") == "0" or not is_compiled():
        return False
    sys.meta_path.insert(0, _Finder(folder_for()))
    return True


class _Finder(MetaPathFinder):
    """Finds the compiled modules of one folder."""

    def __init__(self, folder: Path) -> None:
        self._files = {name: library_of(folder, name) for name in (SHARED, NATIVE, *MODULES)}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        file = self._files.get(fullname)
        if file is None or not file.is_file():
            return None
        return spec_from_file_location(
            fullname, file, loader=ExtensionFileLoader(fullname, str(file))
        )
