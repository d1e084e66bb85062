"""What the documentation names is there: files, headings, settings, commands, options, targets."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
import yaml
from typer.core import TyperGroup

from ari_app.checks.webhooks import judge_secrets
from ari_app.cli import app
from ari_app.control.http import agent_webhook
from ari_app.control.http.operations import OPERATIONS
from ari_app.control.http.problems import CODES
from ari_app.control.http.requests import (
    EndCallRequest,
    InitiateCallRequest,
    SayToAgentRequest,
    TransferRequest,
)
from ari_app.settings import Settings
from lab.compose.options import Options

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "asterisk-conf").rglob("*.md")),
]

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w-]*)\n(?P<code>.*?)^(?P=indent)```$", re.M | re.S
)
_CODE = re.compile(r"`[^`\n]+`")
_LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(?P<title>.+?) *$", re.M)
_UPPER = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+")
_SNAKE = re.compile(r"[a-z0-9]*(?:_[a-z0-9]+)+")
_OPERATION = re.compile(r"`(GET|POST|DELETE|PUT|PATCH|HEAD) (/[\w/{}-]*)")
_MAKE = re.compile(r"(?<![\w-])make ((?:[a-z][a-z-]+)(?: [a-z][a-z-]+)*)")
_COMMAND = re.compile(r"(?:^|\.venv/bin/|exec ari-app )ari-app(?P<words>(?: +[^\s`|#]+)+)")

ELSEWHERE = {
    "ARI_APP_ASTERISK": "lab/asterisk/setup.py",
    "ARI_APP_TAG": "docker-compose.yml",
    "BUILD_NETWORK": "docker-compose.yml",
    "E2E_WORKERS": "Makefile",
    "FUZZ_SECONDS": "Makefile",
    "FUZZ_TEST_SECONDS": "tests/fuzz",
}
"""Variables that are no settings of the service, and where they are read."""

OTHERS = {
    "CALLER_HUNG_UP",
    "NO_PROXY",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
    "SO_TIMESTAMPNS",
}
"""Names of other people's: a dialer's status, variables of OpenTelemetry's and for proxies, the
kernel's option."""


NOT_OURS = {
    *("cascade_timeout_seconds", "silence_end_call_timeout"),
    *("func_curl", "malloc_trim", "pg_dump", "telephony_enhanced_8k"),
    "_used_ratio",
}
"""Other people's names in lower case, and the end of one of ours."""

_PREFIXES = ("agent_", "dialer_", "line_", "twilio_")
"""What reasons begin with, by who is at fault; the code puts the two together."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of code."""

    page: str
    line: int
    language: str
    code: str


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for fence in _FENCE.finditer(text):
        indent = fence["indent"]
        code = "".join(line.removeprefix(indent) for line in fence["code"].splitlines(True))
        line = text.count("\n", 0, fence.start()) + 1
        yield Block(page.relative_to(ROOT).as_posix(), line, fence["language"], code)


def _prose(page: Path) -> str:
    """The page without its blocks of code."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def _spans(page: Path) -> list[str]:
    """What stands between backticks, and the lines of shell blocks."""
    code = [span.strip("`") for span in _CODE.findall(_prose(page))]
    shell = (block.code for block in _blocks(page) if block.language == "sh")
    return code + [line for text in shell for line in text.splitlines()]


def anchors(markdown: str) -> set[str]:
    """The anchors of a page's headings, by the rules that repositories and the site share."""
    found: set[str] = set()
    for heading in _HEADING.finditer(_FENCE.sub("", markdown)):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading["title"]).replace("`", "")
        found.add(re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-"))
    return found


def dead_links(page: Path) -> list[str]:
    """Links of a page, as browsed in a repository, that lead nowhere."""
    dead = []
    for link in _LINK.finditer(_CODE.sub("", _prose(page))):
        target = link["target"]
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        here = path.exists() and path.is_relative_to(ROOT)
        if not here or (anchor and anchor not in anchors(path.read_text(encoding="utf-8"))):
            dead.append(target)
    return dead


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    assert dead_links(page) == []


def test_a_dead_link_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.unit.test_docs.ROOT", tmp_path)
    page = tmp_path / "a.md"
    page.write_text("# One `x`\n[good](#one-x) [bad](#two) [gone](b.md) `[code](no.md)`\n")
    assert dead_links(page) == ["#two", "b.md"]


SHELL = [block for page in PAGES for block in _blocks(page) if block.language == "sh"]


@pytest.mark.parametrize("block", SHELL, ids=lambda block: f"{block.page}:{block.line}")
def test_a_shell_understands_what_is_to_be_typed(block: Block) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    done = subprocess.run([bash, "-n"], input=block.code, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


_TRAILING_COMMENT = re.compile(r"^#?[A-Z][A-Z0-9_]*=.*[ \t]#.*$", re.M)
"""A comment behind a value: to systemd's `EnvironmentFile=` it is part of the value."""


def test_comments_stand_on_lines_of_their_own() -> None:
    texts = [block.code for page in PAGES for block in _blocks(page)]
    texts.append((ROOT / ".env.example").read_text(encoding="utf-8"))
    assert [line for text in texts for line in _TRAILING_COMMENT.findall(text)] == []


@functools.cache
def _known_variables() -> frozenset[str]:
    compose = [yaml.safe_load(path.read_text()) for path in ROOT.glob("docker-compose*.yml")]
    named = set(re.findall(r"\$\{([A-Z_]+)", yaml.safe_dump(compose)))
    models = {name.upper() for name in [*Settings.model_fields, *Options.model_fields]}
    tests = "".join(path.read_text() for path in (ROOT / "tests" / "e2e").glob("*.py"))
    switches = set(re.findall(r'"(ARI_APP_[A-Z]+)"', tests))
    return frozenset(models | named | switches | set(ELSEWHERE))


def _named_settings(page: Path) -> set[str]:
    """What looks like a setting: `NAME` alone, or `NAME=value`."""
    found = set()
    for span in _CODE.findall(_prose(page)):
        if match := re.fullmatch(rf"`({_UPPER.pattern})(?:=.*)?`", span):
            found.add(match[1])
    return found


_DEFAULT = re.compile(r"`([A-Z][A-Z0-9_]+)` \(`?([\w.]+)`?(?: (?:s|ms|MB|days|hours))?\)")


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_a_value_behind_a_setting_is_its_default(page: Path) -> None:
    told = [
        (name, value, str(field.default))
        for name, value in _DEFAULT.findall(_prose(page))
        if (field := Settings.model_fields.get(name.lower())) is not None
    ]
    # Of an address the port may do.
    assert [each for each in told if not f":{each[2]}".endswith(f":{each[1]}")] == []


_MADE = ("ari_app/_compiled", "tests/fuzz/crashes/TARGET/")


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_files_that_are_named_exist(page: Path) -> None:
    """Those of the checkout, by their folder; other projects have folders of their own."""
    if page.name in {"CHANGELOG.md", "comparison.md"}:
        pytest.skip("it names what was, or what others have")
    made = {line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}
    there = {path.name for path in ROOT.glob("[a-z]*") if path.is_dir()}
    folders = "|".join(sorted(there - made))
    named = re.findall(rf"`((?:{folders})/[\w./-]+)`", _prose(page))
    assert [name for name in named if name not in _MADE and not (ROOT / name).exists()] == []


@functools.cache
def _words_of_code() -> frozenset[str]:
    """All words of the dialplan, of the service and of what it is deployed with."""
    texts = (
        path.read_text(encoding="utf-8")
        for folder in ("asterisk-conf", "ari_app", "deploy")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".conf", ".py", ".sh"}
    )
    return frozenset(word for text in texts for word in re.findall(r"\w+", text))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_settings_that_are_named_exist(page: Path) -> None:
    unknown = _named_settings(page) - _known_variables() - OTHERS
    assert sorted(unknown - _words_of_code()) == []


@pytest.mark.parametrize(("name", "place"), ELSEWHERE.items())
def test_other_variables_are_read_where_it_says(name: str, place: str) -> None:
    path = ROOT / place
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    assert any(name in file.read_text(encoding="utf-8") for file in files)


@functools.cache
def _commands() -> TyperGroup:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return group


def _wrong_in(command: str) -> str | None:
    """What is wrong with `ari-app COMMAND --option ...`; None where nothing is."""
    words = command.split()
    group = _commands()
    context = typer.Context(group)
    target = group if words[0].startswith("-") else group.get_command(context, words[0])
    if target is None:
        return f"no command {words[0]}"
    if isinstance(target, TyperGroup) and len(words) > 1:
        target = target.get_command(context, words[1]) or target
    known = {name for part in target.params for name in (*part.opts, *part.secondary_opts)}
    for word in words:
        option = word.partition("=")[0].rstrip(".,;:)")
        if option.startswith("--") and option not in known | {"--help"}:
            return f"{words[0]} has no {option}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_commands_and_options_that_are_named_exist(page: Path) -> None:
    wrong = [
        f"{span}: {problem}"
        for span in _spans(page)
        for match in _COMMAND.finditer(span)
        if (problem := _wrong_in(match["words"]))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("serve --env-file x", None),
        ("--version", None),
        ("demo --keep", None),
        ("swim", "no command swim"),
        ("check --fast", "check has no --fast"),
    ],
)
def test_a_wrong_command_is_found(command: str, problem: str | None) -> None:
    assert _wrong_in(command) == problem


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_make_targets_that_are_named_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.M))
    named = {
        target
        for span in _spans(page)
        for match in _MAKE.finditer(span.partition("#")[0])
        for target in match[1].split()
    }
    assert named <= targets


@functools.cache
def _words() -> frozenset[str]:
    """All words that the code and the files beside it have."""
    folders = ("ari_app", "asterisk-conf", "audiosocket", "benchmarks", "deploy", "lab", "linekit")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    files += [*ROOT.glob("docker-compose*.yml"), *(ROOT / "tests").glob("*.py")]
    texts = [
        path.read_text(encoding="utf-8")
        for path in files
        if path.suffix in {".cfg", ".conf", ".html", ".js", ".json", ".py", ".sh", ".yaml", ".yml"}
    ]
    return frozenset(re.findall(r"\w+", "\n".join(texts)))


def _is_said_somewhere(name: str) -> bool:
    """Whether a name stands in the code: as it is, or put together there from parts."""
    bare = name.removesuffix("_total")  # which Prometheus adds
    parts = {name.removeprefix(prefix) for prefix in _PREFIXES}
    return bool(_words() & {name, bare, f"ari_app_{name}", f"ari_app_{bare}", *parts})


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_names_of_events_reasons_metrics_and_fields_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        pytest.skip("it tells of what was, too")
    spans = (span.strip("`") for span in _CODE.findall(_prose(page)))
    named = {name for span in spans if _SNAKE.fullmatch(name := span.partition("{")[0])}
    assert {name for name in named if not _is_said_somewhere(name)} - NOT_OURS == set()


def test_a_name_that_nobody_says_is_found() -> None:
    assert _is_said_somewhere("line_stalled") and _is_said_somewhere("audit_lost_total")
    assert not _is_said_somewhere("twilio_stream_" + "silent")


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_operations_that_are_named_exist(page: Path) -> None:
    there = {f"{each.method} {_shape(each.path)}" for each in OPERATIONS}
    there.add(f"POST {agent_webhook.PATH}")
    rooms = {each.split("/")[1] for each in there}
    named = {
        f"{method} {_shape(path)}"
        for method, path in _OPERATION.findall(page.read_text(encoding="utf-8"))
        if path.split("/")[1] in rooms
    }
    assert named <= there


def _shape(path: str) -> str:
    return re.sub(r"\{\w+\}", "{}", path)


def _fields_told(heading: str) -> list[str]:
    """The names in the first column of the first table below a heading of the page on HTTP."""
    page = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
    table = page.split(heading + "\n")[1].split("\n#")[0]
    return re.findall(r"^\| `(\w+)` \|", table, re.M)


def test_fields_are_told_in_one_order() -> None:
    """The page on HTTP, the OpenAPI document and the page made from it agree."""
    assert _fields_told("### initiate-call") == list(InitiateCallRequest.model_fields)
    operations = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
    for name, model in (
        ("webhook/end-call", EndCallRequest),
        ("sessions/{id}/transfer", TransferRequest),
        ("sessions/{id}/say-to-agent", SayToAgentRequest),
    ):
        (row,) = re.findall(rf"^\| `POST /{name}` \| (.+?) \|", operations, re.M)
        fields = re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", row))
        assert fields == list(model.model_fields)


def test_every_error_is_told_beside_its_status() -> None:
    page = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\d, ]+) \| (.+) \|$", page.split("## Errors\n")[1], re.M)
    told = {
        code: statuses for statuses, codes in rows for code in re.findall(r"`([a-z_]+)`", codes)
    }
    assert set(told) == set(CODES)
    wrong = {code for code, (status, _) in CODES.items() if str(status.value) not in told[code]}
    assert wrong == set()


def test_secrets_are_asked_to_be_as_long_as_check_wants_them() -> None:
    settings = (ROOT / ".env.example").read_text(encoding="utf-8")
    (said,) = re.findall(r"whom it is from: (\d+) characters at least", settings)
    assert judge_secrets("WEBHOOK_SECRET", int(said) * "x") == []
    assert judge_secrets("WEBHOOK_SECRET", (int(said) - 1) * "x") != []


def test_calls_come_in_by_the_patterns_of_the_dialplan_that_is_shipped() -> None:
    """With a `+` before the number, too."""
    context = re.compile(r"^\[voice-agent-inbound\]\n(.*?)^\[", re.M | re.S)
    files = ("docs/asterisk.md", "asterisk-conf/production/extensions.conf")
    shown, shipped = (
        re.findall(r"^exten => .*$", found[1], re.M)
        for found in (context.search((ROOT / name).read_text(encoding="utf-8")) for name in files)
        if found is not None
    )
    assert shown == shipped
    assert len(shown) > 1


_REASON = re.compile(r'"reason\\?": *\\?"(.*?)\\?"')
"""A reason in JSON, also where a shell has it between double quotes."""


def test_reasons_in_examples_are_kept_as_they_are() -> None:
    """`end-call` takes any text, and makes `end_requested` of what is no word."""
    texts = [block.code for page in PAGES for block in _blocks(page)]
    texts.append(json.dumps(EndCallRequest.model_config["json_schema_extra"]))
    reasons = [reason for text in texts for reason in _REASON.findall(text)]
    assert "customer_paid" in reasons
    assert [reason for reason in reasons if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", reason)] == []


_NUMBER = re.compile(r"\+[1-9](?:[ ().-]{0,2}[0-9]){7,16}|\b49[1-9][0-9]{8,11}\b")
_FICTION = re.compile(
    r"490?3023125[0-9]{0,5}"  # Berlin's numbers for films and books
    r"|4915228817386"  # and a mobile one
    r"|1555[0-9]{7}"  # an area code that there is not
    r"|1[2-9][0-9]{2}55501[0-9]{2}"  # the same in North America
    # No numbers at all: North America's have eleven digits, and none has more than fifteen.
    r"|1[0-9]{0,9}|1[0-9]{11,}|[0-9]{16,}"
)


def test_no_number_is_somebodys() -> None:
    """Whatever looks like a telephone number, anywhere, is one that is reserved for fiction."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    told = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    somebodys = {
        f"{name}: {found}"
        for name in told.stdout.splitlines()
        if Path(name).suffix not in {".lock", ".svg", ".png"} and (ROOT / name).is_file()
        for found in _NUMBER.findall((ROOT / name).read_text(encoding="utf-8", errors="replace"))
        if not _FICTION.fullmatch(re.sub(r"\D", "", found))
    }
    assert somebodys == set()


def test_readme_shows_every_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert pages <= set(re.findall(r"\]\(docs/([a-z0-9-]+\.md)", readme))


def test_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 100
