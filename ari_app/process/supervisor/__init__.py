"""A small parent that outlives the workers which serve the calls.

`policy` decides (pure), `parent` forks, polls and
kills, `parent` is the worker's end of the line between the two.
"""

from ari_app.process.supervisor.parent import Parent, ParentLink
from ari_app.process.supervisor.policy import (
    FRONT,
    Duty,
    Limits,
    Mode,
    Order,
    Standing,
    Supervision,
)

__all__ = [
    "FRONT",
    "Duty",
    "Limits",
    "Mode",
    "Order",
    "Parent",
    "ParentLink",
    "Standing",
    "Supervision",
]
