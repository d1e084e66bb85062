from __future__ import annotations

import os
from pathlib import Path

import pytest

from ari_app.control.http.keys import ApiKey, Keys, Scope, read_token, sign
from ari_app.errors import ConfigError
from tests.unit.control.http.test_access import DESK, KEYS, WALL


def test_a_token_is_good_until_its_end_and_for_its_key() -> None:
    token = sign(DESK, 1000)
    assert read_token(token, KEYS, 999) is DESK
    assert read_token(token, KEYS, 1000) is None
    assert read_token(token, Keys([WALL]), 999) is None
    renewed = Keys([ApiKey("desk", Scope.OPERATE, b"another-secret-of-it")])
    assert read_token(token, renewed, 999) is None
    longer = token.replace(":1000:", ":2000:")
    as_chief = token.replace("desk:", "chief:")
    for forged in ("", ":", "desk", "desk:1000", "desk:x:y", longer, as_chief, token + "A"):
        assert read_token(forged, KEYS, 999) is None, forged


def keys_file(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    file = tmp_path / "keys.yaml"
    file.write_text(text)
    file.chmod(mode)
    return file


GOOD = "- {name: wallboard, scope: read, key: a-key-of-16-or-more}\n"


def test_keys_of_a_file_stand_beside_the_one_of_the_settings(tmp_path: Path) -> None:
    keys = Keys.of("key-of-the-settings", keys_file(tmp_path, GOOD))
    wallboard = keys.owner(b"a-key-of-16-or-more")
    assert wallboard is not None
    assert (wallboard.name, wallboard.scope) == ("wallboard", Scope.READ)
    admin = keys.owner(b"key-of-the-settings")
    assert admin is not None
    assert admin.scope is Scope.ADMIN
    assert keys.owner(b"something-else") is None
    assert not Keys.of(None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x", "must be a list"),
        ("- [", "is not YAML at line 1"),
        (GOOD.replace("}", ", scope: admin}"), "has a name twice, at line 1"),
        (GOOD.replace("wallboard", "2026-02-30"), "is not YAML"),
        ("- {name: x, scope: read}", "entry 1 must have name, scope and key"),
        (GOOD.replace("read", "write"), "read, operate or admin"),
        (GOOD.replace("a-key-of-16-or-more", "short"), "at least 16 characters"),
        (GOOD.replace("wallboard", "API_KEY"), "a name is"),
        (GOOD + GOOD.replace("a-key", "other-key"), "the same name"),
        (GOOD + GOOD.replace("wallboard", "other"), "the same key"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Keys.of(None, keys_file(tmp_path, text))
    assert said in str(caught.value)
    assert "a-key-of-16-or-more" not in str(caught.value)


def test_nobody_is_told_to_keep_a_device_to_himself() -> None:
    with pytest.raises(ConfigError, match="must be a list"):
        Keys.of(None, Path(os.devnull))


def test_a_file_that_everybody_can_read_or_nobody(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="chmod"):
        Keys.of(None, keys_file(tmp_path, GOOD, 0o644))
    with pytest.raises(ConfigError, match=r"none cannot be read: No such file or directory\.$"):
        Keys.of(None, tmp_path / "none")
