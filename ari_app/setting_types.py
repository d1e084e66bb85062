"""What the text of a setting may be. What is raised here is shown behind the setting's name."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo

from ari_app.line.asterisk.dial_string import check_device, check_endpoint
from ari_app.line.numbers import check_number, number_pattern
from ari_app.process.addresses import (
    OWN_HEADERS,
    split_host,
    split_host_port,
    usable_url,
)
from ari_app.process.files import written_out
from ari_app.records.hiding import what_to_hide
from ari_app.records.store.address import read_address
from linekit.listener import Networks

_WAYS_IN: Final = ("asterisk", "twilio", "custom", "local")
_STORE_SCHEMES: Final = ("valkey", "valkeys", "redis", "rediss")
MediaTransport = Literal["audiosocket", "websocket", "auto"]
LineFormatName = Literal["slin", "slin16", "slin24", "auto"]


def _http_url(value: str) -> str:
    parts = usable_url(value)
    if parts is None:
        raise ValueError("must be a URL with http:// or https://")
    if parts.username or parts.password:
        raise ValueError("must not carry a user name or password; they have settings of their own")
    if parts.query or parts.fragment:
        raise ValueError("must not carry a query or a fragment")
    return value.rstrip("/")


_PRIVATE_NAMES: Final = (".local", ".internal", ".lan", ".home.arpa")
_MAX_RECEIVERS: Final = 8


def _webhook_urls(value: str) -> str:
    urls = [each.strip() for each in value.split(",")]
    if len(urls) > _MAX_RECEIVERS:
        raise ValueError(f"must be at most {_MAX_RECEIVERS} URLs")
    for url in urls:
        parts = usable_url(url)
        if parts is None or not url.isascii() or " " in url:
            raise ValueError("must be a URL with https://, or several with commas")
        if parts.username or parts.password or parts.fragment:
            raise ValueError("must not carry a user name, a password or a fragment")
        if parts.scheme == "http" and not _is_near(parts.hostname or ""):
            raise ValueError(
                "must begin with https://: what is said in calls would cross the internet for "
                "everybody to read; http:// is for this machine and private networks"
            )
    return ",".join(urls)


def _is_near(host: str) -> bool:
    """Return whether a host is this machine or in a private network, as far as its name tells."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host.rstrip(".") or host.rstrip(".").endswith(_PRIVATE_NAMES)


def _fallback_url(value: str) -> str:
    _http_url(value.partition("?")[0])
    if "#" in value or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("must be a URL with http:// or https://, without a fragment")
    return value


def _number(value: str | None) -> str | None:
    return None if value is None else check_number(value)


def _tokens(value: SecretStr) -> SecretStr:
    tokens = value.get_secret_value().split(",")
    if not all(token.isascii() and token.strip() for token in tokens):
        raise ValueError("must be one auth token or several, with commas between them")
    return value


def _host_port(value: str) -> str:
    split_host_port(value)
    return value


def _pattern(value: str | None) -> str | None:
    if value is not None:
        number_pattern(value)
    return value


def _empty_is_none(value: object) -> object:
    return None if value == "" else value


def _not_empty(value: object) -> object:
    if value == "":
        raise ValueError("is empty")  # as a path it were this folder
    return value


def _ways_in(value: str) -> str:
    names = [name.strip() for name in value.split(",")]
    if not set(names) <= set(_WAYS_IN) or len(set(names)) < len(names):
        raise ValueError(f"must be one or several of {', '.join(_WAYS_IN)}, each once, with commas")
    if "local" in names and len(names) > 1:
        raise ValueError("local stands alone: this machine's microphone is the only way in then")
    return ",".join(names)


def _hosts(value: str) -> str:
    for host in listed(value):
        split_host(host)
    return value


def listed(value: str) -> tuple[str, ...]:
    """Return what stands in a list with commas, spaces or both."""
    return tuple(value.replace(",", " ").split())


def _for_a_header(value: SecretStr | None) -> SecretStr | None:
    if value is not None and not re.fullmatch(r"[!-~]+", value.get_secret_value()):
        raise ValueError("must be letters, digits and signs of ASCII, without spaces")
    return value


def _store(value: SecretStr | None) -> SecretStr | None:
    if value is not None and usable_url(value.get_secret_value(), _STORE_SCHEMES) is None:
        raise ValueError("must be valkey://host:port, or with valkeys, redis or rediss")
    return value


def _networks(value: str) -> str:
    Networks(value)
    return value


def _header(value: str) -> str:
    if value.lower() in OWN_HEADERS:
        raise ValueError("must be a header of your own, such as Authorization: it is set already")
    return value


def _what_to_hide(value: str) -> str:
    what_to_hide(value)
    return value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (OSError, ValueError, KeyError):
        raise ValueError(
            "must be the name of a time zone that this machine knows, such as Europe/Berlin"
        ) from None
    return value


def _database(value: str) -> str:
    if value:
        read_address(value)
    return value


def _one_line(value: SecretStr | None) -> SecretStr | None:
    # Requests with it could not be sent, or whoever asks us could not send it.
    if value is not None and re.search(r"[\x00-\x1f\x7f]", value.get_secret_value()):
        raise ValueError("must be one line, without tabs and other control characters")
    return value


def _not_ours(value: str) -> str:
    if any(name.upper().startswith("AGENT_") for name in listed(value)):
        raise ValueError("must not have a name that begins with AGENT_: these are ours")
    return value


def _on_an_invite(value: str, others: ValidationInfo) -> str:
    if value and not others.data.get("outbound_endpoint", "PJSIP/").startswith("PJSIP/"):
        raise ValueError(
            "needs OUTBOUND_ENDPOINT=PJSIP/...; the route behind a Local channel can add headers "
            "by itself, from OUTBOUND_VARIABLES"
        )
    return value


EMPTY_IS_NONE: Final = BeforeValidator(_empty_is_none)
"""For a setting that may be left out: an empty value is none."""

HttpUrl = Annotated[str, AfterValidator(_http_url)]
HostPort = Annotated[str, AfterValidator(_host_port)]
OptionalSecret = Annotated[SecretStr | None, AfterValidator(_one_line), EMPTY_IS_NONE]
OptionalText = Annotated[str | None, EMPTY_IS_NONE]
OptionalPath = Annotated[
    Path | None,
    AfterValidator(lambda value: value and written_out(value)),
    EMPTY_IS_NONE,
]
Number = Annotated[str | None, AfterValidator(_number), EMPTY_IS_NONE]
AccountSid = Annotated[str, Field(pattern=r"^AC[0-9A-Za-z]{1,62}$")]
Tokens = Annotated[SecretStr, AfterValidator(_tokens)]
FallbackUrl = Annotated[str, AfterValidator(_fallback_url)]
Region = Annotated[str, Field(pattern=r"^[a-z]{2}[0-9]$")]
Edge = Annotated[str, Field(pattern=r"^[a-z-]{2,32}$")]
Endpoint = Annotated[str, AfterValidator(check_endpoint)]
Device = Annotated[str, AfterValidator(check_device)]
OwnVariables = Annotated[str, AfterValidator(_not_ours)]
InviteHeaders = Annotated[str, AfterValidator(_on_an_invite)]
Pattern = Annotated[str | None, AfterValidator(_pattern), EMPTY_IS_NONE]
DialplanContext = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,79}$")]
WaysIn = Annotated[str, AfterValidator(_ways_in)]
Hosts = Annotated[str, AfterValidator(_hosts)]
NetworkList = Annotated[str, AfterValidator(_networks)]
SecretForHeader = Annotated[OptionalSecret, AfterValidator(_for_a_header)]
HeaderName = Annotated[str, AfterValidator(_header)]
DatabaseUrl = Annotated[str, AfterValidator(_database)]
StoreUrl = Annotated[SecretStr | None, AfterValidator(_store), EMPTY_IS_NONE]
WebhookUrls = Annotated[
    str | None, AfterValidator(lambda value: value and _webhook_urls(value)), EMPTY_IS_NONE
]
SpoolPath = Annotated[Path, AfterValidator(written_out), BeforeValidator(_not_empty)]
WhatToHide = Annotated[str, AfterValidator(_what_to_hide)]
ZoneName = Annotated[str, AfterValidator(_zone)]
