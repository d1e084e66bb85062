"""SIP messages (RFC 3261): read from a datagram, written to one.

Pure. `parse` checks the fields that every message must have, so that the code behind it may read
them without care.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from lab.softphone.errors import SipError
from lab.softphone.fields import CSeq, NameAddr, Uri, Via, split_outside

ALLOW = "INVITE, ACK, BYE, CANCEL, OPTIONS"

# RFC 3261 section 7.3.3, RFC 3515, RFC 3892, RFC 4028, RFC 6665.
_COMPACT = {
    "b": "Referred-By",
    "c": "Content-Type",
    "e": "Content-Encoding",
    "f": "From",
    "i": "Call-ID",
    "k": "Supported",
    "l": "Content-Length",
    "m": "Contact",
    "o": "Event",
    "r": "Refer-To",
    "s": "Subject",
    "t": "To",
    "u": "Allow-Events",
    "v": "Via",
    "x": "Session-Expires",
}
_LISTS = frozenset(
    {"via", "route", "record-route", "contact", "allow", "supported", "require", "unsupported"}
)
_TOKEN = re.compile(r"[A-Za-z0-9.!%*_+`'~-]+")
_REQUEST_LINE = re.compile(r"(?P<method>[A-Za-z0-9.!%*_+`'~-]+) (?P<uri>\S+) SIP/2\.0", re.I)
_STATUS_LINE = re.compile(r"SIP/2\.0 (?P<status>[1-6][0-9]{2})(?: (?P<reason>.*))?", re.I)

REASONS = {
    100: "Trying",
    180: "Ringing",
    183: "Session Progress",
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    420: "Bad Extension",
    480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist",
    486: "Busy Here",
    487: "Request Terminated",
    488: "Not Acceptable Here",
    491: "Request Pending",
    500: "Server Internal Error",
    503: "Service Unavailable",
    603: "Decline",
}


@dataclass(frozen=True, slots=True)
class Headers:
    """Header fields in their order. Names compare without case, compact forms as the long ones."""

    fields: tuple[tuple[str, str], ...] = ()

    def get(self, name: str) -> str | None:
        """The first value of the field."""
        wanted = name.lower()
        return next((value for field, value in self.fields if field.lower() == wanted), None)

    def all(self, name: str) -> list[str]:
        """Every value of the field, in order; comma-separated lists are taken apart."""
        wanted = name.lower()
        values = [value for field, value in self.fields if field.lower() == wanted]
        if wanted in _LISTS:
            return [part for value in values for part in split_outside(value, ",")]
        return values

    def without(self, *names: str) -> Headers:
        unwanted = {name.lower() for name in names}
        return Headers(tuple(field for field in self.fields if field[0].lower() not in unwanted))

    def added(self, *fields: tuple[str, str]) -> Headers:
        return Headers((*self.fields, *fields))

    def replaced(self, name: str, value: str) -> Headers:
        """Put one value in the place of the field's first; further ones go."""
        wanted = name.lower()
        done = False
        kept: list[tuple[str, str]] = []
        for field in self.fields:
            if field[0].lower() != wanted:
                kept.append(field)
            elif not done:
                kept.append((field[0], value))
                done = True
        return Headers(tuple(kept)) if done else self.added((name, value))


@dataclass(frozen=True, slots=True)
class _Message:
    headers: Headers
    body: bytes

    @property
    def call_id(self) -> str:
        return self.headers.get("Call-ID") or ""

    @property
    def cseq(self) -> CSeq:
        return CSeq.parse(self.headers.get("CSeq") or "")

    @property
    def via(self) -> Via:
        """The topmost Via."""
        return Via.parse(self.headers.all("Via")[0])

    @property
    def sender(self) -> NameAddr:
        """The From field."""
        return NameAddr.parse(self.headers.get("From") or "")

    @property
    def recipient(self) -> NameAddr:
        """The To field."""
        return NameAddr.parse(self.headers.get("To") or "")

    @property
    def contact(self) -> NameAddr | None:
        values = self.headers.all("Contact")
        return NameAddr.parse(values[0]) if values else None

    @property
    def has_sdp(self) -> bool:
        kind = (self.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
        return bool(self.body) and kind == "application/sdp"

    def _encode(self, start_line: str) -> bytes:
        lines = [start_line]
        lines += [
            f"{name}: {value}" for name, value in self.headers.without("Content-Length").fields
        ]
        lines.append(f"Content-Length: {len(self.body)}")
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError("a line break inside a SIP header field")
        return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + self.body


@dataclass(frozen=True, slots=True)
class Request(_Message):
    """A SIP request."""

    method: str
    uri: str

    def encode(self) -> bytes:
        """The datagram. Raise ValueError when a field holds a line break."""
        return self._encode(f"{self.method} {self.uri} SIP/2.0")


@dataclass(frozen=True, slots=True)
class Response(_Message):
    """A SIP response."""

    status: int
    reason: str

    def encode(self) -> bytes:
        """The datagram. Raise ValueError when a field holds a line break."""
        return self._encode(f"SIP/2.0 {self.status} {self.reason}")

    @property
    def is_provisional(self) -> bool:
        return self.status < 200

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


Message = Request | Response


def parse(data: bytes) -> Message:
    """Read one datagram.

    Raises:
        SipError: for anything that is not a whole SIP/2.0 message with Via, From, To, Call-ID and
            CSeq, whose CSeq names the request's own method, and whose Contact (for an INVITE and
            its answers) is one that a dialog can use.
    """
    head, body = _split(data)
    lines = re.sub(r"\r?\n[ \t]+", " ", head).replace("\r\n", "\n").split("\n")
    headers = Headers(tuple(_field(line) for line in lines[1:]))
    body = _cut(body, headers.get("Content-Length"))
    message: Message
    if match := _STATUS_LINE.fullmatch(lines[0]):
        message = Response(headers, body, int(match["status"]), match["reason"] or "")
    elif match := _REQUEST_LINE.fullmatch(lines[0]):
        message = Request(headers, body, match["method"], match["uri"])
    else:
        raise SipError("neither a request nor a response")
    _check(message)
    return message


def build_response(
    request: Request,
    status: int,
    *,
    reason: str | None = None,
    to_tag: str | None = None,
    extra: tuple[tuple[str, str], ...] = (),
    body: bytes = b"",
) -> Response:
    """Answer a request: Via, From, To, Call-ID and CSeq are repeated (section 8.2.6.2)."""
    fields = [("Via", value) for value in request.headers.all("Via")]
    fields += [("Record-Route", value) for value in request.headers.all("Record-Route")]
    recipient = request.recipient
    if to_tag is not None and recipient.tag is None:
        recipient = recipient.with_tag(to_tag)
    fields += [
        ("From", str(request.sender)),
        ("To", str(recipient)),
        ("Call-ID", request.call_id),
        ("CSeq", str(request.cseq)),
        *extra,
    ]
    if body:
        fields.append(("Content-Type", "application/sdp"))
    text = reason if reason is not None else REASONS.get(status, "")
    return Response(Headers(tuple(fields)), body, status, text)


def build_ack(invite: Request, response: Response) -> Request:
    """Acknowledge a final answer above 299, within the INVITE's transaction (section 17.1.1.3)."""
    fields = [
        ("Via", str(invite.via)),
        ("Max-Forwards", "70"),
        *(("Route", value) for value in invite.headers.all("Route")),
        ("From", str(invite.sender)),
        ("To", str(response.recipient)),
        ("Call-ID", invite.call_id),
        ("CSeq", f"{invite.cseq.number} ACK"),
    ]
    return Request(Headers(tuple(fields)), b"", "ACK", invite.uri)


def build_cancel(invite: Request) -> Request:
    """Take back an INVITE that has no final answer yet (section 9.1)."""
    fields = [
        ("Via", str(invite.via)),
        ("Max-Forwards", "70"),
        *(("Route", value) for value in invite.headers.all("Route")),
        ("From", str(invite.sender)),
        ("To", str(invite.recipient)),
        ("Call-ID", invite.call_id),
        ("CSeq", f"{invite.cseq.number} CANCEL"),
    ]
    return Request(Headers(tuple(fields)), b"", "CANCEL", invite.uri)


def retried(request: Request, branch: str, *fields: tuple[str, str]) -> Request:
    """The same request as a new transaction: next CSeq, new branch, some fields more."""
    cseq = request.cseq
    via = request.via
    parameters = tuple((name, branch if name == "branch" else v) for name, v in via.parameters)
    headers = (
        request.headers.replaced("Via", str(Via(via.host, via.port, parameters, via.transport)))
        .replaced("CSeq", f"{cseq.number + 1} {cseq.method}")
        .without(*(name for name, _ in fields))
        .added(*fields)
    )
    return replace(request, headers=headers)


def _split(data: bytes) -> tuple[str, bytes]:
    match = re.search(rb"\r?\n\r?\n", data)
    if match is None:
        raise SipError("no end of the header")
    return data[: match.start()].decode("utf-8", "surrogateescape"), data[match.end() :]


def _field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    name = name.rstrip(" \t")
    if not colon or not _TOKEN.fullmatch(name):
        raise SipError("a header line without a name")
    if "\r" in value:
        raise SipError("a stray carriage return")
    return _COMPACT.get(name.lower(), name), value.strip()


def _cut(body: bytes, length: str | None) -> bytes:
    if length is None:
        return body
    if not re.fullmatch(r"[0-9]{1,9}", length):
        raise SipError("a Content-Length that is no number")
    if int(length) > len(body):
        raise SipError("a body shorter than its Content-Length")
    return body[: int(length)]


def _check(message: Message) -> None:
    if not message.headers.get("Call-ID"):
        raise SipError("no Call-ID")
    for name in ("Via", "Route", "Record-Route", "Contact", "From", "To"):
        values = message.headers.all(name)
        if not values and name in ("Via", "From", "To"):
            raise SipError(f"no {name}")
        for value in values:
            if name == "Via":
                Via.parse(value)
            elif value != "*":
                address = NameAddr.parse(value)
                if name.endswith("Route"):
                    Uri.parse(address.uri)
    cseq = message.cseq
    if isinstance(message, Request) and cseq.method != message.method:
        raise SipError("a CSeq of another method")
    if cseq.method == "INVITE":
        _check_target(message)


def _check_target(message: Message) -> None:
    """An INVITE and its 2xx name where further requests go (RFC 3261, section 12.1)."""
    if isinstance(message, Response) and message.status >= 300:
        return
    if message.contact is not None:
        Uri.parse(message.contact.uri)
    elif isinstance(message, Request) or message.is_success:
        raise SipError("no Contact")
