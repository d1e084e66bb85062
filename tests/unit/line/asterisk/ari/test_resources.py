"""Every method of the client, and what it puts on the wire."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import BaseModel

from ari_app.line.asterisk.ari.client import Client
from ari_app.line.asterisk.ari.models import (
    Application,
    AsteriskInfo,
    Bridge,
    Channel,
    DeviceState,
    Endpoint,
    Module,
    RTPstat,
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
RTP_STATISTICS = {
    "txcount": 310,
    "rxcount": 300,
    "txjitter": 0.00125,
    "rxjitter": 0.0005,
    "txploss": 2,
    "rxploss": 1,
    "rtt": 0.0312,
    "maxrtt": 0.04,
    "local_ssrc": 1,
    "remote_ssrc": 2,
    "txoctetcount": 49600,
    "rxoctetcount": 48000,
    "channel_uniqueid": "1754480000.1",
}
ENDPOINT = {
    "technology": "PJSIP",
    "resource": "my trunk",
    "state": "online",
    "channel_ids": [],
}


USUAL = {"{channelId}": "1", "{bridgeId}": "b", "{applicationName}": "voice-agent"}


@dataclass
class Case:
    """One request.

    Attributes:
        operation: Its method and the path that it is declared with.
        path: The path on the wire; empty: with the usual ids.
        reads: What is made of the answer, or of each in it; None: `returns` says it.
    """

    call: Callable[[Client], Awaitable[Any]]
    operation: str
    path: str = ""
    query: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] | None = None
    answer: Any = None
    reads: type[BaseModel] | None = None
    returns: Any = None

    def __post_init__(self) -> None:
        self.method, _, self.template = self.operation.partition(" ")
        self.path = self.path or re.sub(r"{\w+}", lambda m: USUAL.get(m[0], ""), self.template)
        if self.reads is not None:
            read = self.reads.model_validate
            many = isinstance(self.answer, list)
            self.returns = tuple(map(read, self.answer)) if many else read(self.answer)


CASES = [
    Case(
        lambda c: c.asterisk.get_info(),
        "GET /asterisk/info",
        answer=ASTERISK_INFO,
        reads=AsteriskInfo,
    ),
    Case(
        lambda c: c.asterisk.list_modules(), "GET /asterisk/modules", answer=[MODULE], reads=Module
    ),
    Case(
        lambda c: c.applications.list(),
        "GET /applications",
        answer=[APPLICATION],
        reads=Application,
    ),
    Case(
        lambda c: c.applications.get(),
        "GET /applications/{applicationName}",
        answer=APPLICATION,
        reads=Application,
    ),
    Case(
        lambda c: c.applications.subscribe("channel:1"),
        "POST /applications/{applicationName}/subscription",
        body={"eventSource": "channel:1"},
        answer=APPLICATION,
        reads=Application,
    ),
    Case(
        lambda c: c.applications.hear_only(("Dial", "StasisEnd")),
        "PUT /applications/{applicationName}/eventFilter",
        body={"allowed": [{"type": "Dial"}, {"type": "StasisEnd"}]},
        answer=APPLICATION,
        reads=Application,
    ),
    Case(lambda c: c.channels.list(), "GET /channels", answer=[channel()], reads=Channel),
    Case(
        lambda c: c.channels.get("1754480000.1"),
        "GET /channels/{channelId}",
        path="/channels/1754480000.1",
        answer=channel(),
        reads=Channel,
    ),
    Case(
        lambda c: c.channels.create("out-1", "Local/s@default", other_channel_id="out-2"),
        "POST /channels/create",
        body={
            "endpoint": "Local/s@default",
            "app": "voice-agent",
            "channelId": "out-1",
            "otherChannelId": "out-2",
        },
        answer=channel(),
        reads=Channel,
    ),
    Case(
        lambda c: c.channels.originate(
            "out-1",
            "PJSIP/200@trunk",
            caller_id="Shop <100>",
            ring_seconds=20,
            variables={"__AGENT_SESSION_ID": "s"},
        ),
        "POST /channels/{channelId}",
        path="/channels/out-1",
        body={
            "endpoint": "PJSIP/200@trunk",
            "app": "voice-agent",
            "callerId": "Shop <100>",
            "timeout": 20,
            "variables": {"__AGENT_SESSION_ID": "s"},
        },
        answer=channel(),
        reads=Channel,
    ),
    Case(
        lambda c: c.channels.external_media(
            "media-1", "127.0.0.1:9092", format="slin", data="u-u-i-d"
        ),
        "POST /channels/externalMedia",
        body={
            "channelId": "media-1",
            "app": "voice-agent",
            "external_host": "127.0.0.1:9092",
            "encapsulation": "audiosocket",
            "transport": "tcp",
            "format": "slin",
            "data": "u-u-i-d",
        },
        answer=channel(),
        reads=Channel,
    ),
    Case(lambda c: c.channels.answer("1"), "POST /channels/{channelId}/answer"),
    Case(lambda c: c.channels.ring("1"), "POST /channels/{channelId}/ring"),
    Case(
        lambda c: c.channels.hangup("1", reason="busy"),
        "DELETE /channels/{channelId}",
        query={"reason": "busy"},
    ),
    Case(lambda c: c.channels.continue_in_dialplan("1"), "POST /channels/{channelId}/continue"),
    Case(
        lambda c: c.channels.continue_in_dialplan("1", context="in", extension="s", priority=3),
        "POST /channels/{channelId}/continue",
        body={"context": "in", "extension": "s", "priority": 3},
    ),
    Case(
        lambda c: c.channels.get_channel_var("1", "CHANNEL(rtp,dest) + ü"),
        "GET /channels/{channelId}/variable",
        query={"variable": "CHANNEL(rtp,dest) + ü"},
        answer={"value": "127.0.0.1:4000"},
        returns="127.0.0.1:4000",
    ),
    Case(
        lambda c: c.channels.rtp_statistics("1"),
        "GET /channels/{channelId}/rtp_statistics",
        answer=RTP_STATISTICS,
        reads=RTPstat,
    ),
    Case(
        lambda c: c.channels.move("1", "voice-agent.host.1", "%,customer_name=A%2CB"),
        "POST /channels/{channelId}/move",
        body={"app": "voice-agent.host.1", "appArgs": "%,customer_name=A%2CB"},
    ),
    Case(
        lambda c: c.channels.set_channel_var("1", "AGENT_REASON", "a=b&c + ü"),
        "POST /channels/{channelId}/variable",
        body={"variable": "AGENT_REASON", "value": "a=b&c + ü"},
    ),
    Case(
        lambda c: c.channels.send_dtmf("1", "12#"),
        "POST /channels/{channelId}/dtmf",
        body={"dtmf": "12#"},
    ),
    Case(lambda c: c.channels.start_moh("1"), "POST /channels/{channelId}/moh"),
    Case(lambda c: c.channels.stop_moh("1"), "DELETE /channels/{channelId}/moh"),
    Case(lambda c: c.bridges.list(), "GET /bridges", answer=[bridge()], reads=Bridge),
    Case(
        lambda c: c.bridges.get("b/1"),
        "GET /bridges/{bridgeId}",
        path="/bridges/b%2F1",
        answer=bridge(),
        reads=Bridge,
    ),
    Case(
        lambda c: c.bridges.create_with_id("b", name="call 1"),
        "POST /bridges/{bridgeId}",
        body={"type": "mixing", "name": "call 1"},
        answer=bridge(),
        reads=Bridge,
    ),
    Case(lambda c: c.bridges.destroy("b"), "DELETE /bridges/{bridgeId}"),
    Case(
        lambda c: c.bridges.add_channel("b", "1"),
        "POST /bridges/{bridgeId}/addChannel",
        body={"channel": "1"},
    ),
    Case(
        lambda c: c.bridges.remove_channel("b", "1"),
        "POST /bridges/{bridgeId}/removeChannel",
        body={"channel": "1"},
    ),
    Case(
        lambda c: c.device_states.get("PJSIP/2001"),
        "GET /deviceStates/{deviceName}",
        path="/deviceStates/PJSIP%2F2001",
        answer={"name": "PJSIP/2001", "state": "NOT_INUSE"},
        reads=DeviceState,
    ),
    Case(
        lambda c: c.endpoints.get("PJSIP", "my trunk"),
        "GET /endpoints/{tech}/{resource}",
        path="/endpoints/PJSIP/my%20trunk",
        answer=ENDPOINT,
        reads=Endpoint,
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


async def test_version(ari: FakeAri, client: Client) -> None:
    ari.answer("GET", "/asterisk/info", json_answer(ASTERISK_INFO))
    assert (await client.asterisk.get_info()).version == "22.10.1~dfsg+~cs6.15.60671435-1"
    assert AsteriskInfo().version == ""
