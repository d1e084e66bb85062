"""Session descriptions (RFC 4566) and their offer and answer (RFC 3264), for one audio stream.

Pure. `Session` is the description as text has it; `LocalMedia` is what we want; `Agreement` is
what both sides will do, seen from ours.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, replace

from lab.softphone.codec import CODECS, PCMA, PCMU, RATE_HZ, STATIC_CODECS, Codec
from lab.softphone.errors import SdpError
from lab.softphone.fields import Address

EVENT_PAYLOAD_TYPE = 101
PTIMES_MS = (10, 20, 30)
_DYNAMIC_FROM = 96
_EVENTS = f"telephone-event/{RATE_HZ}"


class Direction(enum.Enum):
    """Which way sound flows, seen from whoever says it."""

    BOTH = "sendrecv"
    SEND = "sendonly"
    RECEIVE = "recvonly"
    NONE = "inactive"

    @property
    def sends(self) -> bool:
        return self in (Direction.BOTH, Direction.SEND)

    @property
    def receives(self) -> bool:
        return self in (Direction.BOTH, Direction.RECEIVE)

    @classmethod
    def of(cls, *, sends: bool, receives: bool) -> Direction:
        match sends, receives:
            case True, True:
                return cls.BOTH
            case True, False:
                return cls.SEND
            case False, True:
                return cls.RECEIVE
            case _:
                return cls.NONE


Attributes = tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class Media:
    """One `m=` section."""

    kind: str
    port: int
    protocol: str
    formats: tuple[str, ...]
    address: str | None = None
    attributes: Attributes = ()

    def values(self, name: str) -> list[str]:
        return [value or "" for found, value in self.attributes if found == name]


@dataclass(frozen=True, slots=True)
class Session:
    """A session description. Lines that a phone does not read are dropped."""

    origin: str
    address: str | None = None
    attributes: Attributes = ()
    media: tuple[Media, ...] = ()

    def encode(self) -> bytes:
        lines = ["v=0", f"o={self.origin}", "s=-"]
        lines += _connection(self.address)
        lines += ["t=0 0", *_attribute_lines(self.attributes)]
        for media in self.media:
            lines.append(f"m={media.kind} {media.port} {media.protocol} {' '.join(media.formats)}")
            lines += _connection(media.address)
            lines += _attribute_lines(media.attributes)
        return "".join(f"{line}\r\n" for line in lines).encode()

    @classmethod
    def parse(cls, body: bytes) -> Session:
        """Raise SdpError when the text is no session description."""
        origin: str | None = None
        addresses: list[str | None] = [None]
        attributes: list[list[tuple[str, str | None]]] = [[]]
        media: list[Media] = []
        lines = body.decode("utf-8", "replace").replace("\r\n", "\n").strip("\n").split("\n")
        if lines[0].strip() != "v=0":
            raise SdpError("no session description of version 0")
        for line in lines[1:]:
            match line[:2]:
                case "o=" if origin is None:
                    origin = line[2:].strip()
                case "c=":
                    addresses[-1] = _parse_connection(line[2:])
                case "m=":
                    media.append(_parse_media(line[2:]))
                    addresses.append(None)
                    attributes.append([])
                case "a=":
                    name, colon, value = line[2:].strip().partition(":")
                    attributes[-1].append((name, value if colon else None))
        if origin is None:
            raise SdpError("no origin")
        return cls(
            origin=origin,
            address=addresses[0],
            attributes=tuple(attributes[0]),
            media=tuple(
                replace(section, address=address, attributes=tuple(found))
                for section, address, found in zip(
                    media, addresses[1:], attributes[1:], strict=True
                )
            ),
        )


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the two sides settled on."""

    remote: Address
    """Where our RTP goes. Port 0 and the address 0.0.0.0 take none."""
    codec: Codec
    payload_type: int
    event_payload_type: int | None
    """What RFC 4733 digits travel as; None when the far end takes none."""
    ptime_ms: int
    direction: Direction
    """Seen from us."""

    @property
    def may_send(self) -> bool:
        return self.direction.sends and self.remote.port > 0 and self.remote.host != "0.0.0.0"


@dataclass(frozen=True, slots=True)
class LocalMedia:
    """Our side of a call's sound. `version` goes up with every change."""

    address: Address
    codecs: tuple[Codec, ...] = (PCMU, PCMA)
    ptime_ms: int = 20
    direction: Direction = Direction.BOTH
    session_id: int = 1
    version: int = 1
    events: bool = True

    def __post_init__(self) -> None:
        if self.ptime_ms not in PTIMES_MS:
            raise ValueError(f"a ptime is one of {PTIMES_MS} ms")

    def changed(self, direction: Direction, ptime_ms: int) -> LocalMedia:
        """The next version, with another direction and the packet length that was agreed."""
        return replace(self, direction=direction, ptime_ms=ptime_ms, version=self.version + 1)

    def offer(self) -> Session:
        formats = [(codec.payload_type, codec.name) for codec in self.codecs]
        return self._session((self._audio(formats, self.direction, EVENT_PAYLOAD_TYPE),))

    def answer(self, offer: Session) -> tuple[Session, Agreement]:
        """Accept the first audio stream that we can, refuse the others with port 0.

        The codec and the packet length are the caller's choice, where we can send them.

        Raises:
            SdpError: no stream has a codec in common.
        """
        sections: list[Media] = []
        agreement: Agreement | None = None
        for media in offer.media:
            found = None if agreement else self._agree(offer, media)
            if found is None:
                sections.append(replace(media, port=0, address=None, attributes=()))
                continue
            agreement = found
            formats = [(found.payload_type, found.codec.name)]
            local = replace(self, ptime_ms=found.ptime_ms)
            sections.append(local._audio(formats, found.direction, found.event_payload_type))
        if agreement is None:
            raise SdpError("nothing in common")
        return self._session(tuple(sections)), agreement

    def conclude(self, answer: Session) -> Agreement:
        """Read the answer to our offer. Raise SdpError when it accepts nothing of it.

        We send packets of the length that we offered: what the answer names is only a wish.
        """
        agreement = self._agree(answer, answer.media[0]) if answer.media else None
        if agreement is None:
            raise SdpError("the offer was refused")
        return replace(agreement, ptime_ms=self.ptime_ms)

    def _agree(self, session: Session, media: Media) -> Agreement | None:
        host = media.address or session.address
        if media.kind != "audio" or media.port == 0 or host is None:
            return None
        if media.protocol.upper() not in ("RTP/AVP", "RTP/AVPF"):
            return None
        names = _format_names(media)
        payload_type, codec = next(
            (
                (payload_type, CODECS[name.upper().removesuffix("/8000")])
                for payload_type, name in names.items()
                if name.upper().removesuffix("/8000") in {codec.name for codec in self.codecs}
            ),
            (None, None),
        )
        if payload_type is None or codec is None:
            return None
        events = (number for number, name in names.items() if name.lower() == _EVENTS)
        theirs = _direction(media.attributes) or _direction(session.attributes) or Direction.BOTH
        return Agreement(
            remote=Address(host, media.port),
            codec=codec,
            payload_type=payload_type,
            event_payload_type=next(events, None) if self.events else None,
            ptime_ms=_ptime(media, self.ptime_ms),
            direction=Direction.of(
                sends=self.direction.sends and theirs.receives and host != "0.0.0.0",
                receives=self.direction.receives and theirs.sends,
            ),
        )

    def _audio(
        self, formats: list[tuple[int, str]], direction: Direction, event_payload_type: int | None
    ) -> Media:
        attributes: list[tuple[str, str | None]] = [
            ("rtpmap", f"{payload_type} {name}/{RATE_HZ}") for payload_type, name in formats
        ]
        numbers = [str(payload_type) for payload_type, _ in formats]
        if self.events and event_payload_type is not None:
            numbers.append(str(event_payload_type))
            attributes.append(("rtpmap", f"{event_payload_type} {_EVENTS}"))
            attributes.append(("fmtp", f"{event_payload_type} 0-15"))
        attributes += [("ptime", str(self.ptime_ms)), (direction.value, None)]
        return Media(
            "audio", self.address.port, "RTP/AVP", tuple(numbers), attributes=tuple(attributes)
        )

    def _session(self, media: tuple[Media, ...]) -> Session:
        host = self.address.host
        origin = f"- {self.session_id} {self.version} IN IP4 {host}"
        return Session(origin, host, media=media)


def _connection(address: str | None) -> list[str]:
    return [] if address is None else [f"c=IN IP4 {address}"]


def _attribute_lines(attributes: Attributes) -> list[str]:
    return [f"a={name}" if value is None else f"a={name}:{value}" for name, value in attributes]


def _parse_connection(text: str) -> str:
    match = re.fullmatch(r"IN IP4 ([0-9.]{7,15})(?:/[0-9/]+)?", text.strip())
    if match is None:
        raise SdpError("a connection that is not IPv4")
    return match[1]


def _parse_media(text: str) -> Media:
    match = re.fullmatch(r"(\S+) ([0-9]{1,5})(?:/[0-9]+)? (\S+)((?: \S+)+)", text.strip())
    if match is None or int(match[2]) >= 1 << 16:
        raise SdpError("a media line that cannot be read")
    return Media(match[1], int(match[2]), match[3], tuple(match[4].split()))


def _format_names(media: Media) -> dict[int, str]:
    """Payload type to `NAME/RATE`, in the order of preference."""
    mapped: dict[str, str] = {}
    for value in media.values("rtpmap"):
        number, _, name = value.partition(" ")
        # `/1` is the number of channels, which may be left out for one.
        mapped[number] = name.strip().removesuffix("/1")
    names: dict[int, str] = {}
    for number in media.formats:
        if not re.fullmatch(r"[0-9]{1,3}", number) or int(number) > 127:
            continue
        payload_type = int(number)
        if number in mapped:
            names[payload_type] = mapped[number]
        elif payload_type in STATIC_CODECS and payload_type < _DYNAMIC_FROM:
            names[payload_type] = f"{STATIC_CODECS[payload_type].name}/{RATE_HZ}"
    return names


def _direction(attributes: Attributes) -> Direction | None:
    names = {direction.value: direction for direction in Direction}
    return next((names[name] for name, _ in attributes if name in names), None)


def _ptime(media: Media, ours: int) -> int:
    """The packet length that the far end wants to receive, when it is one that we can send."""
    for value in media.values("ptime"):
        if value.isdecimal() and int(value) in PTIMES_MS:
            return int(value)
    return ours
