"""Opening a conversation: addresses, credentials, refusals, deadlines, secrets."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
import threading
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
import trustme
from pydantic import SecretStr
from websockets.exceptions import InvalidURI

from ari_app.agent.elevenlabs import client as client_module
from ari_app.agent.elevenlabs import errors
from ari_app.agent.elevenlabs import socket as agent_socket
from ari_app.agent.elevenlabs.client import AgentClient
from ari_app.agent.elevenlabs.closing import CloseKind
from ari_app.agent.elevenlabs.signed_url import _is_loopback_url, parse_base_url, public_url
from ari_app.agent.interface import Briefing, Closed, Spoke
from ari_app.audio.formats import DEFAULT_AGENT_FORMATS
from ari_app.errors import ConfigError
from tests.tls import server_tls
from tests.unit.agent.elevenlabs.fake_agent import (
    API_KEY,
    METADATA,
    SIGNATURE,
    FakeAgent,
    FakeConversation,
    quiet,
)
from tests.unit.agent.elevenlabs.told import Told
from tests.waiting import until


async def test_a_name_server_that_is_silent_is_no_agent_that_is(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without a network: the name is what is missing."""
    silent = threading.Event()

    def look_up(*_: object) -> None:
        silent.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "too late")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    try:
        async with AgentClient("https://api.example", API_KEY, connect_timeout=1) as client:
            with pytest.raises(errors.AgentUnavailable, match="cannot be reached"):
                await client.connect(Briefing("agent_1"), told)
    finally:
        silent.set()


async def test_with_a_key_the_signed_url_is_used(told: Told) -> None:
    briefing = Briefing(
        "agent 7&x", {"caller_id": "+49"}, options={"environment": "staging", "branch_id": "b1"}
    )
    async with FakeAgent() as agent, AgentClient(agent.base_url, API_KEY) as client:
        connection = await client.connect(briefing, told)
        assert told.events == []
        await connection.close()
    assert connection.id == "conv_fake"
    (path, query, headers), (_, socket_query, socket_headers) = agent.requests
    assert path == "/v1/convai/conversation/get-signed-url"
    assert query == {
        "agent_id": ["agent 7&x"],
        "environment": ["staging"],
        "branch_id": ["b1"],
        "include_conversation_id": ["true"],
    }
    assert headers["xi-api-key"] == API_KEY
    assert socket_query == {"agent_id": ["a"], "conversation_signature": [SIGNATURE]}
    assert "xi-api-key" not in socket_headers
    assert "Sec-WebSocket-Extensions" not in socket_headers
    assert socket_headers["User-Agent"].startswith("ari-app/")
    sent = json.loads(agent.conversations[0].frames[0])
    assert sent["type"] == "conversation_initiation_client_data"
    assert sent["dynamic_variables"] == {"caller_id": "+49"}
    assert sent["source_info"]["source"] == "unknown"
    assert sent["source_info"]["version"].startswith("ari-app ")


@pytest.mark.parametrize("key", [None, "", SecretStr("")])
async def test_without_a_key_the_public_url_is_used(
    told: Told, key: str | SecretStr | None
) -> None:
    options = {"environment": "staging", "source_info": {"source": "sip_trunk"}}
    async with FakeAgent() as agent, AgentClient(agent.base_url + "/", key) as client:
        connection = await client.connect(Briefing("a7", options=options), told)
        await connection.close()
    ((path, query, _),) = agent.requests
    assert path == "/v1/convai/conversation"
    assert query == {"agent_id": ["a7"], "environment": ["staging"]}
    sent = json.loads(agent.conversations[0].frames[0])
    assert sent["source_info"] == {"source": "sip_trunk"}


async def test_two_conversations_share_a_client(told: Told) -> None:
    async with FakeAgent() as agent, AgentClient(agent.base_url, API_KEY) as client:
        first = await client.connect(Briefing("a"), told)
        second = await client.connect(Briefing("a"), Told())
        await first.close()
        assert second.is_open
        await second.close()
        await client.close()
        third = await client.connect(Briefing("a"), Told())
        await third.close()


async def test_events_before_the_metadata_come_after_connect(told: Told) -> None:
    async def script(conversation: FakeConversation) -> None:
        await conversation.receive()
        await conversation.send(
            {"type": "ping", "ping_event": {"event_id": 5}},
            {"type": "audio", "audio_event": {"audio_base_64": "AAAA", "event_id": 1}},
            METADATA,
        )
        assert await conversation.receive() == {"type": "pong", "event_id": 5}
        await conversation.until_closed()

    async with FakeAgent(script) as agent, AgentClient(agent.base_url) as client:
        connection = await client.connect(Briefing("a"), told)
        assert told.events == []
        await told.until_told(Spoke)
        await connection.close()
    assert told.kinds == [Spoke, Closed]


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, '{"detail":{"status":"invalid_api_key"}}', errors.AgentUnauthorized),
        (403, "", errors.AgentUnauthorized),
        (404, "{}", errors.AgentNotFound),
        (422, '{"detail":[{"loc":["query"]}]}', errors.AgentRejected),
        (429, "", errors.AgentRateLimited),
        (500, "<html>", errors.AgentUnavailable),
        (302, "", errors.AgentUnavailable),
        (200, "", errors.AgentUnavailable),
        (200, "{}", errors.AgentUnavailable),
        (200, '{"signed_url":7}', errors.AgentUnavailable),
        (200, '{"signed_url":"http://127.0.0.1/x"}', errors.AgentUnavailable),
        (200, '{"signed_url":"ws://[nonsense"}', errors.AgentUnavailable),
        (200, "x" * 70_000, errors.AgentUnavailable),
    ],
)
async def test_answers_that_are_no_signed_url(
    told: Told, status: int, body: str, expected: type[errors.ConnectError]
) -> None:
    async def signed() -> tuple[int, str]:
        return status, body

    async with FakeAgent() as agent, AgentClient(agent.base_url, API_KEY) as client:
        agent.signed = signed
        with pytest.raises(expected) as refused:
            await client.connect(Briefing("a"), told)
    assert len(agent.requests) == (2 if refused.value.retryable else 1)
    assert told.events == []


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, errors.AgentUnauthorized),
        (404, errors.AgentNotFound),
        (429, errors.AgentRateLimited),
        (503, errors.AgentUnavailable),
    ],
)
async def test_a_refused_handshake(
    told: Told, status: int, expected: type[errors.ConnectError]
) -> None:
    async with FakeAgent() as agent, AgentClient(agent.base_url) as client:
        agent.upgrade_status = status
        with pytest.raises(expected):
            await client.connect(Briefing("a"), told)


@pytest.mark.parametrize("key", [None, API_KEY])
async def test_nobody_listens(told: Told, closed_port: int, key: str | None) -> None:
    async with AgentClient(f"http://127.0.0.1:{closed_port}", key) as client:
        with pytest.raises(errors.AgentUnavailable, match="cannot be") as caught:
            await client.connect(Briefing("a"), told)
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("query", "ids"),
    [("conversation_id=conv_1&", ["conv_1"]), ("conversation_id=a%20b&", []), ("", [])],
)
async def test_a_signed_url_names_the_conversation_before_it_begins(
    told: Told, query: str, ids: list[str]
) -> None:
    named: list[str] = []
    async with FakeAgent() as agent, AgentClient(agent.base_url, API_KEY) as client:

        async def signed() -> tuple[int, str]:
            url = f"{agent.socket_url}?{query}conversation_signature={SIGNATURE}"
            return 200, json.dumps({"signed_url": url})

        agent.signed, agent.upgrade_status = signed, 404
        with pytest.raises(errors.AgentNotFound):
            await client.connect(Briefing("a"), told, named=named.append)
    assert named == ids


async def test_a_check_with_a_key_asks_for_a_url_only(told: Told) -> None:
    async with FakeAgent() as agent, AgentClient(agent.base_url, API_KEY) as client:
        await client.check("a")
        assert agent.requests[0][1] == {"agent_id": ["a"]}, "of a conversation it asks nothing"
    assert [path for path, _, _ in agent.requests] == ["/v1/convai/conversation/get-signed-url"]


async def test_a_check_without_a_key_opens_the_socket_and_says_nothing(
    told: Told,
) -> None:
    async with FakeAgent() as agent, AgentClient(agent.base_url) as client:
        await client.check("a")
        agent.upgrade_status = 404
        with pytest.raises(errors.AgentNotFound):
            await client.check("a")
    assert [conversation.frames for conversation in agent.conversations] == [[]]


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (TimeoutError(), errors.AgentTimeout),
        (ImportError("python-socks is required to use a SOCKS proxy"), errors.AgentUnavailable),
        (InvalidURI("wss://secret", "bad"), errors.AgentUnavailable),
    ],
)
async def test_rare_failures_to_open_the_socket(
    told: Told,
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception,
    expected: type[errors.ConnectError],
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(agent_socket, "_Connect", fail)
    async with AgentClient("https://localhost") as client:
        with pytest.raises(expected) as caught:
            await client.connect(Briefing("a"), told)
    assert "secret" not in str(caught.value)


async def test_a_connection_that_the_system_gives_up_on(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise aiohttp.ConnectionTimeoutError

    monkeypatch.setattr(aiohttp.ClientSession, "get", fail)
    async with AgentClient("https://localhost", API_KEY) as client:
        with pytest.raises(errors.AgentTimeout):
            await client.connect(Briefing("a"), told)


async def test_a_server_that_speaks_something_else(told: Told) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, AgentClient(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(errors.AgentUnavailable):
            await client.connect(Briefing("a"), told)


@pytest.mark.parametrize(
    ("code", "reason", "slug", "retryable"),
    [
        (1008, "override_error", "agent_override_error", False),
        (1002, "This request exceeds your quota limit.", "agent_quota", False),
        (3008, "too many concurrent connections", "agent_limit", True),
        (1008, "unauthorized", "agent_unauthorized", False),
        (1000, "", "agent_agent_ended", False),
    ],
)
async def test_a_close_before_the_metadata(
    told: Told, code: int, reason: str, slug: str, retryable: bool
) -> None:
    async def script(conversation: FakeConversation) -> None:
        await conversation.receive()
        await conversation.socket.close(code, reason)

    async with FakeAgent(script) as agent, AgentClient(agent.base_url) as client:
        with pytest.raises(errors.AgentRefused) as caught:
            await client.connect(Briefing("a"), told)
    assert (caught.value.code, caught.value.retryable) == (slug, retryable)
    assert caught.value.close.code == code
    assert told.events == []


async def test_an_error_message_before_the_close_is_heard(told: Told) -> None:
    async def script(conversation: FakeConversation) -> None:
        await conversation.receive()
        await conversation.send({"type": "error", "message": "This exceeds your quota limit"})
        conversation.socket.transport.abort()

    async with FakeAgent(script) as agent, AgentClient(agent.base_url) as client:
        with pytest.raises(errors.AgentRefused) as caught:
            await client.connect(Briefing("a"), told)
    assert caught.value.close.kind is CloseKind.QUOTA


async def test_an_unknown_format_ends_the_attempt(told: Told) -> None:
    gone = asyncio.Event()

    async def script(conversation: FakeConversation) -> None:
        await conversation.receive()
        event = {"conversation_id": "c", "agent_output_audio_format": "opus_48000"}
        await conversation.send(
            {
                "type": "conversation_initiation_metadata",
                "conversation_initiation_metadata_event": event,
            }
        )
        await conversation.until_closed()
        gone.set()

    async with FakeAgent(script) as agent, AgentClient(agent.base_url) as client:
        with pytest.raises(errors.UnsupportedFormat, match="opus_48000"):
            await client.connect(Briefing("a"), told)
        await gone.wait()
    assert told.events == []


async def test_one_deadline_covers_a_silent_agent(told: Told) -> None:
    gone = asyncio.Event()

    async def script(conversation: FakeConversation) -> None:
        await conversation.until_closed()
        gone.set()

    async with (
        FakeAgent(script) as agent,
        AgentClient(agent.base_url, connect_timeout=0.05) as client,
    ):
        with pytest.raises(errors.AgentTimeout, match=r"within 0\.05 s"):
            await client.connect(Briefing("a"), told)
        await gone.wait()
    assert told.events == []


@pytest.mark.parametrize("checks", [False, True])
async def test_one_deadline_covers_a_silent_rest(told: Told, checks: bool) -> None:
    tired = asyncio.Event()

    async def signed() -> tuple[int, str]:
        await tired.wait()
        return 200, ""

    async with (
        FakeAgent() as agent,
        AgentClient(agent.base_url, API_KEY, connect_timeout=0.05) as client,
    ):
        agent.signed = signed
        with pytest.raises(errors.AgentTimeout) as caught:
            await (client.check("a") if checks else client.connect(Briefing("a"), told))
        tired.set()
    assert caught.value.retryable


async def test_a_cancelled_connect_leaves_nothing(told: Told) -> None:
    here, gone = asyncio.Event(), asyncio.Event()

    async def script(conversation: FakeConversation) -> None:
        await conversation.receive()
        here.set()
        await conversation.until_closed()
        gone.set()

    async with FakeAgent(script) as agent, AgentClient(agent.base_url) as client:
        task = asyncio.create_task(client.connect(Briefing("a"), told))
        await here.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gone.wait()
    assert told.events == []


async def test_an_initiation_that_json_cannot_carry_opens_no_socket(
    told: Told,
) -> None:
    async with FakeAgent() as agent, AgentClient(agent.base_url) as client:
        with pytest.raises(ValueError, match="cannot be written"):
            await client.connect(
                Briefing("a", options={"custom_llm_extra_body": {"n": 2**70}}), told
            )
        with pytest.raises(ConfigError, match="no agent is named"):
            await client.connect(Briefing(""), told)
    assert agent.requests == []


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    return server_tls(authority, "localhost")


@pytest.mark.parametrize("key", [None, API_KEY])
async def test_https_becomes_wss(
    told: Told, tls: ssl.SSLContext, ca_file: Path, key: str | None
) -> None:
    async with (
        FakeAgent(tls=tls) as agent,
        AgentClient(agent.base_url, key, ca_file=ca_file) as client,
    ):
        connection = await client.connect(Briefing("a"), told)
        assert connection.is_open
        await connection.close()


PAST = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("key", [None, API_KEY])
@pytest.mark.parametrize(
    ("name", "issued", "known", "why"),
    [
        ("localhost", {}, False, r"not trusted: unable to get"),
        ("other.example", {}, True, "Hostname mismatch"),
        ("localhost", {"not_before": PAST, "not_after": PAST}, True, "expired"),
    ],
    ids=["an unknown authority", "another name", "expired"],
)
async def test_a_certificate_that_does_not_hold_is_refused(
    told: Told,
    authority: trustme.CA,
    ca_file: Path,
    name: str,
    issued: dict[str, Any],
    known: bool,
    why: str,
    key: str | None,
) -> None:
    async with (
        FakeAgent(tls=server_tls(authority, name, **issued)) as agent,
        AgentClient(agent.base_url, key, ca_file=ca_file if known else None) as client,
    ):
        with pytest.raises(errors.AgentUnavailable, match=why) as caught:
            await client.connect(Briefing("a"), told)
    assert (caught.value.code, caught.value.retryable) == ("agent_untrusted", False)


async def test_a_signed_url_may_not_fall_back_to_plain(
    told: Told, tls: ssl.SSLContext, ca_file: Path
) -> None:
    async with (
        FakeAgent() as plain,
        FakeAgent(tls=tls) as agent,
        AgentClient(agent.base_url, API_KEY, ca_file=ca_file) as client,
    ):

        async def signed() -> tuple[int, str]:
            return 200, json.dumps({"signed_url": plain.socket_url})

        agent.signed = signed
        with pytest.raises(errors.AgentUnavailable, match="usable signed URL"):
            await client.connect(Briefing("a"), told)
    assert plain.requests == []


@pytest.mark.parametrize(
    ("content", "why"), [(None, "cannot be read: No such file"), (b"garbage", "no certificate")]
)
def test_a_ca_file_that_is_none_is_a_setting_gone_wrong(
    tmp_path: Path, content: bytes | None, why: str
) -> None:
    path = tmp_path / "authority.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"^ELEVENLABS_CA_FILE {path} .*{why}"):
        AgentClient("https://localhost", ca_file=path)


@pytest.mark.parametrize(
    "url", ["", "api.elevenlabs.io", "ftp://x", "wss://x", "http://[", "http://u:p@x"]
)
def test_base_urls_that_are_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        AgentClient(url)


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        (
            "https://api.eu.residency.elevenlabs.io",
            "wss://api.eu.residency.elevenlabs.io/v1/convai/conversation?agent_id=a%26b",
        ),
        ("http://127.0.0.1:8090/", "ws://127.0.0.1:8090/v1/convai/conversation?agent_id=a%26b"),
        ("http://lab/base?x=1#y", "ws://lab/base/v1/convai/conversation?agent_id=a%26b"),
    ],
)
def test_public_addresses(base: str, expected: str) -> None:
    assert public_url(parse_base_url(base), "a&b").get_secret_value() == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:1", True),
        ("http://127.0.0.9", True),
        ("http://[::1]:1", True),
        ("http://10.0.0.1", False),
        ("http://agent", False),
    ],
)
def test_what_is_this_machine(url: str, expected: bool) -> None:
    assert _is_loopback_url(parse_base_url(url)) is expected


def test_a_key_over_plain_http_to_another_machine_is_warned_of() -> None:
    with structlog.testing.capture_logs() as logs:
        AgentClient("http://agent:8090", API_KEY)
    assert logs == [{"event": "agent_key_unencrypted", "host": "agent", "log_level": "warning"}]


def attributes(thing: object) -> list[str]:
    """Return what somebody who looks at all of it would see."""
    return [repr(getattr(thing, name, None)) for name in dir(thing)]


async def test_secrets_stay_out_of_logs_errors_and_representations(
    told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    refused = False

    async def script(conversation: FakeConversation) -> None:
        if refused:
            await conversation.socket.close(1008, "unauthorized")
        else:
            await conversation.begin()
            await conversation.until_closed()

    with structlog.testing.capture_logs() as logs:
        async with FakeAgent(script) as agent, AgentClient(agent.base_url, API_KEY) as client:
            connection = await client.connect(Briefing("a"), told)
            said += [repr(client), repr(connection), *attributes(client), *attributes(connection)]
            await connection.close()
            refused = True
            for upgrade in (None, 401):
                agent.upgrade_status = upgrade
                with pytest.raises(errors.ConnectError) as caught:
                    await client.connect(Briefing("a"), told)
                frames = traceback.TracebackException.from_exception(
                    caught.value, capture_locals=True
                )
                said += [
                    *(
                        line
                        for line in frames.format()
                        # The fake's own variables are no concern of ours.
                        if "test_client.py" not in line
                    ),
                ]
    said += [str(entry) for entry in logs]
    said += [record.getMessage() for record in caplog.records if record.name != "websockets.server"]
    assert {entry["event"] for entry in logs} == {"agent_connected", "agent_closed"}
    for secret in (API_KEY, SIGNATURE):
        assert not [text for text in said if secret in text]


# --- the second attempt


async def test_the_second_attempt_may_succeed(told: Told) -> None:
    answers = [503]

    async def signed() -> tuple[int, str]:
        if answers:
            return answers.pop(), ""
        return 200, json.dumps({"signed_url": f"{agent.socket_url}?agent_id=a"})

    async with FakeAgent() as agent, AgentClient(agent.base_url, API_KEY) as client:
        agent.signed = signed
        connection = await client.connect(Briefing("a"), told)
        await connection.close()
    assert [path for path, _, _ in agent.requests] == [
        "/v1/convai/conversation/get-signed-url",
        "/v1/convai/conversation/get-signed-url",
        "/v1/convai/conversation",
    ]


async def test_a_socket_that_breaks_before_the_conversation_is_opened_again(
    told: Told,
) -> None:
    async def script(peer: FakeConversation) -> None:
        if len(agent.conversations) == 1:
            peer.socket.transport.abort()
        else:
            await quiet(peer)

    async with FakeAgent(script) as agent, AgentClient(agent.base_url) as client:
        connection = await client.connect(Briefing("a"), told)
        await connection.close()
    assert len(agent.conversations) == 2


@pytest.mark.parametrize("where", ["rest", "handshake"])
async def test_a_wait_that_does_not_fit_is_not_begun(told: Told, where: str) -> None:
    async def signed() -> tuple[int, str]:
        return 429, ""

    key = API_KEY if where == "rest" else None
    async with FakeAgent() as agent, AgentClient(agent.base_url, key) as client:
        agent.signed, agent.upgrade_status, agent.retry_after = signed, 429, "60"
        with pytest.raises(errors.AgentRateLimited) as refused:
            await client.connect(Briefing("a"), told)
    assert refused.value.retry_after == 60
    assert len(agent.requests) == 1


# --- the formats


async def test_the_formats_of_an_agent_are_known_once_it_has_announced_them(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "_MAX_KNOWN_AGENTS", 2)
    narrow = {
        "conversation_id": "c",
        "agent_output_audio_format": "ulaw_8000",
        "user_input_audio_format": "pcm_8000",
    }

    async def script(peer: FakeConversation) -> None:
        await peer.receive()
        await peer.send({**METADATA, "conversation_initiation_metadata_event": narrow})
        await peer.until_closed()

    async with FakeAgent(script) as agent, AgentClient(agent.base_url) as client:
        for agent_id in ("a", "b", "c"):
            assert client.formats_of(agent_id) == DEFAULT_AGENT_FORMATS
            await (await client.connect(Briefing(agent_id), Told())).close()
            formats = client.formats_of(agent_id)
            assert (formats.hears.name, formats.speaks.name) == ("pcm_8000", "ulaw_8000")
        assert client.formats_of("a") == DEFAULT_AGENT_FORMATS, "the oldest is forgotten"


# --- the key


@pytest.mark.parametrize("key", [API_KEY, None])
async def test_a_service_out_of_reach_is_known_and_asked_about_until_it_is_there(
    monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    monkeypatch.setattr(client_module, "_UNREACHABLE_SECONDS", 0.0)
    async with FakeAgent() as agent:
        port = int(agent.base_url.rpartition(":")[2])
    async with AgentClient(f"http://127.0.0.1:{port}", key) as client:
        with pytest.raises(errors.AgentUnavailable):
            await client.check("a")
        assert client.key.problem == "the agent's service cannot be reached: connection refused"
        watching = asyncio.create_task(client.watch())
        async with FakeAgent(port=port):
            await until(lambda: not client.key.problem)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_a_refused_key_is_known_and_asked_about_until_it_is_taken(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "_KEY_SECONDS", 0.0)
    status = [401]

    async def signed() -> tuple[int, str]:
        return status[0], json.dumps({"signed_url": f"{agent.socket_url}?agent_id=a"})

    async with FakeAgent() as agent, AgentClient(agent.base_url, API_KEY) as client:
        agent.signed = signed
        watching = asyncio.create_task(client.watch())
        with pytest.raises(errors.AgentUnauthorized):
            await client.connect(Briefing("a"), told)
        refused = [client.key.refused]
        await until(lambda: len(agent.requests) >= 3)
        refused.append(client.key.refused)
        status[0] = 200
        await until(lambda: not client.key.refused)
        assert refused == [True, True]
        asked = len(agent.requests)
        await asyncio.sleep(0.05)
        assert len(agent.requests) == asked, "a good key is not asked about"
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
