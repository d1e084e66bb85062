"""What ElevenLabs says of its plan, and what is made of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from ari_app.agent.elevenlabs.account import Account, AccountWatch, read_account
from ari_app.agent.elevenlabs.client import AgentClient
from ari_app.agent.elevenlabs.closing import classify
from ari_app.agent.elevenlabs.errors import AgentRefused, ConnectError, error_from_status
from ari_app.agent.interface import Briefing
from ari_app.checks.agent import check_account, judge_account
from ari_app.checks.finding import Verdict
from ari_app.settings import load_settings
from tests.unit.agent.elevenlabs.fake_agent import API_KEY, FakeAgent

USER: dict[str, Any] = {
    "user_id": "u1",
    "xi_api_key": "sk_must_not_be_seen",
    "subscription": {
        "tier": "creator",
        "character_count": 17231,
        "character_limit": 100000,
        "max_credit_limit_extension": 0,
        "next_character_count_reset_unix": 1738356858,
        "something_new": {"a": [1]},
    },
    "subscription_extras": {"concurrency": 5, "convai_concurrency": 10},
}


def user(**plan: Any) -> dict[str, Any]:
    return {**USER, "subscription": {**USER["subscription"], **plan}}


def test_a_plan() -> None:
    account = read_account(USER)
    assert account is not None
    assert (account.tier, account.used, account.limit, account.at_once) == (
        "creator",
        17231,
        100000,
        10,
    )
    assert account.ratio == pytest.approx(0.17231)
    assert account.text == (
        "17231 of 100000 credits are used in the period until 2025-01-31, 10 conversations may be "
        "held at once"
    )


@pytest.mark.parametrize(
    ("plan", "ratio"),
    [
        ({"max_credit_limit_extension": 100000}, 0.086155),
        ({"max_credit_limit_extension": "unlimited"}, None),
        ({"character_limit": 0}, None),
        ({"character_count": "17231"}, None),
        ({"character_count": -1}, None),
        ({"character_limit": True}, None),
    ],
)
def test_how_much_of_it_is_used(plan: dict[str, Any], ratio: float | None) -> None:
    account = read_account(user(**plan))
    assert account is not None
    assert account.ratio == (None if ratio is None else pytest.approx(ratio))


@pytest.mark.parametrize(
    ("plan", "beyond"),
    [
        ({"allowed_to_extend_character_limit": False, "max_character_limit_extension": 9}, 0),
        ({"allowed_to_extend_character_limit": True, "max_character_limit_extension": 9}, 9),
        ({"allowed_to_extend_character_limit": True, "max_character_limit_extension": None}, None),
        ({}, 0),
    ],
)
def test_the_older_names_of_what_may_be_used_beyond(
    plan: dict[str, Any], beyond: int | None
) -> None:
    old = user(**plan)
    del old["subscription"]["max_credit_limit_extension"]
    account = read_account(old)
    assert account is not None
    assert account.beyond == beyond


@pytest.mark.parametrize(
    "answer", [None, [], {}, {"subscription": None}, {"subscription": {"tier": 7}}, "no"], ids=repr
)
def test_an_answer_that_says_nothing(answer: object) -> None:
    assert read_account(answer) is None


_json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=4,
)


@given(
    st.dictionaries(st.sampled_from(sorted(USER["subscription"])), _json),
    st.dictionaries(st.sampled_from(["concurrency", "convai_concurrency"]), _json),
)
def test_whatever_is_answered_something_can_be_said(plan: object, extras: object) -> None:
    account = read_account({"subscription": plan, "subscription_extras": extras})
    if account is not None:
        assert account.text is not None
        assert account.ratio is None or account.ratio >= 0


class Service:
    """Answers what a test says."""

    def __init__(self) -> None:
        self.answer: object = USER
        self.error: ConnectError | None = None
        self.watch = AccountWatch(self._ask)

    async def _ask(self) -> object:
        if self.error is not None:
            raise self.error
        return self.answer


async def test_somebody_is_told_once_when_the_credits_run_out() -> None:
    service = Service()
    with capture_logs() as logs:
        await service.watch.look()
        assert service.watch.warnings() == []
        service.answer = user(character_count=90_000)
        await service.watch.look()
        await service.watch.look()
    assert [line["event"] for line in logs] == ["agent_credits_run_out"]
    assert "90000 of 100000 credits are used" in service.watch.warnings()[0]


@pytest.mark.parametrize(
    ("status", "seconds"), [(401, 3600), (403, 3600), (404, 3600), (422, 3600)]
)
async def test_a_key_without_the_right_to_ask_is_no_fault(status: int, seconds: float) -> None:
    service = Service()
    service.error = error_from_status(status, "missing_permissions")
    with capture_logs() as logs:
        assert await service.watch.look() == seconds
    assert (service.watch.account, service.watch.warnings()) == (None, [])
    assert [line["log_level"] for line in logs] == ["debug"]


async def test_while_nobody_answers_what_was_told_last_holds() -> None:
    service = Service()
    await service.watch.look()
    service.error = error_from_status(503)
    assert await service.watch.look() == 300
    assert service.watch.account is not None


async def test_what_was_refused_is_told_for_five_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service()
    await service.watch.look()
    service.watch.refused(error_from_status(429, "too_many_concurrent_requests"))
    service.watch.refused(AgentRefused(classify(3008, "too many concurrent connections")))
    service.watch.refused(error_from_status(401, "quota_exceeded"))
    service.watch.refused(error_from_status(500))
    assert service.watch.warnings() == [
        "ElevenLabs has refused conversations, 2 in the last five minutes: more are held at once "
        "than the plan allows. The plan has 10.",
        "ElevenLabs has refused conversations, 1 in the last five minutes: the quota is used up.",
    ]
    loop = asyncio.get_running_loop()
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now + 301)
    assert service.watch.warnings() == []


async def test_it_is_asked_for_with_the_key_and_nothing_of_it_is_shown() -> None:
    async with FakeAgent() as agent, AgentClient(agent.base_url, API_KEY) as client:
        settings = load_settings(None, elevenlabs_api_key=API_KEY)
        assert await check_account(client, settings) == []
        agent.user = 200, json.dumps(USER)
        with capture_logs() as logs:
            (finding,) = await check_account(client, settings)
        assert finding.verdict is Verdict.OK
        assert agent.requests[-1][2]["xi-api-key"] == API_KEY
        assert "sk_must_not_be_seen" not in f"{logs}{finding}{client.account.account}"
    async with AgentClient("http://127.0.0.1:1") as client:
        assert await check_account(client, load_settings(None)) == []


async def test_a_limit_of_the_plan_is_told_when_it_has_kept_a_call_away() -> None:
    async def limit() -> tuple[int, str]:
        return 429, json.dumps({"detail": {"status": "too_many_concurrent_requests"}})

    async with FakeAgent() as agent:
        agent.signed = limit
        async with AgentClient(agent.base_url, API_KEY, connect_timeout=1.0) as client:
            with pytest.raises(ConnectError) as error:
                await client.connect(Briefing("agent_7"), lambda event: None)
            assert error.value.code == "agent_limit"
            assert "more are held at once" in client.warnings()[0]


@pytest.mark.parametrize(
    ("account", "calls", "verdict"),
    [
        (None, 10, None),
        (Account(used=1, limit=10), 10, Verdict.OK),
        (Account(used=9, limit=10), 10, Verdict.WARNING),
        (Account(used=9, limit=10, beyond=None), 10, Verdict.OK),
        (Account(at_once=10), 10, Verdict.OK),
        (Account(at_once=10), 11, Verdict.NOTE),
    ],
)
def test_a_plan_beside_the_settings(
    account: Account | None, calls: int, verdict: Verdict | None
) -> None:
    found = judge_account(account, load_settings(None, max_concurrent_calls=calls))
    assert [each.verdict for each in found] == ([] if verdict is None else [verdict])
