from __future__ import annotations

import asyncio
import io
import runpy
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import ari_app
from ari_app import cli
from ari_app import serve as service
from ari_app.checks import all as all_checks
from ari_app.checks.finding import Finding, Verdict
from ari_app.errors import AgentError, ConfigError
from ari_app.process import logs
from ari_app.records.store.sqlite_probe import REVISION
from ari_app.settings import Settings
from benchmarks.soak.options import SoakOptions
from lab.practice_agent import command
from lab.practice_agent.command import PostCall
from tests.unit.settings_maker import nothing_outside

LABS = sorted(cli.LAB_COMMANDS)
KEY, PASSWORD = "sk_of_nobody", "a-secret-word"
SERVING = {"ARI_USERNAME": "app", "ARI_PASSWORD": PASSWORD, "ELEVENLABS_API_KEY": KEY}


@dataclass
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def logging_set_up(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """How logging was set up; it is left as it is."""
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(logs, "set_up_logging", lambda *given: calls.append(given))
    return calls


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    logging_set_up: list[tuple[str, ...]],
) -> Run:
    """Run `ari-app` in an empty folder, with nothing but the given settings."""
    nothing_outside(monkeypatch, tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str, **environment: str) -> Ran:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["ari-app", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        code = end.value.code
        return Ran(code if isinstance(code, int) else 0, out, err)

    return run


def is_one_sentence(ran: Ran) -> bool:
    """Exit code 2 and a sentence for people: no traceback, and no secret."""
    text = ran.out + ran.err
    return (
        ran.code == 2
        and ran.out == ""
        and ran.err.startswith("ari-app: ")
        and ran.err.count("\n") == 1
        and ran.err.rstrip().endswith(".")
        and "Traceback" not in text
        and KEY not in text
        and PASSWORD not in text
    )


# --- what it says of itself


def test_the_version(run: Run) -> None:
    assert run("--version") == Ran(0, f"ari-app {ari_app.__version__}\n", "")


def test_help_names_every_command(run: Run) -> None:
    ran = run("--help")
    assert ran.code == 0
    for name in ("serve", "check", *LABS):
        assert f"\n  {name} " in ran.out


def test_without_a_command_there_is_help(run: Run) -> None:
    ran = run()
    assert "serve" in ran.out + ran.err


@pytest.mark.parametrize("arguments", [["sreve"], ["serve", "--nonsense"], ["agent", "--bind"]])
def test_what_is_no_command(run: Run, arguments: list[str]) -> None:
    ran = run(*arguments)
    assert ran.code == 2
    assert "Traceback" not in ran.out + ran.err


# --- bad input


@pytest.mark.parametrize("command", ["serve", "check"])
@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"UPLINK_CHUNK_MS": "15"}, "UPLINK_CHUNK_MS: "),
        ({"MAX_CONCURRENT_CALLS": "many"}, "MAX_CONCURRENT_CALLS: "),
        (
            {"ARI_URL": "127.0.0.1:8088"},
            "ARI_URL: must be a URL with http:// or https://, such as http://127.",
        ),
        ({"ARI_URL": f"http://u:{PASSWORD}@h"}, "ARI_URL: must not carry a user name or password"),
        ({"AUDIOSOCKET_BIND": "9092"}, "such as 127.0.0.1:9092."),
        ({"LOG_LEVEL": "LOUD"}, "LOG_LEVEL: "),
    ],
    ids=str,
)
def test_a_setting_that_does_not_fit(
    run: Run, command: str, environment: dict[str, str], sentence: str
) -> None:
    ran = run(command, **(SERVING | environment))
    assert is_one_sentence(ran), ran
    assert sentence in ran.err


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"ARI_USERNAME": ""}, "ARI_USERNAME is empty or not set."),
        ({"ARI_USERNAME": ""}, "to ARI_USERNAME in .env, and its password"),
        ({"API_BIND": "0.0.0.0:8080"}, "API_KEY is not set."),
        ({"AUDIOSOCKET_BIND": "[::]:9092"}, "Asterisk cannot dial [::]:9092."),
        ({"AUDIOSOCKET_ADVERTISE": "10.0.0.1:0"}, "AUDIOSOCKET_ADVERTISE needs a port"),
    ],
    ids=str,
)
def test_what_cannot_be_served(run: Run, environment: dict[str, str], sentence: str) -> None:
    ran = run("serve", **(SERVING | environment))
    assert is_one_sentence(ran), ran
    assert sentence in ran.err
    ran = run("check", **(SERVING | environment))
    assert (ran.code, ran.err) == (2, "")
    assert ran.out.startswith("Settings\n  ✗ ")
    assert sentence in ran.out


@pytest.mark.parametrize("command", ["serve", "check"])
def test_a_file_of_settings_that_is_not_there(run: Run, command: str) -> None:
    ran = run(command, "--env-file", "elsewhere.env", **SERVING)
    assert is_one_sentence(ran), ran
    assert "There is no elsewhere.env." in ran.err


def test_a_file_of_settings_that_cannot_be_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"ARI_PASSWORD=\xff\xfe\n")
    ran = run("serve")
    assert is_one_sentence(ran), ran
    assert ".env cannot be read: it is not UTF-8." in ran.err


def test_a_file_of_settings_that_cannot_be_looked_for(run: Run) -> None:
    ran = run("check", "--env-file", "x" * 300)
    assert is_one_sentence(ran), ran
    assert "cannot be read: File name too long." in ran.err


def test_a_folder_in_the_place_of_the_settings(run: Run, tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    ran = run("serve", **SERVING)
    assert is_one_sentence(ran), ran
    assert ".env is a folder" in ran.err


# --- serve


@pytest.mark.parametrize("code", [0, 1])
def test_serve_reads_the_file_and_ends_as_it_is_told(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int
) -> None:
    served: list[Settings] = []

    def supervise(settings: Settings, *, wait: bool) -> int:
        served.append(settings)
        return code

    monkeypatch.setattr(service, "supervise", supervise)
    (tmp_path / "my.env").write_text("ARI_APP=other\nLOG_LEVEL=DEBUG\nLOG_FORMAT=json\n")
    assert run("serve", "--env-file", "my.env", **SERVING) == Ran(code, "", "")
    assert [settings.ari_app for settings in served] == ["other"]


@pytest.mark.parametrize(
    "error", [ConfigError("Nothing [works] at [::1]:1."), AgentError("It says no.")], ids=repr
)
def test_a_failure_with_a_name_is_one_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def supervise(settings: Settings, *, wait: bool) -> int:
        raise error

    monkeypatch.setattr(service, "supervise", supervise)
    ran = run("serve", **SERVING)
    assert is_one_sentence(ran), ran
    assert ran.err == f"ari-app: {error}\n"


def test_an_interrupted_command(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def supervise(settings: Settings, *, wait: bool) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(service, "supervise", supervise)
    ran = run("serve", **SERVING)
    assert ran.code == 130
    assert "Traceback" not in ran.err


# --- check


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        ([Verdict.OK, Verdict.OK], 0),
        ([Verdict.OK, Verdict.WARNING, Verdict.NOTE], 0),
        ([Verdict.FAILED, Verdict.OK, Verdict.WARNING], 2),
    ],
)
def test_check_prints_what_it_finds(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    logging_set_up: list[tuple[str, ...]],
    verdicts: list[Verdict],
    code: int,
) -> None:
    given: list[Path | None] = []

    async def check_all(settings: Settings, conf: Path | None) -> AsyncIterator[Finding]:
        given.append(conf)
        for number, verdict in enumerate(verdicts):
            await asyncio.sleep(0)
            subject = f"Subject {min(number, 1)}"
            yield Finding(subject, verdict, f"[it] is {verdict} at [::1]:{number}" * 3)

    monkeypatch.setattr(all_checks, "check_all", check_all)
    ran = run("check", "--conf", "/etc/asterisk", **SERVING)
    assert given == [Path("/etc/asterisk")]
    signs = {Verdict.OK: "✓", Verdict.NOTE: "·", Verdict.WARNING: "!", Verdict.FAILED: "✗"}
    first, *others = [
        f"  {signs[verdict]} " + f"[it] is {verdict} at [::1]:{number}" * 3
        for number, verdict in enumerate(verdicts)
    ]
    bad, doubtful = verdicts.count(Verdict.FAILED), verdicts.count(Verdict.WARNING)
    assert ran.out.splitlines() == [
        *("Subject 0", first, "Subject 1", *others, ""),
        f"{len(verdicts)} looked at: {bad} failed, {doubtful} to look into.",
        "Calls in: yes. Calls out: yes. Answering machine detection: yes.",
    ]
    assert (ran.code, ran.err) == (code, "")
    assert logging_set_up == [("CRITICAL",)], "no log lines between the findings"


# --- the lab


def test_the_practice_agents_options(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[object, ...]] = []

    async def agent(
        bind: str, dialogue: Path | None, key: str | None, console: Console, post_call: PostCall
    ) -> None:
        given.append((bind, dialogue, key))
        assert post_call.url is None

    monkeypatch.setattr(command, "run_practice_agent", agent)
    assert run("agent").code == 0
    assert run("agent", "--bind", "127.0.0.1:1", "--dialogue", "d.yaml", "--key", "k").code == 0
    assert run("agent", PRACTICE_AGENT_KEY="from outside").code == 0
    assert given == [
        ("127.0.0.1:8765", None, None),
        ("127.0.0.1:1", Path("d.yaml"), "k"),
        ("127.0.0.1:8765", None, "from outside"),
    ]


@pytest.mark.parametrize("name", LABS)
def test_without_the_lab_its_commands_say_where_they_come_from(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(cli, "entry_points", lambda group: EntryPoints())
    ran = run(name, "--any", "option")
    assert is_one_sentence(ran)
    assert f"{name} is a command of ari-app's lab, which is not installed: in ari-app" in ran.err
    assert f"│ {name} " not in run("--help").out


@pytest.mark.parametrize(
    ("name", "module"), [("agent", "lab.practice_agent.command"), ("demo", "lab.cli")]
)
def test_a_command_whose_parts_are_not_installed(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    ran = run(name)
    assert is_one_sentence(ran)
    assert f"{name} needs {module}, which is not installed: in ari-app's checkout" in ran.err


def test_a_lab_that_is_broken_hinders_no_service(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lab.cli", None)
    monkeypatch.setitem(sys.modules, "benchmarks.cli", None)
    monkeypatch.setattr(service, "supervise", lambda settings, wait=False: 0)
    assert run("serve", **SERVING).code == 0


def test_the_demos_options(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import lab.demo

    given: list[object] = []

    async def demo(options: object, console: Console) -> None:
        given.append(options)

    monkeypatch.setattr(lab.demo, "run_demo", demo)
    assert run("demo").code == 0
    assert run("demo", "--out", "there", "--keep").code == 0
    assert run("demo", "--way", "custom").code == 0
    assert run("demo", "--way", "pigeon").code == 2
    assert given == [
        lab.demo.DemoOptions(out_dir=Path("demo-output"), keep=False),
        lab.demo.DemoOptions(out_dir=Path("there"), keep=True),
        lab.demo.DemoOptions(way="custom"),
    ]


# --- python -m ari_app


def test_the_module_is_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ari-app", "--version"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("ari_app", run_name="__main__")
    assert not end.value.code
    assert capsys.readouterr().out.startswith("ari-app ")


@pytest.mark.parametrize(("good", "code"), [(True, 0), (False, 1)])
def test_a_soak_that_misses_a_goal_ends_with_1(
    run: Run, monkeypatch: pytest.MonkeyPatch, good: bool, code: int
) -> None:
    seen: list[SoakOptions] = []

    async def soak(options: SoakOptions, console: object) -> bool:
        seen.append(options)
        return good

    monkeypatch.setattr("benchmarks.soak.command.soak", soak)
    assert run("soak", "--minutes", "2", "--fault", "ari_cut").code == code
    assert (seen[0].minutes, seen[0].faults, seen[0].capacity) == (2.0, ("ari_cut",), None)


# --- the call log's database


def test_the_tables_of_the_call_log_are_made(run: Run, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/calls.db"
    made = run("db", "upgrade", DATABASE_URL=url)
    assert made == Ran(
        0, f"{tmp_path}/calls.db now has revision {REVISION}; it had no tables.\n", ""
    )
    again = run("db", "upgrade", DATABASE_URL=url)
    assert again.out == f"{tmp_path}/calls.db is up to date (revision {REVISION}).\n"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "DATABASE_URL is empty"),
        ("mysql://db", "DATABASE_URL: must be sqlite"),
        (f"postgresql://u:{PASSWORD}@127.0.0.1:1/calls", "cannot be reached"),
    ],
)
def test_no_tables_can_be_made(run: Run, url: str, words: str) -> None:
    ran = run("db", "upgrade", DATABASE_URL=url)
    assert is_one_sentence(ran) and words in ran.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("interrupts", [signal.default_int_handler, signal.SIG_IGN])
def test_whatever_ends_a_command_of_the_lab_lets_it_tidy_up(
    run: Run, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, interrupts: Any
) -> None:
    done: list[str] = []

    async def work() -> None:
        try:
            signal.raise_signal(number)
            await asyncio.Event().wait()
        finally:
            signal.raise_signal(number)  # as `timeout` does: to the command, and to its group
            await asyncio.sleep(0)
            done.append("tidied up")

    entry = EntryPoint("demo", "nowhere:demo", "ari_app.commands")
    monkeypatch.setattr(EntryPoint, "load", lambda entry: lambda: asyncio.run(work()))
    monkeypatch.setattr(cli, "entry_points", lambda group: EntryPoints([entry]))
    before = signal.signal(signal.SIGINT, interrupts)
    try:
        ran = run("demo")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (ran.code, done) == (130, ["tidied up"])
    assert signal.getsignal(number) is signal.SIG_DFL


@pytest.mark.parametrize("command", ["check", "serve", "talk", "calls", "webhooks"])
def test_a_folder_that_is_there_no_more(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    ran = run(command, **SERVING)
    assert is_one_sentence(ran) and "is there no more" in ran.err


@pytest.mark.parametrize(
    ("encoding", "written"),
    [
        ("utf-8", "✓ ✗ · → ← é 你 █░ ↔ a… µs"),
        ("latin-1", "+ x · > < é ? #. - a... µs"),
        ("ascii", "+ x - > < ? ? #. - a... us"),
    ],
)
def test_a_terminal_without_our_signs_is_given_others(
    monkeypatch: pytest.MonkeyPatch, encoding: str, written: str
) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(cli, "app", lambda: terminal.write("✓ ✗ · → ← é 你 █░ ↔ a… µs"))
    cli.main()
    terminal.flush()
    assert terminal.buffer.getvalue().decode(encoding) == written
