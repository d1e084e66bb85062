"""Real calls: a SIP phone, a real Asterisk, our service, and an agent over its own protocol."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import numpy as np
import pytest

from ari_app.audio.g711 import ulaw_to_pcm
from lab.asterisk import LabAsterisk
from lab.practice_agent import AgentBook
from lab.softphone import CallOver, Phone
from lab.softphone.sounds import babble, level_dbfs, tone, tone_dbfs
from tests.e2e.harness import (
    bench,
    book,
    profile,
)
from tests.e2e.test_recording import pieces, place, three_of_four
from tests.waiting import PATIENCE_SECONDS, until

pytestmark = pytest.mark.e2e

LOUD = -35.0
PAGE = (Path(__file__).parents[2] / "docs" / "asterisk.md").read_text(encoding="utf-8")


def as_samples(pcm: bytes) -> np.ndarray:
    return np.frombuffer(pcm, "<i2").astype(np.float64)


@pytest.mark.parametrize("extension", ["100", "101"], ids=["rings first", "answered already"])
@pytest.mark.usefixtures("transport")
async def test_the_greeting_is_heard_from_its_first_sample_to_its_last(
    asterisk: LabAsterisk, spoken: list[bytes], extension: str
) -> None:
    async with bench(
        asterisk, book(formats={"user_input": "pcm_8000", "agent_output": "pcm_8000"})
    ) as b:
        call = await b.call(extension)
        session = await b.session()
        await call.wait_for_sound(LOUD, since=0)
        await until(lambda: session.sound.playout.idle)
        await asyncio.sleep(0.2)
        await call.hang_up()
        await b.all_gone()
    said, heard = as_samples(b"".join(spoken)), as_samples(call.heard_pcm())
    assert said.size > 8000
    # PCMU on the way costs some precision: 0.998 is a noise of -25 dB.
    assert three_of_four([place(heard, each)[1] for _, each in pieces(said)]) > 0.998
    at, first = place(heard, said[:4000])
    last_at, last = place(heard, said[-4000:])
    assert min(first, last) > 0.998
    assert last_at - at >= said.size - 4000
    assert level_dbfs(heard[last_at + 4000 :].astype("<i2").tobytes()) < -60
    stats = call.stats()
    assert (stats.lost, stats.duplicated, stats.out_of_order) == (0, 0, 0)


@pytest.mark.parametrize(
    ("hears", "codec"),
    [
        ("pcm_16000", "PCMU"),
        ("ulaw_8000", "PCMA"),
        ("pcm_8000", "PCMU"),
        ("pcm_24000", "PCMA"),
        ("pcm_44100", "PCMU"),
        ("pcm_48000", "PCMU"),
        ("pcm_22050", "PCMA"),
    ],
)
async def test_the_callers_voice_arrives_in_the_announced_format_and_in_real_time(
    asterisk: LabAsterisk, hears: str, codec: str
) -> None:
    quiet = {"dialogue": {"first_message": "", "turns": []}}
    async with bench(
        asterisk, book(formats={"user_input": hears, "agent_output": "pcm_24000"}, **quiet)
    ) as b:
        call, _ = await b.talk(codec=codec)
        await call.play(tone(1000, 2000, -10))
        await asyncio.sleep(0.3)
        record = await b.conversation()
        await call.hang_up()
        await b.all_gone()
    rate = int(hears.rpartition("_")[2])
    width = 1 if hears.startswith("ulaw") else 2
    # What has come by the time at which each piece comes. Where the machine stood still some come
    # late, and none too early.
    came = np.cumsum([len(each.payload) / width / rate for each in record.user_audio])
    ahead = came - [each.at for each in record.user_audio]
    assert 2.2 < came[-1] < 5
    assert np.ptp(np.quantile(ahead, [0.25, 0.75])) < 0.1
    raw = b"".join(arrival.payload for arrival in record.user_audio)
    pcm = ulaw_to_pcm(raw) if width == 1 else raw
    loud = [
        pcm[at : at + rate // 5 * 2]
        for at in range(0, len(pcm) - rate // 5 * 2, rate // 5 * 2)
        if level_dbfs(pcm[at : at + rate // 5 * 2]) > -12
    ]
    assert len(loud) >= 8, "two seconds of tone"
    # In one or another of them there may be a hole of the busy machine's.
    levels = sorted(tone_dbfs(piece, 1000, rate) for piece in loud)[2:]
    assert levels == pytest.approx([-10] * len(levels), abs=0.5)


@pytest.mark.parametrize(
    ("wanted", "line"), [("slin16", "slin16"), ("slin24", "slin24"), ("auto", "slin")]
)
async def test_both_voices_on_a_line_of_another_rate(
    asterisk: LabAsterisk, wanted: str, line: str
) -> None:
    async with bench(asterisk, audiosocket_format=wanted) as b:
        call = await b.call()
        session = await b.session()
        assert session.record.line_format == line
        await call.wait_for_sound(LOUD, since=0)
        await call.wait_for_silence(500)
        await call.play(tone(1000, 1000, -10))
        await call.wait_for_sound(LOUD)
        record = await b.conversation()
        pcm = b"".join(arrival.payload for arrival in record.user_audio)
        await call.hang_up()
        await b.all_gone()
    windows = [pcm[at : at + 6400] for at in range(0, len(pcm) - 6400, 6400)]
    loudest = max(windows, key=level_dbfs)
    assert tone_dbfs(loudest, 1000, 16000) == pytest.approx(-10, abs=0.5)
    (seconds,) = session.record.response_times
    assert 0.5 < seconds < 3


async def test_variables_from_the_dialplan_arrive_at_the_named_agent(
    asterisk: LabAsterisk,
) -> None:
    greeting = {"first_message": "Hello {{customer_name}}.", "turns": []}
    agents = AgentBook(default=None, agents={"agent_7": profile(dialogue=greeting)})
    async with bench(asterisk, agents) as b:
        call = await b.call("102")
        record = await b.conversation()
        await until(lambda: bool(b.sessions()[0].transcript))
        assert record.agent_id == "agent_7"
        assert record.authorization == "signed_url"
        assert record.dynamic_variables == {
            "caller_id": "phone",
            "called_number": "102",
            "call_sid": b.sessions()[0].call_id,
            "customer_name": "Jane",
        }
        assert b.sessions()[0].transcript[0].text == "Hello Jane."
        await call.hang_up()
        await b.all_gone()


async def test_a_callers_name_arrives_whole_and_sets_nothing(asterisk: LabAsterisk) -> None:
    """The line of docs/asterisk.md for text that somebody else chose."""
    (line,) = re.findall(r"Stasis\(voice-agent,agent_id=agent_7,(customer_name=.*)\)$", PAGE, re.M)
    await asterisk.add_dialplan(
        "names", f"[from-phones](+)\nexten => 720,1,Stasis(${{APP}},agent_id=agent_7,{line})\n"
    )
    agents = AgentBook(default=None, agents={"agent_7": profile()})
    uri = f"sip:720@{asterisk.sip_host}:{asterisk.sip_port}"
    names = {"DOE, JANE-ANN": "DOE, JANE-ANN", 'X" ,wait=20,agent_id=b (': "X ,wait20,agentidb"}
    async with bench(asterisk, agents) as b:
        for name, told in names.items():
            async with Phone(display=name) as phone:
                call = await phone.call(uri, timeout=PATIENCE_SECONDS)
                session = b.sessions()[-1]
                variables = dict(session.call.plan.briefing.variables)
                assert (variables["customer_name"], session.agent_id) == (told, "agent_7")
                await call.hang_up()
            await b.all_gone()


async def test_a_number_has_its_language_voice_and_first_message(asterisk: LabAsterisk) -> None:
    """The line of docs/asterisk.md."""
    (line,) = re.findall(r"Stasis\(voice-agent,(agent\.language=de,.*)\)$", PAGE, re.M)
    await asterisk.add_dialplan(
        "numbers", f"[from-phones](+)\nexten => 721,1,Stasis(${{APP}},{line})\n"
    )
    async with bench(asterisk) as b:
        call = await b.call("721")
        record = await b.conversation()
        await until(lambda: record.initiation is not None)
        assert record.initiation is not None
        assert record.initiation["conversation_config_override"] == {
            "agent": {"language": "de", "first_message": "Guten Tag, hier ist die Praxis."},
            "tts": {"voice_id": "v_anna"},
        }
        await call.hang_up()
        await b.all_gone()


@pytest.mark.usefixtures("transport")
async def test_a_conversation_with_turns_and_an_interruption(asterisk: LabAsterisk) -> None:
    talk = {
        "first_message": "Hello, how can I help you today?",
        "turns": [
            {"say": "I see. " + "Let me explain this at great length to you. " * 8},
            {"say": "As you like. Good bye.", "end_call": True},
        ],
    }
    async with bench(asterisk, book(dialogue=talk)) as b:
        call = await b.call()
        session = await b.session()
        await call.wait_for_sound(LOUD, since=0)
        await call.wait_for_silence(500)
        await call.play(babble(1200, -20))
        await call.wait_for_sound(LOUD)
        await asyncio.sleep(1.0)
        call.send(babble(1500, -20))
        await until(lambda: session.sound.interruptions == 1)
        interrupted = time.monotonic()
        await asyncio.sleep(0.3)
        late = [a for a in call.ear.arrivals if a.at > interrupted + 0.06]
        assert late, "silence goes on being sent"
        assert max(level_dbfs(a.pcm) for a in late) < -60, "the agent went on speaking"
        ending = await asyncio.wait_for(call.ended, PATIENCE_SECONDS)
        assert ending.by == "far"
        line = await asterisk.wait_for_log(f"session={session.session_id}")
        assert "landed=bye reason=agent_ended" in line
        assert f"conversation={session.conversation_id}" in line
        assert [entry.who for entry in session.transcript].count("caller") == 2
        await b.all_gone()
    assert session.record.sound.underruns == 0


@pytest.mark.usefixtures("transport")
async def test_the_last_words_are_heard_before_the_call_ends(
    asterisk: LabAsterisk, spoken: list[bytes]
) -> None:
    talk = {
        "first_message": "",
        "turns": [{"say": "Good bye, and thank you for calling us today.", "end_call": True}],
    }
    formats = {"user_input": "pcm_8000", "agent_output": "pcm_8000"}
    async with bench(asterisk, book(dialogue=talk, formats=formats)) as b:
        call = await b.call()
        await call.play(babble(1000, -20))
        await asyncio.wait_for(call.ended, PATIENCE_SECONDS)
        await b.all_gone()
    said, heard = as_samples(b"".join(spoken)), as_samples(call.heard_pcm())
    at = int(np.argmax(np.correlate(heard, said[:4000], "valid")))
    assert heard[at : at + said.size].size == said.size, "the last word was cut"


async def test_what_an_agent_may_send_without_ending_the_call(asterisk: LabAsterisk) -> None:
    odd = ("unknown_messages", "null_alignment", "empty_audio", "metadata_twice", "torn_samples")
    faults = {"garbage": "list", **dict.fromkeys(odd, True)}
    async with bench(asterisk, book(faults=faults)) as b:
        call = await b.call()
        await call.wait_for_sound(LOUD, since=0)
        await call.wait_for_silence(500)
        await call.play(babble(1000, -20))
        await call.wait_for_sound(LOUD)
        assert call.is_up
        await call.hang_up()
        await b.all_gone()


async def test_a_phone_that_sends_nothing_is_heard_as_silence(asterisk: LabAsterisk) -> None:
    async with bench(asterisk) as b:
        call, session = await b.talk()
        began = time.monotonic()
        call.mute_rtp(True)
        await asyncio.sleep(2)
        record = await b.conversation()
        assert record.user_audio_seconds == pytest.approx(time.monotonic() - began, abs=0.2)
        assert session.sound.uplink_stats.filled_samples > 8000
        await call.hang_up()
        await b.all_gone()


async def test_calls_survive_the_loss_of_the_event_socket(asterisk: LabAsterisk) -> None:
    """A second client takes the application: running calls go on, and end when they end."""
    async with bench(asterisk) as b:
        call = await b.call()
        await call.wait_for_sound(LOUD, since=0)
        async with bench(asterisk) as other:
            await until(lambda: b.bridge.readiness().status == "not_ready")
            await call.wait_for_silence(500)
            await call.play(babble(1000, -20))
            await call.wait_for_sound(LOUD)
            assert call.is_up
            second = await other.call()
            await second.wait_for_sound(LOUD, since=0)
            assert len(other.sessions()) == 1
            await second.hang_up()
            try:
                await call.hang_up()
            except CallOver:
                pytest.fail("the call did not survive")
            await asterisk.wait_until_empty(20)
