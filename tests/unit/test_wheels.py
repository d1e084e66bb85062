"""The two wheels that this repository makes: the service, and the lab with its commands."""

from __future__ import annotations

import configparser
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from ari_app.cli import LAB_COMMANDS

ROOT = Path(__file__).parents[2]


def wheel_of(project: Path, folder: Path, version: str = "standard") -> zipfile.ZipFile:
    (path,) = WheelBuilder(str(project)).build(directory=str(folder), versions=[version])
    return zipfile.ZipFile(path)


def packages(wheel: zipfile.ZipFile) -> set[str]:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    return {name for name in tops if not name.endswith(".dist-info")}


def entry_points(wheel: zipfile.ZipFile) -> configparser.ConfigParser:
    (name,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    parser = configparser.ConfigParser()
    parser.read_string(wheel.read(name).decode())
    return parser


def test_the_service_has_nothing_of_the_lab(tmp_path: Path) -> None:
    wheel = wheel_of(ROOT, tmp_path)
    assert packages(wheel) == {"ari_app", "audiosocket", "linekit"}
    migrations = {path.name for path in ROOT.glob("ari_app/records/store/migrations/**/*.py")}
    assert {"env.py", "r0001_calls.py"} <= migrations
    assert migrations <= {name.rpartition("/")[2] for name in wheel.namelist()}
    assert entry_points(wheel).sections() == ["console_scripts"]


def test_the_lab_brings_its_commands_and_its_configuration(tmp_path: Path) -> None:
    wheel = wheel_of(ROOT / "lab", tmp_path)
    assert packages(wheel) == {"lab", "benchmarks"}
    assert {"lab/asterisk_conf/pjsip.conf", "lab/LICENSE"} <= set(wheel.namelist())
    assert set(entry_points(wheel)["ari_app.commands"]) == LAB_COMMANDS


@pytest.mark.parametrize("project", [ROOT, ROOT / "lab"], ids=["service", "lab"])
def test_a_checkout_runs_its_own_files(project: Path, tmp_path: Path) -> None:
    wheel = wheel_of(project, tmp_path, "editable")
    (name,) = packages(wheel)
    assert wheel.read(name).decode() == str(ROOT), "no copies beside the way to the checkout"
