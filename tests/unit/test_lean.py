"""What the service has loaded when it waits for its first call, found in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

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
# What there is before settings are known is loaded once; each of them goes on from there.
_PROGRAM = """
import json
import os
import sys
import ari_app.process.plain_structlog
from ari_app.serve import _load
from ari_app.settings import load_settings

for settings in json.loads(sys.argv[1]):
    if (child := os.fork()) == 0:
        _load(load_settings(None, **settings))
        print(*sys.modules, flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""
_CHECK = """
import asyncio
import sys
import ari_app.process.plain_structlog
from ari_app.checks.all import check_all
from ari_app.settings import load_settings

async def main():
    print(*[finding.verdict async for finding in check_all(load_settings(None))])

asyncio.run(main())
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


def loaded(*wishes: dict[str, str]) -> list[set[str]]:
    """Return the modules that there are before the first worker is forked, for each settings."""
    command = [sys.executable, "-c", _PROGRAM, json.dumps(wishes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [set(line.split()) for line in done.stdout.splitlines()]


def test_what_few_have_use_for_is_not_loaded() -> None:
    (modules,) = loaded({})
    assert modules.isdisjoint(_HEAVY)
    # A worker is back at once only if all that a call needs is there, but for what has time until
    # there is an agent (`VoiceBridge._load_sound`).
    assert {"uvloop", "ari_app.line.asterisk.line", "ari_app.call.call"} <= modules
    assert modules.isdisjoint({"ari_app.front.service", "ari_app.line.twilio.gateway"})


def test_what_a_setting_asks_for_is_loaded_before_the_first_worker(tmp_path: Path) -> None:
    file = tmp_path / "limits.yaml"
    file.write_text("agent_1: {calls: 3}\n")
    asked: list[tuple[dict[str, str], set[str]]] = [
        ({"dialer_type": "custom"}, {"ari_app.line.dialer.gateway", "ari_app.checks.dialer"}),
        ({"dialer_type": "asterisk,twilio"}, {"ari_app.line.twilio.gateway"}),
        ({"use_dialer_audio": "false"}, {"ari_app.line.microphone"}),
        (
            {"workers": "2"},
            {"ari_app.front.service", "ari_app.records.store.keeper", "ari_app.audio.resample"},
        ),
        ({"database_url": "postgresql://here/calls"}, {"ari_app.records.store.keeper"}),
        ({"spend_limits_file": str(file)}, {"ari_app.records.store.keeper", "yaml"}),
        ({"tools_file": "tools.yaml"}, {"ari_app.tools.validator", "yaml"}),
    ]
    modules = loaded(*(settings for settings, _ in asked))
    for (settings, there), found in zip(asked, modules, strict=True):
        assert there <= found, settings


def test_a_check_that_misses_a_setting_loads_nothing_for_what_comes_after() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CHECK], capture_output=True, text=True, timeout=60
    )
    verdicts, modules = done.stdout.splitlines()
    assert verdicts == "failed", done.stderr
    assert {*modules.split()}.isdisjoint(
        {"aiohttp", "ari_app.line.interface", "ari_app.records.record"}
    )


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
