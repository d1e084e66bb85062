"""What goes wrong when the lab is set up."""

from __future__ import annotations


class LabError(Exception):
    """The lab cannot be set up or has broken down.

    The message is one sentence for the person at the terminal: what is missing, and what to do.
    """
