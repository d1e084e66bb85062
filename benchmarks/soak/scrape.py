"""What the service says of itself at `/metrics`. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True, slots=True)
class Scrape:
    """One look at the metrics; 0 for what is not there."""

    tasks: int
    allocated_blocks: int
    calls: int
    """Calls in any state but ended."""
    lines: int
    """AudioSocket connections: those in a call, and those that are expected."""
    gc_collections: int
    ended: Mapping[str, int]
    """Calls that have ended, by `STATUS reason`."""
    ticks_skipped: int


def parse_metrics(text: str) -> Scrape:
    """Read Prometheus' text format. Raises ValueError for what is not."""
    sums: defaultdict[str, float] = defaultdict(float)
    ended: dict[str, int] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name] += sample.value
            if sample.name == "ari_app_calls_ended_total" and sample.value:
                ended["{status} {reason}".format(**sample.labels)] = int(sample.value)
    return Scrape(
        tasks=int(sums["ari_app_tasks"]),
        allocated_blocks=int(sums["ari_app_allocated_blocks"]),
        calls=int(sums["ari_app_calls"]),
        lines=int(sums["ari_app_audiosocket_lines"]),
        gc_collections=int(sums["python_gc_collections_total"]),
        ended=ended,
        ticks_skipped=int(sums["ari_app_frame_ticks_skipped_total"]),
    )
