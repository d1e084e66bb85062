"""Settings that come from a test alone: neither from the environment nor from a file nearby."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic_settings import PydanticBaseSettingsSource

from ari_app.settings import Settings, load_settings
from tests.unit.agent.elevenlabs.fake_agent import API_KEY
from tests.waiting import PATIENCE_SECONDS

Make = Callable[..., Settings]

_HURRIES: Final = (
    "ari_app.call.call._JOIN_SECONDS",
    "ari_app.line.asterisk.channels._JOIN_SECONDS",
    "ari_app.line.asterisk.websocket_media.CONNECT_SECONDS",
    "ari_app.line.dialer.api.ANSWER_SECONDS",
    "ari_app.line.dialer.api.CONNECT_SECONDS",
    "ari_app.line.dialer.line.SILENT_SECONDS",
    "ari_app.line.microphone.STALL_SECONDS",
    "ari_app.line.twilio.gateway._BODY_SECONDS",
    "ari_app.line.twilio.line._AFTER_SECONDS",
    "ari_app.line.twilio.stream.QUIET_SECONDS",
    "ari_app.line.twilio.stream.SILENT_SECONDS",
    "ari_app.line.twilio.stream.START_SECONDS",
    "ari_app.records.store.log._FIRST_LOOK_SECONDS",
    "ari_app.records.store.log._SETTLE_SECONDS",
)
"""What a service gives up after a few seconds, which may pass on a busy machine of themselves."""


def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let services have all the time that a test has. A test of one limit sets it afterwards."""
    for name in _HURRIES:
        monkeypatch.setattr(name, PATIENCE_SECONDS)


def nothing_outside(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let no setting come from the environment, nor from a file of where tests are started."""
    monkeypatch.chdir(folder)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def _given_alone(
    settings_cls: type[Settings], init_settings: PydanticBaseSettingsSource, **_: Any
) -> tuple[PydanticBaseSettingsSource]:
    return (init_settings,)


def settings_maker(monkeypatch: pytest.MonkeyPatch, folder: Path, **complete: Any) -> Make:
    """Make a maker of settings, `complete` with the changes that it is called with; no call is
    kept unless they say where."""
    nothing_outside(monkeypatch, folder)

    def make(**changes: Any) -> Settings:
        with pytest.MonkeyPatch.context() as meanwhile:
            # To look for each in the environment and in a file takes ten times as long.
            meanwhile.setattr(Settings, "settings_customise_sources", _given_alone)
            return load_settings(None, **({"database_url": ""} | complete | changes))

    return make


def custom_maker(monkeypatch: pytest.MonkeyPatch, folder: Path, **more: Any) -> Make:
    """Make a maker of settings for a dialer of one's own, which has all the time of a test."""
    unhurried(monkeypatch)
    return settings_maker(
        monkeypatch,
        folder,
        dialer_type="custom",
        api_bind="127.0.0.1:0",
        elevenlabs_api_key=API_KEY,
        elevenlabs_agent_id="agent_default",
        **more,
    )
