from __future__ import annotations

from pathlib import Path

import pytest

from ari_app.checks.env_file import doubtful_names
from ari_app.settings import load_settings
from ari_app.tools.http_config import process_environment
from tests.unit.settings_maker import nothing_outside


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nothing_outside(monkeypatch, tmp_path)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "ELEVENLABS_APIKEY=k",
            "env:2 says ELEVENLABS_APIKEY, which is no setting. It is likely E",
        ),
        ("MAX_CONCURENT_CALLS=3", "It is likely MAX_CONCURRENT_CALLS."),
        ("API_KEI=k", "API_KEI, which is no setting. It is likely API_KEY."),
        ("API_KY=k", "It is likely API_KEY."),
        ("API_BNID=k", "It is likely API_BIND."),
        ("API_KEYS=k", "It is likely API_KEY"),
        ("ELEVENLABS_KEY=k", "It is likely ELEVENLABS_API_KEY."),
        ("ARI_PASS=k", "It is likely ARI_PASSWORD."),
        ("AGENT_SIL=9", "It is likely AGENT_SILENCE_TIMEOUT_SECONDS."),
        ("ARI_HOST=h", "ARI_HOST, which is no setting. docs/settings.md"),
        ("ARI_USERNAME: lab", "env:2 is not NAME=value, so it is passed over."),
        ("MAX_CONCURRENT_CALLS", "env:2 is not NAME=value"),
        ('ARI_APP="other', "env:2 has a quote that does not end where the value ends, so it is"),
        ("ARI_APP='other' # mine", ""),
        ('ARI_APP="a\nARI_USERNAME="u"', "passed over, with the lines up to 3. Close it at the li"),
        ("ELEVENLABS_API_KEY=k", "env:2 sets ELEVENLABS_API_KEY again, after line 1. The last one"),
        ("ARI_USERNAME=a\nari_username=b", "env:3 sets ARI_USERNAME again, after line 2."),
        ("ARI_USERNAME=a\nARI_USERNAME=a", ""),
        ("LAB_CALLS=3\nLAB_CALLS=4", ""),
        ("ELEVENLABS_AGENT_ID=anyARI_URL=http://h:80", "of ELEVENLABS_AGENT_ID has ARI_URL= in"),
        ("ARI_USERNAME=hunter2 ARI_PASSWORD=hunter3", "has ARI_PASSWORD= in it, so ARI_PASSWORD"),
        ("WEBHOOK_URL=https://h/x?API_KEY=k&ARI_APP=a", ""),
        ("ARI_PASSWORD=abcdABCDE==", ""),
        ("\n \r\nARI_PASS=k", "env:4 says ARI_PASS, which is no setting."),
        ("ELEVENLABS_API_KEY=\nAPI_BIND=h:1\nAPI_BNID=h:2", "API_BIND, which is set as well."),
        ("LAB_CALLS=3", ""),
        ("CRM_API_KEY=k", ""),
        ("API_PORT=1", ""),
        ("ari_app=other", ""),
        ("# ARI_PASS=k", ""),
        ("export ARI_APP=other", ""),
    ],
)
def test_what_is_misspelt_is_named(tmp_path: Path, line: str, words: str) -> None:
    env_file = tmp_path / "env"
    env_file.write_text(f"ELEVENLABS_API_KEY=\n{line}\n")
    load_settings(str(env_file))
    told = doubtful_names(str(env_file))
    assert len(told) == bool(words)
    assert all(words in sentence for sentence in told), told


def test_what_is_left_out_of_a_value_is_told(tmp_path: Path) -> None:
    env_file = tmp_path / "env"
    env_file.write_text(
        "ARI_PASSWORD='hunter${2}x'\nHOST=10.0.0.7\nARI_URL=http://${HOST}:8088\nOTHER=${none}\n"
    )
    settings = load_settings(str(env_file))
    assert settings.ari_password.get_secret_value() == "hunterx"
    assert settings.ari_url == "http://10.0.0.7:8088"
    (told,) = doubtful_names(str(env_file))
    assert told.startswith(f"{env_file}:1: what ${{...}} names in the value of ARI_PASSWORD is not")
    assert "hunter" not in told


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    env_file = tmp_path / "env"
    env_file.write_bytes(b"\xef\xbb\xbfARI_APP=other\r\nARI_USERNAME=u\r\n")
    settings = load_settings(str(env_file))
    assert (settings.ari_app, settings.ari_username) == ("other", "u")
    assert doubtful_names(str(env_file)) == []
    assert process_environment(str(env_file))["ARI_APP"] == "other"


def test_what_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    env_file = tmp_path / "env"
    env_file.write_text("ELEVENLABS_API_KEY=hunter2\nARI_APP=bot\nHOME=/x\nARI_URL=http://h:80\n")
    monkeypatch.setenv("ELEVENLABS_API_KEY", "hunter3")  # as for ElevenLabs' own library
    monkeypatch.setenv("ARI_APP", "bot")
    monkeypatch.setenv("ari_url", "")
    assert doubtful_names(str(env_file)) == [
        f"{env_file}:{line} says {name}, and the environment says something else, which counts."
        for line, name in ((1, "ELEVENLABS_API_KEY"), (4, "ARI_URL"))
    ]


def test_what_is_misspelt_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    # Kubernetes has variables for each of its services, whose names anybody may choose.
    monkeypatch.setenv("ARI_PORT", "tcp://10.0.0.1")
    monkeypatch.setenv("ELEVENLABS_APIKEY", "k")
    assert doubtful_names(None) == [
        "The environment says ELEVENLABS_APIKEY, which is no setting. It is likely "
        "ELEVENLABS_API_KEY."
    ]
