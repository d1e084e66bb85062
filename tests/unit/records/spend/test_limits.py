from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.errors import ConfigError
from ari_app.records.spend.limits import Level, Limit, SpendLimits, Spent, Use, read_limits

BERLIN = ZoneInfo("Europe/Berlin")


def test_a_day_begins_at_midnight_where_it_is_said() -> None:
    limits = SpendLimits(zone=BERLIN)
    assert limits.day_of(datetime(2026, 6, 1, 21, 59, 59, tzinfo=UTC)) == date(2026, 6, 1)
    assert limits.day_of(datetime(2026, 6, 1, 22, 0, tzinfo=UTC)) == date(2026, 6, 2)
    assert SpendLimits().day_of(datetime(2026, 6, 1, 22, 0, tzinfo=UTC)) == date(2026, 6, 1)


@pytest.mark.parametrize(
    ("day", "hours"),
    [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25), (date(2026, 11, 29), 24)],
)
def test_a_day_may_have_23_or_25_hours(day: date, hours: int) -> None:
    limits = SpendLimits(zone=BERLIN)
    assert limits.end_of(day) - limits.begin_of(day) == timedelta(hours=hours)


@given(
    st.floats(946_684_800, 2_051_222_400).map(lambda at: datetime.fromtimestamp(at, UTC)),
    # Their clocks change at midnight, by half an hour, at one o'clock, or a day is left out.
    st.sampled_from(
        ["America/Havana", "Australia/Lord_Howe", "Africa/Cairo", "Pacific/Apia", "UTC"]
    ),
)
def test_each_moment_lies_within_its_day_alone(moment: datetime, zone: str) -> None:
    limits = SpendLimits(zone=ZoneInfo(zone))
    day = limits.day_of(moment)
    assert limits.begin_of(day) <= moment < limits.end_of(day)


LIMITS = SpendLimits(
    together=Limit(minutes=100),
    agents={"agent_7": Limit(calls=10), "free": Limit()},
    others=Limit(minutes=10),
)


@pytest.mark.parametrize(
    ("seconds", "level"),
    [
        (0, Level.FAR),
        (4799.9, Level.FAR),
        (4800, Level.NEAR),
        (5999, Level.NEAR),
        (6000, Level.REACHED),
        (7000, Level.REACHED),
    ],
)
def test_a_limit_is_near_from_80_percent_on(seconds: float, level: Level) -> None:
    [use] = SpendLimits(together=Limit(minutes=100)).uses({"a": Spent(1, seconds)})
    assert use.level is level


def test_whoever_is_named_has_a_limit_of_its_own_and_each_other_one_that_of_all_others() -> None:
    spent = {"agent_7": Spent(10, 60), "free": Spent(99, 0), "new": Spent(1, 600)}
    assert [(use.agent_id, use.of, use.used, use.limit) for use in LIMITS.uses(spent)] == [
        (None, "minutes", 11, 100),
        ("agent_7", "calls", 10, 10),
        ("new", "minutes", 10, 10),
    ]
    assert LIMITS.reached("agent_7", spent) == Use("agent_7", "calls", 10, 10)
    assert LIMITS.reached("new", spent) == Use("new", "minutes", 10, 10)
    assert LIMITS.reached("free", spent) is None
    assert LIMITS.reached("another", spent) is None


def test_when_all_have_spent_what_there_is_nobody_may_begin() -> None:
    spent = {"a": Spent(1, 3000), "b": Spent(1, 3000)}
    assert LIMITS.reached("free", spent) == Use(None, "minutes", 100, 100)


def test_a_use_in_words_is_never_rounded_up() -> None:
    assert str(Use(None, "calls", 999, 1000)) == (
        "All agents together have used 99 % of today's 1000 calls"
    )
    assert str(Use("agent_7", "minutes", 48, 60)) == ("agent_7 has used 80 % of today's 60 minutes")


def test_no_limit_is_none() -> None:
    assert not SpendLimits(agents={"a": Limit()})
    assert SpendLimits(others=Limit(calls=1))


def write(folder: Path, text: str) -> Path:
    file = folder / "limits.yaml"
    file.write_text(text)
    return file


def test_a_file(tmp_path: Path) -> None:
    file = write(tmp_path, "agent_7: {minutes: 600, calls: 300}\n'*': {minutes: 0.5}\n")
    assert read_limits(file) == ({"agent_7": Limit(600, 300)}, Limit(0.5))
    assert read_limits(None) == ({}, Limit())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "a line for each agent"),
        ("- agent_7", "a line for each agent"),
        ("{", "is not YAML"),
        ("a: *b", "is not YAML"),
        ("\0", "is not YAML"),
        ("a: {calls: 1}\na: {calls: 2}", "has a name twice, at line 2"),
        ("agent_7:", "minutes, calls or both"),
        ("agent_7: {}", "minutes, calls or both"),
        ("agent_7: {minutes: 1, hours: 2}", "minutes, calls or both"),
        ("agent_7: {minutes: 0}", "minutes must be a number above 0"),
        ("agent_7: {minutes: -1}", "minutes must be a number above 0"),
        ("agent_7: {minutes: .nan}", "minutes must be a number above 0"),
        ("agent_7: {minutes: '60'}", "minutes must be a number above 0"),
        ("agent_7: {calls: 1.5}", "calls must be a whole number above 0"),
        ("agent_7: {calls: true}", "calls must be a whole number above 0"),
        ("agent_7: {calls: }", "calls must be a whole number above 0"),
        ("7: {calls: 1}", "put it into quotes"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as error:
        read_limits(write(tmp_path, text))
    assert "SPEND_LIMITS_FILE" in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_limits(tmp_path / "none.yaml")
