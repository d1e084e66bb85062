"""The `ari-app` command.

Other distributions bring commands as entry points of the group `ari_app.commands`, each a function
as Typer takes it: `agent`, `bench`, `demo` and `soak` come so from `lab/pyproject.toml`.

Exit codes: 0 all went well; 1 a soak has missed a goal; 2 something outside the program is wrong,
said in a sentence; 130 interrupted.
"""

from __future__ import annotations

import codecs
import contextlib
import functools
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer
from typer.core import TyperGroup

from ari_app import __version__
from ari_app.errors import AppError, ConfigError
from ari_app.process.files import is_absent, why_unreadable

if TYPE_CHECKING:
    # What a command needs is imported in it: help and completion must not wait for all of it.
    from ari_app.settings import Settings

_GROUP = "ari_app.commands"
LAB_COMMANDS = frozenset({"agent", "bench", "demo", "soak"})


class _Commands(TyperGroup):
    """Our own commands, and those of other distributions, which are loaded when asked for."""

    @functools.cached_property
    def _brought(self) -> dict[str, EntryPoint]:
        return {entry.name: entry for entry in sorted(entry_points(group=_GROUP))}

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *self._brought]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        if cmd_name in self._brought:
            return _brought_command(self._brought[cmd_name])
        if cmd_name in LAB_COMMANDS:
            raise _not_installed(f"{cmd_name} is a command of ari-app's lab")
        return None


def _brought_command(entry: EntryPoint) -> Any:
    try:
        function: Callable[..., None] = entry.load()
    except ModuleNotFoundError as error:
        raise _not_installed(f"{entry.name} needs {error.name}") from None

    @functools.wraps(function)
    def run(*args: Any, **options: Any) -> None:
        try:
            with _ending_as_by_ctrl_c():
                function(*args, **options)
        except ModuleNotFoundError as error:
            raise _not_installed(f"{entry.name} needs {error.name}") from None

    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(entry.name)(run)
    return typer.main.get_command(alone)


@contextlib.contextmanager
def _ending_as_by_ctrl_c() -> Iterator[None]:
    """Have SIGTERM and a terminal that is closed end the command as Ctrl-C does: processes that it
    has started and folders that it has made are gone then, too.

    Only once: `timeout` sends its signal to the command and to all of its group, and a second
    one would cut the tidying up short. Ctrl-C still does.
    """
    ends = False

    def interrupt(number: int, frame: object) -> None:
        nonlocal ends
        if ends:
            return
        ends = True
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            raise KeyboardInterrupt  # a shell's job in the background
        signal.raise_signal(signal.SIGINT)

    # Below nohup one of them is ignored, and stays so.
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _not_installed(what: str) -> ConfigError:
    return ConfigError(
        f"{what}, which is not installed: in ari-app's checkout, run make setup; or pip install . "
        "./lab there, into an environment of your own."
    )


app = typer.Typer(
    name="ari-app",
    cls=_Commands,
    help="Voice bridge between Asterisk and ElevenLabs agents.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Boxes cost as much time as all the rest of the help.
    rich_markup_mode=None,
)

EnvFile = Annotated[
    Path, typer.Option("--env-file", help="Where the settings are, beside the environment.")
]
_ENV_FILE = Path(".env")


def main() -> None:
    """Run the command. Failures that have a name end in one sentence, never in a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_plainly.__name__)
    try:
        app()
    except AppError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


_PLAIN: Final = {
    **{"✓": "+", "✗": "x", "·": "-", "→": ">", "←": "<", "↔": "-", "…": "...", "µ": "u"},
    # How loud somebody is: `ari-app talk`.
    **{"█": "#", "░": "."},
}


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """Write what a terminal has no signs for: one of Latin-1 has no check mark, and what somebody
    has said may be in any script."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(_PLAIN.get(sign, "?") for sign in signs), error.end


codecs.register_error(_plainly.__name__, _plainly)


def _fail(sentence: str) -> NoReturn:
    from rich.console import Console
    from rich.markup import escape

    Console(stderr=True).print(
        f"[bold red]ari-app:[/] {escape(sentence)}", soft_wrap=True, highlight=False
    )
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
    from ari_app.process.compiled import use_compiled

    use_compiled()
    import ari_app.process.plain_aiohttp
    import ari_app.process.plain_structlog  # noqa: F401
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
    import ari_app.process.plain_structlog  # noqa: F401, I001
    import uvloop
    from rich.console import Console
    from rich.markup import escape

    from ari_app.checks.finding import Finding, Verdict, what_works
    from ari_app.checks.all import check_all
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

    findings = uvloop.run(run())
    verdicts = [finding.verdict for finding in findings]
    bad, doubtful = verdicts.count(Verdict.FAILED), verdicts.count(Verdict.WARNING)
    console.print(f"\n{len(verdicts)} looked at: {bad} failed, {doubtful} to look into.")
    console.print(what_works(findings), soft_wrap=True, highlight=False)
    if bad:
        raise typer.Exit(2)


@app.command()
def talk(
    env_file: EnvFile = _ENV_FILE,
    agent: Annotated[
        str | None, typer.Option(help="The agent's id, instead of ELEVENLABS_AGENT_ID.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Part of a sound device's name, or its number in the list."),
    ] = None,
    list_devices: Annotated[
        bool, typer.Option("--list-devices", help="Show the sound devices and stop.")
    ] = False,
) -> None:
    """Talk to an agent with this machine's microphone and loudspeaker; no Asterisk is needed."""
    import uvloop
    from rich.console import Console

    from ari_app.commands.talk import talk
    from ari_app.line.microphone import devices
    from ari_app.process.logs import set_up_logging

    # What is to be said is said in the terminal.
    set_up_logging("CRITICAL")
    console = Console()
    if list_devices:
        listed = devices()
        if not listed:
            raise ConfigError("This machine has no sound device that can be used.")
        for line in listed:
            console.print(line, soft_wrap=True, highlight=False, markup=False)
        return
    settings = _settings(env_file)
    changes = {"local_audio_device": device or settings.local_audio_device}
    if agent:
        changes["elevenlabs_agent_id"] = agent
    uvloop.run(talk(settings.model_copy(update=changes), console))


database = typer.Typer(help="The call log's database.", no_args_is_help=True)
app.add_typer(database, name="db")


@database.command("upgrade")
def upgrade_database(env_file: EnvFile = _ENV_FILE) -> None:
    """Make the tables of the call log, or bring them up to date. Running calls need not end."""
    import uvloop

    from ari_app.records.store.address import read_address
    from ari_app.records.store.upgrade import upgrade

    settings = _settings(env_file)
    if not settings.database_url:
        raise ConfigError("DATABASE_URL is empty, so there is no call log.")
    typer.echo(uvloop.run(upgrade(read_address(settings.database_url))))


_calls = typer.Typer(
    help="Calls that have ended: a list of them, and what went well in each, or did not.",
    rich_markup_mode=None,
)
app.add_typer(_calls, name="calls")
_AsJson = Annotated[bool, typer.Option("--json", help="All that is kept, for programs.")]


@_calls.callback(invoke_without_command=True)
def calls(
    context: typer.Context,
    env_file: EnvFile = _ENV_FILE,
    since: Annotated[
        str | None, typer.Option("--from", help="Since then: 2026-11-28, or 2026-11-28T15:30; UTC.")
    ] = None,
    to: Annotated[str | None, typer.Option(help="Before then.")] = None,
    status: Annotated[str | None, typer.Option(help="COMPLETED, FAILED, ...")] = None,
    result: Annotated[str | None, typer.Option(help="answered, busy, no_answer, ...")] = None,
    agent: Annotated[str | None, typer.Option(help="The agent's id.")] = None,
    number: Annotated[str | None, typer.Option(help="Part of a number of theirs.")] = None,
    text: Annotated[str | None, typer.Option(help="Words that were all said.")] = None,
    trunk: Annotated[
        str | None, typer.Option(help="In Asterisk the endpoint: PJSIP/trunk.")
    ] = None,
    direction: Annotated[str | None, typer.Option(help="in or out.")] = None,
    campaign: Annotated[
        str | None, typer.Option(help="The campaign: campaign_id of its metadata.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Show so many.")] = 25,
    as_json: _AsJson = False,
) -> None:
    """List calls that have ended, the newest first. Times are UTC unless they name a zone."""
    if context.invoked_subcommand is not None:
        return
    import uvloop
    from rich.console import Console

    from ari_app.commands.calls import call_filter, list_calls

    wanted = call_filter(
        {
            "from": since,
            "to": to,
            "status": status,
            "result": result,
            "agent_id": agent,
            "number": number,
            "text": text,
            "trunk": trunk,
            "direction": direction,
            "campaign_id": campaign,
        }
    )
    settings = _settings(env_file)
    uvloop.run(list_calls(settings, wanted, limit, Console(), as_json=as_json))


@_calls.command("show")
def show_call(
    name: Annotated[
        str,
        typer.Argument(
            help="A session id or its beginning, or a conversation's.", show_default=False
        ),
    ],
    env_file: EnvFile = _ENV_FILE,
    as_json: _AsJson = False,
) -> None:
    """Show a call: what went well, what did not and why, and what happened when."""
    import uvloop
    from rich.console import Console

    from ari_app.commands.calls import show_call

    uvloop.run(show_call(_settings(env_file), name, Console(), as_json=as_json))


_webhooks = typer.Typer(
    help="What others are told of calls: what waits, what was given up, and sending it again.",
    rich_markup_mode=None,
)
app.add_typer(_webhooks, name="webhooks")
_CallOrEvent = typer.Argument(
    help="The id of a call or of an event, or its beginning.", show_default=False
)


@_webhooks.callback(invoke_without_command=True)
def webhooks(
    context: typer.Context,
    env_file: EnvFile = _ENV_FILE,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Show so many.")] = 50,
) -> None:
    """List what is not delivered, the newest first."""
    from rich.console import Console

    from ari_app.commands.webhooks import list_undelivered

    if context.invoked_subcommand is None:
        list_undelivered(_settings(env_file), limit, Console())


@_webhooks.command("show")
def show_webhooks(
    name: Annotated[str, _CallOrEvent],
    env_file: EnvFile = _ENV_FILE,
) -> None:
    """Show what became of each event of a call, and what is still to be sent."""
    from rich.console import Console

    from ari_app.commands.webhooks import show

    show(_settings(env_file), name, Console())


@_webhooks.command("retry")
def retry_webhooks(
    name: Annotated[str | None, _CallOrEvent] = None,
    every: Annotated[bool, typer.Option("--all", help="Everything that is not delivered.")] = False,
    env_file: EnvFile = _ENV_FILE,
) -> None:
    """Send again what was given up, and at once what waits; serve does the sending."""
    from rich.console import Console

    from ari_app.commands.webhooks import retry

    if (name is None) is not every:
        raise ConfigError("Name a call or an event, or say --all.")
    retry(_settings(env_file), name, Console())


@_webhooks.command("test")
def test_webhooks(env_file: EnvFile = _ENV_FILE) -> None:
    """Send a test event to each receiver, and say what it answers."""
    import uvloop
    from rich.console import Console

    from ari_app.commands.webhooks import test
    from ari_app.process.logs import set_up_logging

    settings = _settings(env_file)
    set_up_logging("CRITICAL")
    if not uvloop.run(test(settings, Console())):
        raise typer.Exit(2)


def _settings(env_file: Path) -> Settings:
    try:
        Path.cwd()
    except OSError:
        raise ConfigError(
            "The folder in which this was started is there no more. Change into it anew."
        ) from None
    absent = is_absent(env_file)
    if absent and env_file != _ENV_FILE:
        raise ConfigError(f"There is no {env_file}.")
    if os.path.isdir(env_file):
        # Docker makes a folder of a file that is not there.
        raise ConfigError(f"{env_file} is a folder, and should be the file of the settings.")
    from ari_app.settings import load_settings

    try:
        if not absent:
            # Whoever looks whether it is a file passes over it, from Python 3.14 on, where it may
            # not be looked into.
            env_file.stat()
        return load_settings(str(env_file))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{env_file} cannot be read: {why_unreadable(error)}.") from None
