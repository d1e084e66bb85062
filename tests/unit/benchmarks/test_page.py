from __future__ import annotations

import aiohttp
import orjson

from benchmarks.page import _KEY, ManyCalls, serving


async def test_made_up_calls_are_shown_as_calls_are() -> None:
    headers = {"X-API-Key": _KEY, "Accept-Encoding": "identity"}
    async with (
        serving(3) as address,
        aiohttp.ClientSession(headers=headers) as http,
        http.get(f"{address}page/watch") as stream,
    ):
        line = await stream.content.readline()
        news = orjson.loads(line.removeprefix(b"data: "))
        (name, *_) = news["levels"]
        async with http.get(f"{address}sessions/{name}/events") as events:
            assert events.status == 200
    assert (len(news["calls"]), news["running"], len(news["levels"])) == (3, 3, 3)


async def test_made_up_calls_go_on_and_end() -> None:
    calls = ManyCalls(2)
    first, _ = calls.calls.records.values()
    calls._goes_on(first)
    assert [line.who for line in first.transcript] == ["caller", "agent"]
    assert len(first.response_times) == 1
    calls._ends(first)
    assert first.session_id not in calls.calls.records
