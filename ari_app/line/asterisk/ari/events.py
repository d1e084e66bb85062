"""The events of ARI's event socket, and how their text becomes an object.

Asterisk names an event's class in its `type`; each class here bears that name. A type that is not
in the table becomes an `UnknownEvent`: newer versions add types, and a filter is not ours to
set. Sources: rest-api/api-docs/events.json, res/ari/resource_events.c.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import orjson
from pydantic import Field, ValidationError

from ari_app.line.asterisk.ari.errors import AriMalformed
from ari_app.line.asterisk.ari.models import (
    Bridge,
    Channel,
    Resource,
)


class AriEvent(Resource):
    """The base of all events.

    Attributes:
        type: The name of the event's class.
        application: The Stasis application that it was sent to.
    """

    type: str
    application: str = ""
    timestamp: datetime | None = None


class UnknownEvent(AriEvent):
    """An event whose type is not in the table. Nothing of its content is kept."""


class StasisStart(AriEvent):
    """A channel entered the application.

    Attributes:
        args: What the dialplan gave to `Stasis()` after the application's name, or `appArgs`; for
            an externalMedia channel its `data`.
        replace_channel: The channel in whose place it is, for a telephone has transferred a call.
    """

    channel: Channel
    args: tuple[str, ...] = Field(default=(), repr=False)
    replace_channel: Channel | None = None


class StasisEnd(AriEvent):
    """A channel left the application: it hung up, went on in the dialplan or was moved."""

    channel: Channel


class ChannelStateChange(AriEvent):
    """A channel's `state` is now another."""

    channel: Channel


class ChannelHangupRequest(AriEvent):
    """Somebody asked to hang a channel up. An AudioSocket peer that closes does not send this.

    Attributes:
        cause: The Q.850 cause, if one was given.
        tech_cause: The protocol's own: for PJSIP the SIP status.
        soft: The request came from within Asterisk.
    """

    channel: Channel
    cause: int | None = None
    tech_cause: int | None = None
    soft: bool = False


class ChannelDestroyed(AriEvent):
    """A channel is gone. For an outbound call that was not answered, `cause` says why.

    Attributes:
        cause: The Q.850 cause; 0 when none was set.
        tech_cause: The protocol's own; from 20.17, 22.7 and 23.1 on.
    """

    channel: Channel
    cause: int = 0
    tech_cause: int | None = None


class ChannelDtmfReceived(AriEvent):
    """A key was pressed; sent at its end. `duration_ms` is how long it was held."""

    channel: Channel
    digit: str = Field(repr=False)
    duration_ms: int = 0


class ChannelEnteredBridge(AriEvent):
    """A channel is in a bridge: from now on it hears and is heard."""

    bridge: Bridge
    channel: Channel | None = None


class ChannelHold(AriEvent):
    """The party put us on hold."""

    channel: Channel


class ChannelUnhold(AriEvent):
    """The party took us off hold."""

    channel: Channel


class Dial(AriEvent):
    """The progress of a call that Asterisk places.

    Attributes:
        peer: The channel being called.
        dialstatus: Empty at first, then `PROCEEDING`, `PROGRESS`, `RINGING`, and at last `ANSWER`,
            `BUSY`, `CONGESTION`, `CHANUNAVAIL`, `NOANSWER` or `CANCEL`. The last is coarse
            (main/dial.c): `ChannelDestroyed.cause` says more.
    """

    peer: Channel
    dialstatus: str = ""
    caller: Channel | None = None
    dialstring: str = Field(default="", repr=False)


class ApplicationReplaced(AriEvent):
    """Another client registered our application. This socket will get nothing more."""


EVENTS: Final[dict[str, type[AriEvent]]] = {
    event.__name__: event
    for event in (
        ApplicationReplaced,
        ChannelDestroyed,
        ChannelDtmfReceived,
        ChannelEnteredBridge,
        ChannelHangupRequest,
        ChannelHold,
        ChannelStateChange,
        ChannelUnhold,
        Dial,
        StasisEnd,
        StasisStart,
    )
}
"""Every event that this application understands, by its `type`."""


# No event of Asterisk's has a longer name; an error shall not repeat whatever came instead.
_MAX_KIND = 64


def parse_event(text: str | bytes) -> AriEvent:
    """Turn one message of the event socket into an event.

    Raises:
        AriMalformed: It is not JSON, not an object, has no `type`, or lacks what its type needs.
            The message names the fields but holds none of their values.
    """
    try:
        message = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise AriMalformed(f"event is not JSON: {error.msg} at {error.pos}") from None
    if not isinstance(message, dict):
        raise AriMalformed("event is not a JSON object")
    kind = message.get("type")
    if not isinstance(kind, str):
        raise AriMalformed("event has no type")
    try:
        return EVENTS.get(kind, UnknownEvent).model_validate(message)
    except ValidationError as error:
        raise AriMalformed(f"event {kind[:_MAX_KIND]}: {describe(error)}") from None


def describe(error: ValidationError) -> str:
    """Say which fields do not fit, and how; without their values, which may be personal data."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'value'}: {problem['msg']}" for problem in problems
    )
