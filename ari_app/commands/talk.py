"""The command `ari-app talk`: one call with this machine's microphone and loudspeaker."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from ari_app.bridge import VoiceBridge
from ari_app.checks.agent import check_agent_key
from ari_app.checks.finding import Finding, Verdict
from ari_app.checks.microphone import check_microphone
from ari_app.errors import AppError, ConfigError
from ari_app.line.interface import Status
from ari_app.line.microphone import Levels, MicrophoneGateway, MicrophoneLine, SoundCard
from ari_app.records.events import (
    AgentConnected,
    CallerInterrupted,
    CallEvent,
    KeysPressed,
    Noted,
    Said,
    ToolRan,
)
from ari_app.records.record import CallRecord
from ari_app.settings import Settings

_REFRESH_SECONDS: Final = 0.1
_METER_CELLS: Final = 24
_QUIETEST_DBFS: Final = -60.0
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_WHO: Final = {"caller": "[bold cyan]you[/]", "agent": "[bold green]agent[/]"}


class TalkFailed(AppError):
    """The talk did not come about, or broke."""


async def talk(settings: Settings, console: Console, card: SoundCard | None = None) -> None:
    """Talk until either side ends it; Ctrl-C is the caller's way.

    Args:
        settings: What holds for every call; the way in is this machine whatever they say.
        console: Where what is said and how loud it is are shown.
        card: The sound card; None: the one that the settings name.

    Raises:
        ConfigError: There is no sound device, no key, or no agent.
        TalkFailed: The talk did not come about, or broke.
    """
    if settings.elevenlabs_agent_id is None:
        raise ConfigError(
            "No agent is named. Set ELEVENLABS_AGENT_ID, or give one: `ari-app talk --agent ID`."
            f"{settings.without_file}"
        )
    local = {
        "dialer_type": "local",
        "api_bind": "127.0.0.1:0",
        # It is one process, whatever a service here has.
        "workers": 1,
        "cluster_url": None,
        "database_url": "",
        # They are counted in the call log.
        "spend_minutes_per_day": 0,
        "spend_calls_per_day": 0,
        "spend_limits_file": None,
        "webhook_url": None,
        # Its folder may be a running service's.
        "recordings_dir": None,
    }
    settings = settings.model_copy(update=local)
    screen = _Screen(console)
    async with VoiceBridge(settings, [screen.heard], card=card, http=False) as bridge:
        gateway = bridge.way_in(MicrophoneGateway)
        assert gateway is not None, "the way in is local"
        for finding in (
            await check_microphone(gateway.card),
            await check_agent_key(bridge.agents, settings),
        ):
            _judge(finding)
        console.print(
            "Use a headset: through loudspeakers the agent hears itself. Ctrl-C hangs up.\n",
            style="dim",
        )
        serving = asyncio.create_task(bridge.run(), name="serve")
        try:
            line = await gateway.talk()
            with _hanging_up(line, bridge):
                await screen.follow(line)
        finally:
            bridge.stop()
            await asyncio.wait([serving])
    serving.result()
    outcome = line.outcome
    if outcome is None or outcome.status in (Status.FAILED, Status.REJECTED):
        reason = "" if outcome is None else outcome.reason
        raise TalkFailed(line.problem or f"The talk has ended: {reason}; see docs/agent.md.")
    seconds = f", {screen.seconds:.0f} s" if screen.seconds else ""
    console.print(f"\n[dim]The talk has ended: {escape(outcome.reason)}{seconds}.[/]")


def _judge(finding: Finding) -> None:
    # Where everything can be tried again at once, nothing is begun that is likely to fail.
    if finding.verdict is Verdict.FAILED:
        raise ConfigError(finding.detail)


@contextlib.contextmanager
def _hanging_up(line: MicrophoneLine, bridge: VoiceBridge) -> Iterator[None]:
    """Hang up at the first signal; one more does not wait for what is then still to be done."""
    loop, times = asyncio.get_running_loop(), [0]

    def received() -> None:
        times[0] += 1
        if times[0] == 1:
            line.hang_up()
        else:
            bridge.end_calls()

    for number in _SIGNALS:
        loop.add_signal_handler(number, received)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


class _Screen:
    """Shows what is said, and below it how loud both sides are.

    Attributes:
        seconds: How long the talk was.
    """

    def __init__(self, console: Console) -> None:
        self.seconds = 0.0
        self._console = console

    def heard(self, record: CallRecord, event: CallEvent) -> None:
        """Show what belongs to the talk; a listener of the journal."""
        match event:
            case AgentConnected(conversation):
                self._say(f"[dim]conversation {escape(conversation)}[/]")
            case Said(who, text):
                self._say(f"{_WHO.get(who, f'[dim]{escape(who)}[/]')}: {escape(text)}")
            case CallerInterrupted(text):
                self._say(f"[dim]interrupted: {escape(text)}[/]")
            case ToolRan(text) | KeysPressed(text) | Noted(text):
                self._say(f"[dim]{escape(text)}[/]")
            case _:
                pass
        if record.seconds is not None:
            self.seconds = record.seconds

    async def follow(self, line: MicrophoneLine) -> None:
        """Show levels until the line has been closed."""
        if not self._console.is_terminal:
            await line.closed.wait()
            return
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while not line.closed.is_set():
                live.update(meters(line.levels), refresh=True)
                await asyncio.sleep(_REFRESH_SECONDS)

    def _say(self, markup: str) -> None:
        self._console.print(markup, soft_wrap=True, highlight=False)


def meters(levels: Levels) -> Text:
    """Show how loud both sides are."""
    return Text.assemble(
        ("you   ", "cyan"),
        _meter(levels.microphone),
        ("    agent ", "green"),
        _meter(levels.loudspeaker),
    )


def _meter(dbfs: float) -> str:
    share = min(max(1 - dbfs / _QUIETEST_DBFS, 0.0), 1.0)
    cells = round(share * _METER_CELLS)
    level = f"{dbfs:4.0f} dB" if cells else "  quiet"
    return "█" * cells + "░" * (_METER_CELLS - cells) + level
