from __future__ import annotations

import asyncio
import platform
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ari_app import __version__
from ari_app.line.interface import Outcome, Status
from ari_app.records.events import AgentClosed, CallEnded, StateChanged
from ari_app.records.metrics import Metrics
from ari_app.records.record import CallRecord
from linekit.clock import Due
from tests.unit.call.stage import Stage
from tests.unit.virtual_loop import VirtualLoop


def samples(metrics: Metrics) -> dict[str, float]:
    """Every sample by its name and labels."""
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        sample.name
        + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): (
            sample.value
        )
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


NAMES = {
    "ari_app_build_info",
    "ari_app_ready",
    "ari_app_loop_lag_seconds",
    "ari_app_calls",
    "ari_app_calls_limit",
    "ari_app_calls_ended",
    "ari_app_call_seconds",
    "ari_app_audiosocket_refused",
    "ari_app_frame_lateness_seconds",
    "ari_app_frame_ticks_skipped",
    "ari_app_playout_underruns",
    "ari_app_frames_not_read",
    "ari_app_uplink_filled_seconds",
    "ari_app_uplink_surplus_seconds",
    "ari_app_interruptions",
    "ari_app_response_seconds",
    "ari_app_agent_connect_seconds",
    "ari_app_agent_connect_failures",
    "ari_app_agent_losses",
    "ari_app_agent_gap_seconds",
    "ari_app_agent_closes",
    "ari_app_ari_connected",
    "ari_app_tasks",
    "ari_app_allocated_blocks",
    "ari_app_audiosocket_lines",
    "ari_app_log_lines_dropped",
}


def test_every_metric_is_there_from_the_start_and_has_a_sentence() -> None:
    text = Metrics().render().decode()
    described = dict(re.findall(r"^# HELP (\w+) (.+)$", text, re.MULTILINE))
    described = {
        name.removesuffix("_total"): said
        for name, said in described.items()
        if not name.endswith("_created")
    }
    assert set(described) >= NAMES
    assert all(said.endswith(".") for name, said in described.items() if name in NAMES)


def test_states_are_there_from_the_start() -> None:
    shown = samples(Metrics(("waiting", "talking")))
    calls = {name: value for name, value in shown.items() if name.startswith("ari_app_calls ")}
    assert calls == {"ari_app_calls state=waiting": 0, "ari_app_calls state=talking": 0}


def test_two_services_in_one_process_do_not_meet() -> None:
    one, other = Metrics(), Metrics()
    one.connection_refused("malformed")
    assert samples(one)["ari_app_audiosocket_refused_total reason=malformed"] == 1
    assert "ari_app_audiosocket_refused_total reason=malformed" not in samples(other)


def test_the_clock() -> None:
    metrics = Metrics()
    for late, skipped in ((0.0007, 0), (0.001, 0), (0.3, 5), (7.0, 0)):
        metrics.ticks.add(Due(1, skipped, late))
    shown = samples(metrics)
    assert shown["ari_app_frame_lateness_seconds_count"] == 4
    assert shown["ari_app_frame_lateness_seconds_sum"] == pytest.approx(7.3017)
    buckets = {
        each.partition("le=")[2]: value
        for each, value in shown.items()
        if each.startswith("ari_app_frame_lateness_seconds_bucket")
    }
    assert [buckets[bound] for bound in ("0.0005", "0.001", "0.2", "0.5", "1.0", "+Inf")] == [
        0, 2, 2, 3, 3, 4,
    ]  # fmt: skip
    assert shown["ari_app_frame_ticks_skipped_total"] == 5


async def a_call(metrics: Metrics) -> dict[str, float]:
    """A call of ten seconds; what is shown in its middle."""
    async with Stage() as stage:
        stage.journal.listen(metrics.heard)
        session = await stage.talk()
        stage.media(session).sending = False
        agent = stage.agent()
        agent.says(3000)
        await asyncio.sleep(1)
        agent.handler.interruption(1)
        agent.handler.agent_response("Hello.", 1)
        agent.says(100, event_id=2)
        await asyncio.sleep(1)
        agent.says(100, event_id=2)
        await asyncio.sleep(8)
        middle = samples(metrics)
        stage.agent().closes()
        await session.ended.wait()
        assert session.outcome == Outcome(Status.COMPLETED, "agent_ended")
    return middle


def test_a_call_from_its_beginning_to_its_end() -> None:
    metrics = Metrics(close_codes={1000})
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        middle = runner.run(a_call(metrics))
    assert middle["ari_app_calls state=talking"] == 1
    assert middle["ari_app_agent_connect_seconds_count"] == 1
    shown = samples(metrics)
    assert all(value == 0 for name, value in shown.items() if name.startswith("ari_app_calls "))
    assert shown["ari_app_calls_ended_total reason=agent_ended status=COMPLETED"] == 1
    assert shown["ari_app_call_seconds_total"] == pytest.approx(10, abs=0.1)
    assert shown["ari_app_interruptions_total"] == 1
    assert shown["ari_app_barge_in_seconds_count"] == 1
    assert shown["ari_app_agent_seconds_total agent=agent_default"] == pytest.approx(10, abs=0.1)
    assert shown["ari_app_playout_underruns_total"] == 1
    assert shown["ari_app_uplink_filled_seconds_total"] == pytest.approx(10, abs=0.2)
    assert shown["ari_app_frames_not_read_total"] == 0
    assert shown["ari_app_agent_closes_total code=1000 kind=agent_ended"] == 1


def test_a_refused_call_never_counts_as_running() -> None:
    metrics = Metrics()

    async def refuse() -> None:
        async with Stage(max_calls=0) as stage:
            stage.journal.listen(metrics.heard)
            session = await stage.enter()
            await session.ended.wait()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(refuse())
    shown = samples(metrics)
    assert shown["ari_app_calls_ended_total reason=at_capacity status=REJECTED"] == 1
    assert all(value == 0 for name, value in shown.items() if name.startswith("ari_app_calls "))


async def test_what_the_process_holds_can_be_watched() -> None:
    before = samples(Metrics())
    task = asyncio.create_task(asyncio.sleep(60))
    after = samples(Metrics())
    assert after["ari_app_tasks"] == before["ari_app_tasks"] + 1
    assert after["ari_app_allocated_blocks"] > 1000
    assert after["process_resident_memory_bytes"] > 1e6
    assert after["process_open_fds"] > 0
    assert "python_gc_collections_total generation=2" in after
    task.cancel()


def test_the_loop_is_late_by_what_it_stood_still() -> None:
    metrics = Metrics()
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        stood = 0.0

        async def stand() -> None:
            nonlocal stood
            watching = asyncio.create_task(metrics.watch_loop(lambda: loop.time() + stood))
            await asyncio.sleep(0.6)
            stood += 0.4
            await asyncio.sleep(0.5)
            watching.cancel()

        runner.run(stand())
    shown = samples(metrics)
    assert shown["ari_app_loop_lag_seconds_count"] == 5
    assert shown["ari_app_loop_lag_seconds_sum"] == pytest.approx(0.4)
    assert shown["ari_app_loop_lag_seconds_bucket le=0.2"] == 4
    assert shown["ari_app_loop_lag_seconds_bucket le=0.5"] == 5


def test_which_version_runs() -> None:
    name = f"ari_app_build_info python={platform.python_version()} version={__version__}"
    assert samples(Metrics())[name] == 1


def test_metrics_can_be_read_without_a_loop() -> None:
    assert samples(Metrics())["ari_app_tasks"] == 0


def test_a_close_code_that_nobody_knows_makes_no_series_of_its_own() -> None:
    metrics = Metrics(close_codes={1000, 4300})
    for code in range(4000, 4999):
        metrics.heard(CallRecord("s1", "sip-1", 0.0), AgentClosed(code, "rejected"))
    assert metrics.render().count(b"ari_app_agent_closes_total{") == 2, "4300 is known"


class Course:
    """Calls that go through states, each for so long."""

    def __init__(self) -> None:
        self.now = 100.0
        self.metrics = Metrics(clock=lambda: self.now)

    def goes(self, *states: tuple[str, float], after: float = 0.0, placed: bool = False) -> None:
        record = CallRecord("s", "l", self.now, placed=placed)
        self.now += after
        for state, seconds in states:
            self.metrics.heard(record, StateChanged(state, ""))
            self.now += seconds


@pytest.mark.parametrize(
    ("states", "count", "seconds"),
    [
        ((("connecting", 0.4), ("joining", 0.1), ("talking", 60), ("ended", 0)), 1, 0.7),
        ((("connecting", 5), ("releasing", 0), ("ended", 0)), 0, 0),
        ((("connecting", 0.4), ("joining", 5), ("releasing", 0), ("ended", 0)), 0, 0),
        ((("releasing", 0), ("ended", 0)), 0, 0),
        ((("waiting", 30), ("connecting", 0.2), ("joining", 0.1), ("talking", 1)), 0, 0),
    ],
)
def test_how_long_a_caller_waits_for_the_agent(
    states: tuple[tuple[str, float], ...], count: int, seconds: float
) -> None:
    course = Course()
    course.goes(*states, after=0.2)
    shown = samples(course.metrics)
    assert shown["ari_app_setup_seconds_count"] == count
    assert shown["ari_app_setup_seconds_sum"] == pytest.approx(seconds)


def test_how_long_somebody_whom_we_call_lets_it_ring_is_not_ours() -> None:
    course = Course()
    states = (("dialling", 1), ("ringing", 12), ("connecting", 0.3), ("joining", 0.1))
    course.goes(*states, ("talking", 1), placed=True)
    assert samples(course.metrics)["ari_app_setup_seconds_count"] == 0


def test_an_agent_that_anybody_may_name_is_a_series_up_to_a_hundred() -> None:
    metrics = Metrics()
    for number in range(150):
        record = CallRecord("s", "l", 0.0, agent_id=f"agent_{number}", agent_seconds=1.0)
        metrics.heard(record, CallEnded("COMPLETED", "agent_ended", 1.0))
    odd = CallRecord("s", "l", 0.0, agent_id='+49"30', agent_seconds=1.0)
    metrics.heard(odd, CallEnded("COMPLETED", "agent_ended", 1.0))
    shown = samples(metrics)
    series = [name for name in shown if name.startswith("ari_app_agent_seconds_total")]
    assert len(series) == 101
    assert shown["ari_app_agent_seconds_total agent=other"] == 51


def test_what_nobody_knows_has_no_series() -> None:
    metrics = Metrics()
    metrics.watch_account(lambda: None)
    assert not [name for name in samples(metrics) if name.startswith("ari_app_agent_credits")]
