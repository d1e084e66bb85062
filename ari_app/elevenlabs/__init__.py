"""The agent's side of the bridge: the ElevenLabs Agents WebSocket.

Reading order: `client_messages` and `server_messages` (what may be said, all under `messages`),
`codec` (JSON and base64), `conversation` (the protocol's rules, with no socket), `closing` (what
an end means), `outbox` (what waits while the peer does not read), and at last the thin shells
`signed_url`, `agent_socket`, `connection` and `client`.

Everything but these four shells is pure: no event loop, no clock.
"""

from ari_app.elevenlabs.client import AgentClient
from ari_app.elevenlabs.client_messages import Initiation
from ari_app.elevenlabs.closing import AgentClose, CloseKind
from ari_app.elevenlabs.connection import AgentConnection, AgentHandler

__all__ = [
    "AgentClient",
    "AgentClose",
    "AgentConnection",
    "AgentHandler",
    "CloseKind",
    "Initiation",
]
