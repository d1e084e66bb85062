"""A real parent with real, small workers."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Started = Callable[..., "Family"]


class Family:
    """A parent and its workers, each a process."""

    def __init__(self, *behaviours: str, folder: Path, workers: int = 0) -> None:
        command = [sys.executable, "-m", "tests.unit.process.supervisor.fake_workers", *behaviours]
        self._out, self._log = folder / "out", folder / "log"
        with self._out.open("wb") as out, self._log.open("wb") as log:
            more = {"FAKE_WORKERS": str(workers)} if workers else {}
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                env={**os.environ, **more},
            )

    def lines(self) -> list[str]:
        return self._out.read_text().splitlines()

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def names(self) -> list[str]:
        return [entry["event"] for entry in self.events()]

    @property
    def workers(self) -> list[int]:
        return [entry["pid"] for entry in self.events() if entry["event"] == "worker_started"]

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, (self.lines(), self.events())
            time.sleep(0.01)

    def until_served(self, times: int) -> None:
        """Wait for that many workers that have said something; parent and worker both tell."""
        self.until(lambda: len(self.lines()) >= times and len(self.workers) >= times)

    def tell(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def ends(self) -> int:
        return self.process.wait(60)

    def clean_up(self) -> None:
        for pid in [*self.workers, self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Started]:
    families: list[Family] = []

    def start(*behaviours: str, workers: int = 0) -> Family:
        families.append(Family(*behaviours, folder=tmp_path, workers=workers))
        return families[-1]

    yield start
    for family in families:
        family.clean_up()


def test_orders_reach_the_worker_and_its_end_is_the_end(start: Started) -> None:
    family = start("serve")
    family.until_served(1)
    family.tell()
    family.until(lambda: family.lines()[1:] == ["DRAIN"])
    family.tell(signal.SIGINT)
    assert family.ends() == 0
    assert family.lines()[1:] == ["DRAIN", "END"]
    assert family.names() == ["worker_started", "signal_received", "signal_received"]


def test_the_parent_is_one_thread_and_the_worker_has_a_session_of_its_own(start: Started) -> None:
    family = start("serve")
    family.until_served(1)
    assert len(os.listdir(f"/proc/{family.process.pid}/task")) == 1
    (worker,) = family.workers
    assert os.getsid(worker) == os.getpgid(worker) == worker != os.getsid(family.process.pid)


def test_a_worker_that_dies_is_replaced(start: Started) -> None:
    family = start("die", "serve")
    family.until_served(2)
    assert [line.split()[0] for line in family.lines()] == ["first", "again"]
    (died,) = [entry for entry in family.events() if entry["event"] == "worker_died"]
    assert (died["pid"], died["signal"]) == (family.workers[0], "SIGKILL")


def test_a_system_that_has_no_process_for_it_ends_no_parent(
    start: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_FORKS", "3")
    family = start("serve", workers=2)
    family.until_served(3)
    os.kill(served_by(family)["2"], signal.SIGKILL)
    family.until_served(4)
    failed = [e for e in family.events() if e["event"] == "worker_not_started"]
    assert [(e["place"], e["error"]) for e in failed] == [
        ("worker 2", os.strerror(errno.EAGAIN))
    ] * 3
    assert family.events()[-1]["restarts"] == 1
    family.tell()
    assert family.ends() == 0


@pytest.mark.parametrize("behaviour", ["stop", "spin", "linger"])
def test_a_worker_that_stalls_is_killed_and_replaced(start: Started, behaviour: str) -> None:
    family = start(behaviour, "serve")
    family.until_served(2)
    assert family.names()[:4] == [
        "worker_started",
        "worker_stalled",
        "worker_died",
        "worker_started",
    ]


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        # A name in no folder, as systemd may give one.
        sock.bind(f"\0{tmp_path}")
        sock.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{tmp_path}")
        yield sock


@pytest.mark.parametrize("processes", [1, 3])
def test_systemd_is_told_when_all_serve_and_when_they_stop(
    start: Started, systemd: socket.socket, processes: int
) -> None:
    family = start("serve", workers=processes - 1)
    assert systemd.recv(256).startswith(b"READY=1\n")
    assert len(family.lines()) == processes
    family.tell()
    assert systemd.recv(256).startswith(b"STOPPING=1\n")


def test_systemd_is_not_told_of_what_never_serves(start: Started, systemd: socket.socket) -> None:
    assert start("refuse").ends() == 2
    systemd.setblocking(False)
    with pytest.raises(BlockingIOError):
        systemd.recv(256)


def test_what_the_first_worker_refuses_is_the_end(start: Started) -> None:
    family = start("refuse")
    assert family.ends() == 2
    assert family.names() == ["worker_started"]


def test_what_a_later_worker_refuses_is_tried_again(start: Started) -> None:
    family = start("fail", "refuse", "refuse", "serve")
    family.until_served(2)
    died = [entry["code"] for entry in family.events() if entry["event"] == "worker_died"]
    assert died == [3, 2, 2]
    waits = [e["seconds"] for e in family.events() if e["event"] == "worker_restart_waits"]
    assert len(waits) == 1


def test_calls_of_a_worker_that_dies_while_it_drains_are_given_back(start: Started) -> None:
    family = start("serve")
    family.until_served(1)
    family.tell()
    family.until(lambda: "DRAIN" in family.lines())
    os.kill(family.workers[0], signal.SIGKILL)
    assert family.ends() == 1
    assert family.lines()[-1] == "mend"


def test_an_application_that_another_has_is_not_taken_back(start: Started) -> None:
    family = start("replaced")
    assert family.ends() == 1
    assert family.names() == ["worker_started", "worker_died"]


def test_a_worker_survives_its_parent_and_learns_of_its_end(start: Started) -> None:
    family = start("serve")
    family.until_served(1)
    (worker,) = family.workers
    family.process.kill()
    family.process.wait()

    def gone() -> bool:
        try:
            # It has become init's: a zombie until that has noticed.
            return " Z " in Path(f"/proc/{worker}/stat").read_text()
        except OSError:
            return True

    family.until(gone)


def test_a_stop_signal_that_is_ignored_stays_ignored(start: Started) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        family = start("serve")
    finally:
        signal.signal(signal.SIGHUP, before)
    family.until_served(1)
    family.tell(signal.SIGHUP)
    family.tell()
    family.until(lambda: family.lines()[1:] == ["DRAIN"])
    assert [e["signal"] for e in family.events() if e["event"] == "signal_received"] == ["SIGTERM"]


# --- several of them


def served_by(family: Family) -> dict[str, int]:
    """The process of each place: a worker's number, or 0 for the front."""
    told = [line.split() for line in family.lines() if line[0] in "fa"]
    return {number: int(pid) for _, pid, number in told}


def test_one_of_several_is_replaced_alone_and_the_front_goes_last(start: Started) -> None:
    family = start("serve", workers=2)
    family.until_served(3)
    first, before = family.lines()[0], served_by(family)
    assert first.endswith(" 1"), "alone, until it serves"
    assert set(before) == {"0", "1", "2"}
    os.kill(before["2"], signal.SIGKILL)
    family.until_served(4)
    after = served_by(family)
    assert after["2"] != before["2"]
    assert (after["0"], after["1"]) == (before["0"], before["1"])
    os.kill(after["0"], signal.SIGKILL)
    family.until_served(5)
    family.tell()
    assert family.ends() == 0
    # All drain at once; the front is told to end when it has nobody left.
    assert family.lines()[5:] == ["DRAIN", "DRAIN", "DRAIN", "END"]


def test_all_are_replaced_one_after_the_other(start: Started) -> None:
    family = start("serve", workers=2)
    family.until_served(3)
    before = served_by(family)
    family.tell(signal.SIGHUP)
    # The parent tells of it before the old front has said that it ends.
    family.until(lambda: "workers_replaced" in family.names() and len(family.lines()) >= 9)
    after = served_by(family)
    assert all(after[place] != before[place] for place in before)
    replaced = [e["place"] for e in family.events() if e["event"] == "worker_is_replaced"]
    assert replaced == ["worker 1", "worker 2", "front"]
    # The old front is there until the new one serves.
    assert family.lines()[3:] == [
        "DRAIN",
        f"again {after['1']} 1",
        "DRAIN",
        f"again {after['2']} 2",
        f"again {after['0']} 0",
        "END",
    ]
    family.tell()
    assert family.ends() == 0


def test_a_front_that_waits_for_its_last_requests_holds_nothing_up(
    start: Started, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    requests = tmp_path / "requests"
    requests.touch()
    monkeypatch.setenv("FAKE_REQUESTS", str(requests))
    family = start("serve", workers=2)
    family.until_served(3)
    first = served_by(family)["0"]
    for times in (1, 2):
        family.tell(signal.SIGHUP)
        until_replaced(family, times)
    assert is_there(first)
    # The second is killed, and is nobody's loss either.
    second = next(pid for line in family.lines() if (pid := front_of(line)) not in (0, first))
    os.kill(second, signal.SIGKILL)
    family.until(lambda: "worker_died" in family.names())
    requests.unlink()
    family.until(lambda: not is_there(first))
    third = served_by(family)["0"]
    assert is_there(third)
    family.tell()
    assert family.ends() == 0
    assert served_by(family)["0"] == third


def until_replaced(family: Family, times: int) -> None:
    family.until(lambda: family.names().count("workers_replaced") == times)


def front_of(line: str) -> int:
    """Return the process of a front that says that it serves; 0: it is none."""
    words = line.split()
    return int(words[1]) if words[-1] == "0" else 0


def spares(family: Family) -> list[int]:
    return [entry["pid"] for entry in family.events() if entry["event"] == "spare_started"]


def until_spares(family: Family, times: int) -> None:
    family.until(lambda: len(spares(family)) == times)


def replaced(start: Started) -> Family:
    """A family whose code is another one than its parent's, with a spare process."""
    family = start("serve", workers=2)
    family.until_served(3)
    family.tell(signal.SIGHUP)
    until_spares(family, 4)
    family.until(lambda: len(family.lines()) >= 9)
    served = served_by(family)
    assert [served[place] for place in ("1", "2", "0")] == spares(family)[:3]
    return family


def test_what_has_loaded_the_new_code_takes_the_place_of_one_that_is_lost(start: Started) -> None:
    family = replaced(start)
    for number, place in enumerate(("2", "0", "2"), start=4):
        os.kill(served_by(family)[place], signal.SIGKILL)
        until_spares(family, number + 1)
        assert served_by(family)[place] == spares(family)[number - 1]
    os.kill(spares(family)[-1], signal.SIGKILL)
    family.until(lambda: "spare_died" in family.names())
    os.kill(served_by(family)["1"], signal.SIGKILL)
    until_spares(family, 8)
    assert served_by(family)["1"] not in spares(family)
    family.tell()
    assert family.ends() == 0
    assert family.lines()[-4:] == ["DRAIN", "DRAIN", "DRAIN", "END"]
    family.until(lambda: not is_there(spares(family)[-1]))


def test_a_spare_process_whose_code_is_an_old_one_ends(start: Started) -> None:
    family = replaced(start)
    family.tell(signal.SIGHUP)
    until_spares(family, 8)
    family.until(lambda: not is_there(spares(family)[3]))
    family.process.kill()
    family.until(lambda: not is_there(spares(family)[7]))


def is_there(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"fake_workers" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def test_a_front_whose_successor_does_not_start_serves_on(
    start: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_FRONT", "refuse")
    family = start("serve", workers=2)
    family.until_served(3)
    before = served_by(family)
    family.tell(signal.SIGHUP)
    # It is tried again and again: what is wrong may pass.
    family.until(lambda: family.names().count("worker_died") > 1)
    assert served_by(family)["0"] == before["0"]
    assert "workers_replaced" not in family.names()
    assert family.lines().count("DRAIN") == 2, "each worker was replaced; nothing else is to end"
    family.tell()
    assert family.ends() == 0


def test_a_stop_ends_a_front_whose_successor_does_not_serve_yet(
    start: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_FRONT", "never")
    family = start("serve", workers=2)
    family.until_served(3)
    family.tell(signal.SIGHUP)
    # Three that serve, two in the place of workers, and the front that never does.
    family.until(lambda: len(family.workers) == 6)
    family.tell()
    assert family.ends() == 0
    assert family.lines().count("END") == 2, "to both fronts"


def test_who_are_to_be_replaced_before_all_are_there_are_so_then(start: Started) -> None:
    family = start("slow", "serve", workers=2)
    family.until(lambda: "worker_started" in family.names())
    family.tell(signal.SIGHUP)
    family.until(lambda: "workers_replaced" in family.names())
    replaced = [e["place"] for e in family.events() if e["event"] == "worker_is_replaced"]
    assert replaced == ["worker 1", "worker 2", "front"]


def test_what_is_wrong_from_the_start_is_said_once(start: Started) -> None:
    family = start("refuse", workers=3)
    assert family.ends() == 2
    assert family.names() == ["worker_started"]
