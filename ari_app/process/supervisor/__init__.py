"""A small parent that outlives the worker which serves the calls.

`policy` decides (pure), `parent` forks, polls and
kills, `parent` is the worker's end of the line between the two.
"""

from ari_app.process.supervisor.parent import Parent, ParentLink
from ari_app.process.supervisor.policy import Duty, Limits, Mode, Order, Standing, Supervision

__all__ = ["Duty", "Limits", "Mode", "Order", "Parent", "ParentLink", "Standing", "Supervision"]
