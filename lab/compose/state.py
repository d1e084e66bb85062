"""What the containers of the lab must agree on: made once, kept in a volume."""

from __future__ import annotations

import secrets
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_serializer

from lab.asterisk import LabError
from lab.compose.options import Options

FILE = "state.json"
# No letter that is taken for another: this one is typed into a telephone by hand.
_EASY = "abcdefghjkmnpqrstuvwxyz23456789"
_TYPED_LENGTH = 16


def _typed() -> SecretStr:
    return SecretStr("".join(secrets.choice(_EASY) for _ in range(_TYPED_LENGTH)))


def _long() -> SecretStr:
    return SecretStr(secrets.token_urlsafe(24))


class State(BaseModel):
    """The secrets of one lab, and what its caller must know."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    ari_password: SecretStr = Field(default_factory=_long)
    api_key: SecretStr = Field(default_factory=_long)
    phone_password: SecretStr = Field(default_factory=_typed)
    caller_password: SecretStr = Field(default_factory=_long)
    load_password: SecretStr = Field(default_factory=_long)
    calls_cost_money: bool = False

    @field_serializer(
        "ari_password",
        "api_key",
        "phone_password",
        "caller_password",
        "load_password",
        when_used="json",
    )
    def _plain(self, secret: SecretStr) -> str:
        return secret.get_secret_value()


def read_state(folder: Path) -> State:
    """Return what `keep_state` wrote into `folder`.

    Raises:
        LabError: there is none, or it cannot be read.
    """
    try:
        return State.model_validate_json((folder / FILE).read_bytes())
    except (OSError, ValidationError):
        raise LabError(
            f"{folder / FILE} is not there or damaged; "
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
        | {"calls_cost_money": options.is_real}
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
