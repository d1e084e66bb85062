"""The lab's Asterisk, as far as it goes without one: configuration, ports, folders, failures."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import tempfile
import wave
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from lab.asterisk import Installation, LabAsterisk, LabError, config, installation
from lab.asterisk.config import fill_in, keep_available, template_dir, write_config
from lab.asterisk.folder import RunFolder
from lab.asterisk.music import write_music
from lab.asterisk.ports import (
    FIRST_PORT,
    LOOPBACK,
    WINDOW,
    PortWindow,
    claim_ports,
    free_port,
)
from lab.asterisk.process import end, spawn
from tests.waiting import until

MODULES = ["chan_audiosocket.so", "res_ari.so"]


def all_modules() -> set[str]:
    text = (template_dir() / "modules.conf").read_text()
    return set(re.findall(r"(\S+\.so)", text))


class Values(dict[str, str]):
    """Has a value for every name, and keeps which were asked for."""

    def __missing__(self, name: str) -> str:
        self[name] = f"<{name}>"
        return self[name]


def test_fills_in_names_and_nothing_else() -> None:
    text = "bind = @BIND@:@SIP_PORT@\nexten => _X.,1,Dial(PJSIP/${EXTEN}@trunk) ; a@b"
    assert fill_in(text, {"BIND": "127.0.0.1", "SIP_PORT": "5060"}) == text.replace(
        "@BIND@:@SIP_PORT@", "127.0.0.1:5060"
    )


def test_refuses_a_name_without_a_value() -> None:
    with pytest.raises(LabError, match="@BIND@"):
        fill_in("@BIND@", {})


def test_leaves_out_modules_that_are_not_there() -> None:
    text = "autoload = no\nrequire = res_ari.so\nload = res_new.so ; since 22\nload = res_new.so\n"
    assert keep_available(text, MODULES) == "\n".join([*text.splitlines()[:3], ""])
    with pytest.raises(LabError, match=r"chan_audiosocket\.so"):
        keep_available("require = chan_audiosocket.so", ["res_ari.so"])


def test_the_configuration_needs_what_the_lab_gives(tmp_path: Path) -> None:
    values = Values()
    write_config(tmp_path, values, all_modules(), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        path.name for path in template_dir().glob("*.conf")
    )
    assert "bindaddr = <BIND>" in (tmp_path / "http.conf").read_text()
    assert not any(re.search("@[A-Z_]+@", path.read_text()) for path in tmp_path.iterdir())


def test_a_file_can_be_given_instead_of_the_labs(tmp_path: Path) -> None:
    others = {"http.conf": "bindport = @HTTP_PORT@\n", "modules.conf": "load = res_new.so\n"}
    write_config(tmp_path, Values(), all_modules(), {**others, "queues.conf": "[support]\n"})
    assert (tmp_path / "http.conf").read_text() == "bindport = <HTTP_PORT>\n"
    assert (tmp_path / "modules.conf").read_text() == "load = res_new.so\n", "taken as it is"
    assert (tmp_path / "queues.conf").read_text() == "[support]\n"


def test_nothing_in_the_configuration_names_an_address() -> None:
    for path in template_dir().glob("*.conf"):
        live = [line for line in path.read_text().splitlines() if not line.startswith(";")]
        assert not re.search(r"\d+\.\d+\.\d+\.\d+", "\n".join(live)), path


def test_finds_the_configuration_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(config, "_CHECKOUT", tmp_path / "none")
    assert template_dir().name == "asterisk_conf"


def test_windows_do_not_overlap() -> None:
    windows = [claim_ports() for _ in range(4)]
    try:
        assert len({window.base for window in windows}) == 4
        for window in windows:
            ports = [window.base, window.http_port, window.sip_port, window.rtp_first]
            assert ports == sorted(set(ports))
            assert window.rtp_last == window.base + WINDOW - 1
            assert FIRST_PORT <= window.base <= 32_768 - WINDOW
    finally:
        for window in windows:
            window.release()
            window.release()


def test_passes_over_a_window_that_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.asterisk.ports.FIRST_PORT", claim_free().base)
    monkeypatch.setattr("lab.asterisk.ports.WINDOWS", 1)
    window = claim_ports()
    with pytest.raises(LabError, match="No free ports for Asterisk"):
        claim_ports()
    window.release()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((LOOPBACK, window.sip_port))
        with pytest.raises(LabError):
            claim_ports()
    again = claim_ports()
    again.release()
    assert again.base == window.base


def test_ports_beside_the_windows_are_given_once() -> None:
    ports = [free_port() for _ in range(20)]
    assert len(set(ports)) == 20
    assert max(ports) + 8 <= FIRST_PORT
    with contextlib.ExitStack() as stack:
        for number in range(ports[0], ports[0] + 8):
            stack.enter_context(socket.socket()).bind((LOOPBACK, number))


def claim_free() -> PortWindow:
    window = claim_ports()
    window.release()
    return window


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary folders go; the path of a test's own may be too long for a socket."""
    with tempfile.TemporaryDirectory(prefix="ari-app-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def test_removes_its_folder_and_those_of_dead_owners(temporary: Path) -> None:
    mine = RunFolder()
    dead = temporary / "ari-app-asterisk-dead"
    dead.mkdir()
    (dead / "owner.lock").touch()
    beginning = temporary / "ari-app-asterisk-beginning"
    beginning.mkdir()
    other = RunFolder()
    assert mine.path.is_dir()
    assert not dead.exists()
    assert beginning.is_dir()
    other.remove()
    mine.remove()
    mine.remove()
    assert list(temporary.iterdir()) == [beginning]


def test_the_music_is_a_tone_without_a_click(tmp_path: Path) -> None:
    write_music(tmp_path / "tone.wav")
    with wave.open(str(tmp_path / "tone.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (8000, 1, 2)
        samples = memoryview(file.readframes(file.getnframes())).cast("h")
    rising = sum(a < 0 <= b for a, b in pairwise(samples))
    assert rising == pytest.approx(440 * len(samples) / 8000, abs=1)
    assert abs(samples[-1] - samples[0]) <= max(abs(samples[1] - samples[0]), 1)


@pytest.mark.parametrize("version", ["22.10.1~dfsg", "16.28", "GIT-master"])
def test_knows_the_release_series(version: str, tmp_path: Path) -> None:
    found = Installation(version, ("asterisk",), (), tmp_path, tmp_path)
    assert found.major == {"22.10.1~dfsg": 22, "16.28": 16, "GIT-master": 0}[version]
    assert not found.usable


def install_on_host(
    root: Path, monkeypatch: pytest.MonkeyPatch, script: str, parts: tuple[str, ...]
) -> None:
    for part in parts:
        (root / part).mkdir(parents=True)
    program = root / "asterisk"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(root))
    monkeypatch.setattr(installation, "_SYSTEM_PATH", str(root))
    monkeypatch.setattr(installation, "_HOST_MODULES", (str(root / "lib/*/modules"),))
    monkeypatch.setattr(installation, "_HOST_MODULES_BUILT", ())
    monkeypatch.setattr(installation, "_HOST_DATA", (str(root / "share"),))


PARTS = ("lib/asterisk/modules", "share/documentation")


def test_finds_the_hosts_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_on_host(tmp_path, monkeypatch, "echo Asterisk 20.6.0", PARTS)
    modules = tmp_path / "lib/asterisk/modules"
    (modules / "chan_audiosocket.so").touch()
    assert installation.on_host() == Installation(
        "20.6.0", (str(tmp_path / "asterisk"),), (), modules, tmp_path / "share"
    )


@pytest.mark.parametrize(
    ("script", "parts"),
    [
        ("echo Asterisk 20.6.0", PARTS),
        ("exit 1", PARTS),
        ("echo something else", PARTS),
        ("echo Asterisk 20.6.0", ()),
    ],
    ids=["no AudioSocket", "does not run", "is no Asterisk", "has no modules"],
)
def test_passes_over_a_host_asterisk_of_no_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, parts: tuple[str, ...]
) -> None:
    install_on_host(tmp_path, monkeypatch, script, parts)
    assert installation.on_host() is None


def test_finds_none_on_a_bare_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(installation, "_SYSTEM_PATH", str(tmp_path))
    assert installation.on_host() is None


def test_ends_a_process_that_does_not_listen(tmp_path: Path) -> None:
    # It stops itself once it ignores SIGTERM, so that the test knows.
    script = "trap '' TERM; kill -STOP $$; while :; do sleep 0.05; done"
    process = spawn(["sh", "-c", script], {}, tmp_path / "console")
    os.waitpid(process.pid, os.WUNTRACED)
    asyncio.run(end(process, patience=0.05))
    assert process.returncode == -signal.SIGKILL
    asyncio.run(end(process))


async def test_a_cancelled_end_still_ends_it(tmp_path: Path) -> None:
    process = spawn(
        ["sh", "-c", "trap '' TERM; kill -STOP $$; exec sleep 600"], {}, tmp_path / "console"
    )
    stat = Path(f"/proc/{process.pid}/stat")
    await until(lambda: stat.read_text().split()[2] == "T")
    ending = asyncio.create_task(end(process, patience=60))
    await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert process.returncode is not None


def test_says_so_where_setpriv_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match="util-linux"):
        spawn(["true"], {}, tmp_path / "console")


def pretend(tmp_path: Path, script: str) -> Installation:
    """An installation whose program is a Python script."""
    program = tmp_path / "pretended.py"
    program.write_text(script)
    modules = tmp_path / "modules"
    modules.mkdir()
    for name in all_modules():
        (modules / name).touch()
    return Installation("22.10.1", (sys.executable, str(program)), (), modules, tmp_path)


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("print('[now] ERROR[1] loader.c: no module'); print('bye')", "ERROR.* no module"),
        ("print('Cannot open it'); raise SystemExit(1)", "Cannot open it"),
        ("", "it said nothing"),
    ],
    ids=["errors", "other words", "nothing"],
)
async def test_a_start_that_fails_says_why_and_leaves_nothing(
    temporary: Path, script: str, complaint: str
) -> None:
    (temporary / "pretended").mkdir()
    asterisk = LabAsterisk(installation=pretend(temporary / "pretended", script))
    with pytest.raises(LabError, match=f"Asterisk did not start: .*{complaint}"):
        async with asterisk:
            pytest.fail("it has not started")
    assert os.listdir(temporary) == ["pretended"]
    with pytest.raises(LabError, match="has not been started"):
        _ = asterisk.pid


async def test_a_path_that_is_too_long_for_a_socket_is_said(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = temporary / ("x" * 70)
    deep.mkdir()
    program = pretend(temporary, "import time; time.sleep(60)")
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(LabError, match="TMPDIR"):
        async with LabAsterisk(installation=program):
            pytest.fail("it has not started")
    assert os.listdir(deep) == []


async def test_gives_up_on_one_that_never_boots(temporary: Path) -> None:
    (temporary / "pretended").mkdir()
    program = pretend(temporary / "pretended", "import time; time.sleep(60)")
    with pytest.raises(LabError, match="did not start"):
        async with LabAsterisk(installation=program, boot_timeout=0.1):
            pytest.fail("it has not started")
    assert os.listdir(temporary) == ["pretended"]


def test_knows_nothing_of_itself_before_the_start() -> None:
    asterisk = LabAsterisk()
    for name in ("pid", "run_dir", "ari_url", "sip_port", "version", "log_path"):
        with pytest.raises(LabError, match="has not been started"):
            getattr(asterisk, name)


def test_every_instance_has_a_password_of_its_own() -> None:
    assert LabAsterisk().ari_password != LabAsterisk().ari_password
