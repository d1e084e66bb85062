"""A small parent that outlives the workers which serve the calls.

`policy` decides (pure); `parent` forks, polls and kills, and has the worker's end of the line
between the two; `systemd` tells that one how they stand.
"""

from ari_app.process.supervisor.parent import Parent, ParentLink, awaited
from ari_app.process.supervisor.policy import (
    FRONT,
    SPARE,
    Duty,
    Limits,
    Mode,
    Order,
    Standing,
    Supervision,
)

__all__ = [
    "FRONT",
    "SPARE",
    "Duty",
    "Limits",
    "Mode",
    "Order",
    "Parent",
    "ParentLink",
    "Standing",
    "Supervision",
    "awaited",
]
