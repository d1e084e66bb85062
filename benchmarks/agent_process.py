"""`python -m benchmarks.agent_process`: a practice agent in a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import ssl
import sys
from pathlib import Path

import structlog
import uvloop

from benchmarks.marked import MarkedVoice
from lab.practice_agent import AgentBook, AgentProfile, PracticeAgent, PracticeConfig


def main() -> None:
    """Serve until whoever started this closes our input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agent_process")
    parser.add_argument("--certificate", type=Path, help="speak TLS, with this")
    parser.add_argument("--port", type=int, default=0)
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--profile", help="an AgentProfile as JSON, for every id")
    who.add_argument("--book", help="an AgentBook as JSON")
    options = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(options))


async def _serve(options: argparse.Namespace) -> None:
    tls = None
    if options.certificate is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.certificate)
    if options.book is not None:
        book = AgentBook.model_validate_json(options.book)
    else:
        book = AgentBook(default=AgentProfile.model_validate_json(options.profile))
    config = PracticeConfig(book=book, port=options.port)
    async with PracticeAgent(config, ssl_context=tls, voice=MarkedVoice()) as agent:
        gc.collect()
        gc.freeze()
        sys.stdout.write(json.dumps({"url": agent.base_url, "pid": os.getpid()}) + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    main()
