"""Planted secrets, calls of all kinds, faults of all kinds: where do the secrets turn up?

The service runs as a process at debug level. Afterwards its output, its bodies, its command lines
and every address that others were asked at are searched.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from pydantic import SecretStr

from lab.asterisk import LabAsterisk
from lab.practice_agent import AgentBook, PracticeAgent, PracticeConfig
from lab.softphone import Phone
from lab.softphone.sounds import babble
from lab.web import serving
from tests.e2e.harness import profile
from tests.e2e.test_serve import Served, environment, served
from tests.waiting import PATIENCE_SECONDS, until

pytestmark = pytest.mark.e2e

LOUD = -35.0
DIGITS = "7391824650"
CALLER, CALLEE = "4915228817386", "+493023125003"


def _planted(what: str) -> str:
    return f"{what}_{secrets.token_hex(12)}"


@dataclass(slots=True)
class Secrets:
    """What must turn up nowhere."""

    elevenlabs: str = field(default_factory=lambda: _planted("sk"))
    api: str = field(default_factory=lambda: _planted("api"))
    precall: str = field(default_factory=lambda: _planted("precall"))
    tool: str = field(default_factory=lambda: _planted("tool"))
    query: str = field(default_factory=lambda: _planted("guess"))


@asynccontextmanager
async def outside(known: Secrets) -> AsyncIterator[tuple[str, list[str]]]:
    """A pre-call service and two tools that repeat what they were sent; the address, and all
    addresses that were asked at."""
    urls: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        urls.append(str(request.url))
        sent = f"{dict(request.headers)} {await request.text()}"
        match request.path:
            case "/precall":
                return web.json_response({"error": sent}, status=200 if len(urls) % 2 else 500)
            case "/echo":
                return web.Response(text=f"you sent {sent}", status=400)
            case _:
                return web.Response(text=f"you sent {sent}")

    app = web.Application()
    app.router.add_route("*", "/{path}", handle)
    async with serving(app) as url:
        yield url, urls


def tools_yaml(url: str) -> str:
    return "tools:\n" + "".join(
        f"- {{name: {name}, description: Repeats., url: {url}/{name}, "
        "headers: {Authorization: 'Bearer ${TOOL_SECRET}'}, from_call: {phone: caller_number}}\n"
        for name in ("echo", "tell")
    )


def agents(known: Secrets) -> AgentBook:
    def using(name: str, **parameters: Any) -> dict[str, Any]:
        return {"tool": {"name": name, "parameters": parameters, "say_on_error": "No."}}

    turns = [using("echo"), using("tell"), using("send_dtmf", digits="12"), {"end_call": True}]
    talkative = {"dialogue": {"first_message": "Hello.", "turns": turns}}
    faults: dict[str, dict[str, Any]] = {
        "agent_default": {},
        "agent_500": {"faults": {"signed_url_status": 500}},
        "agent_401": {"faults": {"signed_url_status": 401}},
        "agent_refuses": {"faults": {"handshake_status": 403}},
        "agent_says": {"faults": {"close": {"code": 1008, "error": "client_error"}}},
        "agent_garbage": {"faults": {"garbage": "json", "close": {"after_ms": 300}}},
    }
    return AgentBook(
        default=None,
        agents={name: profile(**talkative, **parts) for name, parts in faults.items()},
    )


async def ask(
    service: Served, key: str, path: str, body: object = None, **headers: str
) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession(headers={"X-API-Key": key, **headers}) as http,
        http.request("GET" if body is None else "POST", service.api + path, json=body) as response,
    ):
        return response.status, await response.text()


async def talk(phone: Phone, asterisk: LabAsterisk) -> None:
    """A call in which the agent uses its tools and the caller types a number."""
    call = await phone.call(
        f"sip:100@{asterisk.sip_host}:{asterisk.sip_port}", timeout=PATIENCE_SECONDS
    )
    await call.wait_for_sound(LOUD, since=0)
    await call.send_digits(f"{DIGITS}#")
    for _ in range(3):
        await call.wait_for_silence(500)
        await call.play(babble(700, -20))
        await asyncio.sleep(0.5)
    await call.hang_up()


async def test_no_secret_and_no_number_turns_up(asterisk: LabAsterisk, tmp_path: Path) -> None:
    known = Secrets()
    bodies: list[str] = []
    config = PracticeConfig(
        api_key=SecretStr(known.elevenlabs), voice="built_in", book=agents(known)
    )
    async with (
        PracticeAgent(config) as agent,
        outside(known) as (url, urls),
        Phone(username=CALLER) as phone,
    ):
        tools_file = tmp_path / "tools.yaml"
        tools_file.write_text(tools_yaml(url))
        env = environment(
            asterisk,
            agent.base_url,
            ELEVENLABS_API_KEY=known.elevenlabs,
            API_KEY=known.api,
            PRECALL_URL=f"{url}/precall",
            PRECALL_SECRET=known.precall,
            TOOLS_FILE=str(tools_file),
            TOOL_SECRET=known.tool,
            DTMF_SENSITIVE="true",
            RECORDINGS_DIR=str(tmp_path / "recordings"),
            OUTBOUND_ENDPOINT=f"PJSIP/lab/sip:{{number}}@127.0.0.1:{phone.address.port}",
        )
        async with served(env) as service:

            async def keep(path: str) -> None:
                bodies.append((await ask(service, known.api, path))[1])

            await talk(phone, asterisk)
            await keep("/sessions")
            for session_id in re.findall(r'"session_id":\s*"(\w+)"', bodies[-1]):
                await keep(f"/sessions/{session_id}")

            for name in ("agent_500", "agent_401", "agent_refuses", "agent_says", "agent_garbage"):
                wish = {"called_number": CALLEE, "caller_number": CALLER, "agent_id": name}
                status, body = await ask(service, known.api, "/webhook/initiate-call", wish)
                assert status == 200, body
                bodies.append(body)
            keys = (known.query, known.api)
            # Whoever guesses sends what may be the key of something else.
            for path in ("/sessions", "/webhook/initiate-call", f"/nothing/{known.query[:4]}"):
                guesses = [ask(service, key, path, {"x": known.query}) for key in keys]
                bodies.extend(body for _, body in await asyncio.gather(*guesses))
            await broken_request(service, known.query)
            await until(lambda: settled(service) >= 6)
            for path in ("/sessions", "/metrics", "/health/ready", "/health/live", "/openapi.json"):
                await keep(path)
            commands = command_lines(service.process.pid)
        await asterisk.wait_until_empty(5)
        output = "".join(service.output)
        conversations = list(agent.conversations)

    assert len(conversations) >= 3
    first, second, *_ = conversations[0].tools
    assert (first.name, second.name) == ("echo", "tell")
    assert "[secret]" in str(first.result) and "[secret]" in str(second.result)
    assert '"text": "[digits]"' in " ".join(bodies).replace('":"', '": "')
    assert '"level": "debug"' in output
    assert "Traceback" not in output

    # A number is in the answers for whoever has the key, and nowhere else.
    basic = base64.b64encode(f"{asterisk.ari_username}:{asterisk.ari_password}".encode()).decode()
    hidden = {*vars_of(known), asterisk.ari_password, basic, "conversation_signature", DIGITS}
    numbers = {CALLER, CALLEE.lstrip("+")}
    files = " ".join(name for *_, names in os.walk(tmp_path / "recordings") for name in names)
    addresses = " ".join([*urls, *(str(record.query) for record in conversations)])
    results = " ".join(str(tool.result) for record in conversations for tool in record.tools)
    metrics = next(body for body in bodies if body.startswith("# HELP"))
    for place, text, words in (
        ("output", output, hidden | numbers),
        ("bodies", " ".join(bodies), hidden - {"conversation_signature"}),
        ("metrics", metrics, hidden | numbers),
        ("command lines", commands, hidden | numbers),
        ("addresses", addresses, hidden | numbers),
        ("names of files", files, hidden),
        ("results of tools", results, hidden - {DIGITS}),
    ):
        assert text or place == "addresses"
        found = sorted(word for word in words if word in text)
        assert found == [], f"in {place}: {found}"


def settled(service: Served) -> int:
    """How many calls have ended."""
    return sum('"call_ended"' in line for line in service.output)


def vars_of(known: Secrets) -> list[str]:
    return [known.elevenlabs, known.api, known.precall, known.tool, known.query]


def command_lines(pid: int | None) -> str:
    """Those of a process and of its children."""
    text = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        text += "".join(command_lines(int(child)) for child in children.read_text().split())
    return text


async def broken_request(service: Served, secret: str) -> None:
    """Something that is not HTTP, with a secret in it."""
    host, port = service.api.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET /{secret} HTTP/9.9\r\nX-API-Key {secret}\r\n\r\n".encode())
    await reader.read()
    writer.close()
    await writer.wait_closed()
