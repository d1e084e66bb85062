"""`ari-app check` against a real Asterisk: one that is as it should be, and many that are not."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import trustme

from ari_app.checks import asterisk, channel_probe
from ari_app.checks.all import check_all
from ari_app.checks.channel_probe import listening
from ari_app.checks.finding import Finding, Verdict
from ari_app.line.asterisk.ari.client import Client
from lab.asterisk import Installation, LabAsterisk
from lab.practice_agent import PracticeAgent
from tests.e2e.harness import bench, practice_config, settings_for
from tests.e2e.production import (
    CRYPTED,
    CUSTOMER,
    PASSWORD,
    USERNAME,
    production_asterisk,
    production_files,
)
from tests.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.e2e

OK, WARNING, FAILED = Verdict.OK, Verdict.WARNING, Verdict.FAILED

LOOKER = f"""
[looker]
type = user
read_only = yes
password_format = crypt
password = {CRYPTED}
"""
TLS = """
tlsenable = yes
tlsbindaddr = 127.0.0.2:@HTTP_PORT@
tlscertfile = @RUN_DIR@/etc/asterisk.crt
tlsprivatekey = @RUN_DIR@/etc/asterisk.key
"""


@pytest.fixture(autouse=True)
def whatever_else_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not judge how fast this machine is just now."""
    monkeypatch.setattr(asterisk, "_SLOW_MS", math.inf)
    monkeypatch.setattr(channel_probe, "EVENT_SECONDS", PATIENCE_SECONDS)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def good(installation: Installation) -> AsyncIterator[LabAsterisk]:
    """A box on the production files, whose carrier answers."""
    async with LabAsterisk(installation=installation, pjsip=CUSTOMER) as carrier:
        files = production_files(installation, carrier.sip_port)
        async with production_asterisk(installation, files) as running:
            await running.cli("module load func_config.so")
            async with asyncio.timeout(PATIENCE_SECONDS):
                while True:
                    if (await running.ari("GET", "endpoints/PJSIP/trunk"))["state"] == "online":
                        break
                    await asyncio.sleep(0.1)
            yield running


@pytest.fixture
async def agent() -> AsyncIterator[PracticeAgent]:
    async with PracticeAgent(practice_config()) as running:
        yield running


async def told(
    box: LabAsterisk, agent: PracticeAgent, conf: Path | None = None, **changes: object
) -> list[Finding]:
    settings = settings_for(box, agent, **changes)
    found = [finding async for finding in check_all(settings, conf)]
    await box.wait_until_empty()
    return found


def worst(found: list[Finding]) -> list[str]:
    return [f"{f.what}: {f.detail}" for f in found if f.verdict is not OK]


def says(found: list[Finding], what: str, verdict: Verdict, *words: str) -> bool:
    return any(
        f.what == what and f.verdict is verdict and all(word in f.detail for word in words)
        for f in found
    )


@pytest.mark.parametrize("on_the_box", [True, False])
async def test_a_box_that_is_as_it_should_be(
    good: LabAsterisk, agent: PracticeAgent, on_the_box: bool
) -> None:
    mark = good.log_size()
    found = await told(good, agent, good.run_dir / "etc" if on_the_box else None)
    expected = worst(found)
    if not on_the_box:
        assert expected.pop().startswith("Dialplan: Whether it hands calls to Stasis(voice-agent)")
    if good.installation.major < 22:
        assert all(words.startswith("Asterisk: In Asterisk ") for words in expected)
    else:
        assert expected == []
    subjects = [finding.what for finding in found]
    assert list(dict.fromkeys(subjects)) == [
        *("Settings", "This machine", "Agent", "Asterisk", "Modules", "Connection", "Limits"),
        *("Calls out", "Audio", "Clock", "Dialplan", "Configuration"),
    ]
    log = good.log_path.read_bytes()[mark:].decode()
    assert " WARNING[" not in log
    assert " ERROR[" not in log


async def test_the_service_may_run_meanwhile(good: LabAsterisk) -> None:
    async with bench(good) as b:
        host, port = b.bridge.audiosocket_address
        api = "{}:{}".format(*b.bridge.api_address)
        found = await told(good, b.agent, audiosocket_bind=f"{host}:{port}", api_bind=api)
        assert says(found, "Audio", OK, f"reaches {host}:{port}, where `ari-app serve` listens")
        assert says(found, "Clock", OK)
        assert says(found, "Connection", OK, "'voice-agent' is registered by `ari-app serve` here")
        assert b.bridge.lines.refusals == {"unknown_uuid": 1}
        assert not b.bridge.readiness().problems, "the service did not notice"


async def test_somebody_else_has_the_application(good: LabAsterisk, agent: PracticeAgent) -> None:
    client = Client(good.ari_url, USERNAME, PASSWORD, "voice-agent")
    async with client, listening(client):
        found = await told(good, agent)
    assert says(found, "Connection", WARNING, "Another program has registered 'voice-agent'")


@pytest.mark.parametrize(
    ("changes", "what", "verdict", "words"),
    [
        ({"ari_password": "wrong"}, "Asterisk", FAILED, ["refuses the user 'voice-agent'"]),
        ({"ari_url": "http://127.0.0.1:1"}, "Asterisk", FAILED, ["does not answer"]),
        (
            {"audiosocket_advertise": "127.0.0.1:1"},
            "Audio",
            FAILED,
            ["cannot reach 127.0.0.1:1", "AUDIOSOCKET_ADVERTISE"],
        ),
        (
            {"outbound_endpoint": "PJSIP/{number}@nobody"},
            "Calls out",
            FAILED,
            ["no endpoint PJSIP/nobody"],
        ),
        (
            {"outbound_endpoint": "PJSIP/{number}@1001"},
            "Calls out",
            WARNING,
            ["PJSIP/1001 is unavailable"],
        ),
        ({"amd_context": "none"}, "Dialplan", WARNING, ["context none (AMD_CONTEXT)"]),
        ({"elevenlabs_base_url": "http://127.0.0.1:1"}, "Agent", FAILED, ["127.0.0.1:1 (ELEV"]),
        ({"transfer_context": "none"}, "Dialplan", WARNING, ["(TRANSFER_CONTEXT)"]),
    ],
    ids=str,
)
async def test_settings_that_do_not_fit_the_box(
    good: LabAsterisk,
    agent: PracticeAgent,
    changes: dict[str, object],
    what: str,
    verdict: Verdict,
    words: list[str],
) -> None:
    assert says(await told(good, agent, None, **changes), what, verdict, *words)


@pytest.mark.parametrize(
    ("module", "verdict"), [("app_amd.so", WARNING), ("chan_audiosocket.so", FAILED)]
)
async def test_a_module_is_not_loaded(
    good: LabAsterisk, agent: PracticeAgent, module: str, verdict: Verdict
) -> None:
    await good.cli(f"module unload {module}")
    try:
        found = await told(good, agent)
    finally:
        await good.cli(f"module load {module}")
    assert says(found, "Modules", verdict, f"has not loaded {module}", f"module load {module}")
    assert any(finding.what == "Audio" for finding in found) is (verdict is WARNING)


async def test_a_box_that_is_not_as_it_should_be(
    installation: Installation, agent: PracticeAgent
) -> None:
    files = production_files(installation)
    files["ari.conf"] = (
        files["ari.conf"]
        .replace("password_format = crypt", "password_format = plain")
        .replace(CRYPTED, PASSWORD)
        .replace("websocket_write_timeout = 1000", "")
    )
    files["ari.conf"] += LOOKER
    files["asterisk.conf"] += "maxcalls = 3\nmaxfiles = 210\n"
    async with production_asterisk(installation, files) as box:
        etc = box.run_dir / "etc"
        found = await told(box, agent, etc)
        assert says(found, "Limits", WARNING, "maxcalls is 3", "MAX_CONCURRENT_CALLS is 10")
        assert says(found, "Limits", WARNING, "maxfiles is 210", "10 calls need about 220")
        assert says(found, "Calls out", WARNING, "PJSIP/trunk is unavailable")
        assert says(found, "Configuration", Verdict.NOTE, "ari.conf:", "password_format = plain")
        assert says(found, "Configuration", WARNING, "no websocket_write_timeout")
        assert (
            sum("open 210 files" in f.detail or "maxfiles is 210" in f.detail for f in found) == 1
        )

        found = await told(box, agent, ari_username="looker")
        assert says(found, "Audio", FAILED, "the user 'looker' read only", "read_only=no")

        await box.cli("module load func_config.so")
        found = await told(box, agent)
        assert says(found, "Configuration", Verdict.NOTE, "ari.conf says password_format = plain")


async def test_over_tls(installation: Installation, agent: PracticeAgent, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.2")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    files = production_files(installation)
    files["http.conf"] += TLS
    files["asterisk.key"] = issued.private_key_pem.bytes().decode()
    files["asterisk.crt"] = "".join(pem.bytes().decode() for pem in issued.cert_chain_pems)
    async with production_asterisk(installation, files) as box:
        https = box.ari_url.replace("http://127.0.0.1", "https://127.0.0.2")
        found = await told(box, agent, ari_url=https, ari_ca_file=tmp_path / "ca.pem")
        assert not says(found, "Asterisk", FAILED)
        assert says(found, "Audio", OK, "Asterisk reaches")
        assert not says(found, "Connection", WARNING)

        found = await told(box, agent, ari_url=https)
        assert says(found, "Asterisk", FAILED, "ARI_CA_FILE")
