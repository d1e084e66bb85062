"""The lab in Docker, as `make compose-test` tries it: images built, calls held, nothing left."""

from __future__ import annotations

import os

import pytest

from lab.compose_test.__main__ import run_checks
from lab.compose_test.errors import NoEngineError


@pytest.mark.e2e
@pytest.mark.long
@pytest.mark.timeout(2400)
@pytest.mark.skipif(
    os.environ.get("CI") != "true", reason="takes minutes: `make compose-test` runs it"
)
def test_the_lab_in_docker_holds_calls(request: pytest.FixtureRequest) -> None:
    terminal = request.config.pluginmanager.getplugin("terminalreporter")
    try:
        run_checks(may_install=True, progress=terminal.write_line if terminal else print)
    except NoEngineError as error:
        pytest.skip(f"the lab in Docker was not tested: {error}")
