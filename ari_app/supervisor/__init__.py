"""A small parent that outlives the worker which serves the calls.

:mod:`~ari_app.supervisor.policy` decides (pure), :mod:`~ari_app.supervisor.parent` forks, polls and
kills, :mod:`~ari_app.supervisor.link` is the worker's end of the line between the two.
"""

from ari_app.supervisor.duty import Duty, Mode, Order, Standing
from ari_app.supervisor.link import ParentLink
from ari_app.supervisor.parent import Parent
from ari_app.supervisor.policy import Limits, Supervision

__all__ = ["Duty", "Limits", "Mode", "Order", "Parent", "ParentLink", "Standing", "Supervision"]
