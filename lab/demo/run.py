"""The demonstration: sets everything up, places a call, and leaves a picture of it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from ari_app.line.interface import Status
from lab.asterisk import LabError
from lab.demo import scene
from lab.demo.analysis import WINDOW_MS, Analysis, Samples, analyse
from lab.demo.caller import ScriptedCaller
from lab.demo.captions import agent_captions, caller_captions
from lab.demo.dialer import DialerWay
from lab.demo.logfile import log_to
from lab.demo.parts import Parts, running
from lab.demo.picture import CallPicture, draw
from lab.demo.result import DemoResult
from lab.demo.tracks import came_s, heard_pieces, lay_out, said_pieces, write_stereo
from lab.demo.transcript import LiveTranscript
from lab.demo.voice import caller_voice, spoken
from lab.demo.ways import AsteriskWay, Telephone, TwilioWay, Way
from lab.softphone import CallFailed, Ending
from lab.softphone.codec import RATE_HZ
from lab.stop_signals import stop_signals

WAYS: Mapping[str, Callable[[], Way]] = {
    "asterisk": AsteriskWay,
    "twilio": TwilioWay,
    "custom": DialerWay,
}
"""Who may bring the caller, by the names of `DIALER_TYPE`."""
ANSWER_SECONDS = 15.0
_FAILURES = (Status.FAILED, Status.REJECTED, Status.TIMEOUT)
RESULTS = ("call.wav", "call.png", "demo.log")


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What a person may choose.

    Attributes:
        out_dir: Where recording, picture and log are written; made when it is not there. What an
            earlier run left there is replaced.
        turns: How many of the caller's lines are said; None says all. The agent ends the call
            after the last one; when there are fewer, the caller does.
        keep: Keep everything running after the call, for a person's own softphone, until Ctrl-C.
        way: Who brings the caller, by its name in `DIALER_TYPE`.
    """

    out_dir: Path = Path("demo-output")
    turns: int | None = None
    keep: bool = False
    way: str = "asterisk"

    def __post_init__(self) -> None:
        if self.turns is not None and not 1 <= self.turns <= len(scene.CALLER):
            raise ValueError(f"turns must be from 1 to {len(scene.CALLER)}")
        if self.way not in WAYS:
            raise ValueError(f"way must be one of {', '.join(WAYS)}")


async def run_demo(options: DemoOptions, console: Console) -> DemoResult:
    """Set everything up, place a call, show it, and leave a recording and a picture of it.

    Whatever happens, nothing is left running.

    Raises:
        LabError: Asterisk cannot be had or started, the call or the agent failed, or the results
            cannot be written.
        AppError: The service cannot be set up.
    """
    recording, picture, log = (options.out_dir / name for name in RESULTS)
    way = WAYS[options.way]()
    try:
        options.out_dir.mkdir(parents=True, exist_ok=True)
        for path in (recording, picture, log):
            path.unlink(missing_ok=True)
        log.touch()
    except OSError as error:
        raise LabError(f"{options.out_dir} cannot be written: {error.strerror}.") from None
    console.print(_opening(way, options), soft_wrap=True)
    with log_to(log):
        async with running(way, console) as parts:
            result = await _demonstrate(parts, options, console)
            if options.keep:
                await _stay(parts, console)
    console.print(_closing(way, options), soft_wrap=True)
    return result


def _opening(way: Way, options: DemoOptions) -> Text:
    return Text.assemble(
        (f"{way.opening}\n", "bold"),
        "You read what both say and find a recording and a picture of it in "
        f"{options.out_dir}/ (1 MB).\n"
        "It takes 40 seconds and costs nothing: everything runs on this machine, on 127.0.0.1, and "
        "is gone afterwards.\nBoth voices are a computer's, espeak-ng.\n",
    )


def _closing(way: Way, options: DemoOptions) -> Text:
    program = sys.argv[0] if Path(sys.argv[0]).name == "ari-app" else "ari-app"
    talk = "" if options.keep else f" Talk with it yourself:  {program} demo --keep\n"
    return Text(f"\n{talk} With ElevenLabs:        {way.page}")


async def _demonstrate(parts: Parts, options: DemoOptions, console: Console) -> DemoResult:
    recording, picture, log = (options.out_dir / name for name in RESULTS)
    transcript = parts.transcript
    lines = scene.CALLER[: options.turns]
    voice = caller_voice()
    sounds = await asyncio.to_thread(lambda: [spoken(voice, line.text) for line in lines])

    console.print(Text(f"\nCalling {parts.way.number}\n", style="bold"))
    call = await parts.way.dial()
    transcript.start_at(call.started_at)
    caller = ScriptedCaller(call, lines, sounds, on_speaking=transcript.caller_speaks)
    await _answered(call, parts.way, log)
    ending = await _converse(caller, transcript, log)
    await _service_ended(transcript, log)
    transcript.start_at(None)

    assert call.answered_at is not None and call.ended_at is not None
    seconds = call.ended_at - call.started_at
    said, heard = _tracks(call, caller, seconds)
    analysis = analyse(said, heard, RATE_HZ)
    result = DemoResult(
        recording=recording,
        picture=picture,
        log=log,
        analysis=analysis,
        heard=call.stats(),
        sound=tuple(parts.way.figures(call)),
        ringing_s=None if call.rung_at is None else call.rung_at - call.started_at,
        answered_s=call.answered_at - call.started_at,
        greeting_s=_greeting_s(call, analysis),
        ended_s=seconds,
        ending=ending,
        agent_delay_s=scene.own_delay_s(),
        transcript=tuple(transcript.entries),
        begins=parts.way.begins,
    )
    await asyncio.to_thread(write_results, result, said, heard, parts.way.chain)
    _show(result, console)
    return result


async def _answered(call: Telephone, way: Way, log: Path) -> None:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await call.answered()
    except CallFailed as error:
        raise LabError(f"{way.far_side} did not connect the call ({error}); see {log}.") from None
    except TimeoutError:
        raise LabError(
            f"The call was not answered within {ANSWER_SECONDS:g} s; see {log}."
        ) from None


async def _converse(caller: ScriptedCaller, transcript: LiveTranscript, log: Path) -> Ending:
    """Let the caller talk until the call is over or the service has given the call away."""
    talk = asyncio.create_task(caller.converse(), name="scripted-caller")
    ended = asyncio.create_task(transcript.ended.wait(), name="service-ended")
    try:
        await asyncio.wait({talk, ended}, return_when=asyncio.FIRST_COMPLETED)
        outcome = transcript.outcome
        if not talk.done() and outcome is not None and outcome.agent_status in _FAILURES:
            # The dialplan goes on with the call: whatever is heard now is not the agent.
            raise LabError(
                f"The call with the agent {outcome.agent_status} ({outcome.end_reason}); see {log}."
            )
        return await talk
    finally:
        talk.cancel()
        ended.cancel()
        await asyncio.gather(talk, ended, return_exceptions=True)


async def _service_ended(transcript: LiveTranscript, log: Path) -> None:
    """The service's own end comes a moment after the phone's."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await transcript.ended.wait()
    except TimeoutError:
        raise LabError(f"The service did not let the call go; see {log}.") from None


def _tracks(call: Telephone, caller: ScriptedCaller, seconds: float) -> tuple[Samples, Samples]:
    origin = call.started_at
    said = said_pieces((line.utterance for line in caller.spoken), call.codec, origin)
    return lay_out(said, seconds), lay_out(heard_pieces(call.ear.arrivals, origin), seconds)


def _greeting_s(call: Telephone, analysis: Analysis) -> float | None:
    if not analysis.agent:
        return None
    # What is loud in the first loud window may be its last sample only.
    loud_s = analysis.agent[0].start_s + WINDOW_MS / 1000 - 1 / RATE_HZ
    return came_s(call.ear.arrivals, loud_s, call.started_at)


def write_results(result: DemoResult, said: Samples, heard: Samples, chain: str) -> None:
    """Write the recording and the picture.

    Raises:
        LabError: one of the files cannot be written.
    """
    try:
        write_stereo(result.recording, said, heard)
        draw(
            CallPicture(
                title="A call with an agent, as the phone heard it",
                subtitle=f"{chain} ↔ ari-app ↔ practice agent, which "
                f"answers after {result.agent_delay_s * 1000:.0f} ms of silence",
                rate_hz=RATE_HZ,
                said=said,
                heard=heard,
                analysis=result.analysis,
                agent_words=agent_captions(result.transcript, result.analysis.agent),
                caller_words=caller_captions(result.transcript),
                marks=result.marks(),
            ),
            result.picture,
        )
    except OSError as error:
        folder = result.recording.parent
        raise LabError(f"{folder} cannot be written: {error.strerror}.") from None


def _show(result: DemoResult, console: Console) -> None:
    console.print()
    console.print(result.table())
    console.print()
    for name, path in (
        ("recording", result.recording),
        ("picture", result.picture),
        ("log", result.log),
    ):
        console.print(Text.assemble((f" {name:24}", "dim"), str(path)), soft_wrap=True)


async def _stay(parts: Parts, console: Console) -> None:
    told = Text("\nEverything keeps running. ", style="bold")
    if parts.way.invitation is not None:
        told += Text.assemble(f"{parts.way.invitation}:\n\n    ", (parts.way.number, "bold cyan"))
    console.print(told + Text("\n\nCtrl-C ends it.\n"), soft_wrap=True)
    with stop_signals() as stop:
        await stop.wait()
    console.print("Stopping …")
