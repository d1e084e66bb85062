"""deploy/haproxy, for tests that run it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.unpacked import command_of

_CONFIG: Final = Path(__file__).parents[2] / "deploy/haproxy/haproxy.cfg"


def haproxy() -> str | None:
    """Return where HAProxy is; None: not on this machine."""
    return command_of("haproxy")


def config_with(machines: Mapping[str, str]) -> str:
    """Return its configuration with the addresses, host and port, of these machines."""
    text = _CONFIG.read_text()
    for name, address in machines.items():
        text, found = re.subn(rf"server {name} \S+", f"server {name} {address}", text)
        assert found == 1
    return text
