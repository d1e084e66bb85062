from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ari_app.agent.elevenlabs.client import AgentClient
from ari_app.checks import channel_probe
from ari_app.checks.agent import check_agent_key
from ari_app.checks.all import check_all
from ari_app.checks.asterisk import (
    OF_AUDIOSOCKET,
    OF_STATES,
    REQUIRED,
    TIMING,
    USEFUL,
    check_asterisk,
    judge_modules,
    judge_version,
)
from ari_app.checks.channel_probe import check_dial_back
from ari_app.checks.finding import EVERYTHING, Finding, Verdict, what_works
from ari_app.checks.media import check_media
from ari_app.line.asterisk.ari.client import Client
from ari_app.settings import Settings
from lab.asterisk.ports import free_port
from lab.load import server
from lab.load.server import LoadServer
from tests.unit.agent.elevenlabs.fake_agent import API_KEY, FakeAgent
from tests.unit.call.fake_ari import (
    GET_INFO,
    LIST_MODULES,
    FakeAsterisk,
    FakeClient,
    Moment,
    never,
    status,
)
from tests.unit.line.asterisk.ari.fake_ari import PASSWORD, USERNAME, Answer, FakeAri, json_answer
from tests.unit.line.asterisk.ari.samples import ASTERISK_INFO
from tests.unit.settings_maker import Make, settings_maker
from tests.waiting import PATIENCE_SECONDS

MODULES = (*REQUIRED, *USEFUL, TIMING[1])


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Make:
    """Settings that are complete, with these changes."""
    return settings_maker(
        monkeypatch,
        tmp_path,
        ari_username=USERNAME,
        ari_password=PASSWORD,
        api_bind="127.0.0.1:0",
        audiosocket_bind="127.0.0.1:0",
        elevenlabs_api_key=API_KEY,
        elevenlabs_agent_id="agent_default",
    )


@pytest.fixture
async def asterisk() -> AsyncIterator[FakeAsterisk]:
    asterisk = FakeAsterisk()
    asterisk.modules = dict.fromkeys(MODULES, "Running")
    yield asterisk
    await asterisk.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What never comes is waited for a moment only."""
    monkeypatch.setattr(channel_probe, "DIAL_BACK_SECONDS", 0.3)


def says(finding: Finding, verdict: Verdict, *words: str) -> bool:
    """A verdict and a sentence, or several, that hold these words."""
    ends_well = finding.verdict is Verdict.OK or finding.detail[-1] in ".?"
    return finding.verdict is verdict and ends_well and all(w in finding.detail for w in words)


# --- Asterisk


async def test_an_asterisk_that_will_do(asterisk: FakeAsterisk, make: Make) -> None:
    assert await check_asterisk(FakeClient(asterisk), make()) == [
        Finding("Asterisk", Verdict.OK, "Asterisk 22.10.1"),
        Finding("Modules", Verdict.OK, "all that a call needs are running"),
    ]
    assert len(asterisk.requests(LIST_MODULES)) == 1


@pytest.mark.parametrize(
    ("moment", "words"),
    [
        (status(401), ["refuses the user 'voice'", "ARI_USERNAME", "ari.conf"]),
        (status(403), ["refuses the user 'voice'"]),
        (status(404), ["has no ARI there", "prefix", "res_ari.so", "enabled=yes"]),
        (status(503), ["does not answer", "where it runs", "http.conf"]),
        (status(500), ["fails (", "500"]),
        (never, ["fails (", "no answer"]),
    ],
    ids=["401", "403", "404", "503", "500", "silence"],
)
async def test_an_asterisk_that_cannot_be_asked(
    asterisk: FakeAsterisk, make: Make, moment: Moment, words: list[str]
) -> None:
    asterisk.before[GET_INFO] = moment
    (finding,) = await check_asterisk(FakeClient(asterisk, timeout=0.05), make())
    assert says(finding, Verdict.FAILED, "http://127.0.0.1:8088", *words), finding
    assert PASSWORD not in finding.detail
    assert asterisk.requests(LIST_MODULES) == []


async def test_an_asterisk_that_is_not_there(make: Make, closed_port: int) -> None:
    url = f"http://127.0.0.1:{closed_port}"
    async with Client(url, USERNAME, PASSWORD, "app") as client:
        (finding,) = await check_asterisk(client, make(ari_url=url))
    assert says(finding, Verdict.FAILED, url, "does not answer: connection refused")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/ari", "/ari is added to it for every request. Write ARI_URL=http://"),
        ("/pbx", "without `prefix = pbx` in its http.conf it is ARI_URL=http://"),
        ("", "with a `prefix` in its http.conf it is ARI_URL=http://"),
    ],
)
async def test_an_asterisk_whose_ari_is_elsewhere(
    asterisk: FakeAsterisk, make: Make, path: str, words: str
) -> None:
    asterisk.before[GET_INFO] = status(404)
    url = f"http://127.0.0.1:8088{path}"
    (finding,) = await check_asterisk(FakeClient(asterisk), make(ari_url=url))
    assert says(finding, Verdict.FAILED, url, words), finding


@pytest.fixture
def no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """No host has a name."""

    def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.usefixtures("no_names")
async def test_an_asterisk_whose_name_nobody_knows(make: Make) -> None:
    url = "http://asterisk.invalid:8088"
    async with Client(url, USERNAME, PASSWORD, "app") as client:
        (finding,) = await check_asterisk(client, make(ari_url=url))
    assert says(finding, Verdict.FAILED, f"{url} does not answer: this name is not known here")


@pytest.mark.parametrize(
    ("version", "verdict", "words"),
    [
        ("16.28.0", Verdict.FAILED, ["has no AudioSocket channels", "Install 22.10.1 or later."]),
        ("22.11.0-rc1", Verdict.FAILED, ["22.11.0-rc1 can go down", "asterisk#2085", "22.10.1"]),
        ("22.11.0~rc1~dfsg", Verdict.FAILED, ["can go down"]),
        ("20.21.0-rc1", Verdict.FAILED, ["can go down", "20.20.1"]),
        ("23.5.0-rc1", Verdict.FAILED, ["can go down", "23.4.1"]),
        ("22.11.0-rc2", Verdict.OK, []),
        ("22.11.0", Verdict.OK, []),
        ("next tuesday", Verdict.WARNING, ["'next tuesday'", "treated as version 18"]),
        ("18.26.4", Verdict.WARNING, ["In Asterisk 18.26.4 a user of ARI reaches", "22.10.1"]),
        ("20.20.0", Verdict.WARNING, ["its shell (GHSA-vrfp-mg3q-3959)", "Update to 20.20.1 or"]),
        ("23.4.1", Verdict.OK, ["Asterisk 23.4.1"]),
        ("GIT-22-f0c1c1a7", Verdict.OK, ["Asterisk GIT-22-f0c1c1a7"]),
    ],
)
async def test_what_is_said_of_a_version(
    asterisk: FakeAsterisk, make: Make, version: str, verdict: Verdict, words: list[str]
) -> None:
    asterisk.version = version
    finding, *_ = await check_asterisk(FakeClient(asterisk), make())
    assert says(finding, verdict, *words), finding


@pytest.mark.parametrize(
    ("version", "bugs"),
    [
        ("18.26.4", ["vrfp"]),
        ("20.6.0", ["vrfp"]),
        ("20.15.2", ["vrfp", "wcvv", "#1522", "#1890"]),
        ("20.18.2", ["vrfp", "wcvv", "#1824", "#1785", "#1890"]),
        ("22.7.0", ["vrfp", "wcvv", "#1824", "#1890"]),
        ("23.2.1", ["vrfp", "wcvv", "#1824", "#1785", "#1890"]),
        ("20.19.0", ["vrfp", "wcvv", "#1890", "#1928"]),
        ("21.12.0", ["vrfp", "wcvv", "#1522", "#1890"]),
        ("22.3.0", ["vrfp"]),
        ("22.9.0", ["vrfp", "wcvv", "#1890", "#1928"]),
        ("22.10.0", ["vrfp", "wcvv"]),
        ("23.0.0", ["vrfp", "wcvv", "#1522", "#1890"]),
        ("24.0.0", []),
    ],
)
def test_each_bug_of_a_version_is_named(version: str, bugs: list[str]) -> None:
    findings = judge_version(version)
    if not bugs:
        assert [finding.verdict for finding in findings] == [Verdict.OK]
        return
    assert len(findings) == len(bugs)
    for finding, bug in zip(findings, bugs, strict=True):
        assert says(finding, Verdict.WARNING, bug, "Update to"), finding


@pytest.mark.parametrize("name", [*REQUIRED, *USEFUL])
@pytest.mark.parametrize("how", ["not there", "not running"])
async def test_a_module_is_missing(asterisk: FakeAsterisk, make: Make, name: str, how: str) -> None:
    if how == "not there":
        del asterisk.modules[name]
    else:
        asterisk.modules[name] = "Not Running"
    settings = make(transfer_state="PJSIP/{number}")
    _, finding = await check_asterisk(FakeClient(asterisk), settings)
    assert says(
        finding,
        Verdict.FAILED if name in REQUIRED else Verdict.WARNING,
        f"Asterisk has not loaded {name}",
        f"`asterisk -rx 'module load {name}'`",
        "asterisk-modules",
        "modules.conf",
    ), finding


async def test_each_missing_module_is_named(asterisk: FakeAsterisk, make: Make) -> None:
    asterisk.modules.clear()
    settings = make(transfer_state="PJSIP/{number}")
    _, *findings = await check_asterisk(FakeClient(asterisk), settings)
    failures = [finding for finding in findings if finding.verdict is Verdict.FAILED]
    for name, finding in zip(REQUIRED, failures, strict=True):
        assert name in finding.detail
    assert len(findings) == len(REQUIRED) + len(USEFUL) + 1
    assert says(findings[-1], Verdict.WARNING, "no source of timing", TIMING[0])


async def test_a_module_that_no_setting_asks_for_may_be_missing(
    asterisk: FakeAsterisk, make: Make
) -> None:
    for name in OF_STATES:
        del asterisk.modules[name]
    _, finding = await check_asterisk(FakeClient(asterisk), make())
    assert finding.verdict is Verdict.OK


async def test_modules_that_cannot_be_looked_at(asterisk: FakeAsterisk, make: Make) -> None:
    asterisk.before[LIST_MODULES] = status(409)
    _, finding = await check_asterisk(FakeClient(asterisk), make())
    assert says(finding, Verdict.WARNING, "could not be looked at: ")


# --- the agent


async def agent_finding(settings: Settings) -> Finding:
    async with AgentClient(
        settings.elevenlabs_base_url, settings.elevenlabs_api_key, connect_timeout=PATIENCE_SECONDS
    ) as agents:
        return await check_agent_key(agents, settings)


async def test_a_key_that_is_accepted(make: Make) -> None:
    async with FakeAgent() as agent:
        finding = await agent_finding(make(elevenlabs_base_url=agent.base_url))
    assert finding == Finding("Agent", Verdict.OK, "127.0.0.1 accepts the key and knows the agent")


@pytest.mark.parametrize(
    "url", ["https://api.elevenlabs.io", "https://api.eu.residency.elevenlabs.io"]
)
async def test_elevenlabs_without_a_key(make: Make, url: str) -> None:
    finding = await agent_finding(make(elevenlabs_base_url=url, elevenlabs_api_key=None))
    assert says(finding, Verdict.FAILED, "ELEVENLABS_API_KEY is not set", "`ari-app agent`", ".env")


async def test_another_service_without_a_key(make: Make) -> None:
    settings = make(elevenlabs_base_url="http://127.0.0.1:1", elevenlabs_api_key=None)
    finding = await agent_finding(settings)
    assert finding.verdict is Verdict.OK
    assert "127.0.0.1 is asked for public agents only" in finding.detail


async def test_a_host_that_only_looks_like_elevenlabs(make: Make) -> None:
    settings = make(elevenlabs_base_url="https://notelevenlabs.io", elevenlabs_api_key=None)
    assert (await agent_finding(settings)).verdict is Verdict.OK


async def test_without_an_agent_the_key_cannot_be_tried(make: Make) -> None:
    async with FakeAgent() as agent:
        settings = make(elevenlabs_base_url=agent.base_url, elevenlabs_agent_id=None)
        finding = await agent_finding(settings)
    assert says(finding, Verdict.WARNING, "ELEVENLABS_AGENT_ID is not set", "agent_id=")


@pytest.mark.parametrize(
    ("answer", "verdict", "words"),
    [
        (401, Verdict.FAILED, ["refuses ELEVENLABS_API_KEY", "permission"]),
        (403, Verdict.FAILED, ["refuses ELEVENLABS_API_KEY"]),
        (
            404,
            Verdict.FAILED,
            ["knows no agent 'agent_default'", "and ELEVENLABS_BASE_URL (http://"],
        ),
        (429, Verdict.WARNING, ["could not be asked: ", "429"]),
        (500, Verdict.FAILED, ["the agent's service failed", "500", "every call fails"]),
    ],
)
async def test_a_key_that_is_not_accepted(
    make: Make, answer: int, verdict: Verdict, words: list[str]
) -> None:
    async def signed() -> tuple[int, str]:
        return answer, "{}"

    async with FakeAgent() as agent:
        agent.signed = signed
        finding = await agent_finding(make(elevenlabs_base_url=agent.base_url))
    assert says(finding, verdict, "127.0.0.1", *words), finding
    assert API_KEY not in finding.detail


async def test_an_agents_service_that_is_not_there(make: Make) -> None:
    """Named or not, and though it may be over in a minute: every call would fail."""
    for agent_id in ("agent_default", None):
        finding = await agent_finding(
            make(elevenlabs_base_url="http://127.0.0.1:1", elevenlabs_agent_id=agent_id)
        )
        words = ("127.0.0.1:1 (ELEVENLABS_BASE_URL): ", "connection refused", "`ari-app agent`")
        assert says(finding, Verdict.FAILED, *words), finding
        assert finding.may_pass


@pytest.mark.usefixtures("no_names")
async def test_an_agents_service_whose_name_nobody_knows(make: Make) -> None:
    finding = await agent_finding(make(elevenlabs_base_url="https://agents.invalid"))
    words = ("agents.invalid:443 (", "this name is not known here", "curl -I https://agents.inval")
    assert says(finding, Verdict.FAILED, *words), finding


# --- dialling back


@pytest.fixture
async def dialling() -> AsyncIterator[str]:
    """The URL of an Asterisk that dials whatever it is told to."""
    server = LoadServer("voice-agent-check", USERNAME, PASSWORD)
    yield await server.start()
    assert server.generator.world.channels == {}, "the check leaves nothing behind"
    await server.close()


def client_of(settings: Settings) -> Client:
    return Client(settings.ari_url, settings.ari_username, PASSWORD, f"{settings.ari_app}-check")


async def dialled(settings: Settings) -> Finding:
    async with client_of(settings) as ari:
        return await check_dial_back(ari, settings)


async def test_asterisk_reaches_us(dialling: str, make: Make) -> None:
    finding = await dialled(make(ari_url=dialling))
    assert finding.what == "Audio"
    assert says(finding, Verdict.OK, "Asterisk reaches 127.0.0.1:"), finding


@pytest.mark.parametrize("served", [False, True])
async def test_asterisk_is_let_in(
    dialling: str, make: Make, monkeypatch: pytest.MonkeyPatch, served: bool
) -> None:
    with contextlib.ExitStack() as stack:
        changes = {"ari_url": dialling}
        if served:
            taken = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            changes["audiosocket_bind"] = f"127.0.0.1:{taken.getsockname()[1]}"
            monkeypatch.setattr(channel_probe, "is_serving", serving)
        finding = await dialled(make(**changes, audiosocket_allow="10.0.0.0/8"))
        words = "AUDIOSOCKET_ALLOW does not have 127.0.0.1, from which Asterisk dials"
        assert says(finding, Verdict.FAILED, words), finding
        assert finding.uses == EVERYTHING
        finding = await dialled(make(**changes, audiosocket_allow="10.0.0.0/8, 127.0.0.1"))
        assert says(finding, Verdict.OK, "Asterisk reaches 127.0.0.1:"), finding


async def serving(settings: Settings) -> bool:
    return True


@pytest.mark.usefixtures("impatient")
async def test_from_where_asterisk_dials_cannot_be_told(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_probe, "is_serving", serving)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        async with FakeAri() as ari:
            ari.answer("POST", "/channels/externalMedia", json_answer(CHANNEL))
            changes = {"ari_url": ari.url, "audiosocket_bind": bind}
            finding = await dialled(make(**changes, audiosocket_allow="10.0.0.0/8"))
            assert says(finding, Verdict.WARNING, "AUDIOSOCKET_ALLOW", "could not be told"), finding
            finding = await dialled(make(**changes))
            assert says(finding, Verdict.OK, "where `ari-app serve` listens"), finding


async def test_asterisk_does_not_reach_us(dialling: str, make: Make, closed_port: int) -> None:
    advertised = f"127.0.0.1:{closed_port}"
    finding = await dialled(make(ari_url=dialling, audiosocket_advertise=advertised))
    assert says(
        finding,
        Verdict.FAILED,
        f"cannot reach {advertised}: its port is {closed_port}, and AUDIOSOCKET_BIND listens at ",
        "AUDIOSOCKET_ADVERTISE",
        "firewall",
    ), finding
    bind = f"127.0.0.1:{free_port()}"
    advertised = bind.replace("127.0.0.1", "127.0.0.9")
    finding = await dialled(
        make(ari_url=dialling, audiosocket_bind=bind, audiosocket_advertise=advertised)
    )
    assert says(finding, Verdict.FAILED, f"cannot reach {advertised}. Set"), finding


@pytest.mark.usefixtures("impatient")
async def test_asterisk_reaches_somebody_else(make: Make) -> None:
    async with FakeAri() as ari:
        ari.answer("POST", "/channels/externalMedia", json_answer(CHANNEL))
        finding = await dialled(make(ari_url=ari.url))
    assert says(finding, Verdict.FAILED, "Asterisk cannot reach 127.0.0.1:")


CHANNEL = {"id": "media", "name": "AudioSocket/x", "state": "Up"}


async def test_no_event_socket(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_probe, "CONNECT_SECONDS", 0.3)
    async with FakeAri() as ari:
        ari.refuse_handshakes = [500] * 100
        finding = await dialled(make(ari_url=ari.url))
    assert says(finding, Verdict.FAILED, "opens no event socket", "res_http_websocket.so")


@pytest.mark.parametrize(
    "refused",
    [
        # Nothing that changes something, and as some versions have it (GHSA-wcvv-g26m-wx5c).
        ("PUT", "/applications/voice-agent-check/eventFilter"),
        ("POST", "/channels/externalMedia"),
    ],
)
async def test_a_user_who_may_only_read(make: Make, refused: tuple[str, str]) -> None:
    async with FakeAri() as ari:
        ari.answer(*refused, Answer(403))
        finding = await dialled(make(ari_url=ari.url))
    assert says(finding, Verdict.FAILED, "user 'voice' read only", "read_only=no"), finding


async def test_our_port_is_taken(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        finding = await dialled(make(ari_url="http://127.0.0.1:1", audiosocket_bind=bind))
    assert says(finding, Verdict.FAILED, f"AUDIOSOCKET_BIND {bind}", "another program has")
    finding = await dialled(make(audiosocket_bind="192.0.2.1:9092"))
    assert says(finding, Verdict.FAILED, "choose an address of this machine")


@pytest.mark.usefixtures("impatient")
async def test_an_address_of_ipv6_is_dialled_in_brackets(make: Make) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with FakeAri() as ari:
        ari.answer("POST", "/channels/externalMedia", json_answer(CHANNEL))
        await dialled(make(ari_url=ari.url, audiosocket_bind="[::1]:0"))
    (asked,) = (seen.body for seen in ari.seen if seen.method == "POST")
    assert asked["external_host"].startswith("[::1]:")


# --- all of it


async def everything(settings: Settings, conf: Path | None = None) -> list[tuple[str, Verdict]]:
    return [(finding.what, finding.verdict) async for finding in check_all(settings, conf)]


async def test_a_set_up_that_works(dialling: str, make: Make) -> None:
    async with FakeAgent() as agent:
        settings = make(ari_url=dialling, elevenlabs_base_url=agent.base_url)
        findings = [finding async for finding in check_all(settings)]
    assert [(finding.what, finding.verdict) for finding in findings] == [
        ("Settings", Verdict.OK),
        ("This machine", Verdict.OK),
        ("Agent", Verdict.OK),
        ("Asterisk", Verdict.OK),
        ("Modules", Verdict.OK),
        ("Connection", Verdict.OK),
        ("Limits", Verdict.OK),
        # The model of an Asterisk has neither trunks nor a dialplan.
        ("Calls out", Verdict.NOTE),
        ("Audio", Verdict.OK),
        ("Dialplan", Verdict.WARNING),
    ]
    assert "without a key: this machine only" in findings[0].detail
    assert what_works(findings) == (
        "Calls in: not sure, see Dialplan. Calls out: not set up, see Calls out. "
        "Answering machine detection: not set up, see Calls out."
    )


@pytest.mark.parametrize("conf", [False, True])
async def test_what_is_not_looked_at_is_told(
    dialling: str, make: Make, closed_port: int, tmp_path: Path, conf: bool
) -> None:
    async with FakeAgent() as agent:
        settings = make(
            ari_url=dialling,
            elevenlabs_base_url=agent.base_url,
            audiosocket_advertise=f"127.0.0.1:{closed_port}",
        )
        findings = [each async for each in check_all(settings, tmp_path if conf else None)]
    subjects = [finding.what for finding in findings]
    after = findings[subjects.index("Audio") :]
    assert after[0].verdict is Verdict.FAILED
    unseen = [each.what for each in after if each.verdict is Verdict.NOTE]
    assert unseen == ["Clock", "Dialplan", "Configuration"][: 2 if conf else 3]
    assert all("not looked at, because Audio has failed" in each.detail for each in after[1:3])


async def test_settings_that_are_not_complete_end_it(make: Make, tmp_path: Path) -> None:
    settings = make(ari_username="")
    assert await everything(settings) == [("Settings", Verdict.FAILED)]
    found = await everything(settings, tmp_path / "none")
    assert found == [("Settings", Verdict.FAILED), ("Configuration", Verdict.FAILED)]


async def test_nobody_is_asked_to_dial_who_cannot(make: Make) -> None:
    async with FakeAgent() as agent, FakeAri() as ari:
        ari.answer("GET", "/asterisk/info", json_answer(ASTERISK_INFO))
        modules = [{"name": name, "status": "Running"} for name in MODULES[1:]]
        ari.answer("GET", "/asterisk/modules", json_answer(modules))
        settings = make(ari_url=ari.url, elevenlabs_base_url=agent.base_url, api_key="k" * 16)
        assert await everything(settings) == [
            ("Settings", Verdict.OK),
            ("This machine", Verdict.OK),
            ("Agent", Verdict.OK),
            ("Asterisk", Verdict.OK),
            ("Modules", Verdict.FAILED),
        ]
        assert ari.handshakes == []


async def test_asterisk_goes_away_in_the_middle(make: Make) -> None:
    async with FakeAgent() as agent, FakeAri() as ari:
        ari.answer("GET", "/asterisk/info", json_answer(ASTERISK_INFO))
        modules = [{"name": name, "status": "Running"} for name in MODULES]
        ari.answer("GET", "/asterisk/modules", json_answer(modules))
        ari.answer("GET", "/applications/voice-agent", Answer(500))
        settings = make(ari_url=ari.url, elevenlabs_base_url=agent.base_url)
        *_, (what, verdict) = await everything(settings)
        assert (what, verdict) == ("Connection", Verdict.WARNING)
        assert ari.handshakes == []


# --- chan_websocket


async def looked_at(settings: Settings) -> list[Finding]:
    async with client_of(settings) as ari:
        return await check_media(ari, settings)


async def test_we_reach_asterisks_media(dialling: str, make: Make) -> None:
    for transport in ("websocket", "auto"):
        (finding,) = await looked_at(make(ari_url=dialling, media_transport=transport))
        assert says(finding, Verdict.OK, "chan_websocket", f"we reach {dialling}/media/"), finding


async def test_each_worker_has_a_port_that_asterisk_reaches(dialling: str, make: Make) -> None:
    bind = f"127.0.0.1:{free_port()}"
    with socket.socket() as other:
        first, *others = await looked_at(make(ari_url=dialling, audiosocket_bind=bind, workers=3))
        assert {finding.verdict for finding in (first, *others)} == {Verdict.OK}
        assert len(others) == 2
        port = int(bind.rpartition(":")[2]) + 2
        # Not kept by connections of before.
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        *_, last = await looked_at(make(ari_url=dialling, audiosocket_bind=bind, workers=3))
        assert says(last, Verdict.FAILED, f"127.0.0.1:{port} cannot be used"), last


@pytest.mark.parametrize("transport", ["websocket", "auto"])
async def test_an_asterisk_that_has_not_loaded_chan_websocket(
    dialling: str, make: Make, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MODULES", MODULES)
    first, *others = await looked_at(make(ari_url=dialling, media_transport=transport))
    if transport == "websocket":
        words = ["has not loaded", "module load chan_websocket.so"]
        assert says(first, Verdict.FAILED, *words), first
        assert others == []
    else:
        assert says(first, Verdict.NOTE, "takes AudioSocket", "chan_websocket.so"), first
        assert says(others[0], Verdict.OK, "Asterisk reaches 127.0.0.1:")


async def test_an_asterisk_that_is_too_old_for_it(make: Make, asterisk: FakeAsterisk) -> None:
    asterisk.version = "20.17.0"
    settings = make(media_transport="websocket")
    (finding,) = await check_media(FakeClient(asterisk), settings)
    assert says(finding, Verdict.FAILED, "from Asterisk 22.8", "Update Asterisk"), finding


async def test_a_proxy_that_passes_no_media_on(
    dialling: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MEDIA_PATH", "/elsewhere/")
    (finding,) = await looked_at(make(ari_url=dialling, media_transport="websocket"))
    assert says(finding, Verdict.FAILED, "/media/ cannot be reached", "proxy"), finding


def test_chan_audiosocket_is_needed_only_where_it_is_used() -> None:
    running = set(MODULES) - OF_AUDIOSOCKET
    assert [finding.verdict for finding in judge_modules(running, OF_AUDIOSOCKET)] == [Verdict.OK]
    assert len(judge_modules(running)) == 2
