"""scripts/bootstrap.sh before there is a Python: what it says, and what it asks of apt."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("sh", "cat", "cksum", "cmp", "dirname", "basename", "env", "grep", "mkdir", "rm", "tail")


class Machine:
    """A checkout, and a PATH with nothing but small tools and stand-ins."""

    def __init__(self, folder: Path) -> None:
        self.checkout, self.path = folder / "checkout", folder / "bin"
        self.asked = folder / "asked"
        for name in (
            "scripts/bootstrap.sh",
            "scripts/uv.lock",
            "pyproject.toml",
            "lab/pyproject.toml",
        ):
            (self.checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.checkout / name)
        (self.checkout / "deploy").mkdir()
        for name in ("lab.lock", "build.lock"):
            (self.checkout / "deploy" / name).touch()
        self.path.mkdir()
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found is not None
            (self.path / tool).symlink_to(found)
        self.has("id", "echo 0")

    def has(self, program: str, script: str) -> None:
        """Put a stand-in for a program onto the PATH; what it is asked is noted."""
        path = self.path / program
        path.write_text(f'#!/bin/sh\necho "{program} $*" >> {self.asked}\n{script}\n')
        path.chmod(0o755)

    def bootstrap(self) -> list[str]:
        """Run it, which must end with 2, and return what it says."""
        done = subprocess.run(
            [self.path / "sh", self.checkout / "scripts/bootstrap.sh"],
            env={"PATH": str(self.path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (2, "")
        return done.stderr.splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_python_that_is_too_old_is_named_and_nothing_is_installed(machine: Machine) -> None:
    machine.has("python3", '[ "$1" = --version ] && echo Python 3.10.12 || exit 1')
    machine.has("apt-get", "")
    (said,) = machine.bootstrap()
    assert said.startswith("bootstrap: Python 3.11 to 3.14 is needed, and this is Python 3.10.12.")
    assert "apt-get" not in machine.asked.read_text()


def test_empty_lists_are_filled_and_what_root_installs_is_said_before(machine: Machine) -> None:
    machine.has(
        "apt-get",
        '[ "$4" = update ] || { echo E: Unable to locate package python3; exit 100; }',
    )
    said = machine.bootstrap()
    assert said[0] == "Installing python3 python3-venv with apt-get, as root ..."
    # Another apt may be at work, as it is by itself now and then.
    apt = "apt-get -qq -o DPkg::Lock::Timeout=120"
    install = f"{apt} install -y --no-install-recommends python3 python3-venv"
    asked = [line for line in machine.asked.read_text().splitlines() if "apt-get" in line]
    assert asked == [install, f"{apt} update", install]


def test_offline_it_is_one_sentence(machine: Machine) -> None:
    machine.has("apt-get", "echo 'W: Temporary failure resolving'; echo 'E: no such'; exit 100")
    said = machine.bootstrap()
    assert said[1:] == [
        "bootstrap: python3 python3-venv cannot be fetched: the server cannot be reached. "
        "Is this machine online? (More in .cache/bootstrap.log.)"
    ]


def test_without_rights_the_command_for_root_is_named(machine: Machine) -> None:
    machine.has("id", "echo 1000")
    machine.has("sudo", "echo sudo: a password is required >&2; exit 1")
    machine.has("apt-get", "exit 1")
    assert machine.bootstrap() == [
        "bootstrap: python3 python3-venv must be installed, by root: "
        "sudo apt-get install python3 python3-venv"
    ]
