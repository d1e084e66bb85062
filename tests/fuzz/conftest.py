from __future__ import annotations

import tests.any_machine  # noqa: F401
