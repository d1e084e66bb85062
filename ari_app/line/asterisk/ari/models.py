"""Asterisk's resources as ARI describes them, with Asterisk's own field names.

Only the fields that this application uses are named; whatever else Asterisk sends
is ignored, so that a newer Asterisk does no harm. A field is required here only if every supported
version sends it. `lab.asterisk.ari_description` compares all of this with the description that
a running Asterisk serves.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Resource(BaseModel):
    """The base of everything that Asterisk sends."""

    # Of the last 16,384 texts none comes again: ids, names and times. What pydantic keeps them for
    # is the keys.
    model_config = ConfigDict(frozen=True, extra="ignore", cache_strings="keys")


class CallerID(Resource):
    """A party's name and number. Personal data: neither shows in a `repr`."""

    name: str = Field(default="", repr=False)
    number: str = Field(default="", repr=False)


class DialplanCEP(Resource):
    """A place in the dialplan, and the dialplan application that runs there."""

    context: str = ""
    exten: str = ""
    priority: int = 0
    app_name: str = ""
    app_data: str = Field(default="", repr=False)


class Channel(Resource):
    """One leg of a call.

    Attributes:
        state: `Down`, `Rsrvd`, `OffHook`, `Dialing`, `Ring`, `Ringing`, `Up`, `Busy`,
            `Dialing Offhook`, `Pre-ring`, `Mute` or `Unknown`.
        channelvars: Of a media channel, in the answer to its making: the way to it.
    """

    id: str
    name: str
    state: str
    caller: CallerID = CallerID()
    connected: CallerID = CallerID()
    dialplan: DialplanCEP = DialplanCEP()
    channelvars: dict[str, Any] = Field(default_factory=dict, repr=False)


class Bridge(Resource):
    """A bridge, which joins the media of channels.

    Attributes:
        technology: What mixes at present: `simple_bridge` for two, `softmix` for more.
        channels: The ids of the channels in it.
    """

    id: str
    technology: str = ""
    name: str = ""
    channels: tuple[str, ...] = ()


class Variable(Resource):
    """The value of a channel variable or function."""

    value: str = Field(repr=False)


class RTPstat(Resource):
    """What a channel's RTP has counted. Times are in seconds; "tx" is what Asterisk sent, "rx" what
    it received.

    What only the far end can know, it reports by RTCP: while it does not, those fields are 0.
    """

    rxcount: int
    txcount: int
    rxploss: int
    txploss: int
    rxjitter: float = 0.0
    txjitter: float = 0.0
    rtt: float = 0.0
    maxrtt: float = 0.0


class Endpoint(Resource):
    """A party that can be dialled: a trunk, a phone.

    Attributes:
        technology: `PJSIP`, `Local`, ...
        state: `online`, `offline` or `unknown`; None where the technology does not tell.
    """

    technology: str
    resource: str
    state: str | None = None


class DeviceState(Resource):
    """The state of a device.

    Attributes:
        state: `NOT_INUSE`, `INUSE`, `BUSY`, `RINGING`, `RINGINUSE`, `ONHOLD`, `UNAVAILABLE`;
            `INVALID` or `UNKNOWN` where there is no such device, or nobody tells of it.
    """

    name: str
    state: str


class Application(Resource):
    """A Stasis application and what it is subscribed to."""

    name: str
    channel_ids: tuple[str, ...] = ()
    bridge_ids: tuple[str, ...] = ()


class SystemInfo(Resource):
    """Asterisk's version, and what tells it from others: `entityid` of asterisk.conf, or a MAC
    address."""

    version: str = ""
    entity_id: str = ""


class ConfigInfo(Resource):
    """Asterisk's limits. None where asterisk.conf sets none."""

    name: str = ""
    max_channels: int | None = None
    max_open_files: int | None = None


class AsteriskInfo(Resource):
    """What Asterisk says about itself. A part is None if it was not asked for."""

    system: SystemInfo | None = None
    config: ConfigInfo | None = None

    @property
    def version(self) -> str:
        """The version as Asterisk words it, for `version.assess`; empty if not asked for."""
        return "" if self.system is None else self.system.version


class Module(Resource):
    """A loadable module.

    Attributes:
        status: `Running`, `Not Running` or `Unknown`.
    """

    name: str
    status: str
    description: str = ""
