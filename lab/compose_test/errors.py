"""What ends the test."""

from __future__ import annotations

from typing import ClassVar

from lab.asterisk import LabError


class NoEngineError(LabError):
    """There is no Docker Engine here and none can be started: nothing could be tested."""

    default_code: ClassVar[str] = "no_engine"


class CheckFailed(LabError):
    """Something of the lab in Docker does not work; the message shows what was seen."""

    default_code: ClassVar[str] = "check_failed"
