"""Settings of the practice server."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr

from lab.practice_agent.dialogue import Model
from lab.practice_agent.profile import AgentBook


class PracticeConfig(Model):
    """Where the server listens, whom it plays, and what it keeps."""

    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)
    """0: any free one."""
    api_key: SecretStr | None = None
    """The ``xi-api-key`` that it demands; None accepts any that is not empty."""
    book: AgentBook = Field(default_factory=AgentBook.built_in)
    voice: Literal["auto", "built_in"] = "auto"
    """``auto`` is espeak-ng when it is installed."""
    keep_audio_seconds: float = Field(default=0.0, ge=0)
    """How much user audio each record keeps."""
    keep_conversations: int = Field(default=1000, ge=1)
    signed_url_seconds: float = Field(default=900.0, gt=0)
    """A signed URL is good for 15 minutes (ElevenLabs, *Authentication*)."""
    post_call_url: str | None = None
    """Where the post-call webhook goes; None: nowhere."""
    post_call_secret: SecretStr = SecretStr("")
    post_call_form: Literal["json", "opentelemetry"] = "json"
