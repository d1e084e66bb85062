from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from ari_app.errors import ConfigError
from ari_app.records.record import CallFacts
from ari_app.tools import http_config
from ari_app.tools.http_config import HttpTool
from ari_app.tools.http_tools import HttpTools
from ari_app.tools.tool import ToolAnswer
from tests.unit.tools.conftest import FakeService

FACTS = CallFacts(session_id="s1", caller_number="+493023125001")


def tool(service: FakeService, **changes: Any) -> HttpTool:
    return HttpTool.model_validate(
        {
            "name": "ask",
            "description": "Asks.",
            "url": f"{service.url}/ask/{{id}}",
            "headers": {"Authorization": "Bearer s3cret"},
            "parameters": {
                "type": "object",
                "properties": {"id": {"type": "string"}, "q": {"type": "string"}},
                "required": ["id"],
            },
            **changes,
        }
    )


async def ask(service: FakeService, parameters: Any = None, **changes: Any) -> ToolAnswer:
    async with HttpTools([tool(service, **changes)]) as tools:
        return await tools.call("ask", {"id": "7"} if parameters is None else parameters, FACTS)


async def test_the_answers_text_goes_to_the_agent(service: FakeService) -> None:
    service.answers('{"state": "sent"}')
    answer = await ask(service, {"id": "7", "q": "x"}, from_call={"phone": "caller_number"})
    assert answer == ToolAnswer('{"state": "sent"}')
    (seen,) = service.seen
    assert (seen.method, seen.path_qs) == ("POST", "/ask/7")
    assert seen.headers["Authorization"] == "Bearer s3cret"
    assert seen.headers["Content-Type"] == "application/json"
    assert orjson.loads(seen.body) == {"q": "x", "phone": "+493023125001"}


async def test_a_query_reaches_the_service_as_it_was_quoted(service: FakeService) -> None:
    service.answers("yes", content_type="text/plain")
    answer = await ask(service, {"id": "a/b", "q": "c&d=e"}, method="GET")
    assert answer == ToolAnswer("yes")
    assert service.seen[0].path_qs == "/ask/a%2Fb?q=c%26d%3De"
    assert service.seen[0].body == b""
    assert "Content-Type" not in service.seen[0].headers


async def test_an_empty_answer_is_a_success(service: FakeService) -> None:
    service.answers("", status=204)
    assert await ask(service) == ToolAnswer("ask was successful.")


@pytest.mark.parametrize("charset", ["latin-1", "no-such-charset", "undefined", "idna", "hex"])
async def test_text_in_any_charset_is_read(service: FakeService, charset: str) -> None:
    service.answers_bytes(b"gr\xfcn", {"Content-Type": f"text/plain; charset={charset}"})
    answer = await ask(service)
    assert answer.text == ("grün" if charset == "latin-1" else "gr\ufffdn")


@pytest.mark.parametrize(
    ("body", "charset"), [(b"+2AA-ok", "utf-7"), (rb"\ud800ok", "unicode_escape")]
)
async def test_half_a_character_is_not_passed_on(
    service: FakeService, body: bytes, charset: str
) -> None:
    service.answers_bytes(body, {"Content-Type": f"text/plain; charset={charset}"})
    assert (await ask(service)).text == "?ok"


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({}, "ask was not called: 'id' is missing."),
        ({"id": 7}, "ask was not called: 'id' must be a text."),
        ({"id": ".."}, "ask was not called: 'id' cannot be used in the tool's address."),
    ],
)
async def test_wrong_parameters_make_no_request(
    service: FakeService, parameters: dict[str, object], sentence: str
) -> None:
    assert await ask(service, parameters) == ToolAnswer(sentence, is_error=True)
    assert service.seen == []


@pytest.mark.parametrize(
    ("text", "status", "content_type", "sentence"),
    [
        ("no such order", 404, "text/plain", "ask answered 404: no such order"),
        ("x" * 900, 422, "application/problem+json", f"ask answered 422: {'x' * 500}"),
        ("<html>", 404, "text/html", "ask failed with the HTTP status 404."),
        ("", 403, "text/plain", "ask failed with the HTTP status 403."),
        ("Traceback", 500, "text/plain", "ask failed with the HTTP status 500."),
        ("PNG", 200, "image/png", "ask answered with something that is not text."),
        ("x" * 20_000, 200, "text/plain", "ask answered with more than 16384 bytes."),
    ],
)
async def test_other_answers_are_errors_that_can_be_spoken_about(
    service: FakeService, text: str, status: int, content_type: str, sentence: str
) -> None:
    service.answers(text, status, content_type)
    assert await ask(service) == ToolAnswer(sentence, is_error=True)


async def test_a_redirect_is_not_followed(service: FakeService) -> None:
    service.answers_bytes(b"", {"Location": f"{service.url}/elsewhere"})
    handle = service.answer
    assert handle is not None

    async def redirect(request: Any) -> Any:
        response = await handle(request)
        response.set_status(307)
        return response

    service.answer = redirect
    assert (await ask(service)).text == "ask failed with the HTTP status 307."
    assert len(service.seen) == 1


async def test_no_answer_in_time(service: FakeService) -> None:
    service.never_answers()
    answer = await ask(service, timeout_seconds=0.05)
    assert answer == ToolAnswer("ask did not answer within 0.05 seconds.", is_error=True)


async def test_a_connection_that_breaks(service: FakeService) -> None:
    service.hangs_up()
    assert await ask(service) == ToolAnswer("ask could not be reached.", is_error=True)


async def test_nobody_there(service: FakeService, closed_port: int) -> None:
    url = f"http://127.0.0.1:{closed_port}/{{id}}"
    assert (await ask(service, url=url)).text == "ask could not be reached."


async def test_cookies_of_one_call_do_not_reach_the_next(service: FakeService) -> None:
    service.answers_bytes(b"ok", {"Content-Type": "text/plain", "Set-Cookie": "who=first"})
    async with HttpTools([tool(service)]) as tools:
        await tools.call("ask", {"id": "1"}, FACTS)
        await tools.call("ask", {"id": "2"}, FACTS)
    assert "Cookie" not in service.seen[1].headers


async def test_a_cancelled_call_leaves_nothing_behind(service: FakeService) -> None:
    service.never_answers()
    async with HttpTools([tool(service)]) as tools:
        task = asyncio.create_task(tools.call("ask", {"id": "1"}, FACTS))
        await service.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_the_log_has_neither_secrets_nor_values(service: FakeService) -> None:
    service.answers("the customer's secret", status=500)
    with capture_logs() as logs:
        await ask(service, {"id": "4711"}, from_call={"phone": "caller_number"})
    assert [entry["event"] for entry in logs] == ["http_tool_refused", "http_tool_called"]
    for word in ("s3cret", "4711", "+493023125001", "customer"):
        assert word not in str(logs)


async def test_tools_must_be_opened_and_can_be_closed_twice(service: FakeService) -> None:
    tools = HttpTools([tool(service)])
    assert tools.names == ("ask",)
    with pytest.raises(RuntimeError, match="async with"):
        await tools.call("ask", {}, FACTS)
    async with tools:
        with pytest.raises(KeyError):
            await tools.call("other", {}, FACTS)
        await tools.close()
    await tools.close()


def test_tools_are_loaded_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tools.yaml"
    path.write_text(
        "tools: [{name: a, description: b, url: 'http://h/', headers: {X: '${TOOL_KEY}'}}]"
    )
    assert HttpTools.load(None).names == ()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOOL_KEY", "k")
    assert HttpTools.load(path).names == ("a",)
    monkeypatch.delenv("TOOL_KEY")
    missing = "needs the variable TOOL_KEY, which"
    with pytest.raises(ConfigError, match=rf"{missing} neither the environment nor \.env has\."):
        HttpTools.load(path)
    with pytest.raises(ConfigError, match=rf"{missing} the environment does not have\."):
        HttpTools.load(path, None)
    (tmp_path / ".env").write_text("TOOL_KEY=k\n")
    assert HttpTools.load(path).names == ("a",)


@pytest.mark.parametrize("status", [200, 401, 500])
async def test_a_service_that_repeats_the_key_tells_it_to_nobody(
    service: FakeService, status: int
) -> None:
    key = "k3y-of-the-crm"
    service.answers(f"Bearer {key} is not welcome", status=status, content_type="text/plain")
    headers = {"Authorization": f"Bearer {key}", "X-Short": "de"}
    with capture_logs() as logs:
        answer = await ask(service, headers=headers)
    assert service.seen[0].headers["Authorization"] == f"Bearer {key}"
    assert key not in answer.text + str(logs)
    assert ("Bearer [secret] is not welcome" in answer.text) is (status < 500)


async def test_calls_are_served_while_a_key_is_looked_for(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []

    def hide(text: str, headers: object) -> str:
        threads.append(threading.get_ident())
        return "hidden"

    monkeypatch.setattr(http_config, "hide_secrets", hide)
    headers = {"Authorization": "Bearer k3y-of-the-crm"}
    service.answers("nothing of it", content_type="text/plain")
    assert (await ask(service, headers=headers)).text == "nothing of it"
    assert not threads
    service.answers("Bearer k3y-of-the-crm", content_type="text/plain")
    assert (await ask(service, headers=headers)).text == "hidden"
    assert threads != [threading.get_ident()]


@pytest.mark.parametrize("kind", ["application/octet-stream", "json", "", "image/png"])
async def test_json_is_taken_whatever_its_type_is_called(service: FakeService, kind: str) -> None:
    service.answers_bytes('\ufeff{"name": "Jörg"}\n'.encode(), {"Content-Type": kind})
    answer = await ask(service)
    assert (answer.text, answer.is_error) == ('{"name": "Jörg"}', False)


async def test_what_a_call_carries_on_is_sent_and_the_tools_own_headers_win(
    service: FakeService,
) -> None:
    service.answers("{}")
    carried = {"traceparent": "00-1-2-01", "Authorization": "another"}
    async with HttpTools([tool(service)]) as tools:
        await tools.call("ask", {"id": "7"}, FACTS, carried)
    (seen,) = service.seen
    assert seen.headers["traceparent"] == "00-1-2-01"
    assert seen.headers.getall("Authorization") == ["Bearer s3cret"]
