"""Resources and events with the fields that Asterisk 22 sends."""

from __future__ import annotations

from typing import Any


def channel(channel_id: str = "1754480000.1", **changes: Any) -> dict[str, Any]:
    return {
        "id": channel_id,
        "name": "PJSIP/phone-00000001",
        "state": "Ring",
        "protocol_id": "f81d4fae@127.0.0.1",
        "caller": {"name": "Jane", "number": "12025550123"},
        "connected": {"name": "", "number": ""},
        "accountcode": "",
        "dialplan": {
            "context": "phones",
            "exten": "100",
            "priority": 2,
            "app_name": "Stasis",
            "app_data": "voice-agent",
        },
        "creationtime": "2026-08-06T12:34:56.789+0000",
        "language": "en",
    } | changes


def bridge(bridge_id: str = "bridge-1", **changes: Any) -> dict[str, Any]:
    return {
        "id": bridge_id,
        "technology": "simple_bridge",
        "bridge_type": "mixing",
        "bridge_class": "stasis",
        "creator": "Stasis",
        "name": "",
        "channels": ["1754480000.1"],
        "creationtime": "2026-08-06T12:34:56.800+0000",
        "video_mode": "talker",
    } | changes


def event(kind: str, **fields: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "timestamp": "2026-08-06T12:34:56.900+0000",
        "asterisk_id": "00:16:3e:00:00:01",
        "application": "voice-agent",
    } | fields


ASTERISK_INFO: dict[str, Any] = {
    "build": {
        "os": "Linux",
        "kernel": "6.12",
        "machine": "x86_64",
        "options": "OPTIONAL_API",
        "date": "2026-07-20 21:35:00 UTC",
        "user": "pkg",
    },
    "system": {"version": "22.10.1~dfsg+~cs6.15.60671435-1", "entity_id": "00:16:3e:00:00:01"},
    "config": {
        "name": "lab",
        "default_language": "en",
        "max_load": 0.9,
        "setid": {"user": "", "group": ""},
    },
    "status": {
        "startup_time": "2026-08-06T12:00:00.000+0000",
        "last_reload_time": "2026-08-06T12:00:00.000+0000",
    },
}
