"""TwiML, read as strictly as Twilio reads it (twilio.com/docs/voice/twiml). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final
from xml.etree import ElementTree

MAX_BYTES: Final = 64_000
MAX_PARAMETER: Final = 500
MAX_SIP_URI: Final = 255
MAX_SIP_HEADERS: Final = 1024

_CALLBACK: Final = "statusCallback statusCallbackMethod"
_LEG: Final = f"url method statusCallbackEvent {_CALLBACK}"
_ATTRIBUTES: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        verb: frozenset(names.split())
        for verb, names in {
            "Connect": "action method",
            "Stream": f"url name track {_CALLBACK}",
            "Parameter": "name value",
            "Dial": "action method timeout timeLimit callerId answerOnBridge hangupOnStar record "
            "trim ringTone sequential recordingStatusCallback referUrl referMethod",
            "Number": f"sendDigits {_LEG}",
            "Sip": f"username password {_LEG}",
            "Conference": "muted beep startConferenceOnEnter endConferenceOnExit waitUrl "
            "waitMethod maxParticipants participantLabel coach record region "
            f"statusCallbackEvent {_CALLBACK}",
            "Reject": "reason",
            "Hangup": "",
            "Say": "voice language loop",
            "Play": "loop digits",
            "Pause": "length",
            "Redirect": "method",
        }.items()
    }
)
_CHILDREN: Final = MappingProxyType(
    {
        "Connect": frozenset({"Stream"}),
        "Stream": frozenset({"Parameter"}),
        "Dial": frozenset({"Number", "Sip", "Conference"}),
    }
)
_NOUNS: Final = frozenset({"Stream", "Parameter", "Number", "Sip", "Conference"})
_VALUES: Final = MappingProxyType(
    {
        ("Reject", "reason"): re.compile("busy|rejected"),
        ("Dial", "timeout"): re.compile(r"\d{1,3}"),
        ("Dial", "timeLimit"): re.compile(r"\d{1,5}"),
        ("Pause", "length"): re.compile(r"\d+"),
        ("Play", "digits"): re.compile(r"[0-9*#wW]{1,32}"),
        ("Number", "sendDigits"): re.compile(r"[0-9*#wW]{1,32}"),
        **{
            (verb, name): re.compile("GET|POST")
            for verb, names in _ATTRIBUTES.items()
            for name in names
            if name.lower().endswith("method")
        },
        **{
            (verb, name): re.compile("true|false")
            for verb, name in (
                ("Dial", "answerOnBridge"),
                ("Dial", "hangupOnStar"),
                ("Conference", "muted"),
                ("Conference", "startConferenceOnEnter"),
                ("Conference", "endConferenceOnExit"),
            )
        },
    }
)
_SIP_HEADERS: Final = frozenset(
    {"user-to-user", "remote-party-id", "p-preferred-identity", "p-called-party-id"}
)


class TwimlError(Exception):
    """A document that Twilio does not carry out.

    Attributes:
        code: Twilio's error.
    """

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(f"{code}: {sentence}")
        self.code = code


@dataclass(frozen=True, slots=True)
class Verb:
    """An element of TwiML: a verb, or a noun within one."""

    name: str
    attributes: Mapping[str, str]
    text: str = ""
    children: tuple[Verb, ...] = ()

    def get(self, name: str, default: str = "") -> str:
        """Return an attribute."""
        return self.attributes.get(name, default)

    @property
    def parameters(self) -> dict[str, str]:
        """The custom parameters of a stream."""
        return {each.get("name"): each.get("value") for each in self.children}


@dataclass(frozen=True, slots=True)
class Document:
    """What is to be done with a call.

    Attributes:
        url: Where it came from; relative addresses start there. Empty when it came inline.
        warnings: What TwiML does not have: 12200. It is left out, and the call goes on.
    """

    verbs: tuple[Verb, ...] = ()
    url: str = ""
    warnings: tuple[str, ...] = ()


def read(body: bytes, content_type: str = "text/xml", url: str = "") -> Document:
    """Read an answer.

    Raises:
        TwimlError: 11750 too large, 12300 of another type, 12100 no XML, 12200 without something
            that is needed, 13224 or 13252 a number or SIP header that cannot be.
    """
    if len(body) > MAX_BYTES:
        raise TwimlError(11750, f"{len(body)} bytes")
    match content_type.partition(";")[0].strip().lower():
        case "text/xml" | "application/xml":
            pass
        case "text/plain":
            text = body.decode(errors="replace").strip()
            return Document((Verb("Say", {}, text),) if text else (), url)
        case other:
            raise TwimlError(12300, f"content type {other or 'missing'}")
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        raise TwimlError(12100, "a document type")
    try:
        root = ElementTree.fromstring(body)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise TwimlError(12100, f"no XML: {error}") from None
    if root.tag != "Response":
        raise TwimlError(12100, f"<{root.tag}> is no <Response>")
    notes: list[str] = []
    if root.attrib or (root.text or "").strip():
        notes.append("<Response> has attributes or text")
    verbs = tuple(verb for each in root if (verb := _verb(each, "Response", notes)) is not None)
    return Document(verbs, url, tuple(notes))


def _verb(element: ElementTree.Element, parent: str, notes: list[str]) -> Verb | None:
    name = element.tag
    known = _ATTRIBUTES.get(name)
    allowed = _CHILDREN.get(parent)
    if known is None or (name not in allowed if allowed is not None else name in _NOUNS):
        notes.append(f"<{name}> in <{parent}>")
        return None
    attributes: dict[str, str] = {}
    for attribute, value in element.attrib.items():
        pattern = _VALUES.get((name, attribute))
        if attribute not in known or (pattern and not pattern.fullmatch(value)):
            notes.append(f'{attribute}="{value}" of <{name}>')
        else:
            attributes[attribute] = value
    nouns = tuple(noun for each in element if (noun := _verb(each, name, notes)) is not None)
    verb = Verb(name, attributes, (element.text or "").strip(), nouns)
    _check(verb)
    return verb


def _check(verb: Verb) -> None:
    match verb.name:
        case "Connect" if len(verb.children) != 1:
            raise TwimlError(12200, "<Connect> has one <Stream>")
        case "Stream" if verb.get("track", "inbound_track") != "inbound_track":
            raise TwimlError(31941, f"track {verb.get('track')}")
        case "Stream" if not verb.get("url"):
            raise TwimlError(12200, "<Stream> without url")
        case "Parameter" if len(verb.get("name") + verb.get("value")) >= MAX_PARAMETER:
            raise TwimlError(12200, f"parameter {verb.get('name')} is too long")
        case "Parameter" if not verb.get("name"):
            raise TwimlError(12200, "a parameter without a name")
        case "Dial" if not (verb.children or verb.text):
            raise TwimlError(13221, "<Dial> calls nobody")
        case "Number" if not re.fullmatch(r"\+?[0-9 ()-]{3,20}", verb.text):
            raise TwimlError(13224, f"number {verb.text!r}")
        case "Sip":
            _check_sip(verb.text)
        case "Conference" if not verb.text:
            raise TwimlError(12200, "<Conference> without a name")


def _check_sip(uri: str) -> None:
    address, _, headers = uri.partition("?")
    if not address.startswith(("sip:", "sips:")) or len(address) >= MAX_SIP_URI:
        raise TwimlError(13224, f"SIP address {address!r}")
    names = [each.partition("=")[0].lower() for each in headers.split("&") if headers]
    wrong = [name for name in names if not name.startswith("x-") and name not in _SIP_HEADERS]
    if wrong or len(headers) >= MAX_SIP_HEADERS:
        raise TwimlError(13252, f"SIP headers {headers!r}")
