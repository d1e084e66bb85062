"""A real Asterisk for tests, the demo and benchmarks: found or fetched, started and cleaned up."""

from lab.asterisk.errors import LabError
from lab.asterisk.installation import Installation
from lab.asterisk.instance import LabAsterisk
from lab.asterisk.progress import Progress
from lab.asterisk.setup import cache_dir, ensure_asterisk

__all__ = [
    "Installation",
    "LabAsterisk",
    "LabError",
    "Progress",
    "cache_dir",
    "ensure_asterisk",
]
