"""The clients of Asterisk, Twilio, a dialer and the agent's service, made as the settings say."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ari_app.agent.elevenlabs.client import AgentClient
from ari_app.line.asterisk.ari.client import Client
from ari_app.process.network import trusting
from ari_app.settings import Settings

if TYPE_CHECKING:
    from ari_app.line.dialer.api import DialerApi
    from ari_app.line.twilio.rest import TwilioApi

_REQUESTS_AT_ONCE = 50
_FEWEST_AT_ONCE = 8


def requests_at_once(workers: int) -> int:
    """Return how many requests one of several processes may have at Asterisk at once: together
    about as many as one alone, well below the 100 sessions that it serves by default."""
    return max(_FEWEST_AT_ONCE, _REQUESTS_AT_ONCE // workers)


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
        max_connections=requests_at_once(settings.workers),
        ca_file=settings.ari_ca_file,
    )


def twilio_client(settings: Settings) -> TwilioApi:
    """Return a client of Twilio's REST interface; to be made where a loop runs, and closed."""
    from ari_app.line.twilio.rest import TwilioApi

    return TwilioApi(
        settings.twilio_api_url, settings.twilio_account_sid or "", settings.twilio_tokens
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


def dialer_api(
    settings: Settings, on_failure: Callable[[str, str], None] = lambda what, code: None
) -> DialerApi:
    """Return a client of a dialer of one's own, not yet open.

    Raises:
        ConfigError: DIALER_CA_FILE cannot be used.
    """
    from ari_app.line.dialer.api import DialerApi, DialerOptions

    ca_file = settings.dialer_ca_file
    return DialerApi(
        DialerOptions(
            url=settings.dialer_api_url,
            key=settings.dialer_api_key,
            audio_hosts=settings.dialer_hosts,
            tls=None if ca_file is None else trusting(ca_file, "DIALER_CA_FILE"),
        ),
        on_failure,
    )
