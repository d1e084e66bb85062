"""The ways in that a call can be measured through, each with its own far end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.processes import BenchmarkError, Load, Service, running_load

StartLoad = Callable[[Path, set[int]], AbstractAsyncContextManager[Load]]


async def _known_already(load: Load, service: Service) -> None:
    """Do nothing: the service finds its far end by itself."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way in, and the program that stands at its far end.

    Attributes:
        settings: What the service is told of it.
        start: Starts the far end in a folder, on some cores.
        reach: Further settings, once it is known where the far end is.
        meet: Tells the far end where the service is, once that serves.
        in_asterisk: A real Asterisk can be its far end too: *ear* and *stall* measure it.
    """

    settings: Mapping[str, str]
    start: StartLoad = lambda folder, cores: running_load(folder, cores=cores)
    reach: Callable[[Load], dict[str, str]] = lambda load: load.settings
    meet: Callable[[Load, Service], Awaitable[None]] = _known_already
    in_asterisk: bool = True


WAYS: Final[Mapping[str, Way]] = {
    "audiosocket": Way({"MEDIA_TRANSPORT": "audiosocket"}),
    "websocket": Way({"MEDIA_TRANSPORT": "websocket"}),
    "custom": Way(
        {"DIALER_TYPE": "custom"},
        start=lambda folder, cores: running_load(folder, cores=cores, module="lab.load.dialer"),
        reach=lambda load: {},
        meet=lambda load, service: load.post("meet", api=service.api_url),
        in_asterisk=False,
    ),
}


def way(name: str) -> Way:
    """Return the way in of this name. Raises BenchmarkError where there is none."""
    try:
        return WAYS[name]
    except KeyError:
        raise BenchmarkError(f"No line {name!r}; there are {', '.join(WAYS)}.") from None
