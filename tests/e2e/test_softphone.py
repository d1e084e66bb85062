"""The phone against a real Asterisk: what other tests then take for granted."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from lab.asterisk import LabAsterisk
from lab.softphone import CallFailed, Phone
from lab.softphone.sounds import level_dbfs, tone, tone_dbfs
from tests.waiting import until

pytestmark = pytest.mark.e2e

PATIENCE_S = 15.0


@pytest.fixture
async def phone(asterisk: LabAsterisk) -> AsyncIterator[Phone]:
    async with Phone(username="alice", display="Alice") as phone:
        yield phone
    await asterisk.wait_until_empty(PATIENCE_S)


def uri(asterisk: LabAsterisk, extension: str) -> str:
    return f"sip:{extension}@{asterisk.sip_host}:{asterisk.sip_port}"


@pytest.mark.parametrize("codec", ["PCMU", "PCMA"])
async def test_echo_brings_our_own_tone_back(
    asterisk: LabAsterisk, phone: Phone, codec: str
) -> None:
    call = await phone.call(uri(asterisk, "600"), codec=codec, timeout=PATIENCE_S)
    assert call.agreement is not None
    assert call.agreement.codec.name == codec
    said = await call.play(tone(440, 400, -12))
    heard_at = await call.wait_for_sound(since=call.started_at, timeout=PATIENCE_S)
    assert said.started_at is not None
    assert said.started_at <= heard_at

    def sound() -> bytes:
        return b"".join(arrival.pcm for arrival in call.ear.arrivals if arrival.at >= heard_at)

    # All of it: packets that are only late would be silence, too.
    await until(lambda: len(sound()) >= 400 * 16)
    await call.wait_for_silence(timeout=PATIENCE_S)
    echo = sound()[: 400 * 16]
    assert tone_dbfs(echo, 440) == pytest.approx(-12, abs=0.5)
    assert level_dbfs(echo) == pytest.approx(-12, abs=0.5)
    stats = call.stats()
    assert (stats.lost, stats.duplicated, call.stream.strangers) == (0, 0, 0)
    ending = await call.hang_up()
    assert (ending.by, ending.status) == ("us", 200)


@pytest.mark.parametrize("password", ["right", "wrong"])
async def test_digest(asterisk: LabAsterisk, password: str) -> None:
    (asterisk.run_dir / "etc/pjsip.d/guarded.conf").write_text(
        "[guarded]\ntype=endpoint\ncontext=from-phones\ndisallow=all\nallow=ulaw\nauth=guarded\n"
        "aors=guarded\n[guarded]\ntype=auth\nauth_type=userpass\nusername=guarded\n"
        "password=right\n[guarded]\ntype=aor\nmax_contacts=1\n"
    )
    await asterisk.cli("module reload res_pjsip.so")
    async with Phone(username="guarded", password=password) as phone:
        try:
            if password == "right":
                call = await phone.call(uri(asterisk, "600"), timeout=PATIENCE_S)
                await phone.register(f"sip:{asterisk.sip_host}:{asterisk.sip_port}")
                await call.hang_up()
            else:
                with pytest.raises(CallFailed, match="401"):
                    await phone.call(uri(asterisk, "600"), timeout=PATIENCE_S)
        finally:
            (asterisk.run_dir / "etc/pjsip.d/guarded.conf").unlink()
    await asterisk.cli("module reload res_pjsip.so")
    await asterisk.wait_until_empty(PATIENCE_S)
