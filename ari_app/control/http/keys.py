"""API keys: what each may do, the file that names them, and what a browser is given for one.

A token holds a key's name and an end, signed with the key itself. Nothing of it is kept here, so it
lives through a restart, and dies with its key.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ari_app.errors import ConfigError
from ari_app.process.files import why_unreadable
from ari_app.process.yaml_text import NotYaml, read_yaml


class Scope(enum.IntEnum):
    """How much a key may do; each may do what those before it may."""

    READ = 1
    """See calls, records and settings of the interface."""
    OPERATE = 2
    """Begin calls, end them, and act on them."""
    ADMIN = 3
    """Delete what is kept."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key, and whom it was given to.

    Attributes:
        name: For the log; never secret.
        secret: What requests bring.
    """

    name: str
    scope: Scope
    secret: bytes = field(repr=False)


_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_MIN_SECRET: Final = 16
_FIELDS: Final = frozenset({"name", "scope", "key"})
ONLY_KEY: Final = "API_KEY"
"""The name of the key of the settings."""
HERE: Final = "local"
"""The name of whoever asks where no key is demanded: a program of this machine."""


class Keys:
    """All keys that are known.

    Args:
        keys: No two of the same name or secret; none: only programs of this machine may ask.
    """

    def __init__(self, keys: Sequence[ApiKey] = ()) -> None:
        self._keys = tuple(keys)
        self._by_name = {key.name: key for key in keys}

    def __bool__(self) -> bool:
        return bool(self._keys)

    def owner(self, secret: bytes) -> ApiKey | None:
        """Return the key with this secret; takes as long whichever it is."""
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.secret, secret):
                found = key
        return found

    def named(self, name: str) -> ApiKey | None:
        """Return the key of this name."""
        return self._by_name.get(name)

    @staticmethod
    def of(api_key: str | None, file: Path | None = None) -> Keys:
        """Take the key of the settings, which may do everything, and those of a file.

        Raises:
            ConfigError: The file cannot be read, others may read it, or a key in it cannot be used.
        """
        keys = [] if api_key is None else [ApiKey(ONLY_KEY, Scope.ADMIN, api_key.encode())]
        if file is not None:
            keys += _read_keys(file)
        for what, values in (
            ("name", [key.name for key in keys]),
            ("key", [key.secret for key in keys]),
        ):
            if len(set(values)) < len(keys):
                raise ConfigError(f"API_KEYS_FILE {file}: two keys have the same {what}.")
        return Keys(keys)


def _read_keys(file: Path) -> list[ApiKey]:
    try:
        mode = file.stat().st_mode
        data = read_yaml(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"API_KEYS_FILE {file} cannot be read: {why_unreadable(error)}."
        ) from None
    except NotYaml as error:
        raise ConfigError(f"API_KEYS_FILE {file} {error}.") from None
    if stat.S_ISREG(mode) and mode & stat.S_IROTH:
        raise ConfigError(f"API_KEYS_FILE {file} can be read by everybody: chmod 640 it.")
    if not isinstance(data, list):
        raise ConfigError(f"API_KEYS_FILE {file} must be a list of name, scope and key.")
    return [_read_key(entry, f"API_KEYS_FILE {file}, entry {n}") for n, entry in enumerate(data, 1)]


def _read_key(entry: Any, where: str) -> ApiKey:
    match entry:
        case {"name": str(name), "scope": str(scope), "key": str(key)} if set(entry) == _FIELDS:
            pass
        case _:
            raise ConfigError(f"{where} must have name, scope and key, each a text, and no more.")
    if not _NAME.fullmatch(name) or name in (ONLY_KEY, HERE):
        raise ConfigError(
            f"{where}: a name is 1 to 64 letters, digits, dots, hyphens and underscores, "
            f"and neither {ONLY_KEY} nor {HERE}."
        )
    if scope.upper() not in Scope.__members__:
        raise ConfigError(f"{where} ({name}): scope must be read, operate or admin.")
    if len(key) < _MIN_SECRET or not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigError(
            f"{where} ({name}): a key has at least {_MIN_SECRET} characters, none of them blank "
            "or outside ASCII."
        )
    return ApiKey(name, Scope[scope.upper()], key.encode())


_MAX_TOKEN: Final = 256


def sign(key: ApiKey, until: int) -> str:
    """Make the token of a browser that has brought `key`, good until `until` (Unix seconds)."""
    return f"{key.name}:{until}:{_signature(key, until)}"


def _signature(key: ApiKey, until: int) -> str:
    text = f"ari-app sign-in {key.name} {until}".encode()
    digest = hmac.new(key.secret, text, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def read_token(token: str, keys: Keys, now: float) -> ApiKey | None:
    """Return the key that a token was made with; None: it is none of ours, or over."""
    if len(token) > _MAX_TOKEN or not token.isascii():
        return None
    name, _, rest = token.partition(":")
    until, _, signature = rest.partition(":")
    key = keys.named(name)
    if key is None or not until.isdigit() or len(until) > 12 or int(until) <= now:
        return None
    return key if hmac.compare_digest(signature, _signature(key, int(until))) else None


def end_of(token: str) -> int:
    """Return until when (Unix seconds) a token is good that `read_token` knows."""
    return int(token.split(":")[1])
