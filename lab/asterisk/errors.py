"""What goes wrong when the lab is set up."""

from __future__ import annotations

from typing import ClassVar

from ari_app.errors import AppError


class LabError(AppError):
    """The lab cannot be set up or has broken down.

    The message is one sentence for the person at the terminal: what is missing, and what to do.
    """

    default_code: ClassVar[str] = "lab"
