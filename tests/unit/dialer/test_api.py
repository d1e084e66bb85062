"""A dialer's own service over real HTTP: what is asked, what is taken for an answer, and whom we
connect to."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest
import trustme
from aiohttp import web
from pydantic import SecretStr

from ari_app.line.dialer import api as api_module
from ari_app.line.dialer.api import DialerApi, DialerError, DialerOptions
from ari_app.line.interface import Ability, CallEnd, Outcome, Status
from tests.tls import client_tls, server_tls
from tests.unit.dialer.fake_dialer import FakeDialer

KEY = "key-of-the-dialer"
OUTCOME, END = Outcome(Status.COMPLETED, "agent_ended"), CallEnd("session-1", "conv-1")


class Asked:
    """A client of a fake dialer, and what failed."""

    def __init__(self, dialer: FakeDialer, **changes: Any) -> None:
        self.failed: list[tuple[str, str]] = []
        options: dict[str, Any] = {"url": dialer.url, "key": SecretStr(KEY)} | changes
        self.api = DialerApi(
            DialerOptions(**options), lambda what, code: self.failed.append((what, code))
        )


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "_PAUSE_SECONDS", 0)


def status(code: int, **headers: str) -> Callable[[], web.Response]:
    return lambda: web.Response(status=code, headers=headers)


def body(text: str) -> Callable[[], web.Response]:
    return lambda: web.Response(text=text)


async def test_it_is_asked_where_the_sound_of_a_call_is() -> None:
    async with FakeDialer() as dialer:
        dialer.found = {
            "format": "ulaw_8000",
            "pacing": "theirs",
            "abilities": ["attended_transfer"],
            "more": "than we know of",
        }
        async with Asked(dialer).api as api:
            audio = await api.audio("crm-1")
    assert dialer.asked == [("crm-1", f"Bearer {KEY}")]
    assert (audio.format, audio.theirs, audio.is_brought) == ("ulaw_8000", True, False)
    assert audio.url == f"{dialer.media}/crm-1"
    assert audio.abilities == Ability.CONSULT | Ability.MUSIC


@pytest.mark.parametrize("call_id", ["a/b", "a?b=c#d", "%2e%2e", "../../secret", "x.y"])
async def test_a_name_of_a_call_leads_nowhere_else(call_id: str) -> None:
    async with FakeDialer() as dialer, Asked(dialer).api as api:
        await api.audio(call_id)
    assert [name for name, _ in dialer.asked] == [call_id]


@pytest.mark.parametrize("call_id", [".", "..", ""])
async def test_dots_are_no_name_of_a_call(call_id: str) -> None:
    async with FakeDialer() as dialer, Asked(dialer).api as api:
        with pytest.raises(DialerError) as refused:
            await api.audio(call_id)
    assert refused.value.code == "unknown_call"
    assert dialer.asked == []


@pytest.mark.parametrize("code", [500, 503, 429])
async def test_it_is_asked_once_more_where_that_may_help(code: int) -> None:
    async with FakeDialer() as dialer, Asked(dialer).api as api:
        dialer.answers = [status(code)]
        await api.audio("crm-1")
        dialer.answers = [status(code), status(code)]
        with pytest.raises(DialerError) as refused:
            await api.audio("crm-2")
    assert [name for name, _ in dialer.asked] == ["crm-1"] * 2 + ["crm-2"] * 2
    assert refused.value.code == "status"


BAD: dict[str, tuple[str, Callable[[], web.Response]]] = {
    "an unknown call": ("unknown_call", status(404)),
    "a key that is refused": ("key_refused", status(401)),
    "another refusal": ("status", status(422)),
    "a redirection": ("redirect", status(302, Location="/calls/ari-app-check/audio")),
    "nothing": ("answer", body("")),
    "no JSON": ("answer", body("hello")),
    "a list": ("answer", body("[]")),
    "no address": ("answer", body('{"format": "pcm_16000"}')),
    "another format": ("answer", body('{"url": "ws://127.0.0.1/", "format": "opus"}')),
    "a number": ("answer", body('{"url": 1, "format": "pcm_16000"}')),
    "a host of others": ("audio_url", body('{"url": "wss://evil.example/", "format": "pcm_8000"}')),
    "too much": ("answer", body('{"url": "' + "x" * 20_000 + '"}')),
}


@pytest.mark.parametrize("what", BAD, ids=lambda name: name.replace(" ", "-"))
async def test_what_is_no_answer_is_told_and_not_asked_for_again(what: str) -> None:
    code, answer = BAD[what]
    async with FakeDialer() as dialer:
        asked = Asked(dialer)
        async with asked.api as api:
            dialer.answers = [answer]
            with pytest.raises(DialerError) as refused:
                await api.audio("crm-1")
    assert refused.value.code == code
    assert "evil" not in str(refused.value) and KEY not in str(refused.value)
    assert len(dialer.asked) == 1
    assert asked.failed == [("audio", code)]


async def test_a_dialer_that_is_away_is_a_problem_until_it_answers() -> None:
    async with FakeDialer() as dialer:
        asked = Asked(dialer)
        async with asked.api as api:
            await api.probe()
            problems = [api.problem]
            dialer.answers = [status(403)]
            with pytest.raises(DialerError):
                await api.audio("crm-1")
            problems.append(api.problem)
            await api.probe()
            problems.append(api.problem)
    assert [problem is None for problem in problems] == [True, False, True]
    assert "DIALER_API_KEY" in str(problems[1])
    async with asked.api as api:
        with pytest.raises(DialerError) as away:
            await api.probe()
        assert away.value.code == "unreachable"
        assert api.problem is not None and api.problem.startswith(f"DIALER_API_URL {dialer.url} ")


async def test_one_that_does_not_answer_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(api_module, "CONNECT_SECONDS", 0.05)
    failed: list[tuple[str, str]] = []
    # The kernel takes connections, and nobody reads.
    silent = socket.create_server(("127.0.0.1", 0))
    port = silent.getsockname()[1]
    options = DialerOptions(f"http://127.0.0.1:{port}")
    with silent:
        api = DialerApi(options, lambda what, code: failed.append((what, code)))
        await api.__aenter__()
        with pytest.raises(DialerError) as refused:
            await api.audio("crm-1")
        assert refused.value.code == "timeout"
        with pytest.raises(DialerError) as refused:
            await api.connect(api.audio_url(f"ws://127.0.0.1:{port}/"))
        assert refused.value.code == "timeout"
        await api.hung_up("crm-1", OUTCOME, END)
        await api.close()
    assert failed == [("audio", "timeout"), ("connect", "timeout"), ("hangup", "timeout")]


# --- the end of a call


@pytest.mark.parametrize(
    ("takes", "times", "failed"),
    [
        ([], 1, []),
        ([status(503)], 2, []),
        ([status(503), status(503)], 2, [("hangup", "status")]),
        ([status(404)], 1, []),
        ([status(400)], 1, [("hangup", "status")]),
    ],
)
async def test_the_end_is_told_and_a_failure_raises_nothing(
    takes: list[Any], times: int, failed: list[Any]
) -> None:
    async with FakeDialer() as dialer:
        asked = Asked(dialer)
        async with asked.api as api:
            dialer.takes_end = takes
            await api.hung_up("crm-1", OUTCOME, END)
    told = {
        "status": "COMPLETED",
        "reason": "agent_ended",
        "session_id": "session-1",
        "conversation_id": "conv-1",
    }
    assert dialer.hung_up == [("crm-1", told)] * times
    assert asked.failed == failed


# --- whom we connect to


@pytest.mark.parametrize(
    "url",
    [
        "wss://dialer.example/x",
        "wss://DIALER.example:9/x?token=1",
        "wss://media.example:9000/",
        "wss://[fd00::7]/",
        "ws://127.0.0.1:5/",
    ],
)
def test_hosts_that_the_settings_name(url: str) -> None:
    options = DialerOptions(
        "https://dialer.example/v1",
        audio_hosts=("media.example:9000", "[fd00::7]", "127.0.0.1"),
    )
    assert str(DialerApi(options).audio_url(url)) == url.replace("DIALER", "dialer")


@pytest.mark.parametrize(
    "url",
    [
        "wss://other.example/",
        "wss://dialer.example.other.example/",
        "wss://other.example/dialer.example",
        "wss://dialer.example@other.example/",
        "wss://other.example\\@dialer.example/",
        "wss://user:secret@dialer.example/",
        "wss://media.example/",
        "wss://media.example:9001/",
        "ws://dialer.example/",
        "https://dialer.example/",
        "file:///etc/passwd",
        "dialer.example",
        "//dialer.example/",
        "wss:///",
        "wss://[::1",
        "wss://dialer.example/#x",
        "wss://dialer.example:99999/",
        "wss://dialer.example/" + "x" * 2000,
        "",
    ],
)
def test_hosts_that_they_do_not(url: str) -> None:
    options = DialerOptions("https://dialer.example", audio_hosts=("media.example:9000",))
    with pytest.raises(DialerError) as refused:
        DialerApi(options).audio_url(url)
    assert refused.value.code == "audio_url"
    assert "secret" not in str(refused.value)


def test_without_tls_only_where_the_service_is_without() -> None:
    plain = DialerApi(DialerOptions("http://dialer.example", audio_hosts=("media.example",)))
    assert plain.audio_url("ws://dialer.example:8000/").scheme == "ws"
    with pytest.raises(DialerError):
        plain.audio_url("ws://media.example/")


async def test_the_key_goes_to_the_dialer_itself_alone() -> None:
    async with FakeDialer() as dialer:
        async with Asked(dialer).api as api:
            await (await api.connect(api.audio_url(f"{dialer.media}/own"))).close()
        others = Asked(dialer, url="https://dialer.example", audio_hosts=("127.0.0.1",))
        async with others.api as api:
            await (await api.connect(api.audio_url(f"{dialer.media}/other"))).close()
    assert dialer.keys == {"own": f"Bearer {KEY}", "other": None}


@pytest.mark.parametrize(
    ("opens", "code"),
    [
        (status(302, Location="http://127.0.0.1:1/"), "redirect"),
        (status(404), "status"),
        (body("hello"), "status"),
    ],
)
async def test_a_websocket_that_does_not_come_about(
    opens: Callable[[], web.Response], code: str
) -> None:
    async with FakeDialer() as dialer:
        asked = Asked(dialer)
        dialer.opens = opens
        async with asked.api as api:
            with pytest.raises(DialerError) as refused:
                await api.connect(api.audio_url(f"{dialer.media}/crm-1"))
    assert refused.value.code == code
    assert asked.failed == [("connect", code)]


@pytest.mark.parametrize(("name", "trusted"), [("127.0.0.1", True), ("other.example", False)])
async def test_who_answers_must_show_who_it_is(
    authority: trustme.CA, name: str, trusted: bool
) -> None:
    served, ours = server_tls(authority, name), client_tls(authority)
    async with FakeDialer(served) as dialer, Asked(dialer, tls=ours).api as api:
        if trusted:
            audio = await api.audio("crm-1")
            assert audio.url is not None and audio.url.startswith("wss://")
            socket = await api.connect(api.audio_url(audio.url))
            assert not socket.closed
            await socket.close()
        else:
            for request in (
                api.audio("crm-1"),
                api.connect(api.audio_url(f"{dialer.media}/x")),
            ):
                with pytest.raises(DialerError) as refused:
                    await request
                assert refused.value.code == "untrusted"
