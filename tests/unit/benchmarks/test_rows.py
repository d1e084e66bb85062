from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.bridge import _why
from benchmarks.fill import fill, main
from benchmarks.goals import goal_rows
from benchmarks.pictures import draw
from benchmarks.rows import ROWS, Rows, machine_line
from tests.unit.benchmarks import samples


@pytest.mark.parametrize("name", samples.ALL)
def test_every_line_has_a_cell_for_each_column(name: str) -> None:
    tables = ROWS[name](samples.ALL[name]())

    assert tables
    for table in tables:
        assert table.lines, table.title
        assert {len(line) for line in table.lines} == {len(table.columns)}


def test_a_table_is_markdown() -> None:
    rows = Rows("Title", ("a", "b"), [("1", "2")], "A note.")

    assert rows.to_markdown() == "**Title**\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\nA note."


def test_what_was_held_back_is_a_range_where_it_varies() -> None:
    _, resamplers = ROWS["parts"](samples.parts())

    assert [line[4] for line in resamplers.lines] == ["3.0", "14 to 114"]


def test_a_limit_that_the_load_broke_is_not_ours() -> None:
    ours = samples.a_step(gap_p99_ms=30.0)
    loads = samples.a_step(gap_p99_ms=30.0, agent_cpu_percent=99.0)

    others = samples.a_step(gap_p99_ms=30.0, others_percent=50.0)
    steps = ours, loads, others, samples.a_step(restarts=2), samples.a_step()
    table, _ = ROWS["bridge"](samples.bridge(*steps))
    told = [line[-1] for line in table.lines]
    assert told == ["no", "load is", "disturbed", "2 x replaced", "yes", "no"]
    whys = [_why(step) for step in steps[:4]]
    assert [" ".join(why.split()[:2]) for why in whys] == [
        "a limit",
        "the load,",
        "other programs",
        "a worker",
    ]
    assert samples.a_step(generator_late_p99_ms=6.0).generator_is_bottleneck


def test_lines_are_compared_with_the_first() -> None:
    results = samples.bridge()
    assert len(ROWS["bridge"](results)) == 2, "nothing to compare"
    other = results["runs"][0] | {"line": "websocket"}
    other["steps"] = [step | {"cpu_percent_per_call": 0.15} for step in other["steps"]]
    table = ROWS["bridge"](results | {"runs": [*results["runs"], other]})[-1]
    assert ("websocket", "pcm_16000", "100", "0.60") in table.lines
    again = other | {"steps": [step | {"cpu_percent_per_call": 0.25} for step in other["steps"]]}
    table = ROWS["bridge"](results | {"runs": [*results["runs"], other, again]})[-1]
    assert ("websocket", "pcm_16000", "100", "0.80") in table.lines, "the median"


def test_builds_are_compared_pair_by_pair() -> None:
    (table,) = ROWS["compare"](samples.compare())

    assert table.columns[3:5] == ("v1", "now")
    found = {(line[0], line[2]): line[3:] for line in table.lines}
    assert found["CPU a call", "100"] == ("0.45 %", "0.2 %", "0.45", "0.40 to 0.50")
    assert found["CPU a call", "1"] == ("0.9 %", "0.4 %", "0.45", "0.40 to 0.50")
    assert found["idle memory", "-"] == ("80 MB", "50 MB", "0.62", "0.50 to 0.75")
    assert ("memory a call", "1") not in found, "it is what a call takes beyond the first"


def test_a_rate_holds_that_is_answered_in_time_and_by_all() -> None:
    [table] = ROWS["setups"](samples.setups())
    assert [(line[0], *line[-3:]) for line in table.lines] == [
        ("50", "8.0 ms", "40 %", "yes"),
        ("75", "8.0 ms", "40 %", "no"),
        ("90", "-", "-", "1 x replaced"),
        ("100", "8.0 ms", "40 %", "no"),
    ]


def test_a_flood_that_calls_notice_is_told() -> None:
    noticed = samples.a_flood(gap_p99_ms=30.0)
    disturbed = samples.a_flood("garbage", gap_p99_ms=31.0, others_percent=80.0)

    [table] = ROWS["flood"](samples.flood(samples.a_flood("none"), noticed, disturbed))
    assert [line[0] for line in table.lines] == ["none", "5000 silent", "5000 garbage"]
    assert [line[-1] for line in table.lines] == ["yes", "no", "disturbed"]
    assert table.lines[1][8] == "39000 address_limit, 100 no_uuid_in_time"
    assert not samples.a_flood(missing_frames=1).holds
    assert not samples.a_flood(lost_lines=1).holds


@pytest.mark.parametrize(
    "broken", [{"missing_frames": 1}, {"surplus_frames": 1}, {"lost_lines": 1}, {"gap_p99_ms": 26}]
)
def test_what_breaks_a_limit(broken: dict[str, Any]) -> None:
    assert samples.a_step().holds
    assert not samples.a_step(**broken).holds


def goals(**results: Any) -> dict[str, str]:
    return {line[0]: line[2] for line in goal_rows(results).lines}


def test_goals_that_were_not_measured_say_so() -> None:
    assert set(goals().values()) == {"not measured"}


def test_goals_show_what_was_measured() -> None:
    found = goals(**{name: make() for name, make in samples.ALL.items()})

    assert found["CPU per call, pcm_16000, 100 calls, TLS"] == "0.250 %"
    assert found["CPU per call, pcm_8000, 100 calls, TLS"] == "not measured"
    assert found["calls on one core, pcm_16000"] == "100"
    assert found["calls on one core, ulaw_8000"] == "not measured"
    assert found["memory per call beyond the first"] == "0.40 MB"
    assert found["speech frames lost or doubled, 50 calls, 600 s"] == "3"
    assert found["uplink against the wall clock, 50 calls, 600 s"] == "0.010 %"
    assert found["after a stall of 200 ms: frames lost or doubled"] == "1"
    assert found["latency after it against before"] == "+2.0 ms at most"
    assert found["gaps while strangers flood us, p99, 50 calls"] == "21.5 ms (silent)"
    assert found["page, first view"] == "41 kB"
    assert found["page, interactive on a phone"] == "0.82 s"
    assert found["added delay each way"] == "3.0 ms"


def test_the_most_calls_are_told_with_what_ended_the_count() -> None:
    steps = (samples.a_step(calls=200), samples.a_step(calls=250, lost_lines=1))
    loads = samples.a_step(calls=250, lost_lines=1, agent_cpu_percent=99.0)

    plain = goals(bridge=samples.bridge(*steps))
    assert plain["calls on one core, pcm_16000"] == "200"
    told = goals(bridge=samples.bridge(steps[0], loads))
    assert told["calls on one core, pcm_16000"] == "200 (at 250 the load was at its own limit)"


def body(name: str, *, quick: bool = False) -> dict[str, Any]:
    return {"machine": samples.MACHINE, "quick": quick, "results": samples.ALL[name]()}


def test_only_what_is_marked_is_replaced() -> None:
    page = "Text.\n<!-- stall -->\nold\n<!-- /stall -->\n<!-- ear -->\nkept\n<!-- /ear -->\nEnd."

    filled = fill(page, {"stall": body("stall", quick=True)})
    assert filled.startswith("Text.\n<!-- stall -->\n\n**Stall")
    assert "A quick run." in filled
    assert "old" not in filled
    assert filled.endswith("<!-- ear -->\nkept\n<!-- /ear -->\nEnd.")
    assert fill(filled, {"stall": body("stall", quick=True)}) == filled


def test_the_machine_is_one_sentence() -> None:
    line = machine_line(samples.MACHINE)

    assert line.startswith("a processor, 2 cores")
    assert "uvloop 1, numpy 2" in line
    assert "commit abc" in line


def test_the_page_is_filled_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import orjson

    (tmp_path / "stall.json").write_bytes(orjson.dumps(body("stall")))
    page = tmp_path / "page.md"
    page.write_text("<!-- stall -->\n<!-- /stall -->\n")
    monkeypatch.setattr("sys.argv", ["fill", "--results", str(tmp_path), "--page", str(page)])

    main()
    assert "**Stall" in page.read_text()


@pytest.mark.parametrize("name", samples.ALL)
def test_every_result_has_a_picture(name: str, tmp_path: Path) -> None:
    draw(name, samples.ALL[name](), tmp_path / "picture.png")

    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
