"""What the service has loaded when it waits for its first call, found in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# What few have use for, what each weighs, and where it is loaded from.
_HEAVY = (
    "alembic",
    "asyncpg",
    "greenlet",
    "jsonschema",
    "numpy",
    "redis",
    "rich",
    "sqlalchemy",
    "xml",
    "yaml",
)
_PROGRAM = """
import sys
import ari_app.process.plain_structlog
from ari_app.serve import _load
from ari_app.settings import load_settings

_load(load_settings(None, **dict(each.split("=", 1) for each in sys.argv[1:])))
print(*sys.modules)
"""
_FIRST_CALL = """
import sys
import threading
from ari_app.bridge import VoiceBridge
from ari_app.records.events import Noted
from ari_app.records.record import CallRecord
from ari_app.settings import load_settings

bridge = VoiceBridge(load_settings(None))
print("numpy" in sys.modules)
for number in range(2):
    bridge.journal.note(CallRecord(f"call {number}", "line", 0.0), Noted("it begins"))
(loads,) = [each for each in threading.enumerate() if each is not threading.main_thread()]
loads.join()
print("numpy" in sys.modules, "ari_app.audio.resample" in sys.modules)
"""


def loaded(**settings: str) -> set[str]:
    """Return the modules that there are before the first worker is forked."""
    command = [sys.executable, "-c", _PROGRAM, *(f"{k}={v}" for k, v in settings.items())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_what_few_have_use_for_is_not_loaded() -> None:
    modules = loaded()
    assert modules.isdisjoint(_HEAVY)
    # A worker is back at once only if all that a call needs is there, but for what has time until
    # there is an agent (`VoiceBridge._load_sound`).
    assert {"uvloop", "ari_app.line.asterisk.line", "ari_app.call.call"} <= modules
    assert modules.isdisjoint({"ari_app.front.service", "ari_app.line.twilio.gateway"})


@pytest.mark.parametrize(
    ("settings", "there"),
    [
        ({"dialer_type": "custom"}, {"ari_app.line.dialer.gateway", "ari_app.checks.dialer"}),
        ({"dialer_type": "asterisk,twilio"}, {"ari_app.line.twilio.gateway"}),
        ({"use_dialer_audio": "false"}, {"ari_app.line.microphone"}),
        (
            {"workers": "2"},
            {"ari_app.front.service", "ari_app.records.store.keeper", "ari_app.audio.resample"},
        ),
        ({"database_url": "postgresql://here/calls"}, {"ari_app.records.store.keeper"}),
        ({"spend_limits_file": "{file}"}, {"ari_app.records.store.keeper", "yaml"}),
        ({"tools_file": "tools.yaml"}, {"ari_app.tools.validator", "yaml"}),
    ],
)
def test_what_a_setting_asks_for_is_loaded_before_the_first_worker(
    tmp_path: Path, settings: dict[str, str], there: set[str]
) -> None:
    file = tmp_path / "limits.yaml"
    file.write_text("agent_1: {calls: 3}\n")
    assert there <= loaded(**{name: value.format(file=file) for name, value in settings.items()})


def test_what_works_on_samples_is_loaded_with_the_first_call() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FIRST_CALL], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines() == ["False", "True True"], done.stderr


def test_where_it_cannot_be_loaded_the_log_says_so() -> None:
    broken = f"import sys\nsys.modules['numpy'] = None\n{_FIRST_CALL}"
    done = subprocess.run(
        [sys.executable, "-c", broken], capture_output=True, text=True, timeout=60
    )
    assert "sound_not_loaded" in done.stdout and not done.stderr
