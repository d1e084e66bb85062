"""What a person may choose for the lab in Docker, from the environment."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    BeforeValidator,
    Field,
    IPvAnyAddress,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from lab.asterisk import LabError

ELEVENLABS_URL = "https://api.elevenlabs.io"
PRACTICE_URL = "http://practice-agent:8765"
_PRACTICE_KEY = "practice"
_KEY_FILE = Path("/run/secrets/elevenlabs_api_key")


def _empty_is_none(value: object) -> object:
    return None if value == "" else value


OptionalText = Annotated[str | None, BeforeValidator(_empty_is_none)]
OptionalSecret = Annotated[SecretStr | None, BeforeValidator(_empty_is_none)]
OptionalAddress = Annotated[IPvAnyAddress | None, BeforeValidator(_empty_is_none)]
Port = Annotated[int, Field(ge=1024, le=65535)]


class Options(BaseSettings):
    """Field names are the environment's names in lower case; docs/docker.md describes them."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    lab_bind: IPvAnyAddress = ipaddress.ip_address("127.0.0.1")
    """Where Docker publishes the ports."""
    lab_address: OptionalAddress = None
    """What phones are told to send to; as `lab_bind` when empty."""
    lab_sip_port: Port = 5060
    lab_rtp_first: Port = 16384
    lab_rtp_last: Port = 16483
    lab_phone_user: str = Field(default="phone", pattern=r"^[a-z][a-z0-9]{1,31}$")
    lab_phone_password: OptionalSecret = None
    """Made when empty."""

    elevenlabs_api_key: OptionalSecret = None
    elevenlabs_agent_id: OptionalText = None
    elevenlabs_base_url: OptionalText = None
    api_key: OptionalSecret = None
    """Made when empty."""

    @property
    def address(self) -> str:
        """What phones are told to send to."""
        return str(self.lab_address or self.lab_bind)

    @property
    def agent_key(self) -> str:
        """ELEVENLABS_API_KEY of the service; the practice agent takes any."""
        key = self.elevenlabs_api_key
        return key.get_secret_value() if key else _PRACTICE_KEY

    @property
    def is_real(self) -> bool:
        """Whether calls go to ElevenLabs, where they cost money."""
        return self.elevenlabs_api_key is not None

    @property
    def agent_url(self) -> str:
        """ELEVENLABS_BASE_URL of the service."""
        return self.elevenlabs_base_url or (ELEVENLABS_URL if self.is_real else PRACTICE_URL)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.lab_address is None and self.lab_bind.is_unspecified:
            raise ValueError(
                f"LAB_BIND is {self.lab_bind}, which phones cannot send to: set LAB_ADDRESS to "
                "this machine's address in their network"
            )
        if self.lab_rtp_first % 2 or self.lab_rtp_last <= self.lab_rtp_first:
            raise ValueError("LAB_RTP_FIRST must be even and less than LAB_RTP_LAST")
        if self.lab_phone_user in ("caller", "load"):
            raise ValueError("LAB_PHONE_USER must not be one of the lab's own: caller, load")
        password = self.lab_phone_password
        if password and not _fit_for_asterisk(password.get_secret_value()):
            raise ValueError(
                "LAB_PHONE_PASSWORD must have 12 to 64 characters, letters and digits, - _ . only"
            )
        if self.is_real and not self.elevenlabs_agent_id:
            raise ValueError("ELEVENLABS_AGENT_ID must name an agent of ELEVENLABS_API_KEY's")
        return self


def _fit_for_asterisk(password: str) -> bool:
    plain = password.replace("-", "").replace("_", "").replace(".", "")
    return 12 <= len(password) <= 64 and plain.isascii() and plain.isalnum()


def read_options(**overrides: object) -> Options:
    """Read them from the environment; `overrides` win. The key may be in a file instead.

    Raises:
        LabError: one sentence for each that does not fit.
    """
    if not os.environ.get("ELEVENLABS_API_KEY") and (key := _key_in_file(_KEY_FILE)):
        overrides.setdefault("elevenlabs_api_key", key)
    try:
        return Options(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        problems = [
            " ".join(
                [*(f"{str(part).upper()}:" for part in item["loc"][:1]), _sentence(item["msg"])]
            )
            for item in error.errors(include_input=False, include_url=False)
        ]
        raise LabError("Bad setting. " + " ".join(problems)) from None


def _key_in_file(path: Path) -> str:
    """What the file of ELEVENLABS_API_KEY_FILE holds; empty when there is none.

    Raises:
        LabError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeError):
        raise LabError(
            "The file that ELEVENLABS_API_KEY_FILE names cannot be read here: user 10001 must "
            "be allowed to read it."
        ) from None


def _sentence(message: str) -> str:
    return message.removeprefix("Value error, ").rstrip(".") + "."
