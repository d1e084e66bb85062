"""`python -m lab.load`: the generator as a process of its own; says where it listens, and serves
until its input ends."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys

import uvloop

from lab.load.server import LoadServer


def main() -> None:
    """Read the options, serve, and end when whoever started this closes our input."""
    parser = argparse.ArgumentParser(prog="python -m lab.load", description=__doc__)
    parser.add_argument("--app", default="voice-agent")
    parser.add_argument("--username", default="load")
    options = parser.parse_args()
    password = os.environ.get("LOAD_PASSWORD", "")
    if not password:
        parser.error("LOAD_PASSWORD is not set: the password that the application will send")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(options.app, options.username, password))


async def _serve(app: str, username: str, password: str) -> None:
    server = LoadServer(app, username, password)
    url = await server.start()
    # A collection would hold up every line; this process lives for one benchmark.
    gc.collect()
    gc.freeze()
    gc.disable()
    sys.stdout.write(json.dumps({"url": url, "pid": os.getpid()}) + "\n")
    sys.stdout.flush()
    try:
        await asyncio.to_thread(sys.stdin.read)
    finally:
        await server.close()


if __name__ == "__main__":
    main()
