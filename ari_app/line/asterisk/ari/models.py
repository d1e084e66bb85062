"""Asterisk's resources as ARI describes them, with Asterisk's own field names.

Only the fields that this application uses, or is about to, are named; whatever else Asterisk sends
is ignored, so that a newer Asterisk does no harm. A field is required here only if every supported
version sends it. `lab.asterisk.ari_description` compares all of this with the description that a
running
Asterisk serves.
"""

from __future__ import annotations

from datetime import datetime

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
        protocol_id: The SIP Call-ID, for a PJSIP channel.
        channelvars: The variables that `channelvars` in ari.conf names; for externalMedia also
            those that the channel driver set.
    """

    id: str
    name: str
    state: str
    protocol_id: str = ""
    caller: CallerID = CallerID()
    connected: CallerID = CallerID()
    accountcode: str = ""
    dialplan: DialplanCEP = DialplanCEP()
    creationtime: datetime | None = None
    language: str = ""
    channelvars: dict[str, str] = Field(default_factory=dict, repr=False)
    caller_rdnis: str = Field(default="", repr=False)
    tenantid: str = ""


class Bridge(Resource):
    """What joins the media of channels.

    Attributes:
        technology: What mixes at present: `simple_bridge` for two, `softmix` for more.
        bridge_type: `mixing` or `holding`.
        creator: The application that made it: `Stasis` for one made through ARI.
        channels: The ids of the channels in it.
    """

    id: str
    technology: str = ""
    bridge_type: str = ""
    bridge_class: str = ""
    creator: str = ""
    name: str = ""
    channels: tuple[str, ...] = ()
    creationtime: datetime | None = None


class Playback(Resource):
    """A prompt being played.

    Attributes:
        target_uri: `channel:ID` or `bridge:ID`.
        state: `queued`, `playing`, `continuing`, `done`, `failed` or `cancelled`.
    """

    id: str
    media_uri: str
    state: str
    next_media_uri: str | None = None
    target_uri: str = ""
    language: str = ""


class Variable(Resource):
    """The value of a channel variable or function."""

    value: str = Field(repr=False)


class Endpoint(Resource):
    """A party that can be dialled: a trunk, a phone.

    Attributes:
        technology: `PJSIP`, `Local`, ...
        state: `online`, `offline` or `unknown`; None where the technology does not tell.
    """

    technology: str
    resource: str
    state: str | None = None


class Application(Resource):
    """A Stasis application and what it is subscribed to."""

    name: str
    channel_ids: tuple[str, ...] = ()
    bridge_ids: tuple[str, ...] = ()
    endpoint_ids: tuple[str, ...] = ()
    device_names: tuple[str, ...] = ()


class BuildInfo(Resource):
    """How Asterisk was built."""

    os: str = ""
    kernel: str = ""
    machine: str = ""
    options: str = ""
    date: str = ""
    user: str = ""


class SystemInfo(Resource):
    """Asterisk's version, and the id by which it names itself in events."""

    version: str = ""
    entity_id: str = ""


class ConfigInfo(Resource):
    """Asterisk's limits. None where asterisk.conf sets none."""

    name: str = ""
    default_language: str = ""
    max_channels: int | None = None
    max_open_files: int | None = None
    max_load: float | None = None


class StatusInfo(Resource):
    """When Asterisk started and was last reloaded."""

    startup_time: datetime | None = None
    last_reload_time: datetime | None = None


class AsteriskInfo(Resource):
    """What Asterisk says about itself. A part is None if it was not asked for."""

    build: BuildInfo | None = None
    system: SystemInfo | None = None
    config: ConfigInfo | None = None
    status: StatusInfo | None = None

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
    use_count: int = 0
    support_level: str = ""


class AdditionalParam(Resource):
    """A parameter of a transfer's destination that only its protocol knows."""

    parameter_name: str = ""
    parameter_value: str = Field(default="", repr=False)


class RequiredDestination(Resource):
    """Where a transfer is to go: a number, or (attended) the call that it replaces."""

    destination: str = Field(default="", repr=False)
    protocol_id: str = ""
    additional_protocol_params: tuple[AdditionalParam, ...] = ()


class ReferTo(Resource):
    """The target of a transfer."""

    requested_destination: RequiredDestination = RequiredDestination()
    destination_channel: Channel | None = None
    connected_channel: Channel | None = None
    bridge: Bridge | None = None


class ReferredBy(Resource):
    """The party that asked for a transfer."""

    source_channel: Channel | None = None
    connected_channel: Channel | None = None
    bridge: Bridge | None = None
