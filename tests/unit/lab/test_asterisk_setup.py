"""Finding an Asterisk, and fetching one: with the real apt, from a repository made here."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from lab.asterisk import LabError, cache_dir, ensure_asterisk, installation
from lab.asterisk import __main__ as command_line
from lab.asterisk.installation import Installation
from lab.asterisk.packages import architecture

needs_apt = pytest.mark.skipif(
    shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None,
    reason="apt is what is tested here, and this machine has none",
)

LOADER = """#!/bin/sh
# Stands for ld.so: answers for the program that it is asked to start.
echo "Asterisk {version}"
"""
LIBRARIES = "usr/lib/x86_64-linux-gnu"


def make_tree(root: Path, version: str = "22.10.1", audiosocket: bool = True) -> Path:
    """Put what a package of Asterisk's would under `root`."""
    modules = root / LIBRARIES / "asterisk/modules"
    modules.mkdir(parents=True)
    if audiosocket:
        (modules / "chan_audiosocket.so").touch()
    loader = root / LIBRARIES / "ld-linux-x86-64.so.2"
    loader.write_text(LOADER.format(version=version))
    loader.chmod(0o755)
    (root / "usr/sbin").mkdir(parents=True)
    (root / "usr/sbin/asterisk").touch()
    (root / "usr/share/asterisk/documentation").mkdir(parents=True)
    (root / "usr/share/doc/asterisk").mkdir(parents=True)
    return root


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without an Asterisk, with a cache of its own."""
    monkeypatch.setenv("ARI_APP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ARI_APP_ASTERISK", raising=False)
    monkeypatch.setattr(installation, "on_host", lambda: None)


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """The /etc of a machine whose apt knows a mirror that is a folder."""
    repository = tmp_path / "mirror"
    etc = tmp_path / "etc"
    (etc / "apt").mkdir(parents=True)
    (etc / "apt/sources.list").write_text(f"deb [trusted=yes] file:{repository} bookworm main\n")
    (etc / "os-release").write_text("ID=debian\n")
    return etc


def publish(repository: Path, tree: Path) -> None:
    """Make a Debian repository with one package, `asterisk`, for every architecture."""
    control = "Package: asterisk\nVersion: 22\nArchitecture: all\nMaintainer: a <a@b.example>\n"
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(control + "Description: a stand-in\n")
    folder = repository / "dists/forky/main"
    machine = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, check=True)
    binary = folder / f"binary-{machine.stdout.decode().strip()}"
    binary.mkdir(parents=True)
    package = repository / "asterisk_22_all.deb"
    build = ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(package)]
    subprocess.run(build, check=True, capture_output=True)
    data = package.read_bytes()
    packages = (
        f"{control}Filename: {package.name}\nSize: {len(data)}\n"
        f"SHA256: {hashlib.sha256(data).hexdigest()}\nDescription: a stand-in\n"
    ).encode()
    (binary / "Packages").write_bytes(packages)
    digest = hashlib.sha256(packages).hexdigest()
    name = f"main/{binary.name}/Packages"
    (repository / "dists/forky/Release").write_text(
        "Suite: forky\nCodename: forky\nComponents: main\n"
        f"Architectures: {binary.name.removeprefix('binary-')}\n"
        # Expired long ago, as the mirror of an old machine is.
        "Date: Sat, 01 Jan 2022 00:00:00 UTC\nValid-Until: Sun, 02 Jan 2022 00:00:00 UTC\n"
        f"SHA256:\n {digest} {len(packages)} {name}\n"
    )


@needs_apt
def test_fetches_once_and_finds_it_again(etc: Path, tmp_path: Path) -> None:
    publish(tmp_path / "mirror", make_tree(tmp_path / "tree"))
    (cache_dir() / "partial-left-by-a-killed-process").mkdir(parents=True)
    steps: list[str] = []
    first = ensure_asterisk(steps.append, etc=etc)
    assert first.version == "22.10.1"
    assert [step.split()[0] for step in steps] == ["Reading", "Fetching", "Unpacking"]
    (root,) = cache_dir().glob("asterisk-forky-*")
    assert first.data_dir == root / "usr/share/asterisk"
    assert not (root / "usr/share/doc").exists()
    assert sorted(path.name for path in cache_dir().iterdir()) == [root.name, "asterisk.lock"]

    steps.clear()
    assert ensure_asterisk(steps.append, etc=etc) == first
    assert steps == []


@needs_apt
def test_makes_a_damaged_one_again(etc: Path, tmp_path: Path) -> None:
    publish(tmp_path / "mirror", make_tree(tmp_path / "tree"))
    first = ensure_asterisk(etc=etc)
    (first.module_dir / "chan_audiosocket.so").unlink()
    assert ensure_asterisk(etc=etc) == first
    assert first.usable


@needs_apt
def test_says_what_apt_complained_of(etc: Path) -> None:
    with pytest.raises(LabError) as caught:
        ensure_asterisk(etc=etc)
    assert "none could be fetched (forky: " in str(caught.value)
    assert "install Asterisk 18 or later" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in cache_dir().iterdir()] == ["asterisk.lock"]


@needs_apt
@pytest.mark.parametrize(
    ("version", "audiosocket"), [("16.28.0", True), ("22.10.1", False), ("GIT-master", True)]
)
def test_refuses_one_that_is_of_no_use(
    etc: Path, tmp_path: Path, version: str, audiosocket: bool
) -> None:
    publish(tmp_path / "mirror", make_tree(tmp_path / "tree", version, audiosocket))
    with pytest.raises(LabError, match="does not run here or has no AudioSocket"):
        ensure_asterisk(etc=etc)
    assert [path.name for path in cache_dir().iterdir()] == ["asterisk.lock"]


@needs_apt
def test_reports_a_package_that_is_damaged(
    etc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path / "mirror", make_tree(tmp_path / "tree"))
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "dpkg-deb").write_text("#!/bin/sh\nexit 2\n")
    (tools / "dpkg-deb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    with pytest.raises(LabError, match=r"asterisk_22_all\.deb could not be unpacked"):
        ensure_asterisk(etc=etc)


@needs_apt
def test_two_at_once_fetch_it_once(etc: Path, tmp_path: Path) -> None:
    publish(tmp_path / "mirror", make_tree(tmp_path / "tree"))
    cache_dir().mkdir(parents=True)
    steps: list[str] = []
    waiting = threading.Event()
    found: list[Installation] = []

    def progress(step: str) -> None:
        steps.append(step)
        if step.startswith("Waiting"):
            waiting.set()

    with (cache_dir() / "asterisk.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        other = threading.Thread(target=lambda: found.append(ensure_asterisk(progress, etc=etc)))
        other.start()
        assert waiting.wait(30)
        make_tree(cache_dir() / f"asterisk-forky-{architecture()}", "22.11.0")
    other.join()
    assert found[0].version == "22.11.0"
    assert steps == ["Waiting for another process that is fetching Asterisk"]


def test_says_what_to_install_where_apt_knows_no_mirror(tmp_path: Path) -> None:
    sources = tmp_path / "apt/sources.list.d"
    sources.mkdir(parents=True)
    (sources / "vendor.list").write_text("deb https://vendor.example/apt any main\n")
    (sources / "vendor.sources").write_text("Types: deb\nURIs: https://vendor.example/b\n")
    with pytest.raises(LabError, match="no Debian mirror or Ubuntu archive") as caught:
        ensure_asterisk(etc=tmp_path)
    assert "install Asterisk 18 or later with its module chan_audiosocket" in str(caught.value)


def test_says_so_where_there_is_no_apt(
    etc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match="there is no dpkg on this machine"):
        ensure_asterisk(etc=etc)


@needs_apt
def test_says_so_where_the_cache_cannot_be_written(
    etc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ARI_APP_CACHE", str(tmp_path / "file/cache"))
    with pytest.raises(LabError, match="name another folder in ARI_APP_CACHE"):
        ensure_asterisk(etc=etc)


def test_takes_the_one_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_tree(tmp_path / "chosen", "18.10.0~dfsg")
    monkeypatch.setenv("ARI_APP_ASTERISK", str(root))
    found = ensure_asterisk()
    assert (found.version, found.major) == ("18.10.0~dfsg", 18)
    assert str(root / LIBRARIES) in found.command
    assert found.env()["OPENSSL_CONF"] == "/dev/null"
    monkeypatch.setenv("ARI_APP_ASTERISK", str(tmp_path))
    with pytest.raises(LabError, match="where no Asterisk with AudioSocket runs"):
        ensure_asterisk()


def test_prefers_the_hosts_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = Installation("22.10.1", ("asterisk",), (), tmp_path, tmp_path)
    monkeypatch.setattr(installation, "on_host", lambda: own)
    assert ensure_asterisk(etc=tmp_path) is own


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ARI_APP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "ari-app"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache/ari-app"


def test_a_hanging_apt_is_given_up(
    etc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dpkg").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "dpkg").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("lab.asterisk.packages.COMMAND_SECONDS", 0.05)
    with pytest.raises(LabError, match="dpkg took more than"):
        ensure_asterisk(etc=etc)


def test_the_command_line_names_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ARI_APP_ASTERISK", str(make_tree(tmp_path / "chosen")))
    monkeypatch.setattr("sys.argv", ["asterisk", "fetch"])
    with pytest.raises(SystemExit) as caught:
        command_line.main()
    assert caught.value.code == 0
    assert capsys.readouterr().out == "Asterisk 22.10.1\n"


def test_the_command_line_says_in_one_line_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ARI_APP_ASTERISK", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["asterisk", "fetch"])
    with pytest.raises(SystemExit) as caught:
        command_line.main()
    assert caught.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
