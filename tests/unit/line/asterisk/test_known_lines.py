"""Which lines an Asterisk's gateway knows."""

from __future__ import annotations

from ari_app.line.interface import CallEnd, Outcome, Placing, Status
from tests.unit.call.stage import Stage


async def test_a_line_that_is_never_dialled_holds_nothing(stage: Stage) -> None:
    line = stage.gateway.place("mine", "+15550100", Placing())
    line.name("mine")
    lines = stage.gateway.asterisk.lines
    assert not lines
    line.dial()
    assert set(lines) == {line.id}
    await line.close(Outcome(Status.FAILED, "end_requested"), CallEnd("mine"))
    assert not lines
    assert not stage.asterisk.world.channels
