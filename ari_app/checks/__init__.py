"""Finds out what is wrong with a set-up, and says how to mend it.

``serve`` asks :func:`check_asterisk` and :func:`check_agent_key` before it takes calls; ``ari-app
check`` runs all of them (:func:`check_all`). One module for each subject:

* :mod:`~ari_app.checks.here`: this machine: files, folders, limits.
* :mod:`~ari_app.checks.agent`: the key and the agent.
* :mod:`~ari_app.checks.asterisk`, :mod:`~ari_app.checks.modules`: the version, its bugs, its
  modules.
* :mod:`~ari_app.checks.asterisk_side`: what else ARI tells: limits, trunks, dialplan, clock.
* :mod:`~ari_app.checks.dial_back`: whether Asterisk reaches us.
* :mod:`~ari_app.checks.conf`: Asterisk's own files, on its own machine.
"""

from ari_app.checks.agent import check_agent_key
from ari_app.checks.asterisk import check_asterisk
from ari_app.checks.conf import check_conf
from ari_app.checks.dial_back import check_dial_back
from ari_app.checks.everything import check_all
from ari_app.checks.finding import Finding, Verdict
from ari_app.checks.here import check_descriptors

__all__ = [
    "Finding",
    "Verdict",
    "check_agent_key",
    "check_all",
    "check_asterisk",
    "check_conf",
    "check_descriptors",
    "check_dial_back",
]
