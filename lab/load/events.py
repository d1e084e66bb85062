"""Channels, bridges and events in the JSON of Asterisk 22.10.1, as a running one sent it.

Pure. Of what a call makes Asterisk say, only the RTP statistics at its end are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

ENTITY_ID = "02:00:00:00:00:01"
VERSION = "22.10.1"


@dataclass(slots=True)
class Channel:
    """A leg of a call: the caller's, or the media channel that belongs to it."""

    id: str
    name: str
    state: str
    created: str
    app: str
    caller_number: str = ""
    exten: str = "s"
    args: tuple[str, ...] = ()
    is_media: bool = False
    in_stasis: bool = False
    bridge_id: str | None = None
    variables: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> Json:
        """The Channel model."""
        if self.is_media and not self.in_stasis:
            application, data = "AppDial2", "(Outgoing Line)"
        else:
            application, data = "Stasis", ",".join((self.app, *self.args))
        return {
            "id": self.id,
            "name": self.name,
            "state": self.state,
            "protocol_id": "" if self.is_media else f"{self.id}@load",
            "caller": {"name": "", "number": self.caller_number},
            "connected": {"name": "", "number": ""},
            "accountcode": "",
            "dialplan": {
                "context": "default" if self.is_media else "from-phones",
                "exten": self.exten,
                "priority": 1,
                "app_name": application,
                "app_data": data,
            },
            "creationtime": self.created,
            "language": "en",
        }


@dataclass(slots=True)
class Bridge:
    """A mixing bridge."""

    id: str
    name: str
    created: str
    channels: list[str] = field(default_factory=list)

    def to_json(self) -> Json:
        """The Bridge model."""
        return {
            "id": self.id,
            "technology": "simple_bridge",
            "bridge_type": "mixing",
            "bridge_class": "stasis",
            "creator": "Stasis",
            "name": self.name,
            "channels": list(self.channels),
            "creationtime": self.created,
            "video_mode": "talker",
        }


def event(kind: str, app: str, timestamp: str, **content: Any) -> Json:
    """An event of this type; resources in it become JSON."""
    body: Json = {"type": kind, "timestamp": timestamp}
    for name, value in content.items():
        body[name] = value.to_json() if isinstance(value, Channel | Bridge) else value
    body["asterisk_id"] = ENTITY_ID
    body["application"] = app
    return body


def module_json(name: str) -> Json:
    """A module that runs, of what `GET /asterisk/modules` lists."""
    return {
        "name": name,
        "description": name,
        "use_count": 0,
        "status": "Running",
        "support_level": "core",
    }


def asterisk_info(timestamp: str) -> Json:
    """What `GET /asterisk/info` answers."""
    return {
        "build": {
            "os": "Linux",
            "kernel": "unknown",
            "machine": "unknown",
            "options": "OPTIONAL_API",
            "date": timestamp,
            "user": "load",
        },
        "system": {"version": VERSION, "entity_id": ENTITY_ID},
        "config": {
            "name": "load",
            "default_language": "en",
            "setid": {"user": "", "group": ""},
        },
        "status": {"startup_time": timestamp, "last_reload_time": timestamp},
    }
