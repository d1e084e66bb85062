"""`python -m benchmarks.agent_process`: a practice agent over TLS, in a process of its own."""

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
    parser.add_argument("--certificate", type=Path, required=True)
    parser.add_argument("--profile", required=True, help="an AgentProfile as JSON")
    options = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(options.certificate, options.profile))


async def _serve(certificate: Path, profile: str) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    book = AgentBook(default=AgentProfile.model_validate_json(profile))
    config = PracticeConfig(book=book)
    async with PracticeAgent(config, ssl_context=tls, voice=MarkedVoice()) as agent:
        gc.collect()
        gc.freeze()
        sys.stdout.write(json.dumps({"url": agent.base_url, "pid": os.getpid()}) + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    main()
