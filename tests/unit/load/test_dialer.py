"""The dialer full of calls against our own service: what it hears, and how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.load.dialer import DialerLoad
from lab.load.voice import TalkPattern
from tests.unit.agent.elevenlabs.fake_agent import FakeAgent
from tests.unit.settings_maker import custom_maker
from tests.unit.test_custom import SAID, serving, speaks
from tests.waiting import until


async def test_calls_that_are_held_and_hung_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make = custom_maker(monkeypatch, tmp_path, max_concurrent_calls=2)
    load = DialerLoad(pattern=TalkPattern(talk_seconds=0.1, pause_seconds=0.1))
    async with FakeAgent(speaks) as agent, serving(make(elevenlabs_base_url=agent.base_url)) as it:
        load.meet("http://{}:{}".format(*it.bridge.api_address))
        load.begin_window()
        await load.start_calls(3, 100)
        await until(lambda: load.report()()["talking"] == 2)
        # Each of them: one may be far ahead of the other.
        spoken = len(SAID) / 16000
        await until(lambda: min(load.report()()["voiced_seconds"].values()) >= spoken)
        await until(lambda: min(load.report()()["sent_seconds"].values()) > 0.2)
        load.be_quiet()
        report = load.report()()
        assert report["calls"] == 2
        assert report["closed_lines"] == {"capacity": 1}
        assert set(report["voiced_seconds"]) == {
            record.line_id for record in it.bridge.calls.records.values()
        }
        # At 8 kHz, with the agent's at 16 kHz: the last frame is filled up.
        assert all(seconds < spoken + 0.1 for seconds in report["voiced_seconds"].values())
        load.end_calls(1)
        load.end_calls(1)
        assert load.report()()["calls"] == 0
        await until(lambda: it.ends() == ["caller_hung_up"] * 2)
        assert load.report()()["closed_lines"] == {"capacity": 1}
    await load.close()
