"""deploy/observability: what it asks for exists, and the rules do what they say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from ari_app.agent.elevenlabs.account import Account
from ari_app.agent.elevenlabs.closing import KNOWN_CODES
from ari_app.control.workers.merged_metrics import FrontMetrics
from ari_app.records.audit import AuditFile
from ari_app.records.events import AgentClosed, AgentNotReached, CallEnded, StepTook, TakenOver
from ari_app.records.metrics import Metrics
from ari_app.records.record import CallRecord
from ari_app.records.recording.archive import RecordingArchive
from ari_app.records.spend.guard import SpendGuard
from ari_app.records.spend.limits import SpendLimits
from ari_app.records.store.log import CallLog
from ari_app.records.store.spool import Counts
from ari_app.records.tracing import SpanStats
from ari_app.records.webhooks.outbox import Outbox, OutboxOptions
from tests.unit.test_docs import anchors

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "observability"
PROMETHEUS = FOLDER / "prometheus"
GROUPS: list[dict[str, Any]] = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
DASHBOARDS = sorted((FOLDER / "grafana" / "dashboards").glob("*.json"))
SCRAPED = {"job", "instance"}
"""Labels that Prometheus adds."""

_WORD = re.compile(r"[a-zA-Z_:][\w:]*")
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}")
_MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")
_QUOTED = re.compile(r'"[^"]*"')
_LANGUAGE = {
    *("sum", "min", "max", "count", "rate", "increase", "changes", "histogram_quantile"),
    *("or", "and", "unless", "time", "vector", "round"),
}

Shown = dict[str, set[str]]


def guard(folder: Path) -> SpendGuard:
    """The guard of a service without limits."""
    log = CallLog(f"sqlite+aiosqlite:///{folder}/calls.db")
    return SpendGuard(SpendLimits(), log, lambda: 0.0)


@pytest.fixture
async def metrics(tmp_path: Path) -> Metrics:
    """The metrics of a service that has everything, before its first call."""
    metrics = Metrics(("waiting", "talking"), KNOWN_CODES)
    recordings = RecordingArchive(tmp_path, kind="flac")
    recordings.stats.free_bytes = 1
    metrics.watch_recordings(recordings)
    metrics.watch_call_log(Counts())
    metrics.watch_account(lambda: Account(used=1, limit=10, at_once=10))
    metrics.watch_traces(SpanStats())
    metrics.watch_audit(AuditFile(tmp_path / "audit.jsonl"))
    metrics.watch_spend(guard(tmp_path))
    metrics.watch_webhooks(Outbox(OutboxOptions((), "", tmp_path / "webhooks.db")))
    await recordings.close()
    return metrics


@pytest.fixture
def shown(metrics: Metrics) -> Shown:
    """Each series that can be there, with the names of its labels."""
    record = CallRecord("s1", "sip-1", 0.0, agent_status="FAILED", end_reason="line_lost")
    record.agent_id, record.agent_seconds = "agent_7", 60.0
    ended, step = CallEnded("FAILED", "line_lost", 1.0), StepTook("media", 0.1)
    for event in (step, ended, AgentNotReached("timeout"), AgentClosed(1000, "agent_ended")):
        metrics.heard(record, event)
    metrics.connection_refused("malformed")
    metrics.dialer_refused("malformed")
    metrics.dialer_failed("audio", "timeout")
    metrics.agent_webhook("kept")
    metrics.twilio_refused("signature")
    metrics.http_was_refused("too_many")
    metrics.call_refused("capacity")
    metrics.ari_asked("GET", "ari_timeout", 5.0)
    return series(metrics.render().decode())


@pytest.fixture
def shown_beside() -> Shown:
    """What is on no dashboard: supervisors, and the front of several workers."""
    metrics, front = Metrics(), FrontMetrics()
    metrics.heard(CallRecord("s1", "sip-1", 0.0), TakenOver("desk"))
    front.workers.labels("taking")
    front.worker_calls.labels("1")
    front.http_was_refused("too_many")
    return series(metrics.render().decode()) | series(front.render())


def series(text: str) -> Shown:
    found: Shown = defaultdict(set)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] |= set(sample.labels)
    return found


def asked(expression: str) -> Shown:
    """Each metric of an expression, with the labels that it is matched by."""
    found: Shown = defaultdict(set)
    for name, matchers in _SELECTOR.findall(expression):
        found[name] |= set(_MATCHER.findall(matchers))
    rest = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", expression)
    rest = _QUOTED.sub("", _GROUPING.sub("", rest))
    for word in _WORD.findall(re.sub(r"(?<![\w:])\d[\w.]*", "", rest)):
        if word not in _LANGUAGE:
            found.setdefault(word, set())
    return found


def grouped(expression: str) -> set[str]:
    """The labels that an expression adds up by."""
    lists = _GROUPING.findall(expression)
    return {label.strip() for labels in lists for label in labels.split(",")}


def unknown(expression: str, shown: Shown) -> list[str]:
    """What an expression asks for, and nobody shows."""
    known = {**shown, "up": set(), **{name: set() for name in RECORDED}}
    names = asked(expression)
    missing = [name for name in names if name not in known]
    labels = {name: known[name] | SCRAPED for name in names if name in known}
    missing += [
        f"{name}{{{label}}}"
        for name, wanted in names.items()
        for label in wanted - labels.get(name, wanted)
    ]
    return missing + sorted(grouped(expression) - set().union(*labels.values()))


def panels(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())["panels"]
    return found


def dashboard_expressions(path: Path) -> list[str]:
    board = json.loads(path.read_text())
    return [
        *(target["expr"] for panel in board["panels"] for target in panel["targets"]),
        *(note["expr"] for note in board["annotations"]["list"]),
    ]


def test_what_does_not_exist_is_found(shown: Shown) -> None:
    assert unknown("sum by (status) (rate(ari_app_calls_ended_total[5m])) > 0.5e3", shown) == []
    assert unknown("ari_app_colls > 1", shown) == ["ari_app_colls"]
    assert unknown('ari_app_calls{sate="talking"}', shown) == ["ari_app_calls{sate}"]
    assert unknown("sum by (sate) (ari_app_calls)", shown) == ["sate"]


def test_rules_ask_for_what_metrics_show(shown: Shown) -> None:
    assert RECORDED and ALERTS
    found = {rule.get("alert") or rule["record"]: unknown(rule["expr"], shown) for rule in RULES}
    assert {name: missing for name, missing in found.items() if missing} == {}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboards_ask_for_what_metrics_show(path: Path, shown: Shown) -> None:
    expressions = dashboard_expressions(path)
    assert expressions
    assert {text: unknown(text, shown) for text in expressions if unknown(text, shown)} == {}


def test_dashboards_show_everything_that_is_ours(shown: Shown) -> None:
    """A metric that nobody sees is not worth its series."""
    texts = [text for path in DASHBOARDS for text in dashboard_expressions(path)]
    seen = {name for text in texts for name in asked(text)}
    ours = {name for name in shown if name.startswith("ari_app_")}
    ours = {name for name in ours if not name.endswith(("_created", "_sum", "_count"))}
    assert ours - seen == {"ari_app_allocated_blocks"}


def test_dashboards_can_be_told_apart_and_nothing_lies_on_another() -> None:
    assert [path.stem for path in DASHBOARDS] == ["agent", "calls", "service", "sound"]
    boards = [json.loads(path.read_text()) for path in DASHBOARDS]
    assert len({board["uid"] for board in boards}) == len(boards)
    for path in DASHBOARDS:
        cells = [
            (x, y)
            for box in (panel["gridPos"] for panel in panels(path))
            for x in range(box["x"], box["x"] + box["w"])
            for y in range(box["y"], box["y"] + box["h"])
        ]
        assert len(cells) == len(set(cells))
        assert all(x < 24 for x, _ in cells)
        assert len({panel["title"] for panel in panels(path)}) == len(panels(path))
        assert all(panel["fieldConfig"]["defaults"]["unit"] for panel in panels(path))


def test_what_an_alert_counts_is_there_before_it_happens(metrics: Metrics) -> None:
    """increase() counts from a series' first sample on, so a first event would go unseen."""
    counted = [
        match
        for rule in ALERTS
        for match in re.findall(r"\w+\((\w+)(?:\{(\w+)=\"(\w+)\"\})?\[", rule["expr"])
    ]
    assert len(counted) >= 10
    text = metrics.render().decode()
    for name, label, value in counted:
        wanted = rf'^{name}\{{.*\b{label}="{value}"' if label else rf"^{name} "
        assert re.search(wanted, text, re.M), name


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_means_and_where_more_is(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert re.fullmatch(r"\d+[mh]", rule["for"])
    said = rule["annotations"]
    assert "{{ $labels.instance }}" in said["summary"]
    assert said["description"].endswith(".")
    page, _, anchor = said["runbook"].partition("#")
    text = (ROOT / page).read_text(encoding="utf-8")
    assert page.startswith("docs/")
    assert not anchor or anchor in anchors(text)


def test_the_page_names_the_alerts_that_wake_somebody() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    critical = {rule["alert"] for rule in ALERTS if rule["labels"]["severity"] == "critical"}
    row = re.search(r"^\| `critical` \|.*$", page, re.M)
    assert row is not None
    assert set(re.findall(r"`(AriApp\w+)`", row[0])) == critical


def test_every_alert_is_tried() -> None:
    tests = yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text())["tests"]
    fired = {
        name
        for test in tests
        for asks in test["promql_expr_test" if "promql_expr_test" in test else "alert_rule_test"]
        for sample in asks.get("exp_samples", [])
        for name in re.findall(r'alertname="(\w+)"', sample["labels"])
    }
    assert fired == {rule["alert"] for rule in ALERTS}


def test_the_lab_is_watched_as_it_is() -> None:
    [job] = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    [source] = yaml.safe_load(
        (FOLDER / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )["datasources"]
    assert job["static_configs"] == [{"targets": ["ari-app:8080"]}]
    assert set(services["prometheus"]["networks"]) & set(services["ari-app"]["networks"])
    assert source["url"] == "http://prometheus:9090"
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).name in {path.name for path in DASHBOARDS}


def promtool(*command: str, folder: Path = PROMETHEUS, given: str | None = None) -> None:
    """Let promtool look at files, or at what it is given, where it is."""
    unpacked = ROOT / ".cache/prometheus/usr/bin/promtool"
    program = shutil.which("promtool") or (str(unpacked) if unpacked.exists() else None)
    if program is None:
        pytest.skip("promtool is not here: Debian's package prometheus has it")
    done = subprocess.run(
        [program, *command], cwd=folder, capture_output=True, text=True, check=False, input=given
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "rules.yml"],
        ["test", "rules", "rules_test.yml"],
    ],
    ids=" ".join,
)
def test_promtool_agrees(command: list[str]) -> None:
    promtool(*command)


def test_promtool_can_read_what_dashboards_ask(tmp_path: Path) -> None:
    texts = [text for path in DASHBOARDS for text in dashboard_expressions(path)]
    for variable, value in (("$__rate_interval", "1m"), ("$__range", "1h"), ("$instance", ".+")):
        texts = [text.replace(variable, value) for text in texts]
    rules = [{"record": f"asked:{number}", "expr": text} for number, text in enumerate(texts)]
    groups = {"groups": [{"name": "dashboards", "rules": rules}]}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(groups))
    promtool("check", "rules", "rules.yml", folder=tmp_path)


def test_names_and_units_are_as_prometheus_wants_them(metrics: Metrics, shown: Shown) -> None:
    assert shown
    promtool("check", "metrics", given=metrics.render().decode())


def test_the_page_tells_of_all_metrics_and_of_no_other(shown: Shown, shown_beside: Shown) -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    rows = page.partition("each with `ari_app_` before it |")[2].partition("\n\n")[0]
    told = re.findall(r"`([a-z_]+)(?:\{([a-z, ]+)\})?`", rows)
    assert len(told) > 40
    there = shown_beside | shown
    for name, labels in told:
        series = {f"ari_app_{name}", f"ari_app_{name}_bucket"} & there.keys()
        assert series, name
        assert set(filter(None, labels.split(", "))) <= there[series.pop()], name
    ours = [name for name in there if re.match(r"ari_app_(?!.*_created$)", name)]
    names = {re.sub(r"ari_app_|_(?:bucket|count|sum)$", "", name) for name in ours}
    assert names - {name for name, _ in told} == set()
