"""``ari-app agent``: the practice agent alone, with what is said shown in the terminal."""

from __future__ import annotations

import asyncio
import errno
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr
from rich.console import Console
from rich.markup import escape

from ari_app.errors import ConfigError
from ari_app.process.addresses import split_host_port
from lab.practice_agent.config import PracticeConfig
from lab.practice_agent.profile import AgentBook, PracticeAgentError
from lab.practice_agent.record import TranscriptLine
from lab.practice_agent.server import PracticeAgent, serve
from lab.stop_signals import stop_signals

_STYLES = {"agent": "cyan", "caller": "green", "note": "dim"}


@dataclass(frozen=True, slots=True)
class PostCall:
    """Where the post-call webhook goes; without a URL there is none."""

    url: str | None = None
    secret: str = ""
    opentelemetry: bool = False


async def run_practice_agent(
    bind: str,
    dialogue: Path | None,
    key: str | None,
    console: Console,
    post_call: PostCall = PostCall(),
) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        ConfigError: The address cannot be used, or the dialogue cannot be read.
    """
    try:
        host, port = split_host_port(bind)
    except ValueError:
        raise ConfigError(
            "The practice agent cannot start: --bind must be host:port, such as 127.0.0.1:8765."
        ) from None
    try:
        book = AgentBook.built_in() if dialogue is None else AgentBook.from_file(dialogue)
    except PracticeAgentError as error:
        raise ConfigError(f"The practice agent cannot start: {error}") from None
    if post_call.url is not None and not post_call.secret:
        raise ConfigError(
            "The practice agent cannot start: --post-call-url needs --post-call-secret, or "
            "ELEVENLABS_WEBHOOK_SECRET in the environment (.env is not read)."
        )
    config = PracticeConfig(
        host=host,
        port=port,
        api_key=SecretStr(key) if key else None,
        book=book,
        post_call_url=post_call.url,
        # Where several are taken, any of them will do.
        post_call_secret=SecretStr(post_call.secret.split(",")[0].strip()),
        post_call_form="opentelemetry" if post_call.opentelemetry else "json",
    )
    ready: asyncio.Future[PracticeAgent] = asyncio.get_running_loop().create_future()

    def show(line: TranscriptLine) -> None:
        style = _STYLES[line.speaker]
        console.print(
            f"[dim]{line.conversation_id[-6:]} {line.at_s:7.2f}[/] "
            f"[{style}]{line.speaker:>6}[/]  {escape(line.text)}"
        )

    async def announce() -> None:
        url = (await ready).base_url
        console.print(f"The practice agent listens at [bold]{url}[/]. Ctrl-C stops it.")
        console.print(f"In .env: ELEVENLABS_BASE_URL={url}", highlight=False)

    announcing = asyncio.create_task(announce())
    try:
        with stop_signals() as stop:
            await serve(config, stop=stop, ready=ready, observer=show)
    except OSError as error:
        # A name that nobody knows has a number of its own kind, below zero. Python 3.13 and later
        # give none when the address is not one of this machine.
        code = error.errno or errno.EADDRNOTAVAIL
        reason = os.strerror(code) if code > 0 else error.strerror
        raise ConfigError(f"{bind} cannot be used: {reason}. Choose another --bind.") from None
    finally:
        announcing.cancel()
        await asyncio.gather(announcing, return_exceptions=True)
