"""File descriptors, and the interpreter's turns."""

from __future__ import annotations

import resource
import sys

import pytest

from ari_app.checks.finding import Verdict
from ari_app.checks.host import check_descriptors
from ari_app.process import limits
from ari_app.settings import load_settings


class Kernel:
    """Limits that a test may set without setting its own process'."""

    def __init__(self, soft: int, hard: int) -> None:
        self.limits = (soft, hard)

    def getrlimit(self, which: int) -> tuple[int, int]:
        assert which == resource.RLIMIT_NOFILE
        return self.limits

    def setrlimit(self, which: int, wanted: tuple[int, int]) -> None:
        assert which == resource.RLIMIT_NOFILE
        self.limits = wanted


INFINITE = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("before", "after", "got"),
    [
        ((1024, 4096), (4096, 4096), 4096),
        ((4096, 4096), (4096, 4096), 4096),
        ((1024, INFINITE), (1 << 20, INFINITE), 1 << 20),
        ((INFINITE, INFINITE), (INFINITE, INFINITE), 1 << 20),
    ],
)
def test_as_many_as_may_be(
    monkeypatch: pytest.MonkeyPatch, before: tuple[int, int], after: tuple[int, int], got: int
) -> None:
    kernel = Kernel(*before)
    monkeypatch.setattr(resource, "getrlimit", kernel.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", kernel.setrlimit)
    assert limits.raise_limit() == got
    assert kernel.limits == after


def test_too_few_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(1024, 1024)
    monkeypatch.setattr(resource, "getrlimit", kernel.getrlimit)
    few = load_settings(None, max_concurrent_calls=10)
    many = load_settings(None, max_concurrent_calls=1000)
    assert check_descriptors(few).verdict is Verdict.OK
    finding = check_descriptors(many)
    assert finding.verdict is Verdict.WARNING
    assert "may have 1024" in finding.detail


def test_what_is_needed_grows_with_calls_and_connections() -> None:
    least = limits.needed(10, 100)
    assert limits.needed(11, 100) > least
    assert limits.needed(10, 101) == least + 1


def test_a_busy_thread_holds_up_the_loop_less_than_a_frame() -> None:
    before = sys.getswitchinterval()
    try:
        limits.share_interpreter()
        assert sys.getswitchinterval() == pytest.approx(0.001)
    finally:
        sys.setswitchinterval(before)
