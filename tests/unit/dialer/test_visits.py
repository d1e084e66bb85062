"""Calls for whose sound we go to the dialer: over real HTTP, from the request to its end."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from structlog.testing import capture_logs
from yarl import URL

from ari_app.checks.dialer import check_dialer_service
from ari_app.checks.finding import Verdict
from ari_app.errors import ConfigError
from ari_app.line.dialer import api as api_module
from ari_app.line.dialer.api import AudioSocket, DialerApi
from ari_app.settings import Settings
from tests.unit.agent.elevenlabs.fake_agent import FakeAgent
from tests.unit.dialer.fake_dialer import FakeDialer
from tests.unit.settings_maker import Make, custom_maker
from tests.unit.test_custom import KEY, SAID, Service, serving, speaks
from tests.waiting import PATIENCE_SECONDS, PROMPT_SECONDS, until

DIALERS_KEY = "key-that-the-dialer-knows"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "_PAUSE_SECONDS", 0)


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Make:
    keys = {"api_key": KEY["X-API-Key"], "dialer_api_key": DIALERS_KEY}
    return custom_maker(monkeypatch, tmp_path, **keys)


def settings_for(make: Make, agent: FakeAgent, dialer: FakeDialer, **changes: Any) -> Settings:
    return make(elevenlabs_base_url=agent.base_url, dialer_api_url=dialer.url, **changes)


def failures(it: Service) -> dict[tuple[str, str], float]:
    return {
        (sample.labels["request"], sample.labels["reason"]): sample.value
        for metric in it.bridge.metrics.dialer_failures.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }


async def told(socket: web.WebSocketResponse, kind: str) -> dict[str, Any]:
    """Wait for a message of a kind; sound is passed over."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                said: dict[str, Any] = json.loads(message.data)
                if said["type"] == kind:
                    return said
    raise AssertionError(f"no {kind}")


@pytest.mark.parametrize("request_body", ["asked", "named", "plain"])
async def test_a_call_is_heard_from_its_first_sample_and_its_end_is_told(
    make: Make, request_body: str
) -> None:
    async with (
        FakeDialer() as dialer,
        FakeAgent(speaks) as agent,
        serving(settings_for(make, agent, dialer)) as it,
    ):
        bodies: dict[str, dict[str, Any]] = {
            "asked": {"audio": {}},
            "named": {"audio_url": f"{dialer.media}/crm-1"},
            "plain": {"audio": None, "called_number": "+15550100002"},
        }
        status, answer = await it.initiate(**bodies[request_body])
        assert (status, answer["audio_url"]) == (200, None), answer
        socket = await dialer.socket("crm-1")
        ready = await told(socket, "ready")
        assert (ready["format"], ready["session_id"]) == ("pcm_16000", answer["session_id"])
        heard = b""
        while SAID[-1:].tobytes() not in heard:
            message = await socket.receive(timeout=PATIENCE_SECONDS)
            heard += message.data if message.type is aiohttp.WSMsgType.BINARY else b""
        samples = np.frombuffer(heard, "<i2")
        assert np.array_equal(samples[samples != 0], SAID)
        await socket.send_str('{"type": "hang_up"}')
        await until(lambda: len(dialer.hung_up) == 1)
        await until(lambda: it.ends() == ["caller_hung_up"])
        (record,) = it.bridge.calls.records.values()
        assert (record.result, record.line_format) == ("answered", "pcm_16000")
        assert failures(it) == {} and it.refused() == {}
    name, end = dialer.hung_up[0]
    assert name == "crm-1"
    assert (end["status"], end["reason"]) == ("COMPLETED", "caller_hung_up")
    assert end["session_id"] == answer["session_id"]
    assert end["conversation_id"] == record.conversation_id
    assert dialer.keys == {"crm-1": f"Bearer {DIALERS_KEY}"}
    asked = [] if request_body == "named" else [("crm-1", f"Bearer {DIALERS_KEY}")]
    assert dialer.asked == asked


@pytest.mark.parametrize(("odd", "code"), [(False, 1000), (True, 1008)])
async def test_a_socket_that_we_close_is_not_cut_off(make: Make, odd: bool, code: int) -> None:
    async with (
        FakeDialer() as dialer,
        FakeAgent(speaks) as agent,
        serving(settings_for(make, agent, dialer)) as it,
    ):
        _, call = await it.initiate(audio={})
        socket = await dialer.socket("crm-1")
        await told(socket, "ready")
        if odd:
            await socket.send_bytes(bytes(641))
            await told(socket, "error")
        ending = asyncio.create_task(it.bridge.control.end(call["session_id"]))
        await told(socket, "hang_up")
        async for _ in socket:
            pass
        await ending
        assert socket.close_code == code


async def test_a_service_that_stops_hangs_up_on_no_two_who_speak(make: Make) -> None:
    async with FakeDialer() as dialer, FakeAgent(speaks) as agent:
        dialer.found["abilities"] = ["take_over"]
        async with serving(settings_for(make, agent, dialer)) as it:
            _, call = await it.initiate(audio={})
            socket = await dialer.socket("crm-1")
            await told(socket, "ready")
            path = f"/sessions/{call['session_id']}/take-over"
            wish = {"endpoint": "+15550100003"}
            (record,) = it.bridge.calls.records.values()
            await until(lambda: record.state == "talking")
            async with it.session.post(path, json=wish, headers=KEY) as answer:
                assert answer.status == 200, await answer.text()
            await told(socket, "transfer")
            await socket.send_str('{"type": "target", "id": "1", "state": "answered"}')
            await until(lambda: record.state == "taken_over")
            reading = asyncio.create_task(told(socket, "hang_up"))
        with pytest.raises(AssertionError, match="no hang_up"):
            await reading
        assert (socket.close_code, record.end_reason) == (1001, "shutting_down")
        assert dialer.hung_up == []


async def test_the_socket_of_a_call_goes_without_a_collector(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[AudioSocket]] = []
    connect = DialerApi.connect

    async def noting(api: DialerApi, url: URL) -> AudioSocket:
        socket = await connect(api, url)
        made.append(weakref.ref(socket))
        return socket

    monkeypatch.setattr(DialerApi, "connect", noting)
    async with (
        FakeDialer() as dialer,
        FakeAgent(speaks) as agent,
        serving(settings_for(make, agent, dialer)) as it,
    ):
        gc.disable()
        try:
            await it.initiate(audio={})
            socket = await dialer.socket("crm-1")
            await told(socket, "ready")
            await socket.close()
            await until(lambda: len(it.ends()) == 1)
            await until(lambda: len(dialer.hung_up) == 1)
            await until(lambda: [each() for each in made] == [None], PROMPT_SECONDS)
        finally:
            gc.enable()


@pytest.mark.parametrize(
    ("code", "result", "why"),
    [(404, "failed", "unknown_call"), (401, "failed", "key_refused"), (503, "failed", "status")],
)
async def test_a_call_whose_sound_is_not_told_fails_with_a_sentence(
    make: Make, code: int, result: str, why: str
) -> None:
    async with (
        FakeDialer() as dialer,
        FakeAgent(speaks) as agent,
        serving(settings_for(make, agent, dialer)) as it,
    ):
        dialer.answers = [lambda: web.Response(status=code)] * 2
        status, answer = await it.initiate(audio={})
        assert status == 200
        record = it.bridge.calls.records[answer["session_id"]]
        await until(lambda: record.ended_at is not None)
        assert (record.agent_status, record.result) == ("FAILED", result)
        assert record.detail is not None and str(code) in record.detail
        assert failures(it) == {("audio", why): 1}
        assert dialer.hung_up == [], "there is nothing to hang up"


async def test_a_websocket_that_is_refused_ends_the_call_at_once(make: Make) -> None:
    async with (
        FakeDialer() as dialer,
        FakeAgent(speaks) as agent,
        serving(settings_for(make, agent, dialer)) as it,
    ):
        dialer.opens = lambda: web.Response(status=403)
        await it.initiate(audio={})
        await until(lambda: it.ends() == ["failed"])
        await until(lambda: len(dialer.hung_up) == 1)
        assert dialer.hung_up[0][1]["status"] == "FAILED"
        assert failures(it) == {("connect", "status"): 1}
        await until(lambda: it.bridge.calls.count() == 0)


async def test_a_dialer_that_is_away_is_told_by_readiness_until_it_is_back(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with FakeDialer() as dialer, FakeAgent(speaks) as agent:
        monkeypatch.setattr("ari_app.line.dialer.gateway._AGAIN_SECONDS", 0.05)
        async with serving(settings_for(make, agent, dialer)) as it:
            dialer.answers = [lambda: web.Response(status=401)]
            dialer.probe_status = 401
            await it.initiate(audio={})
            assert "DIALER_API_KEY" in it.bridge.readiness().problems[0]
            dialer.probe_status = 404
            await until(lambda: not it.bridge.readiness().problems)


async def test_a_host_that_the_settings_do_not_name(make: Make) -> None:
    async with (
        FakeDialer() as dialer,
        FakeAgent(speaks) as agent,
        serving(settings_for(make, agent, dialer)) as it,
    ):
        with capture_logs() as logs:
            status, answer = await it.initiate(audio_url="wss://other.example/secret")
        assert (status, answer["code"]) == (422, "audio_url")
        assert "secret" not in str(logs) and "secret" not in str(answer)
        assert it.bridge.calls.count() == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"audio_url": "wss://127.0.0.1/", "audio": None},
        {"audio_url": "wss://127.0.0.1/", "audio": {}},
        {"audio": {}, "call_id": None},
        {"audio": {"format": "pcm_16000", "abilities": ["sing"]}},
    ],
)
async def test_requests_that_do_not_hold_together(make: Make, changes: dict[str, Any]) -> None:
    async with FakeAgent(speaks) as agent, serving(make(elevenlabs_base_url=agent.base_url)) as it:
        status, answer = await it.initiate(**{"called_number": "+15550100002"} | changes)
        assert (status, answer["code"]) == (422, "invalid_request")


async def test_without_a_service_nobody_can_be_asked(make: Make) -> None:
    async with FakeAgent(speaks) as agent, serving(make(elevenlabs_base_url=agent.base_url)) as it:
        status, answer = await it.initiate(audio={})
        assert (status, answer["code"]) == (409, "no_such_way")
        assert "DIALER_API_URL" in answer["detail"]


async def test_a_call_that_is_ended_while_it_connects_leaves_nothing(make: Make) -> None:
    opened = asyncio.Event()
    async with (
        FakeDialer() as dialer,
        FakeAgent(speaks) as agent,
        serving(settings_for(make, agent, dialer)) as it,
    ):
        dialer.holds_open = opened
        _, answer = await it.initiate(audio={})
        await until(lambda: dialer.connecting == 1)
        record = await it.bridge.control.end(answer["session_id"])
        assert record.ended_at is not None
        assert [name for name, _ in dialer.hung_up] == ["crm-1"]
        opened.set()
        left = [task for task in asyncio.all_tasks() if task.get_name().startswith("call ")]
        assert left == []


# --- what `check` says


@pytest.mark.parametrize(
    ("code", "verdict", "words"),
    [
        (404, Verdict.OK, "accepts the key"),
        (200, Verdict.OK, "accepts the key"),
        (401, Verdict.FAILED, "Compare DIALER_API_KEY"),
        (302, Verdict.FAILED, "redirects"),
        (500, Verdict.WARNING, "should answer 404"),
    ],
)
async def test_check_asks_the_dialer_for_a_call_that_there_is_not(
    make: Make, code: int, verdict: Verdict, words: str
) -> None:
    async with FakeDialer() as dialer:
        dialer.probe_status = code
        (found,) = await check_dialer_service(make(dialer_api_url=dialer.url))
    assert (found.verdict, found.may_pass) == (verdict, False)
    assert words in found.detail


async def test_check_says_when_the_dialer_is_away_or_cannot_know_us(make: Make) -> None:
    async with FakeDialer() as dialer:
        pass
    away, unknown = await check_dialer_service(make(dialer_api_url=dialer.url, dialer_api_key=""))
    assert (away.verdict, away.may_pass) == (Verdict.FAILED, True)
    assert unknown.verdict is Verdict.WARNING and "DIALER_API_KEY" in unknown.detail
    (bad_file, plain) = await check_dialer_service(
        make(dialer_api_url="http://dialer.example", dialer_ca_file="missing.pem")
    )
    assert bad_file.detail.startswith("DIALER_CA_FILE missing.pem cannot be read")
    assert "without TLS" in plain.detail
    assert await check_dialer_service(make()) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dialer_api_url", "ftp://dialer.example"),
        ("dialer_api_key", "two words"),
        ("dialer_api_key", "line\nbreak"),
        ("dialer_audio_hosts", "https://media.example"),
        ("dialer_audio_hosts", "media.example, user@other.example"),
        ("dialer_audio_hosts", "media.example:0"),
        ("dialer_audio_hosts", "media.example/path"),
    ],
)
def test_settings_that_cannot_be_used(make: Make, name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{name.upper()}: ") as refused:
        make(**{name: value})
    assert "words" not in str(refused.value) or name != "dialer_api_key"
