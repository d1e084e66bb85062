"""Voice bridge between Asterisk and ElevenLabs agents.

A call enters the ARI application, gets an AudioSocket channel back to this process, and talks with
an agent over its WebSocket. `docs/architecture.md` shows the way of one sound through the
modules.
"""

from __future__ import annotations

__version__ = "0.1.0"
