"""What the containers of the lab must agree on: made once, kept in a volume."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_serializer

from lab.asterisk import LabError
from lab.compose.options import Options

FILE = "state.json"
CALLER_FILE = "caller.json"
# No letter that is taken for another: this one is typed into a telephone by hand.
_EASY = "abcdefghjkmnpqrstuvwxyz23456789"
_TYPED_LENGTH = 16
_Any = TypeVar("_Any", bound=BaseModel)


def _typed() -> SecretStr:
    return SecretStr("".join(secrets.choice(_EASY) for _ in range(_TYPED_LENGTH)))


def _long() -> SecretStr:
    return SecretStr(secrets.token_urlsafe(24))


class _Kept(BaseModel):
    """What is kept in a file that only its owner reads."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @field_serializer("*", when_used="json")
    def _plain(self, value: object) -> object:
        return value.get_secret_value() if isinstance(value, SecretStr) else value


class State(_Kept):
    """The secrets of one lab, and the account that was last chosen for a person's softphone."""

    ari_password: SecretStr = Field(default_factory=_long)
    api_key: SecretStr = Field(default_factory=_long)
    phone_password: SecretStr = Field(default_factory=_typed)
    caller_password: SecretStr = Field(default_factory=_long)
    load_password: SecretStr = Field(default_factory=_long)
    address: str = "127.0.0.1"
    sip_port: int = 5060
    phone_user: str = "phone"


class CallerState(_Kept):
    """What the automatic caller must know, and no more."""

    password: SecretStr
    api_key: SecretStr
    calls_cost_money: bool


def read_state(folder: Path) -> State:
    """Return what `keep_state` wrote into `folder`.

    Raises:
        LabError: there is none, or it cannot be read.
    """
    return _read(State, folder / FILE)


def read_caller_state(folder: Path) -> CallerState:
    """Return what `setup` wrote into `folder` for the caller.

    Raises:
        LabError: there is none, or it cannot be read.
    """
    return _read(CallerState, folder / CALLER_FILE)


def _read(kind: type[_Any], path: Path) -> _Any:
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise LabError(
            f"{path} is not there or damaged; "
            "`docker compose down --volumes` and `docker compose up` make it anew."
        ) from None


def keep_state(folder: Path, options: Options) -> State:
    """Return the lab's state: what `folder` holds, or new secrets; what was chosen wins.

    Raises:
        LabError: the folder cannot be written, or holds a damaged state.
    """
    state = read_state(folder) if (folder / FILE).exists() else State()
    chosen = {"api_key": options.api_key, "phone_password": options.lab_phone_password}
    state = state.model_copy(
        update={name: secret for name, secret in chosen.items() if secret is not None}
        | {
            "address": options.address,
            "sip_port": options.lab_sip_port,
            "phone_user": options.lab_phone_user,
        }
    )
    write_private(folder / FILE, state.model_dump_json(indent=1))
    return state


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, in one step.

    Raises:
        LabError: it cannot be written.
    """
    new = path.with_name(path.name + ".new")
    try:
        new.touch(mode=0o600)
        new.write_text(text, encoding="utf-8")
        new.replace(path)
    except OSError as error:
        raise LabError(f"{path} cannot be written: {error.strerror}.") from None
