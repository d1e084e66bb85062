"""Looks for known vulnerabilities in requirements.lock, with pip-audit.

Exit codes: 0 all packages were looked up and none is known to be vulnerable; 1 some are; 2 not all
could be looked up, so nothing is known.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCK = Path(__file__).parents[1] / "requirements.lock"
# Two services with much the same content: one may be out of reach where the other is not.
SERVICES = ("pypi", "osv")


def main() -> int:
    """Ask one service after the other, until one knows all packages."""
    for service in SERVICES:
        found, problem = ask(service)
        if problem is not None:
            say(f"{service}: {problem}")
            continue
        vulnerable = [package for package in found if package["vulns"]]
        for package in vulnerable:
            name = f"{package['name']} {package['version']}"
            for vulnerability in package["vulns"]:
                fixed = ", ".join(vulnerability["fix_versions"]) or "no version yet"
                say(f"{name}: {vulnerability['id']}, fixed in {fixed}")
        say(f"{service}: {len(found)} packages, {len(vulnerable)} of them vulnerable")
        return 1 if vulnerable else 0
    say("Nothing is known: no service looked up every package. Try again where one can be reached.")
    return 2


def ask(service: str) -> tuple[list[dict[str, Any]], str | None]:
    """All packages with their vulnerabilities; or why the answer says nothing."""
    command = [
        *(sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), "--require-hashes"),
        *("--disable-pip", "--vulnerability-service", service, "--format", "json"),
        *("--progress-spinner", "off", "--timeout", "20"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        lines = done.stderr.strip().splitlines() or ["no answer"]
        return [], f"cannot be asked ({lines[-1][:200]})"
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if skipped or not packages:
        return [], f"{len(skipped)} of {len(packages)} packages could not be looked up"
    return packages, None


def say(text: str) -> None:
    """Write a line."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
