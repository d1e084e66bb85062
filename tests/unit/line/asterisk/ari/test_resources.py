"""Every method of the client, and what it puts on the wire."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from ari_app.line.asterisk.ari.client import Client
from ari_app.line.asterisk.ari.models import (
    Application,
    AsteriskInfo,
    Bridge,
    Channel,
    Endpoint,
    Module,
)
from ari_app.line.asterisk.ari.socket import EVENT_SOCKET
from lab.asterisk.ari_description import operations
from tests.unit.line.asterisk.ari.fake_ari import FakeAri, Seen, json_answer
from tests.unit.line.asterisk.ari.samples import ASTERISK_INFO, bridge, channel

APPLICATION = {
    "name": "voice-agent",
    "channel_ids": ["1"],
    "bridge_ids": [],
    "endpoint_ids": [],
    "device_names": [],
    "events_allowed": [],
    "events_disallowed": [],
}
MODULE = {
    "name": "chan_audiosocket.so",
    "description": "AudioSocket Channel",
    "use_count": 0,
    "status": "Running",
    "support_level": "extended",
}
ENDPOINT = {
    "technology": "PJSIP",
    "resource": "my trunk",
    "state": "online",
    "channel_ids": [],
}


@dataclass
class Case:
    call: Callable[[Client], Awaitable[Any]]
    method: str
    template: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] | None = None
    answer: Any = None
    returns: Any = None


CHANNEL = Channel.model_validate(channel())
BRIDGE = Bridge.model_validate(bridge())
CH = "/channels/{channelId}"
BR = "/bridges/{bridgeId}"

CASES = [
    Case(
        lambda c: c.asterisk.get_info(),
        "GET",
        "/asterisk/info",
        "/asterisk/info",
        answer=ASTERISK_INFO,
        returns=AsteriskInfo.model_validate(ASTERISK_INFO),
    ),
    Case(
        lambda c: c.asterisk.list_modules(),
        "GET",
        "/asterisk/modules",
        "/asterisk/modules",
        answer=[MODULE],
        returns=(Module.model_validate(MODULE),),
    ),
    Case(
        lambda c: c.applications.get(),
        "GET",
        "/applications/{applicationName}",
        "/applications/voice-agent",
        answer=APPLICATION,
        returns=Application.model_validate(APPLICATION),
    ),
    Case(
        lambda c: c.applications.subscribe("channel:1", "other"),
        "POST",
        "/applications/{applicationName}/subscription",
        "/applications/other/subscription",
        body={"eventSource": "channel:1"},
        answer=APPLICATION,
        returns=Application.model_validate(APPLICATION),
    ),
    Case(
        lambda c: c.channels.list(),
        "GET",
        "/channels",
        "/channels",
        answer=[channel()],
        returns=(CHANNEL,),
    ),
    Case(
        lambda c: c.channels.get("1754480000.1"),
        "GET",
        CH,
        "/channels/1754480000.1",
        answer=channel(),
        returns=CHANNEL,
    ),
    Case(
        lambda c: c.channels.create(
            "out-1",
            "PJSIP/200@trunk",
            app_args="a,b",
            other_channel_id="out-2",
            variables={"X": "1"},
        ),
        "POST",
        "/channels/create",
        "/channels/create",
        body={
            "endpoint": "PJSIP/200@trunk",
            "app": "voice-agent",
            "appArgs": "a,b",
            "channelId": "out-1",
            "otherChannelId": "out-2",
            "variables": {"X": "1"},
        },
        answer=channel(),
        returns=CHANNEL,
    ),
    Case(
        lambda c: c.channels.originate(
            "out-1",
            "PJSIP/200@trunk",
            app_args="agent_id=a",
            caller_id="Shop <100>",
            ring_seconds=20,
            variables={"X": "1"},
        ),
        "POST",
        CH,
        "/channels/out-1",
        body={
            "endpoint": "PJSIP/200@trunk",
            "app": "voice-agent",
            "appArgs": "agent_id=a",
            "callerId": "Shop <100>",
            "timeout": 20,
            "variables": {"X": "1"},
        },
        answer=channel(),
        returns=CHANNEL,
    ),
    Case(
        lambda c: c.channels.external_media(
            "media-1", "127.0.0.1:9092", format="slin", data="u-u-i-d", app="other"
        ),
        "POST",
        "/channels/externalMedia",
        "/channels/externalMedia",
        body={
            "channelId": "media-1",
            "app": "other",
            "external_host": "127.0.0.1:9092",
            "encapsulation": "audiosocket",
            "transport": "tcp",
            "format": "slin",
            "data": "u-u-i-d",
        },
        answer=channel(),
        returns=CHANNEL,
    ),
    Case(lambda c: c.channels.answer("1"), "POST", f"{CH}/answer", "/channels/1/answer"),
    Case(lambda c: c.channels.ring("1"), "POST", f"{CH}/ring", "/channels/1/ring"),
    Case(
        lambda c: c.channels.hangup("1", reason="busy"),
        "DELETE",
        CH,
        "/channels/1",
        query={"reason": "busy"},
    ),
    Case(
        lambda c: c.channels.hangup("1", reason_code=21),
        "DELETE",
        CH,
        "/channels/1",
        query={"reason_code": "21"},
    ),
    Case(
        lambda c: c.channels.continue_in_dialplan("1"),
        "POST",
        f"{CH}/continue",
        "/channels/1/continue",
    ),
    Case(
        lambda c: c.channels.continue_in_dialplan(
            "1", context="in", extension="s", priority=3, label="l"
        ),
        "POST",
        f"{CH}/continue",
        "/channels/1/continue",
        body={"context": "in", "extension": "s", "priority": 3, "label": "l"},
    ),
    Case(
        lambda c: c.channels.get_channel_var("1", "CHANNEL(rtp,dest) + ü"),
        "GET",
        f"{CH}/variable",
        "/channels/1/variable",
        query={"variable": "CHANNEL(rtp,dest) + ü"},
        answer={"value": "127.0.0.1:4000"},
        returns="127.0.0.1:4000",
    ),
    Case(
        lambda c: c.channels.set_channel_var("1", "AGENT_REASON", "a=b&c + ü"),
        "POST",
        f"{CH}/variable",
        "/channels/1/variable",
        body={"variable": "AGENT_REASON", "value": "a=b&c + ü"},
    ),
    Case(
        lambda c: c.channels.send_dtmf(
            "1", "12#", before_ms=1, between_ms=2, duration_ms=3, after_ms=4
        ),
        "POST",
        f"{CH}/dtmf",
        "/channels/1/dtmf",
        body={"dtmf": "12#", "before": 1, "between": 2, "duration": 3, "after": 4},
    ),
    Case(
        lambda c: c.channels.start_moh("1", "jazz"),
        "POST",
        f"{CH}/moh",
        "/channels/1/moh",
        body={"mohClass": "jazz"},
    ),
    Case(lambda c: c.channels.stop_moh("1"), "DELETE", f"{CH}/moh", "/channels/1/moh"),
    Case(
        lambda c: c.bridges.list(),
        "GET",
        "/bridges",
        "/bridges",
        answer=[bridge()],
        returns=(BRIDGE,),
    ),
    Case(
        lambda c: c.bridges.get("b/1"),
        "GET",
        BR,
        "/bridges/b%2F1",
        answer=bridge(),
        returns=BRIDGE,
    ),
    Case(
        lambda c: c.bridges.create_with_id("b", name="call 1"),
        "POST",
        BR,
        "/bridges/b",
        body={"type": "mixing", "name": "call 1"},
        answer=bridge(),
        returns=BRIDGE,
    ),
    Case(lambda c: c.bridges.destroy("b"), "DELETE", BR, "/bridges/b"),
    Case(
        lambda c: c.bridges.add_channel("b", "1"),
        "POST",
        f"{BR}/addChannel",
        "/bridges/b/addChannel",
        body={"channel": "1"},
    ),
    Case(
        lambda c: c.bridges.add_channel("b", ["1", "2"], role="r", absorb_dtmf=True, mute=False),
        "POST",
        f"{BR}/addChannel",
        "/bridges/b/addChannel",
        body={"channel": ["1", "2"], "role": "r", "absorbDTMF": True, "mute": False},
    ),
    Case(
        lambda c: c.bridges.remove_channel("b", "1"),
        "POST",
        f"{BR}/removeChannel",
        "/bridges/b/removeChannel",
        body={"channel": "1"},
    ),
    Case(
        lambda c: c.endpoints.get("PJSIP", "my trunk"),
        "GET",
        "/endpoints/{tech}/{resource}",
        "/endpoints/PJSIP/my%20trunk",
        answer=ENDPOINT,
        returns=Endpoint.model_validate(ENDPOINT),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.method} {case.path}")
async def test_wire(ari: FakeAri, client: Client, case: Case) -> None:
    if case.answer is not None:
        ari.answer(case.method, case.path, json_answer(case.answer))
    assert await case.call(client) == case.returns
    content_type = "application/json" if case.body is not None else ""
    [seen] = ari.seen
    # No body has no type of its own to speak of.
    assert seen.content_type in (content_type, "application/octet-stream")
    assert seen == Seen(case.method, f"/ari{case.path}", case.query, case.body, seen.content_type)


def test_every_operation_has_a_case() -> None:
    declared = {(each.method, each.path) for each in operations()}
    declared.remove((EVENT_SOCKET.method, EVENT_SOCKET.path))
    assert {(case.method, case.template) for case in CASES} == declared


async def test_two_reasons_to_hang_up(client: Client) -> None:
    with pytest.raises(ValueError, match="exclude"):
        await client.channels.hangup("1", reason="busy", reason_code=17)


async def test_version(ari: FakeAri, client: Client) -> None:
    ari.answer("GET", "/asterisk/info", json_answer(ASTERISK_INFO))
    assert (await client.asterisk.get_info()).version == "22.10.1~dfsg+~cs6.15.60671435-1"
    assert AsteriskInfo().version == ""
