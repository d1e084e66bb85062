"""A process that keeps calls until it is killed: `python -m ... URL JOURNAL NAME`.

It writes a line when a call's beginning, and when its end, is on the disk.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
from pathlib import Path

from ari_app.records.store.log import CallLog
from tests.unit.records.store.documents import call, turns


async def main(url: str, journal: Path, name: str) -> None:
    async with CallLog(url, journal=journal) as log:

        async def told(what: str, session_id: str) -> None:
            await asyncio.to_thread(log._spool.flushed().wait)
            sys.stdout.write(f"{what} {session_id}\n")
            sys.stdout.flush()

        async def one(session_id: str) -> None:
            log.began(call(session_id))
            await told("began", session_id)
            await asyncio.sleep(random.random() * 0.1)
            log.keep(call(session_id, turns=turns(*(n * "words " for n in range(50)))))
            log.amend(session_id, "recordings", [session_id])
            await told("ended", session_id)

        for n in itertools.count():
            await asyncio.gather(*(one(f"{name}.{n}.{m}") for m in range(10)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
