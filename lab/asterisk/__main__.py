"""`python -m lab.asterisk`: fetch an Asterisk, or run one until Ctrl-C."""

from __future__ import annotations

import asyncio

import typer

from lab.asterisk import LabAsterisk, LabError, ensure_asterisk
from lab.stop_signals import stop_signals

app = typer.Typer(help="The lab's Asterisk.", add_completion=False, no_args_is_help=True)


def _say(step: str) -> None:
    typer.echo(step, err=True)


@app.command()
def fetch() -> None:
    """Have an Asterisk ready, and print which."""
    found = ensure_asterisk(_say)
    typer.echo(f"Asterisk {found.version}")


@app.command()
def run(trunk_contact: str | None = None) -> None:
    """Run one until Ctrl-C or SIGTERM, and print how to reach it, ready for `.env`."""
    asyncio.run(_run(trunk_contact))


async def _run(trunk_contact: str | None) -> None:
    with stop_signals() as stop:
        async with LabAsterisk(trunk_contact=trunk_contact, progress=_say) as asterisk:
            for name, value in asterisk.settings.items():
                typer.echo(f"{name}={value}")
            typer.echo(f"# phones: sip:100@{asterisk.sip_host}:{asterisk.sip_port}")
            typer.echo(f"# files:  {asterisk.run_dir}/etc")
            typer.echo(f"# log:    {asterisk.log_path}")
            await stop.wait()


def main() -> None:
    """Run the command; a LabError is one line and exit code 2."""
    try:
        app()
    except LabError as error:
        _say(str(error))
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
