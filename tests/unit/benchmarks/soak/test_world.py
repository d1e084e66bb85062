from __future__ import annotations

from itertools import islice

import pytest

from ari_app.tools.http_config import parse_http_tools
from benchmarks.soak import world
from benchmarks.soak.plan import MIX, Kind, mix
from lab.practice_agent import AgentBook, AgentProfile

PLANS = list(islice(mix(1), 200))


def test_every_call_has_an_agent_that_is_in_the_book() -> None:
    book = AgentBook.model_validate(world.book())
    assert {plan.kind for plan in PLANS} == set(MIX)
    for plan in PLANS:
        profile = book.find(world.agent_id(plan))
        assert profile is not None
        assert profile.formats.user_input == plan.agent_format


def test_every_call_has_an_extension_of_its_own_agent() -> None:
    text = world.dialplan()
    for plan in PLANS:
        extension = world.extension(plan)
        (line,) = [line for line in text.splitlines() if f"exten => {extension}," in line]
        if plan.kind is not Kind.WAITING:
            assert f"agent_id={world.agent_id(plan)})" in line


def test_each_landing_names_its_caller() -> None:
    landings = [line for line in world.dialplan().splitlines() if "landed=" in line]
    assert len(landings) == 3
    assert all("caller=${CALLERID(num)} stasis=${STASISSTATUS}" in line for line in landings)


def test_faults_come_on_top_of_an_agent() -> None:
    plain = AgentProfile.model_validate(world.profile("dropper-pcm_8000"))
    faulty = AgentProfile.model_validate(
        world.profile("dropper-pcm_8000", handshake_status=500, metadata_delay_ms=10)
    )
    assert plain.faults.close is not None
    assert faulty.faults.close == plain.faults.close
    assert faulty.faults.handshake_status == 500
    assert faulty.dialogue == plain.dialogue


def test_placed_calls_have_numbers_that_may_be_dialled() -> None:
    numbers = {world.called_number(plan) for plan in PLANS}
    assert len(numbers) == len(PLANS)
    assert all(number.startswith("+49") and len(number) == 13 for number in numbers)


def test_the_tool_is_one_that_the_service_takes() -> None:
    (tool,) = parse_http_tools(world.tools("http://127.0.0.1:8000"), {})
    assert tool.name == "look_up"


def test_an_unknown_role() -> None:
    with pytest.raises(ValueError, match="barber"):
        world.profile("barber-pcm_8000")
