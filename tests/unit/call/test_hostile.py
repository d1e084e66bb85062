"""Whatever callers, agents and dialers choose: what reaches Asterisk means nothing but itself.

Each way in is tried with each hostile text, and all that Asterisk was asked for is looked at.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from ari_app.call.plan import CallPolicy
from ari_app.call.states import State
from ari_app.control.control import CallControl
from ari_app.control.planner import Planner, PlannerOptions, Wish
from ari_app.control.refusals import ControlRefused, NotPossible, SessionNotFound
from ari_app.line.asterisk.ari.resources import CONTINUE, EXTERNAL_MEDIA, ORIGINATE_WITH_ID
from ari_app.line.asterisk.dialplan import parse_arguments
from ari_app.patterns import LinearPattern
from tests.session_view import Session
from tests.unit.call.fake_ari import ADD_CHANNEL, CREATE_BRIDGE, SET_VARIABLE, Seen
from tests.unit.call.stage import Stage, now
from tests.unit.hostile import HOSTILE
from tests.waiting import until

TEXT = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028-\u202e\ud800-\udfff\"\\`${};|&<>]{0,1000}")
WORD = re.compile(r"[A-Za-z0-9_.:-]{0,128}")
CALLER = re.compile(r"[0-9A-Za-z+*#._ -]{1,40}")
ENDPOINT = re.compile(r"PJSIP/[0-9A-Za-z+*._-]{1,40}@trunk")
RULES: dict[Any, dict[str, re.Pattern[str]]] = {
    SET_VARIABLE: {"variable": re.compile(r"(__)?AGENT_[A-Z_]+|TOPIC"), "value": TEXT},
    ORIGINATE_WITH_ID: {"endpoint": ENDPOINT, "callerId": CALLER},
    CREATE_BRIDGE: {"name": re.compile(r"[A-Za-z0-9 _.-]+")},
    EXTERNAL_MEDIA: {"external_host": re.compile(r"[0-9.]+:[0-9]+")},
    CONTINUE: {"context": re.compile(r"voice-agent-(after|amd)"), "extension": re.compile("s")},
    ADD_CHANNEL: {},
}
# Words, but for the target of a transfer, which may name a context.
VARIABLES = {"AGENT_TRANSFER_TO": re.compile(r"[A-Za-z0-9+*#._@-]{0,80}"), "TOPIC": TEXT}

NUMBER = "+493023125001"


def look_at(seen: list[Seen]) -> Iterator[str]:
    """What is wrong with what Asterisk was asked for."""
    for request in seen:
        for channel in request.ids:
            if not WORD.fullmatch(channel):
                yield f"{request.operation.path}: {channel!r}"
        rules = RULES.get(request.operation, {})
        for name, value in request.parameters.items():
            if isinstance(value, str) and not rules.get(name, WORD).fullmatch(value):
                yield f"{request.operation.path}: {name}={value!r}"
        if request.operation is SET_VARIABLE:
            variable, text = str(request.parameters["variable"]), str(request.parameters["value"])
            if not VARIABLES.get(variable, WORD).fullmatch(text):
                yield f"{variable}={text!r}"


class Scene(Stage):
    """A stage with somebody who begins calls and acts on them."""

    async def __aenter__(self) -> Scene:
        await super().__aenter__()
        policy = CallPolicy(
            settable_variables=frozenset({"TOPIC"}), number_pattern=LinearPattern("[0-9A-Za-z+]+")
        )
        self.services = replace(self.services, policy=policy)
        self.calls = self.another()
        planner = Planner(
            PlannerOptions("agent_default", 600, 8, lambda calls: 40),
            self.agents,
            None,
            self.calls.count,
        )
        self.gateway._state = "connected"
        self.control = CallControl(self.calls, [self.gateway], planner, policy, now)
        return self

    async def use(self, session: Session, tool: str, **parameters: object) -> None:
        """The agent calls a tool and is answered."""
        agent = self.agent()
        agent.handler.tool_call(tool, "c1", parameters, True)
        await until(
            lambda: (
                bool(agent.results or self.asterisk.requests(ORIGINATE_WITH_ID))
                or session.ended.is_set()
            )
        )


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with Scene() as scene:
        yield scene


Way = Callable[[Scene, str], Awaitable[object]]


async def number_of_the_caller(scene: Scene, text: str) -> None:
    name = scene.caller()
    scene.asterisk.enter(name, number=text, exten=text)
    await until(lambda: bool(scene.calls.records))
    session = scene.session_of(name)
    await scene.until(session, State.TALKING)
    scene.agent().handler.tool_call("transfer_call", "c1", {"to": NUMBER, "mode": "attended"}, True)
    await until(lambda: bool(scene.asterisk.requests(ORIGINATE_WITH_ID)))


async def arguments_of_stasis(scene: Scene, text: str) -> None:
    session = await scene.talk(text, f"name={text}", f"{text}=x", f"agent_id={text}")
    assert re.fullmatch(r"[A-Za-z0-9_.:-]{1,128}", session.agent_id)
    assert all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) for name in variables(session))


def variables(session: Session) -> dict[str, object]:
    return dict(session.call.plan.briefing.variables)


async def name_of_the_conversation(scene: Scene, text: str) -> None:
    scene.agents.conversation_id = text
    await scene.talk()
    scene.agent().closes()


async def blind_transfer(scene: Scene, text: str) -> None:
    await scene.use(await scene.talk(), "transfer_call", to=text)


async def attended_transfer(scene: Scene, text: str) -> None:
    await scene.use(await scene.talk(), "transfer_call", to=text, mode="attended")


async def keys_of_the_agent(scene: Scene, text: str) -> None:
    await scene.use(await scene.talk(), "send_dtmf", digits=text)


async def value_of_a_variable(scene: Scene, text: str) -> None:
    await scene.use(await scene.talk(), "set_variable", name="TOPIC", value=text)
    for request in scene.asterisk.requests(SET_VARIABLE):
        if request.parameters["variable"] == "TOPIC":
            assert request.parameters["value"] == text, "as it was, or not at all"


async def name_of_a_variable(scene: Scene, text: str) -> None:
    await scene.use(await scene.talk(), "set_variable", name=text, value="x")


async def name_of_a_tool(scene: Scene, text: str) -> None:
    await scene.use(await scene.talk(), text, to=text)
    assert scene.agent().results[0][2] is True


async def called_number(scene: Scene, text: str) -> None:
    await scene.control.initiate(Wish(called_number=text))


async def number_that_the_callee_sees(scene: Scene, text: str) -> None:
    await scene.control.initiate(Wish(called_number=NUMBER, caller_number=text))


async def name_of_a_session(scene: Scene, text: str) -> None:
    await scene.control.initiate(Wish(called_number=NUMBER, session_id=text))


async def reference_of_a_dialer(scene: Scene, text: str) -> None:
    await scene.control.initiate(Wish(called_number=NUMBER, reference=text))


async def waiting_channel(scene: Scene, text: str) -> None:
    await scene.enter("wait=30")
    await scene.control.initiate(Wish(reference=text, agent_id=text))


async def reason_to_end(scene: Scene, text: str) -> None:
    session = await scene.talk()
    await scene.control.end(session.session_id, text)


async def end_of_a_session(scene: Scene, text: str) -> None:
    await scene.control.end(text)


async def transfer_from_outside(scene: Scene, text: str) -> None:
    session = await scene.talk()
    await scene.control.transfer(session.session_id, text)


async def attended_transfer_from_outside(scene: Scene, text: str) -> None:
    session = await scene.talk()
    await scene.control.transfer(session.session_id, text, "attended")


async def keys_from_outside(scene: Scene, text: str) -> None:
    session = await scene.talk()
    await scene.control.send_dtmf(session.session_id, text)


async def what_the_agent_is_told(scene: Scene, text: str) -> None:
    session = await scene.talk()
    await scene.control.say_to_agent(session.session_id, "context", text)


WAYS: list[Way] = [
    number_of_the_caller,
    arguments_of_stasis,
    name_of_the_conversation,
    blind_transfer,
    attended_transfer,
    keys_of_the_agent,
    value_of_a_variable,
    name_of_a_variable,
    name_of_a_tool,
    called_number,
    number_that_the_callee_sees,
    name_of_a_session,
    reference_of_a_dialer,
    waiting_channel,
    reason_to_end,
    end_of_a_session,
    transfer_from_outside,
    attended_transfer_from_outside,
    keys_from_outside,
    what_the_agent_is_told,
]
HARMLESS: dict[Way, str] = {
    number_of_the_caller: "493023125001",
    name_of_the_conversation: "conv_01j",
    blind_transfer: "sales@office",
    value_of_a_variable: "O'Brien, Müller (7) 😀",
    called_number: "493023125001",
    number_that_the_callee_sees: "493023125001",
    reason_to_end: "customer_paid",
}


# What Asterisk sends is UTF-8.
THROUGH_ASTERISK = {number_of_the_caller, arguments_of_stasis}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_nothing_hostile_reaches_asterisk(way: Way) -> None:
    for name, text in HOSTILE.items():
        if way in THROUGH_ASTERISK:
            text = text.encode("utf-8", "replace").decode()
        async with Scene() as scene:
            with contextlib.suppress(ControlRefused, NotPossible, SessionNotFound):
                await way(scene, text)
            scene.calls.end_all("over")
            await scene.calls.drain(30)
            assert list(look_at(scene.asterisk.seen)) == [], name


@pytest.mark.parametrize("way", HARMLESS, ids=lambda way: way.__name__)
async def test_what_is_harmless_arrives_as_it_is(scene: Scene, way: Way) -> None:
    text = HARMLESS[way]
    await way(scene, text)
    await scene.calls.drain(60)
    given = [str(value) for seen in scene.asterisk.seen for value in seen.parameters.values()]
    assert [value for value in given if text in value]


def test_a_value_with_commas_takes_nothing_back_that_was_said_before_it() -> None:
    args = ["agent_id=agent_7", "wait=0", "note=x", "agent_id=agent_evil", "wait=3600", "note=y"]
    read = parse_arguments(args)
    assert (read.agent_id, read.wait_seconds, read.variables) == ("agent_7", 0.0, {"note": "x"})
    assert len(read.problems) == 3
    assert parse_arguments(["agent_id=", "agent_id=agent_evil"]).agent_id is None
