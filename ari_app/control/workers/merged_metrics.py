"""The metrics of the front, and of all workers as if they were one process."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from ari_app.records.audit import AuditFile
from ari_app.records.metrics import show_audit

_MOVE_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class FrontMetrics:
    """What the front counts itself, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=registry)
        self.ready = Gauge(
            "ari_app_ready",
            "Whether new calls are taken: what /health/ready says.",
            registry=registry,
        )
        self.calls_limit = Gauge(
            "ari_app_calls_limit",
            "How many calls may run at once: MAX_CONCURRENT_CALLS.",
            registry=registry,
        )
        self.ari_connected = Gauge(
            "ari_app_ari_connected",
            "Whether Asterisk's event socket is connected.",
            registry=registry,
        )
        self.http_refused = Counter(
            "ari_app_http_refused",
            "HTTP connections and requests that were refused, by reason.",
            ["reason"],
            registry=registry,
        )
        self.workers = Gauge(
            "ari_app_workers", "Workers by whether they take calls.", ["state"], registry=registry
        )
        self.worker_calls = Gauge(
            "ari_app_worker_calls",
            "Calls that hold a place, by worker.",
            ["worker"],
            registry=registry,
        )
        self.arrivals = Counter(
            "ari_app_front_arrivals",
            "Channels that entered the dialplan's application, by what became of them: moved to a "
            "worker, not_confirmed by it and tried elsewhere, not_taken by any, or gone.",
            ["result"],
            registry=registry,
        )
        for result in ("moved", "not_confirmed", "not_taken", "gone"):
            self.arrivals.labels(result)
        self.move_seconds = Histogram(
            "ari_app_front_move_seconds",
            "From a channel's entrance to the word of its worker that it is there.",
            buckets=_MOVE_SECONDS,
            registry=registry,
        )

    def watch_audit(self, file: AuditFile) -> None:
        """Show what becomes of the front's lines in the audit file, too."""
        show_audit(self.registry, file)

    def http_was_refused(self, reason: str) -> None:
        """Count an HTTP connection or request that was refused."""
        self.http_refused.labels(reason).inc()

    def render(self) -> str:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry).decode()


@dataclass(slots=True)
class Family:
    """One metric, as it is told.

    Attributes:
        head: Its lines of HELP and TYPE.
        kind: `counter`, `gauge`, `histogram`, `summary` or `untyped`.
        samples: Each with the text of its name and labels, which the same code always writes alike.
    """

    head: list[str] = field(default_factory=list)
    kind: str = "untyped"
    samples: dict[str, float] = field(default_factory=dict)


def parse(text: str) -> dict[str, Family]:
    """Read what `generate_latest` has written.

    Raises:
        ValueError: A line is none of its.
    """
    families: dict[str, Family] = {}
    family = Family()
    for line in text.splitlines():
        if line.startswith("# "):
            _, what, name, rest = line.split(" ", 3)
            family = families.setdefault(name, Family())
            family.head.append(line)
            if what == "TYPE":
                family.kind = rest
        elif line:
            key, _, value = line.rpartition(" ")
            family.samples[key] = float(value)
    return families


_GAUGES: Final[Mapping[str, Callable[[float, float], float]]] = {
    # One account for all, and one count of the day: the latest who asked knows most.
    "ari_app_agent_conversations_limit": max,
    "ari_app_agent_credits_limit": max,
    "ari_app_agent_credits_used": max,
    "ari_app_agent_credits_used_ratio": max,
    "ari_app_spend_limit_used_ratio": max,
    "ari_app_ari_connected": min,
    "ari_app_build_info": max,
    "ari_app_calls_limit": max,
    "ari_app_recordings_free_bytes": min,
    # The latest: a restart of any is to be seen.
    "ari_app_start_time_seconds": max,
    # One spool for all.
    "ari_app_webhooks_waiting": max,
    "ari_app_webhooks_dead": max,
}
"""How gauges are put together that are not to be added."""
_OF_THE_FRONT: Final = frozenset({"ari_app_ready", "ari_app_calls_limit"})
_OF_A_PROCESS: Final = ("process_", "python_")
_INCARNATION: Final = "ari_app_start_time_seconds"
_FRONT: Final = "front"


class MergedMetrics:
    """Adds up what the workers tell.

    Counters keep what workers that have died had counted when they were last asked, so that no sum
    goes back.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, dict[str, float]]] = {}
        self._before: dict[str, dict[str, float]] = {}

    def render(self, front: str, workers: Mapping[str, str]) -> bytes:
        """Return the metrics of all.

        Args:
            front: The front's own.
            workers: Those of each worker that has answered, by its number.

        Raises:
            ValueError: A text is not one of ours.
        """
        told = {name: parse(text) for name, text in workers.items()}
        for name, families in told.items():
            self._remember(name, families)
        every = {_FRONT: parse(front), **told}
        merged: dict[str, Family] = {}
        for who, families in every.items():
            for name, family in families.items():
                if (who != _FRONT and name in _OF_THE_FRONT) or name.endswith("_created"):
                    continue
                one = merged.setdefault(name, Family(family.head, family.kind))
                self._add(one, name, who, family)
        for base in [*self._before.values(), *self._of_missing(told)]:
            for key, value in base.items():
                if (owner := _family_of(key, merged)) is not None:
                    samples = merged[owner].samples
                    samples[key] = samples.get(key, 0.0) + value
        return "".join(_lines(merged.values())).encode()

    def _add(self, one: Family, name: str, who: str, family: Family) -> None:
        if name.startswith(_OF_A_PROCESS):
            one.samples.update(
                (_labelled(key, "worker", who), value) for key, value in family.samples.items()
            )
            return
        join = _GAUGES.get(name) if family.kind == "gauge" else None
        for key, value in family.samples.items():
            before = one.samples.get(key)
            if before is None or math.isnan(before):
                one.samples[key] = value
            elif not math.isnan(value):
                one.samples[key] = before + value if join is None else join(before, value)

    def _remember(self, name: str, families: Mapping[str, Family]) -> None:
        incarnation = _only(families.get(_INCARNATION))
        counted = {
            key: value
            for metric, family in families.items()
            if family.kind in ("counter", "histogram") and not metric.startswith(_OF_A_PROCESS)
            for key, value in family.samples.items()
            if not metric.endswith("_created")
        }
        last = self._last.get(name)
        if last is not None and last[0] != incarnation:
            before = self._before.setdefault(name, {})
            for key, value in last[1].items():
                before[key] = before.get(key, 0.0) + value
        self._last[name] = incarnation, counted

    def _of_missing(self, told: Mapping[str, object]) -> Iterator[dict[str, float]]:
        return (counted for name, (_, counted) in self._last.items() if name not in told)


def _only(family: Family | None) -> float:
    return next(iter(family.samples.values()), 0.0) if family is not None else 0.0


_ENDINGS: Final = ("_total", "_bucket", "_sum", "_count")


def _family_of(key: str, merged: Mapping[str, Family]) -> str | None:
    """Return the metric that a sample belongs to; None: it is gone."""
    name = key.partition("{")[0]
    if name in merged:
        return name
    for ending in _ENDINGS:
        if name.endswith(ending) and name.removesuffix(ending) in merged:
            return name.removesuffix(ending)
    return None


def _labelled(key: str, label: str, value: str) -> str:
    name, brace, labels = key.partition("{")
    return f'{name}{{{label}="{value}"' + (f",{labels}" if brace else "}")


def _lines(families: Iterable[Family]) -> Iterator[str]:
    for family in families:
        for line in family.head:
            yield f"{line}\n"
        for key, value in family.samples.items():
            yield f"{key} {_text(value)}\n"


def _text(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(float(value))
