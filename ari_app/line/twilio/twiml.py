"""The documents with which we answer Twilio. Pure.

They are built as trees, so that whatever stands in them is escaped.

Source: https://www.twilio.com/docs/voice/twiml
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from xml.etree.ElementTree import Element, SubElement, tostring

from ari_app.line.interface import CallEnd, Outcome, Status

CONTENT_TYPE: Final = "text/xml"
E164: Final = re.compile(r"\+?[1-9][0-9]{6,14}")
_SIP: Final = re.compile(r"[A-Za-z0-9+*#._-]+@[A-Za-z0-9.-]+")
_CONTROL: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Where callers go on after the agent.

    Attributes:
        url: Whose TwiML goes on with them, as a dialplan does in Asterisk.
        number: Who is called for them, where there is no such TwiML.
        caller_id: A number of ours, for who cannot be shown the caller's.
        ring_seconds: How long a transfer's target may ring.
    """

    url: str | None = None
    number: str | None = None
    caller_id: str | None = None
    ring_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Ending:
    """How the agent's part has ended.

    Attributes:
        outcome, end: As the line was told.
        shows: The number that a target of the caller's sees; None: it cannot be shown.
        variables: What the agent has noted for the systems that go on.
    """

    outcome: Outcome
    end: CallEnd
    shows: str | None = None
    variables: Mapping[str, str] | None = None


def stream(url: str, *, after: str, status: str, session_id: str, keys: str = "") -> str:
    """Give the call to a Media Stream.

    Args:
        url: Where Twilio connects.
        after: Where it asks what comes after it.
        status: Where it tells of failures.
        session_id: Shown in Twilio's log.
        keys: Pressed towards the far end before.
    """
    response = Element("Response")
    if keys:
        SubElement(response, "Play", digits=keys)
    connect = SubElement(response, "Connect", action=after, method="POST")
    given = SubElement(
        connect, "Stream", url=url, statusCallback=status, statusCallbackMethod="POST"
    )
    SubElement(given, "Parameter", name="session_id", value=session_id)
    return _text(response)


def room(name: str, *, begins: bool) -> str:
    """Put the call into a conference, where it hears Twilio's music until somebody `begins` it.

    Args:
        name: Which one.
        begins: It begins with this call.
    """
    response = Element("Response")
    dial = SubElement(response, "Dial")
    conference = SubElement(
        dial,
        "Conference",
        beep="false",
        startConferenceOnEnter="true" if begins else "false",
        endConferenceOnExit="true",
    )
    conference.text = name
    SubElement(response, "Hangup")
    return _text(response)


def hang_up() -> str:
    """End the call."""
    response = Element("Response")
    SubElement(response, "Hangup")
    return _text(response)


def refusal(ending: Ending, elsewhere: Elsewhere) -> str:
    """Answer for a call that gets no agent: it goes on elsewhere, or hears that we are busy.

    The call is not answered by it, and costs nothing.
    """
    goes_on = ending.outcome.status is not Status.COMPLETED
    if goes_on and (text := _fallback(ending, elsewhere)) is not None:
        return text
    response = Element("Response")
    SubElement(response, "Reject", reason="busy")
    return _text(response)


def after(ending: Ending, elsewhere: Elsewhere, *, dialled: str, placed: bool = False) -> str:
    """Say what comes after the agent.

    Args:
        ending: How its part has ended.
        elsewhere: Where callers go on.
        dialled: Where Twilio tells how the call to a transfer's target has ended.
        placed: We have called: then there is nobody else who waits for the callee.
    """
    outcome = ending.outcome
    if outcome.status is Status.TRANSFER and outcome.transfer_to is not None:
        text = _dial(outcome.transfer_to, ending, elsewhere, action=dialled)
        if text is not None:
            return text
    if outcome.status is Status.COMPLETED or (placed and outcome.status is not Status.TRANSFER):
        return hang_up()
    return _fallback(ending, elsewhere) or hang_up()


def after_dial(status: str, ending: Ending, elsewhere: Elsewhere) -> str:
    """Say what comes after a transfer's target: the end, or the fallback if it was not reached.

    Args:
        status: `DialCallStatus`.
        ending: As for `after`.
        elsewhere: Where callers go on.
    """
    if status in ("completed", "answered"):
        return hang_up()
    return _fallback(ending, elsewhere, DIAL_STATUS=status) or hang_up()


def _fallback(ending: Ending, elsewhere: Elsewhere, **more: str) -> str | None:
    response = Element("Response")
    if elsewhere.url is not None:
        redirect = SubElement(response, "Redirect", method="POST")
        redirect.text = _with_query(elsewhere.url, {**told(ending), **more})
        return _text(response)
    if elsewhere.number is not None:
        return _dial(elsewhere.number, ending, elsewhere)
    return None


def told(ending: Ending) -> dict[str, str]:
    """Return what whoever goes on with a caller is told, by its name in a dialplan."""
    outcome, end = ending.outcome, ending.end
    values = {
        **(ending.variables or {}),
        "AGENT_STATUS": outcome.status.value,
        "AGENT_REASON": outcome.reason,
        "AGENT_SESSION_ID": end.session_id,
        "AGENT_CONVERSATION_ID": end.conversation_id,
        "AGENT_TRANSFER_TO": outcome.transfer_to or "",
    }
    return {name: value for name, value in values.items() if value}


def _with_query(url: str, values: Mapping[str, str]) -> str:
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    # Twilio may bring them into this order and yet sign them as they were.
    query = urlencode(sorted({**given, **values}.items()))
    return urlunsplit(parts._replace(query=query))


def _dial(
    to: str, ending: Ending, elsewhere: Elsewhere, *, action: str | None = None
) -> str | None:
    """Call somebody for the caller; None where it is nobody whom Twilio could call."""
    is_number = E164.fullmatch(to) is not None
    if not is_number and not _SIP.fullmatch(to):
        return None
    response = Element("Response")
    dial = SubElement(
        response, "Dial", answerOnBridge="true", timeout=str(round(elsewhere.ring_seconds))
    )
    shown = ending.shows or elsewhere.caller_id
    if shown is not None:
        dial.set("callerId", shown)
    if action is not None:
        dial.set("action", action)
        dial.set("method", "POST")
    target = SubElement(dial, "Number" if is_number else "Sip")
    target.text = to if is_number else f"sip:{to}"
    return _text(response)


def _text(response: Element) -> str:
    for element in response.iter():
        # XML has no way to write these.
        element.text = None if element.text is None else _CONTROL.sub("", element.text)
        for name, value in element.items():
            element.set(name, _CONTROL.sub("", value))
    return '<?xml version="1.0" encoding="UTF-8"?>' + tostring(response, encoding="unicode")
