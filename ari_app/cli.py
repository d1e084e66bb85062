"""The ``ari-app`` command.

Exit codes: 0 all went well; 1 a soak has missed a goal; 2 something outside the program is wrong,
said in a sentence; 130 interrupted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
import uvloop
from rich.console import Console
from rich.markup import escape

from ari_app import __version__
from ari_app.errors import AppError, ConfigError
from ari_app.settings import Settings, load_settings

app = typer.Typer(
    name="ari-app",
    help="Voice bridge between Asterisk and ElevenLabs agents.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_errors = Console(stderr=True)
_Result = TypeVar("_Result")

EnvFile = Annotated[
    Path, typer.Option("--env-file", help="Where the settings are, beside the environment.")
]
_ENV_FILE = Path(".env")


def main() -> None:
    """Run the command. Failures that have a name end in one sentence, never in a traceback."""
    try:
        app()
    except AppError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(sentence: str) -> NoReturn:
    _errors.print(f"[bold red]ari-app:[/] {escape(sentence)}", soft_wrap=True, highlight=False)
    sys.exit(2)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Say the version and stop.")] = False,
) -> None:
    if version:
        typer.echo(f"ari-app {__version__}")
        raise typer.Exit


@app.command()
def serve(
    env_file: EnvFile = _ENV_FILE,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for an Asterisk that does not answer yet.")
    ] = False,
) -> None:
    """Take calls until told to stop: SIGTERM lets running calls finish, a second one ends them."""
    # Frames are too small for several threads, and what forks must have one only.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from ari_app.serve import supervise

    settings = _settings(env_file)
    settings.require_serving()
    raise typer.Exit(supervise(settings, wait=wait))


@app.command()
def check(
    env_file: EnvFile = _ENV_FILE,
    conf: Annotated[
        Path | None,
        typer.Option(
            help="On Asterisk's own machine: the folder of its files, such as /etc/asterisk."
        ),
    ] = None,
) -> None:
    """Find out what is wrong with a set-up, and say how to mend it."""
    from ari_app.checks import Finding, Verdict, check_all, what_works
    from ari_app.process.logs import set_up_logging

    signs = {
        Verdict.OK: "[green]✓[/]",
        Verdict.NOTE: "[dim]·[/]",
        Verdict.WARNING: "[yellow]![/]",
        Verdict.FAILED: "[bold red]✗[/]",
    }
    console = Console()
    settings = _settings(env_file)
    # The findings say all that there is to say.
    set_up_logging("CRITICAL")

    async def run() -> list[Finding]:
        findings: list[Finding] = []
        async for finding in check_all(settings, conf):
            if not findings or findings[-1].what != finding.what:
                console.print(f"[bold]{escape(finding.what)}[/]", highlight=False)
            findings.append(finding)
            line = f"  {signs[finding.verdict]} {escape(finding.detail)}"
            console.print(line, soft_wrap=True, highlight=False)
        return findings

    findings = _run(run)
    verdicts = [finding.verdict for finding in findings]
    bad, doubtful = verdicts.count(Verdict.FAILED), verdicts.count(Verdict.WARNING)
    console.print(f"\n{len(verdicts)} looked at: {bad} failed, {doubtful} to look into.")
    console.print(what_works(findings), soft_wrap=True, highlight=False)
    if bad:
        raise typer.Exit(2)


@app.command()
def agent(
    bind: Annotated[str, typer.Option(help="host:port to listen on.")] = "127.0.0.1:8765",
    dialogue: Annotated[
        Path | None, typer.Option(help="A YAML file of what it says, instead of its own.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(envvar="PRACTICE_AGENT_KEY", help="The key it demands; any when empty."),
    ] = None,
) -> None:
    """Run the practice agent alone: an ElevenLabs-compatible server that needs no account."""
    from ari_app.process.logs import set_up_logging

    with _lab_extra():
        from lab.practice_agent.command import run_practice_agent
    set_up_logging("WARNING")
    _run(lambda: run_practice_agent(bind, dialogue, key, Console()))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the recording and the picture go.")] = Path(
        "demo-output"
    ),
    keep: Annotated[
        bool, typer.Option(help="Go on afterwards, so that your own softphone can call.")
    ] = False,
) -> None:
    """Place a real call through a real Asterisk to the practice agent, and show it."""
    from ari_app.process.logs import set_up_logging

    with _lab_extra():
        from lab.demo import DemoOptions, run_demo
    set_up_logging("WARNING")
    _run(lambda: run_demo(DemoOptions(out_dir=out, keep=keep), Console()))


@app.command()
def bench(
    names: Annotated[
        list[str] | None, typer.Argument(help="parts, bridge, ear, stall, flood or all.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="Fewer steps, shorter ones.")] = False,
    out: Annotated[Path, typer.Option(help="Where figures and pictures go.")] = Path(
        "bench-output"
    ),
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="bridge: only this format of the agent.")
    ] = None,
    calls: Annotated[
        list[int] | None, typer.Option(help="bridge, flood: only this many calls at once.")
    ] = None,
) -> None:
    """Measure what a call costs and what it sounds like; see docs/performance.md."""
    with _lab_extra():
        from benchmarks.command import Options, run

    options = Options(quick, out, tuple(formats or ()), tuple(calls or ()))
    _run(lambda: run(names or ["all"], options, Console()))


@app.command()
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
    with _lab_extra():
        from benchmarks.soak.command import soak as run_soak
        from benchmarks.soak.options import soak_options

    options = soak_options(
        minutes, capacity, seed, out, faults, restart_asterisk=restart_asterisk, plant=plant
    )
    if not _run(lambda: run_soak(options, Console())):
        raise typer.Exit(1)


def _settings(env_file: Path) -> Settings:
    if env_file != _ENV_FILE and not env_file.exists():
        raise ConfigError(f"There is no {env_file}.")
    try:
        return load_settings(str(env_file))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{env_file} cannot be read: {error}.") from None


@contextlib.contextmanager
def _lab_extra() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ConfigError(
            f"This command needs {error.name}, which is not installed: in ari-app's checkout, run "
            "make setup; or pip install '.[lab]' there, into an environment of your own."
        ) from None


def _run(work: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work())
