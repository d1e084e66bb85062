from __future__ import annotations

from pathlib import Path

from ari_app.control.workers.merged_metrics import FrontMetrics, MergedMetrics, parse
from ari_app.records.audit import AuditFile
from ari_app.records.metrics import Metrics


def worker(**counted: int) -> Metrics:
    """A worker's metrics, with so many calls that ended by each reason."""
    metrics = Metrics(("talking",))
    for reason, count in counted.items():
        metrics.calls_total.labels("COMPLETED", reason).inc(count)
    return metrics


def text(metrics: Metrics) -> str:
    return metrics.render().decode()


def value(merged: bytes, key: str) -> float:
    samples = {
        name: v for family in parse(merged.decode()).values() for name, v in family.samples.items()
    }
    return samples[key]


ENDED = 'ari_app_calls_ended_total{reason="%s",status="COMPLETED"}'


def test_counters_and_histograms_are_added() -> None:
    one, two = worker(agent_ended=3), worker(agent_ended=4, caller_hung_up=1)
    one.response.observe(0.3)
    two.response.observe(0.3)
    two.response.observe(9)
    merged = MergedMetrics().render(FrontMetrics().render(), {"1": text(one), "2": text(two)})
    assert value(merged, ENDED % "agent_ended") == 7
    assert value(merged, ENDED % "caller_hung_up") == 1
    assert value(merged, 'ari_app_response_seconds_bucket{le="0.4"}') == 2
    assert value(merged, "ari_app_response_seconds_count") == 3
    assert b"_created" not in merged


def test_the_front_writes_to_the_audit_file_too(tmp_path: Path) -> None:
    one, front = worker(), FrontMetrics()
    files = AuditFile(tmp_path / "audit.jsonl"), AuditFile(tmp_path / "audit.jsonl")
    one.watch_audit(files[0])
    front.watch_audit(files[1])
    files[0].written, files[1].written, files[1].lost = 3, 2, 1
    merged = MergedMetrics().render(front.render(), {"1": text(one)})
    assert value(merged, "ari_app_audit_written_total") == 5
    assert value(merged, "ari_app_audit_lost_total") == 1
    assert value(merged, "ari_app_audit_waiting") == 0


def test_gauges_are_put_together_by_what_they_mean() -> None:
    one, two, front = worker(), worker(), FrontMetrics()
    one.calls.labels("talking").set(2)
    two.calls.labels("talking").set(3)
    for metrics, connected in ((one, 1), (two, 0), (front, 1)):
        metrics.ari_connected.set(connected)
    one.calls_limit.set(50)
    two.calls_limit.set(50)
    front.calls_limit.set(50)
    one.ready.set(1)
    front.ready.set(0)
    merged = MergedMetrics().render(front.render(), {"1": text(one), "2": text(two)})
    assert value(merged, 'ari_app_calls{state="talking"}') == 5
    assert value(merged, "ari_app_ari_connected") == 0, "one of them is not"
    assert value(merged, "ari_app_calls_limit") == 50
    assert value(merged, "ari_app_ready") == 0, "the front knows best"
    for who in ("front", "1", "2"):
        assert value(merged, f'process_resident_memory_bytes{{worker="{who}"}}') > 0
    one.calls.labels("talking").set(0)


def test_no_counter_goes_back_when_workers_die() -> None:
    merged, front = MergedMetrics(), FrontMetrics().render()
    lost, other = worker(agent_ended=5), worker(agent_ended=1)
    merged.render(front, {"1": text(lost), "2": text(other)})
    # Away, and not yet replaced.
    assert value(merged.render(front, {"2": text(other)}), ENDED % "agent_ended") == 6
    for count in (0, 2):
        new = worker(agent_ended=count)
        told = merged.render(front, {"1": text(new), "2": text(other)})
        assert value(told, ENDED % "agent_ended") == 6 + count
        if count:
            break
        # It has not counted anything under this name before.
        assert value(told, "ari_app_call_seconds_total") == 0


def test_a_worker_may_die_again_and_again() -> None:
    merged, front, told = MergedMetrics(), FrontMetrics().render(), b""
    for _ in range(4):
        told = merged.render(front, {"1": text(worker(agent_ended=2))})
    assert value(told, ENDED % "agent_ended") == 8
    again = merged.render(front, {})
    assert ENDED % "agent_ended" not in again.decode(), "nobody tells what it is"
