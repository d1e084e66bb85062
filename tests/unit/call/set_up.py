"""What Asterisk is asked for while a call is set up, in order."""

from __future__ import annotations

from typing import Any

from ari_app.line.asterisk.ari.operation import Operation
from tests.unit.call.fake_ari import ADD_CHANNEL, ANSWER, CREATE_BRIDGE, EXTERNAL_MEDIA, RING

SET_UP: list[tuple[str, Operation[Any], int]] = [
    ("ring", RING, 1),
    ("make the bridge", CREATE_BRIDGE, 1),
    ("open the media channel", EXTERNAL_MEDIA, 1),
    ("join the media channel", ADD_CHANNEL, 1),
    ("answer", ANSWER, 1),
    ("join the caller", ADD_CHANNEL, 2),
]
"""Each with its name, and which request of its kind it is, from 1."""
