"""`python -m tests.cluster`: see docs/scaling.md."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ari_app.process.logs import set_up_logging
from lab.asterisk import LabError, ensure_asterisk
from lab.softphone import CallFailed
from tests.cluster.network import ENTER, INSIDE
from tests.cluster.scenes import SCENES, Callers, Row, all_kept, delete_elsewhere, left_in, play
from tests.cluster.world import world
from tests.unit.control.cluster.valkey import NoValkey, valkey_command
from tests.unit.haproxy import haproxy
from tests.unit.records.store.postgres import NoPostgres, postgres_binaries

_HEAD = (
    f"{'':32}{'calls':>6}{'stranded':>9}{'fell':>6}{'hole':>7}{'until':>7}"
    f"{'new':>6}{'refused':>8}{'for':>7}{'slowest':>8}"
)


def say(text: object) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def show(row: Row) -> str:
    """Return a row of the table."""
    text = (
        f"{row.name:32}{row.calls:6}{row.stranded:9}{row.fell:6}{row.hole:7.2f}"
        f"{row.hole_of_fallen:7.2f}{row.tried:6}{row.refused:8}{row.refused_for:7.2f}"
        f"{row.slowest:8.2f}"
    )
    return "\n".join([text, *(f"    BROKEN: {each}" for each in row.broken)])


async def run(calls: int, only: str, folder: Path) -> int:
    """Play all scenes; how many promises are broken."""
    broken = 0
    async with world(folder) as made:
        callers = Callers(made, {"a1": calls - calls // 4, "a2": calls // 4})
        beside = [
            asyncio.create_task(callers.call_again_and_again(a)) for a in made.asterisks.values()
        ]
        beside.append(asyncio.create_task(callers.ask_again_and_again()))
        say(_HEAD)
        made.network.cut("postgres")

        async def back() -> None:
            await asyncio.sleep(60)
            made.network.mend("postgres")

        mending = asyncio.create_task(back())
        for scene in SCENES:
            if only not in scene.name:
                continue
            try:
                row = await play(scene, made, callers)
            except (CallFailed, TimeoutError) as error:
                broken += 1
                say(f"BROKEN: before or after {scene.name!r} callers got no agent ({error!r})")
                break
            broken += len(row.broken)
            say(show(row))
        callers.over = True
        await asyncio.gather(*beside, return_exceptions=True)
        await callers.hang_up(list(callers.talking))
        if only:
            mending.cancel()
            made.network.mend("postgres")
        else:
            await mending
        kept = await all_kept(made, callers.with_agent)
        say(f"PostgreSQL cut off for 60 s: {kept} calls kept, {callers.with_agent} had an agent")
        broken += kept < callers.with_agent
        answered = sum(good for _, good in callers.answers)
        say(f"HTTP through HAProxy: {answered} of {len(callers.answers)} requests answered")
        try:
            await delete_elsewhere(made)
            say("a recording was had, and deleted, at another machine than its own")
        except (AssertionError, TimeoutError, ValueError) as error:
            broken += 1
            say(f"BROKEN: a recording on another machine is not had or not deleted ({error!r})")
        for name, asterisk in made.asterisks.items():
            if left := await left_in(asterisk):
                broken += 1
                say(f"BROKEN: left in {name}: {left}")
    return broken


def cannot() -> str | None:
    """Return why nothing can be tried on this machine; None: it can."""
    if os.geteuid() != 0:
        return "only root makes networks"
    if missing := [name for name in ("ip", "nsenter", "unshare") if shutil.which(name) is None]:
        return f"{', '.join(missing)} not installed (apt-get install iproute2 util-linux)"
    if subprocess.run([*ENTER, "true"], check=False, capture_output=True).returncode:
        return "this root may make no networks (a container without CAP_SYS_ADMIN?)"
    try:
        valkey_command()
        postgres_binaries()
    except (NoValkey, NoPostgres) as error:
        return str(error)
    if haproxy() is None:
        return "HAProxy is not here: apt-get install haproxy, or sh scripts/cluster_packages.sh"
    return None


def main() -> int:
    """Enter a network of its own, and play all there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=40)
    parser.add_argument("--only", default="", help="scenes whose names hold these words")
    parser.add_argument("--keep", type=Path, help="where the logs go")
    options = parser.parse_args()
    set_up_logging("ERROR")
    # Who loses their power breaks off what they were saying to the practice agent.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    if INSIDE not in os.environ:
        if reason := cannot():
            say(f"skipped: {reason}")
            return 0
        try:
            ensure_asterisk(say)
        except LabError as error:
            say(error)
            return 1
        os.environ[INSIDE] = "1"
        os.execvp(ENTER[0], [*ENTER, sys.executable, "-m", "tests.cluster", *sys.argv[1:]])
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        return 1 if asyncio.run(run(options.calls, options.only, folder)) else 0


if __name__ == "__main__":
    sys.exit(main())
