"""The clients of Asterisk and of the agent's service, made as the settings say."""

from __future__ import annotations

from ari_app.agent.elevenlabs.client import AgentClient
from ari_app.line.asterisk.ari.client import Client
from ari_app.settings import Settings


def ari_client(settings: Settings, app: str | None = None) -> Client:
    """Return a client of Asterisk's, not yet open.

    Args:
        settings: Where Asterisk is, who we are there, and whose certificates are trusted.
        app: The application's name, when it is not that of the settings.
    """
    return Client(
        settings.ari_url,
        settings.ari_username,
        settings.ari_password.get_secret_value(),
        app or settings.ari_app,
        ca_file=settings.ari_ca_file,
    )


def agent_client(settings: Settings) -> AgentClient:
    """Return a client of the agent's service, not yet open."""
    return AgentClient(
        settings.elevenlabs_base_url,
        settings.elevenlabs_api_key,
        connect_timeout=settings.agent_connect_timeout_seconds,
        dead_after=settings.agent_dead_after_seconds,
        ca_file=settings.elevenlabs_ca_file,
    )
