from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from pathlib import Path

import pytest
import soundfile

from ari_app.checks.finding import Finding, Verdict
from ari_app.checks.host import (
    cannot_listen,
    check_host,
    check_settings,
    judge_effects,
    judge_own_name,
    judge_room,
    others_may_open,
    require_encoder,
)
from ari_app.errors import ConfigError
from ari_app.settings import Settings, load_settings

TOOLS = """
tools:
  - name: order
    description: Looks up an order.
    url: https://crm.example/orders
    headers: {Authorization: "Bearer ${CRM_TOKEN}"}
"""


async def named(settings: Settings, what: str) -> list[Finding]:
    return [finding for finding in await check_host(settings) if finding.what == what]


async def test_what_is_not_used_is_not_looked_at() -> None:
    (finding,) = await check_host(load_settings(None, api_bind="127.0.0.1:0"))
    assert finding.what == "This machine"


async def test_a_machine_without_what_works_on_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ari_app.audio.resample", None)
    failed, _ = await named(load_settings(None, api_bind="127.0.0.1:0"), "This machine")
    assert failed.verdict is Verdict.FAILED
    assert "without it calls fail" in failed.detail


def test_the_machines_own_name() -> None:
    assert judge_own_name("pbx", known=True, seconds=0.01) == []
    (unknown,) = judge_own_name("pbx", known=False, seconds=0.01)
    (slow,) = judge_own_name("pbx", known=True, seconds=5.0)
    assert "own name, pbx, is not known here" in unknown.detail
    assert "own name, pbx, takes 5.0 s to find" in slow.detail
    for finding in (unknown, slow):
        assert finding.verdict is Verdict.WARNING
        assert "Write the line `127.0.1.1 pbx` into /etc/hosts." in finding.detail


@pytest.mark.parametrize(("url", "told"), [("http://127.0.0.1:1", 1), ("http://192.0.2.1:1", 0)])
async def test_only_asterisks_own_machine_needs_its_name(
    monkeypatch: pytest.MonkeyPatch, url: str, told: int
) -> None:
    def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    found = await named(load_settings(None, ari_url=url), "This machine")
    assert sum("/etc/hosts" in finding.detail for finding in found) == told


@pytest.mark.parametrize(
    ("mode", "words"),
    [(0o600, ""), (0o640, ""), (0o644, "Run `chmod 600 "), (0o602, "Run `chmod 600 ")],
)
def test_a_file_of_keys_that_others_can_open(open_folder: Path, mode: int, words: str) -> None:
    env = open_folder / ".env"
    env.write_text("ARI_USERNAME=u\nARI_PASSWORD=p\n")
    env.chmod(mode)
    told = [f.detail for f in check_settings(load_settings(str(env))) if "may open" in f.detail]
    assert len(told) == bool(words)
    assert all(words in detail for detail in told)
    open_folder.chmod(0o700)
    assert not others_may_open(env)


def test_nobody_is_told_to_keep_a_device_to_himself() -> None:
    assert not others_may_open(Path(os.devnull))


@pytest.mark.parametrize(("key", "words"), [("abc", "API_KEY has 3 characters"), ("k" * 16, "")])
def test_a_key_that_can_be_guessed(key: str, words: str) -> None:
    settings = load_settings(None, ari_username="u", ari_password="p", api_key=key)
    complete, *told = check_settings(settings)
    assert complete.verdict is Verdict.OK
    assert len(told) == bool(words)
    assert all(words in finding.detail and key not in finding.detail for finding in told)


@pytest.mark.parametrize(
    ("public", "key", "told"),
    [
        ("https://calls.example", None, 1),
        ("https://calls.example", "k" * 16, 0),
        ("http://127.0.0.1:8080", None, 0),
        (None, None, 0),
    ],
)
def test_an_address_for_others_and_no_key(public: str | None, key: str | None, told: int) -> None:
    settings = load_settings(
        None, ari_username="u", ari_password="p", api_key=key, api_public_url=public
    )
    found = [each.detail for each in check_settings(settings) if "no API_KEY" in each.detail]
    assert len(found) == told


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        ("- {name: wall, scope: owner, key: 5f0c61a3b8d94e27}", "read, operate or admin"),
        ("- {name: wall, scope: read, key: 5f0c61a3b8d94e27}", "with a key"),
    ],
)
def test_a_file_of_more_keys_is_read(tmp_path: Path, content: str | None, words: str) -> None:
    file = tmp_path / "keys.yaml"
    if content is not None:
        file.touch(mode=0o600)
        file.write_text(content)
    settings = load_settings(None, ari_username="u", ari_password="p", api_keys_file=file)
    assert any(words in finding.detail for finding in check_settings(settings))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"webhook_secret": "s"}, "WEBHOOK_SECRET has no effect while WEBHOOK_URL is empty."),
        ({"cluster_secret": "s"}, "CLUSTER_SECRET has no effect while CLUSTER_URL is empty."),
        ({"recording_sound": "x.wav"}, "RECORDING_SOUND has no effect while RECORDINGS_DIR is"),
        ({"recording_sound": "x.wav", "recordings_dir": "rec"}, None),
        ({"twilio_account_sid": "AC1"}, "has no effect, for DIALER_TYPE is asterisk. Name twilio"),
        ({"twilio_account_sid": "AC1", "dialer_type": "asterisk,twilio"}, None),
        ({"twilio_account_sid": "AC1", "use_dialer_audio": False}, None),
        ({"dialer_api_url": "http://127.0.0.1:1"}, "DIALER_API_URL has no effect, for"),
        ({"webhook_secret": ""}, None),
    ],
)
def test_what_was_set_and_does_nothing(given: dict[str, object], words: str | None) -> None:
    told = judge_effects(load_settings(None, **given))
    assert [finding.verdict for finding in told] == [Verdict.WARNING] * (words is not None)
    assert words is None or words in told[0].detail


async def test_tools_whose_secret_is_in_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "tools.yaml").write_text(TOOLS)
    env = tmp_path / "other.env"
    env.write_text(f"TOOLS_FILE={tmp_path / 'tools.yaml'}\nCRM_TOKEN=secret\n")
    (finding,) = await named(load_settings(str(env)), "Tools")
    assert finding.verdict is Verdict.OK
    assert finding.detail.endswith("can be used: order")


async def test_tools_whose_secret_is_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CRM_TOKEN", raising=False)
    (tmp_path / "tools.yaml").write_text(TOOLS)
    settings = load_settings(None, tools_file=tmp_path / "tools.yaml")
    (finding,) = await named(settings, "Tools")
    assert finding.verdict is Verdict.FAILED
    assert "CRM_TOKEN" in finding.detail


async def test_recordings(tmp_path: Path) -> None:
    (finding,) = await named(load_settings(None, recordings_dir=tmp_path / "new"), "Recordings")
    assert "has room for" in finding.detail
    assert not (tmp_path / "new").exists(), "nothing is left behind"

    (tmp_path / "file").touch()
    (finding,) = await named(load_settings(None, recordings_dir=tmp_path / "file"), "Recordings")
    assert finding.verdict is Verdict.FAILED
    assert "cannot be written: Not a directory" in finding.detail


async def test_recordings_in_what_cannot_be_looked_into(tmp_path: Path, unseen: str) -> None:
    folder = tmp_path / unseen / "recordings"
    (finding,) = await named(load_settings(None, recordings_dir=folder), "Recordings")
    assert finding.verdict is Verdict.FAILED
    assert f"{folder} cannot be written: File name too long." in finding.detail


@pytest.mark.parametrize("kind", ["flac", "opus"])
async def test_recordings_that_cannot_be_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    settings = load_settings(None, recordings_dir=tmp_path, recordings_format=kind)
    assert all(each.verdict is not Verdict.FAILED for each in await named(settings, "Recordings"))
    monkeypatch.setattr(soundfile, "check_format", lambda container, coding: False)
    failed = (await named(settings, "Recordings"))[-1]
    assert failed.verdict is Verdict.FAILED
    assert failed.detail.startswith(f"RECORDINGS_FORMAT {kind} cannot be made: this machine's")
    with pytest.raises(ConfigError, match="RECORDINGS_FORMAT"):
        require_encoder(kind)


@pytest.mark.parametrize(
    ("line", "calls", "free", "hours", "verdict"),
    [
        ("slin", 1, 32_000 * 3600 * 24, 24, Verdict.OK),
        ("slin", 10, 32_000 * 3600 * 24, 2, Verdict.WARNING),
        ("slin16", 1, 64_000 * 3600 * 30, 30, Verdict.OK),
        ("auto", 1, 96_000 * 3600 * 10, 10, Verdict.WARNING),
    ],
)
def test_room(line: str, calls: int, free: int, hours: int, verdict: Verdict) -> None:
    settings = load_settings(None, audiosocket_format=line, max_concurrent_calls=calls)
    finding = judge_room(Path("/calls"), free, settings)
    assert finding.verdict is verdict
    assert f"/calls has room for {hours} hours of {calls} calls" in finding.detail


async def test_what_serve_could_not_start_with_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        sound = tmp_path / "none.wav"
        settings = load_settings(None, api_bind=bind, agent_loss_sound=sound)
        told = [f.detail for f in await check_host(settings) if f.verdict is Verdict.FAILED]
    assert told == [
        f"AGENT_LOSS_SOUND {sound} cannot be used: No such file or directory. Give a WAV file of "
        "16-bit PCM, or empty the setting.",
        f"API_BIND {bind} cannot be used: another program has this port. Stop it, or choose "
        "another port.",
    ]


def test_a_port_that_only_others_may_have() -> None:
    error = PermissionError(errno.EACCES, "Permission denied")
    assert str(cannot_listen("API_BIND", "127.0.0.1:80", error)) == (
        "API_BIND 127.0.0.1:80 cannot be used: a low port is for privileged users only. Choose one "
        "from 1024 on."
    )


async def test_a_precall_service_is_only_connected_to() -> None:
    received: list[bytes] = []
    closed = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.read())
        writer.close()
        closed.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}/hook"
        (finding,) = await named(load_settings(None, precall_url=url), "Pre-call")
        await closed.wait()
    assert finding.verdict is Verdict.OK
    assert received == [b""], "a request would look like a call"


async def test_a_precall_service_that_is_not_there(closed_port: int) -> None:
    url = f"http://127.0.0.1:{closed_port}/hook"
    (finding,) = await named(load_settings(None, precall_url=url), "Pre-call")
    assert finding.verdict is Verdict.FAILED
    assert (
        f"PRECALL_URL: 127.0.0.1:{closed_port} cannot be reached: connection refused"
        in finding.detail
    )


async def test_a_precall_service_without_tls() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        settings = load_settings(None, precall_url=f"https://127.0.0.1:{port}")
        (finding,) = await named(settings, "Pre-call")
    assert finding.verdict is Verdict.FAILED
    assert "cannot be reached: what answers speaks no TLS; write http://" in finding.detail


async def test_a_precall_service_without_a_word() -> None:
    # Connections to a full backlog are not refused: nothing comes at all.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
        address = deaf.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        url = f"http://127.0.0.1:{address[1]}"
        settings = load_settings(None, precall_url=url, precall_timeout_seconds=0.2)
        (finding,) = await named(settings, "Pre-call")
        for filler in fillers:
            filler.close()
    assert finding.verdict is Verdict.FAILED
    assert "does not answer within 0.2 s" in finding.detail


@pytest.mark.parametrize(
    ("url", "verdict", "words"),
    [
        ("http://127.0.0.1:{closed}", Verdict.WARNING, "cannot be reached: connection refused. Sp"),
        ("http://127.0.0.1:{open}", Verdict.OK, " (OTEL_EXPORTER_OTLP_TRACES_ENDPOINT)"),
        ("collector:4318", Verdict.WARNING, "must be a URL with http:// or https://."),
    ],
)
async def test_where_spans_are_sent(
    monkeypatch: pytest.MonkeyPatch, url: str, verdict: Verdict, words: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as there, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        ports = {"open": there.getsockname()[1], "closed": taken.getsockname()[1]}
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", url.format(**ports))
        (finding,) = await named(load_settings(None, otel_traces_exporter="otlp"), "Traces")
    assert finding.verdict is verdict
    assert words in finding.detail


async def test_the_audit_file(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"

    async def found() -> tuple[Verdict, str]:
        (finding,) = await named(load_settings(None, audit_file=file), "Audit")
        return finding.verdict, finding.detail

    assert (await found())[0] is Verdict.OK
    assert not file.exists()
    file.touch()
    os.chmod(file, 0o644)
    if others_may_open(file):
        assert await found() == (
            Verdict.WARNING,
            f"Every user of this machine may open {file}, which says who has asked for what. Run "
            f"`chmod 600 {file}`.",
        )
    file = tmp_path / "none" / "audit.jsonl"
    assert await found() == (
        Verdict.FAILED,
        f"AUDIT_FILE {file} cannot be written: No such file or directory. Name a file in a folder "
        "that the service may write to, or empty the setting.",
    )


async def test_several_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    for workers, verdict in ((2, Verdict.OK), (3, Verdict.WARNING)):
        findings = await named(
            load_settings(None, api_bind="127.0.0.1:0", workers=workers), "This machine"
        )
        assert [each.verdict for each in findings if "2 cores" in each.detail] == [verdict]
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/nowhere")
    findings = await named(load_settings(None, api_bind="127.0.0.1:0", workers=2), "This machine")
    (failed,) = [finding for finding in findings if finding.verdict is Verdict.FAILED]
    assert failed.detail.startswith("WORKERS needs a folder")


async def test_the_limits_of_a_day(tmp_path: Path) -> None:
    (tmp_path / "limits.yaml").write_text("agent_7: {calls: 3}\n'*': {minutes: 60, calls: 9}")
    settings = load_settings(
        None,
        spend_minutes_per_day=90.5,
        spend_limits_file=tmp_path / "limits.yaml",
        spend_time_zone="Europe/Berlin",
    )
    (finding,) = await named(settings, "Limits of a day")
    assert finding.verdict is Verdict.OK
    assert finding.detail == (
        "all agents together 90.5 minutes, 1 agent has their own, each other one 60 minutes and 9 "
        "calls; a day begins at midnight in Europe/Berlin"
    )
    wrong = load_settings(None, dialer_type="local", spend_limits_file=tmp_path / "none.yaml")
    assert await named(wrong, "Limits of a day") == []
    assert any("SPEND_LIMITS_FILE" in each.detail for each in check_settings(wrong))
