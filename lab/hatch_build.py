"""What the lab's wheel holds. A checkout that is installed as editable holds nothing: copies there
would be run in place of the checkout's own files, and stay behind when those change.
"""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class LabFiles(BuildHookInterface[Any]):
    """Adds the files that `lab/pyproject.toml` names for it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add them to a wheel, and to no editable install."""
        if version != "editable":
            build_data["force_include"].update(self.config["files"])
