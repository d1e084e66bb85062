"""SIP header field values: addresses, URIs, Via, CSeq and lists (RFC 3261, section 25).

Pure. Only what a phone reads is taken apart; the rest stays text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from lab.softphone.errors import SipError

DEFAULT_PORT = 5060

Parameters = tuple[tuple[str, str | None], ...]

_URI = re.compile(
    r"(?P<scheme>sips?):(?:(?P<user>[^@<>\s]*)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<tail>[;?][^<>\s]*)?",
    re.IGNORECASE,
)
_VIA = re.compile(
    r"SIP\s*/\s*2\.0\s*/\s*(?P<transport>[A-Za-z0-9-]+)\s+"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)\s*(?::\s*(?P<port>[0-9]{1,5}))?\s*(?P<tail>;.*)?",
    re.IGNORECASE | re.DOTALL,
)
_CSEQ = re.compile(r"(?P<number>[0-9]{1,10})\s+(?P<method>[A-Za-z0-9.!%*_+`'~-]+)")


class Address(NamedTuple):
    """Where a datagram comes from or goes to."""

    host: str
    port: int


def split_outside(text: str, separator: str) -> list[str]:
    """Split at a character that stands neither in quotes nor between angle brackets."""
    parts: list[str] = []
    start = 0
    quoted = escaped = bracketed = False
    for position, char in enumerate(text):
        if escaped:
            escaped = False
        elif quoted:
            escaped = char == "\\"
            quoted = char != '"'
        elif char == '"':
            quoted = True
        elif char == "<":
            bracketed = True
        elif char == ">":
            bracketed = False
        elif char == separator and not bracketed:
            parts.append(text[start:position].strip())
            start = position + 1
    parts.append(text[start:].strip())
    return [part for part in parts if part]


def parse_parameters(text: str, separator: str = ";") -> Parameters:
    """Read `;name=value;flag`. Names come back in lower case, values without their quotes."""
    found: list[tuple[str, str | None]] = []
    for part in split_outside(text, separator):
        name, equals, value = part.partition("=")
        found.append((name.strip().lower(), unquote(value.strip()) if equals else None))
    return tuple(found)


def unquote(text: str) -> str:
    """Remove the quotes of a quoted string and its backslashes; other text stays as it is."""
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text


def quote(text: str) -> str:
    """Write a quoted string."""
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


@dataclass(frozen=True, slots=True)
class Uri:
    """A `sip:` or `sips:` URI. `tail` keeps parameters and headers as they were written."""

    host: str
    user: str | None = None
    port: int | None = None
    scheme: str = "sip"
    tail: str = ""

    @classmethod
    def parse(cls, text: str) -> Uri:
        """Raise SipError when the text is no SIP URI."""
        match = _URI.fullmatch(text.strip())
        if match is None:
            raise SipError("not a SIP URI")
        return cls(
            host=match["host"],
            user=match["user"],
            port=_port(match["port"]),
            scheme=match["scheme"].lower(),
            tail=match["tail"] or "",
        )

    @property
    def address(self) -> Address:
        """Where requests to this URI go over UDP."""
        return Address(self.host, self.port or DEFAULT_PORT)

    def __str__(self) -> str:
        user = "" if self.user is None else f"{self.user}@"
        port = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}:{user}{self.host}{port}{self.tail}"


@dataclass(frozen=True, slots=True)
class NameAddr:
    """The value of From, To, Contact, Route and their like: `"Name" <uri>;tag=...`."""

    uri: str
    display: str = ""
    parameters: Parameters = ()

    @classmethod
    def parse(cls, text: str) -> NameAddr:
        """Raise SipError when there is no address in it.

        Without angle brackets every parameter belongs to the header field, not to the URI (RFC
        3261, section 20.10).
        """
        before, bracket, rest = _partition_at_bracket(text)
        if bracket:
            uri, closing, tail = rest.partition(">")
            if not closing:
                raise SipError("an address without its closing bracket")
            display = unquote(before.strip())
        else:
            uri, _, tail = text.partition(";")
            display = ""
        uri = uri.strip()
        if not uri or any(char.isspace() for char in uri):
            raise SipError("an address without a URI")
        return cls(uri, display, parse_parameters(tail))

    @property
    def tag(self) -> str | None:
        return dict(self.parameters).get("tag")

    def with_tag(self, tag: str) -> NameAddr:
        others = tuple(item for item in self.parameters if item[0] != "tag")
        return NameAddr(self.uri, self.display, (*others, ("tag", tag)))

    def __str__(self) -> str:
        display = f"{quote(self.display)} " if self.display else ""
        return f"{display}<{self.uri}>{_format_parameters(self.parameters)}"


@dataclass(frozen=True, slots=True)
class Via:
    """One hop of a request's way, and so of its answer's way back."""

    host: str
    port: int | None
    parameters: Parameters = ()
    transport: str = "UDP"

    @classmethod
    def parse(cls, text: str) -> Via:
        """Raise SipError when the value is no Via."""
        match = _VIA.fullmatch(text.strip())
        if match is None:
            raise SipError("not a Via")
        return cls(
            host=match["host"],
            port=_port(match["port"]),
            parameters=parse_parameters(match["tail"] or ""),
            transport=match["transport"].upper(),
        )

    @property
    def branch(self) -> str:
        return dict(self.parameters).get("branch") or ""

    @property
    def sent_by(self) -> Address:
        return Address(self.host.lower(), self.port or DEFAULT_PORT)

    def received_from(self, source: Address) -> Via:
        """Note where the request came from (RFC 3261, section 18.2.1; RFC 3581)."""
        kept = [(name, value) for name, value in self.parameters if name != "received"]
        asked = ("rport", None) in kept
        if asked:
            kept[kept.index(("rport", None))] = ("rport", str(source.port))
        if asked or source.host != self.host:
            kept.append(("received", source.host))
        return Via(self.host, self.port, tuple(kept), self.transport)

    def reply_address(self, source: Address) -> Address:
        """Where the answer goes: the source's port when `rport` was asked for, else the Via's."""
        if "rport" in dict(self.parameters):
            return source
        return Address(source.host, self.port or DEFAULT_PORT)

    def __str__(self) -> str:
        port = "" if self.port is None else f":{self.port}"
        return f"SIP/2.0/{self.transport} {self.host}{port}{_format_parameters(self.parameters)}"


@dataclass(frozen=True, slots=True)
class CSeq:
    """The number and method of a request; its answer repeats both."""

    number: int
    method: str

    @classmethod
    def parse(cls, text: str) -> CSeq:
        """Raise SipError when the value is no CSeq or its number reaches 2**31."""
        match = _CSEQ.fullmatch(text.strip())
        if match is None or int(match["number"]) >= 1 << 31:
            raise SipError("not a CSeq")
        return cls(int(match["number"]), match["method"])

    def __str__(self) -> str:
        return f"{self.number} {self.method}"


def _partition_at_bracket(text: str) -> tuple[str, str, str]:
    quoted = escaped = False
    for position, char in enumerate(text):
        if escaped:
            escaped = False
        elif quoted:
            escaped = char == "\\"
            quoted = char != '"'
        elif char == '"':
            quoted = True
        elif char == "<":
            return text[:position], "<", text[position + 1 :]
    return text, "", ""


def _format_parameters(parameters: Parameters) -> str:
    return "".join(
        f";{name}" if value is None else f";{name}={_format_value(value)}"
        for name, value in parameters
    )


def _format_value(value: str) -> str:
    return value if re.fullmatch(r"[^\s\";,<>=\\]+", value) else quote(value)


def _port(digits: str | None) -> int | None:
    if digits is None:
        return None
    port = int(digits)
    if not 0 < port < 1 << 16:
        raise SipError("a port out of range")
    return port
