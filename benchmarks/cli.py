"""The commands that the benchmarks bring to `ari-app`, see `lab/pyproject.toml`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console


def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="parts, bridge, ear, setups, stall, flood, page, compare or all."),
    ] = None,
    quick: Annotated[bool, typer.Option(help="Fewer steps, shorter ones.")] = False,
    out: Annotated[Path, typer.Option(help="Where figures and pictures go.")] = Path(
        "bench-output"
    ),
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="bridge, compare: only this format of the agent."),
    ] = None,
    calls: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            help="bridge, compare, flood, page: only this many calls at once; setups: a second.",
        ),
    ] = None,
    lines: Annotated[
        list[str] | None,
        typer.Option(
            "--line",
            help="bridge, ear, stall: this way in (audiosocket, websocket); bridge: custom, too.",
        ),
    ] = None,
    recording: Annotated[
        bool, typer.Option("--recording", help="bridge: measure it again with calls recorded.")
    ] = False,
    workers: Annotated[
        list[int] | None,
        typer.Option(help="bridge: with so many workers; several of these are measured in turn."),
    ] = None,
    listeners: Annotated[
        list[int] | None,
        typer.Option(
            help="bridge: with so many calls listened to; several of these are measured in turn."
        ),
    ] = None,
    watchers: Annotated[
        list[int] | None,
        typer.Option(
            help="bridge: with so many pages that show all calls; several are measured in turn."
        ),
    ] = None,
    against: Annotated[
        str, typer.Option(help="compare: this revision of git against what is here now.")
    ] = "",
) -> None:
    """Measure what a call costs and what it sounds like; see docs/performance.md."""
    from benchmarks.command import Options, run

    options = Options(
        quick,
        out,
        tuple(formats or ()),
        # A run only ever adds calls: in another order the fewer would be charged for the more.
        tuple(sorted(set(calls or ()))),
        tuple(lines or ("audiosocket",)),
        recording,
        against,
        tuple(workers or (1,)),
        tuple(listeners or (0,)),
        tuple(watchers or (0,)),
    )
    uvloop.run(run(names or ["all"], options, Console()))


def soak(
    minutes: Annotated[float, typer.Option(min=0.2, help="How long the mix lasts.")] = 10.0,
    capacity: Annotated[
        int | None,
        typer.Option(min=1, help="Calls that this machine carries; measured if left out."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same calls and faults.")] = 1,
    out: Annotated[Path, typer.Option(help="Where figures and the picture go.")] = Path(
        "bench-output/soak"
    ),
    faults: Annotated[
        list[str] | None, typer.Option("--fault", help="Only this fault; none for no fault at all.")
    ] = None,
    restart_asterisk: Annotated[
        bool, typer.Option(help="Kill Asterisk, too, and start it again.")
    ] = False,
    plant: Annotated[
        list[str] | None,
        typer.Option(help="Plant a 'stranded' caller or an 'orphan', to see that it is found."),
    ] = None,
) -> None:
    """Mixed calls and faults for a long time; exit code 1 when something leaks or is stranded."""
    from benchmarks.soak.command import soak as run_soak
    from benchmarks.soak.options import soak_options

    options = soak_options(
        minutes, capacity, seed, out, faults, restart_asterisk=restart_asterisk, plant=plant
    )
    if not uvloop.run(run_soak(options, Console())):
        raise typer.Exit(1)
