"""`python -m lab.compose`: what the containers of the lab run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ari_app.errors import AppError
from lab.compose.caller import Round, keep_calling
from lab.compose.card import show_card
from lab.compose.configuration import Places, write_all
from lab.compose.options import read_options
from lab.compose.state import keep_state, read_caller_state, read_state
from lab.compose.watch import Watcher
from lab.stop_signals import stop_signals

_WIDTH = 100
_OWN = Path("/lab")
"""Where every container finds what is for it, and for nobody else."""

app = typer.Typer(help="The lab in Docker.", add_completion=False, no_args_is_help=True)


@app.command()
def setup() -> None:
    """Make the lab's passwords once, write everybody's configuration, show the account."""
    options = read_options()
    places = Places()
    state = keep_state(places.lab, options)
    write_all(places, options, state)
    console = Console(width=_WIDTH)
    if options.is_real:
        console.print(f"The agent: {options.elevenlabs_agent_id} at {options.agent_url}")
    else:
        console.print("The agent: the practice agent. ELEVENLABS_API_KEY switches to a real one.")
    show_card(console, state)


@app.command()
def card() -> None:
    """Show the account for a softphone again."""
    show_card(Console(), read_state(Places().lab))


@app.command()
def caller(
    target: Annotated[str, typer.Option(envvar="CALLER_TARGET")] = "sip:100@asterisk:5060",
    api: Annotated[str, typer.Option(envvar="CALLER_API")] = "http://ari-app:8080",
    pause: Annotated[float, typer.Option(envvar="CALLER_PAUSE_SECONDS", min=1)] = 20.0,
    heartbeat: Annotated[Path, typer.Option(envvar="CALLER_HEARTBEAT")] = Path("/tmp/heard"),
) -> None:
    """Call and talk, again and again, and show what is said."""
    asyncio.run(_call(target, api, pause, heartbeat))


async def _call(target: str, api: str, pause: float, heartbeat: Path) -> None:
    state = read_caller_state(_OWN)
    plan = Round(target, pause, state.calls_cost_money, heartbeat)
    with stop_signals() as stop:
        async with Watcher(api, state.api_key.get_secret_value()) as watcher:
            password = state.password.get_secret_value()
            await keep_calling(plan, password, watcher, Console(width=_WIDTH), stop)


def main() -> None:
    """Run the command; a failure that has a name is one line and exit code 2."""
    try:
        app()
    except AppError as error:
        typer.echo(str(error), err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
