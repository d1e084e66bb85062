"""The commands that the lab brings to `ari-app`, see `lab/pyproject.toml`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console


class Way(StrEnum):
    """Who may bring the demonstration's caller."""

    ASTERISK = "asterisk"
    TWILIO = "twilio"
    CUSTOM = "custom"


def agent(
    bind: Annotated[str, typer.Option(help="host:port to listen on.")] = "127.0.0.1:8765",
    dialogue: Annotated[
        Path | None, typer.Option(help="A YAML file of what it says, instead of its own.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(envvar="PRACTICE_AGENT_KEY", help="The key it demands; any when empty."),
    ] = None,
    post_call_url: Annotated[
        str | None, typer.Option(help="Where it sends a post-call webhook, as ElevenLabs does.")
    ] = None,
    post_call_secret: Annotated[
        str, typer.Option(envvar="ELEVENLABS_WEBHOOK_SECRET", help="What signs that webhook.")
    ] = "",
    opentelemetry: Annotated[
        bool, typer.Option(help="Send it in the form of OpenTelemetry.")
    ] = False,
) -> None:
    """Run the practice agent alone: an ElevenLabs-compatible server that needs no account."""
    from ari_app.process.logs import set_up_logging
    from lab.practice_agent.command import PostCall, run_practice_agent

    set_up_logging("WARNING")
    post_call = PostCall(post_call_url, post_call_secret, opentelemetry=opentelemetry)
    uvloop.run(run_practice_agent(bind, dialogue, key, Console(), post_call))


def demo(
    out: Annotated[Path, typer.Option(help="Where the recording and the picture go.")] = Path(
        "demo-output"
    ),
    keep: Annotated[
        bool, typer.Option(help="Go on afterwards, so that your own softphone can call.")
    ] = False,
    way: Annotated[
        Way, typer.Option(help="Who brings the caller: a name of DIALER_TYPE.")
    ] = Way.ASTERISK,
) -> None:
    """Place a real call through a real Asterisk to the practice agent, and show it."""
    from ari_app.process.logs import set_up_logging
    from lab.demo import DemoOptions, run_demo

    set_up_logging("WARNING")
    uvloop.run(run_demo(DemoOptions(out_dir=out, keep=keep, way=way.value), Console()))
