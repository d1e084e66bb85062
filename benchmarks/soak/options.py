"""How a soak is to run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import BenchmarkError
from benchmarks.soak.plan import MIX, Kind
from benchmarks.soak.schedule import FaultKind

SHARE_OF_CAPACITY = 0.7
PLANTS = ("stranded", "orphan")


@dataclass(frozen=True, slots=True)
class SoakOptions:
    """`capacity` is measured first when it is None."""

    minutes: float = 10.0
    capacity: int | None = None
    seed: int = 1
    out: Path = Path("bench-output/soak")
    kinds: tuple[Kind, ...] = MIX
    faults: tuple[FaultKind, ...] = ()
    plant: tuple[str, ...] = ()
    """Of PLANTS: what is planted, to see that it is found."""
    sample_seconds: float = 2.0
    say_seconds: float = 10.0
    dead_air_seconds: float = 25.0
    """A caller who hears nothing for longer is stranded."""
    quiet_seconds: float = 30.0
    """Before the first fault; not more than a quarter of the run."""
    warm_up_seconds: float = 180.0
    """Of each worker's life: not in the line through its memory. Calls last up to 80 s and are kept
    for another 60: before that there are more of them with every minute."""
    settle_seconds: float = 16.0
    """Before what there is at rest is counted: idle connections are closed after 15 s."""
    rest_seconds: float = 90.0
    """How long to wait at the end for everything to be as before."""

    @property
    def seconds(self) -> float:
        """How long the mix lasts."""
        return self.minutes * 60


def soak_options(
    minutes: float,
    capacity: int | None,
    seed: int,
    out: Path,
    faults: Sequence[str] | None,
    *,
    restart_asterisk: bool,
    plant: Sequence[str] | None,
) -> SoakOptions:
    """Options from what was typed. Raises BenchmarkError for a name that there is not."""
    plants = tuple(plant or ())
    if unknown := set(plants) - set(PLANTS):
        raise BenchmarkError(f"Nothing to plant is called {min(unknown)!r}: {' or '.join(PLANTS)}.")
    chosen = _faults(faults, restart_asterisk=restart_asterisk)
    return SoakOptions(minutes, capacity, seed, out, faults=chosen, plant=plants)


def _faults(names: Sequence[str] | None, *, restart_asterisk: bool) -> tuple[FaultKind, ...]:
    chosen: list[FaultKind]
    if names is None:
        chosen = [kind for kind in FaultKind if kind is not FaultKind.ASTERISK_RESTARTED]
    elif list(names) == ["none"]:
        chosen = []
    else:
        if unknown := [name for name in names if name not in set(FaultKind)]:
            known = ", ".join(FaultKind)
            raise BenchmarkError(f"No fault {unknown[0]!r}; there are {known}, and none.")
        chosen = [FaultKind(name) for name in names]
    if restart_asterisk:
        chosen.append(FaultKind.ASTERISK_RESTARTED)
    return tuple(dict.fromkeys(chosen))
