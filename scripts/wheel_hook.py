"""Hatchling's hook: with compiled modules in it, ari-app's wheel is for one Python and machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface[Any]):
    """Looks whether there is something compiled."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """See hatchling."""
        if version == "standard" and any(Path(self.root, "ari_app/_compiled").glob("*/*.so")):
            build_data["pure_python"] = False
            build_data["infer_tag"] = True
