"""``python -m lab.faults TARGET``: a proxy that takes commands from its input."""

from __future__ import annotations

import asyncio
import sys

import typer

from lab.faults.proxy import TcpProxy

_HELP = "cut · refuse · blackhole · delay SECONDS · restore · status  (end with Ctrl-D)"


def main(
    target: str,
    listen: str = "127.0.0.1:0",
    mark: str = typer.Option("", help="What a client's data begins with on marked connections."),
) -> None:
    """Stand between a client and TARGET (HOST:PORT), and take commands from the input.

    Each command may end in `marked`: then it is for the marked connections only. For ARI's event
    socket alone: --mark "GET /ari/events".
    """
    asyncio.run(_run(target, listen, mark))


async def _run(target: str, listen: str, mark: str) -> None:
    host, _, port = target.rpartition(":")
    bind_host, _, bind_port = listen.rpartition(":")
    proxy = TcpProxy(
        host, int(port), bind_host=bind_host, bind_port=int(bind_port), mark=mark.encode()
    )
    async with proxy:
        typer.echo(f"{proxy.address} -> {target}\n{_HELP}")
        while line := await asyncio.to_thread(sys.stdin.readline):
            typer.echo(await _obey(proxy, line.split()))


async def _obey(proxy: TcpProxy, words: list[str]) -> str:
    match words:
        case ["cut", *rest]:
            proxy.cut(marked_only=rest == ["marked"])
        case ["refuse", *rest]:
            await proxy.refuse(marked_only=rest == ["marked"])
        case ["blackhole", *rest]:
            await proxy.blackhole(marked_only=rest == ["marked"])
        case ["delay", seconds] if seconds.replace(".", "", 1).isdigit():
            await proxy.delay(float(seconds))
        case ["restore"]:
            await proxy.restore()
        case ["status"]:
            return f"{proxy.connections} connections, {proxy.marked} of them marked"
        case _:
            return _HELP
    return "done"


if __name__ == "__main__":
    typer.run(main)
