"""What docs/webhooks.md tells receivers to do is right."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ari_app.records.webhooks.signing import sign

PAGE = (Path(__file__).parents[4] / "docs" / "webhooks.md").read_text(encoding="utf-8")
BODY = '{"text": "Jürgen, 5 €"}'.encode()
OLD, NEW = "an old secret", "a new secret"


def code(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)
    return str(found)


def in_python(body: bytes, header: str, secret: str) -> bool:
    names: dict[str, Any] = {}
    exec(code("python"), names)
    return bool(names["is_genuine"](body, header, secret))


def _run(command: list[str], program: str, body: bytes, header: str, secret: str) -> bool:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    ran = subprocess.run(
        [*command, program, "--", header, secret],
        input=body,
        capture_output=True,
        timeout=20,
        check=True,
    )
    return {b"yes": True, b"no": False}[ran.stdout.strip()]


def in_node(body: bytes, header: str, secret: str) -> bool:
    program = code("js") + (
        "const [header, secret] = process.argv.slice(-2);"
        "const body = require('node:fs').readFileSync(0);"
        "console.log(isGenuine(body, header, secret) ? 'yes' : 'no');"
    )
    return _run(["node", "-e"], program, body, header, secret)


def in_php(body: bytes, header: str, secret: str) -> bool:
    program = code("php") + (
        "[$header, $secret] = array_slice($argv, -2);"
        "echo is_genuine(file_get_contents('php://stdin'), $header, $secret) ? 'yes' : 'no';"
    )
    return _run(["php", "-r"], program, body, header, secret)


@pytest.mark.parametrize("is_genuine", [in_python, in_node, in_php])
def test_the_examples_tell_genuine_from_other(
    is_genuine: Callable[[bytes, str, str], bool],
) -> None:
    now = int(time.time())
    secrets = [NEW.encode(), OLD.encode()]
    good = sign(secrets, BODY, now)
    assert is_genuine(BODY, good, OLD)
    assert is_genuine(BODY, good, NEW)
    assert not is_genuine(BODY, good, "guessed")
    assert not is_genuine(BODY + b" ", good, OLD)
    assert not is_genuine(BODY, sign(secrets, BODY, now - 400), OLD)
    assert not is_genuine(BODY, sign(secrets, BODY, now + 400), OLD)
    assert not is_genuine(BODY, "", OLD)
    assert not is_genuine(BODY, "t=,v1=", OLD)


@pytest.mark.parametrize("is_genuine", [in_python, in_node, in_php])
def test_the_examples_refuse_nonsense_and_do_not_fail(
    is_genuine: Callable[[bytes, str, str], bool],
) -> None:
    """Anybody may send it, and what is not caught ends a server of Node's."""
    now = int(time.time())
    for given in ("v1", "v1=" + 64 * "é", "v1=" + 63 * "0", "v1=,t,"):
        assert not is_genuine(BODY, f"t={now},{given}", OLD)
    for stamp in ("\u00b2", "-1", 400 * "9"):
        assert not is_genuine(BODY, f"t={stamp},v1={64 * '0'}", OLD)
