"""What `setup` writes for the other containers."""

from __future__ import annotations

import re
import stat
import wave
from pathlib import Path

import pytest

from ari_app.settings import load_settings
from lab.asterisk import LabError
from lab.compose.card import qr, uri
from lab.compose.configuration import Places, dialogue, service_env, write_all
from lab.compose.options import Options, read_options
from lab.compose.state import State, keep_state, read_caller_state, read_state
from lab.demo import scene
from lab.demo.voice import HigherVoice
from lab.practice_agent import AgentBook

ROOT = Path(__file__).parents[3]
PASSWORD = "a-long-password"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Options.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    # Not espeak-ng: what is said does not matter here.
    monkeypatch.setattr("lab.compose.configuration.caller_voice", HigherVoice)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    found = Places(
        lab=tmp_path / "lab",
        service=tmp_path / "service",
        agent=tmp_path / "agent",
        caller=tmp_path / "caller",
        asterisk=tmp_path / "asterisk",
        phone=tmp_path / "phone",
        load=tmp_path / "load",
        templates=(ROOT / "asterisk-conf", ROOT / "deploy/asterisk"),
    )
    for name in ("lab", "service", "agent", "caller", "asterisk", "phone", "load"):
        (tmp_path / name).mkdir()
    return found


def test_fills_in_every_template(places: Places) -> None:
    state = State()
    write_all(places, read_options(), state)
    etc = places.asterisk / "etc"
    names = {path.name for path in (ROOT / "asterisk-conf").glob("*.conf")}
    assert {path.name for path in etc.iterdir()} == names
    for path in etc.iterdir():
        assert not re.search(r"@[A-Z_]+@", path.read_text()), path.name
    assert (places.asterisk / "lib/moh/tone.wav").is_file()
    with wave.open(str(places.phone / "speech.wav")) as file:
        assert (file.getframerate(), file.getnchannels()) == (8000, 1)
        assert file.getnframes() == (places.load / "speech.ulaw").stat().st_size


def test_nobody_calls_without_a_password(places: Places) -> None:
    state = State()
    write_all(places, read_options(lab_phone_user="anna"), state)
    pjsip = (places.asterisk / "etc/pjsip.conf").read_text()
    sections = re.split(r"^(?=\[)", pjsip, flags=re.M)
    endpoints = [s for s in sections if re.match(r"\[\w+\]\(account\)", s)]
    assert [re.match(r"\[(\w+)", s)[1] for s in endpoints] == ["anna", "caller", "load"]  # type: ignore[index]
    assert all(re.search(r"^auth = \w+$", section, re.M) for section in endpoints)
    for secret in (state.phone_password, state.caller_password, state.load_password):
        assert f"password = {secret.get_secret_value()}\n" in pjsip
    assert "anonymous" not in pjsip


def test_secrets_are_for_their_owner_only(places: Places) -> None:
    keep_state(places.lab, read_options())
    write_all(places, read_options(), read_state(places.lab))
    private = [
        places.lab / "state.json",
        places.service / "ari-app.env",
        places.caller / "caller.json",
        places.load / "accounts.csv",
        places.load / "api.key",
        places.phone / "accounts",
    ]
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    assert stat.S_IMODE((places.asterisk / "etc").stat().st_mode) == 0o700


def test_what_was_taken_out_of_a_template_does_not_live_on(places: Places) -> None:
    write_all(places, read_options(), State())
    stray = places.asterisk / "etc/stray.conf"
    stray.touch()
    write_all(places, read_options(), State())
    assert not stray.exists()


def test_secrets_are_made_once_and_differ(tmp_path: Path) -> None:
    first = keep_state(tmp_path, read_options())
    assert keep_state(tmp_path, read_options()) == first
    secrets = [
        secret.get_secret_value()
        for secret in (
            first.ari_password,
            first.api_key,
            first.phone_password,
            first.caller_password,
            first.load_password,
        )
    ]
    assert len(set(secrets)) == 5
    assert all(len(secret) >= 16 for secret in secrets)
    assert not any(secret in repr(first) for secret in secrets)


def test_a_chosen_password_wins_over_the_kept_one(tmp_path: Path) -> None:
    before = keep_state(tmp_path, read_options())
    after = keep_state(tmp_path, read_options(lab_phone_password=PASSWORD))
    assert after.phone_password.get_secret_value() == PASSWORD
    assert after.ari_password == before.ari_password


def test_a_damaged_state_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(LabError, match="down --volumes"):
        keep_state(tmp_path, read_options())


def test_the_service_can_be_served_with_what_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_BIND", "0.0.0.0:8080")
    env = tmp_path / "env"
    env.write_text(service_env(read_options(), State()))
    settings = load_settings(str(env))
    settings.require_serving()
    assert settings.elevenlabs_base_url == "http://practice-agent:8765"
    assert settings.audiosocket_target == "ari-app:9092"
    assert settings.asterisk_options("").outbound_endpoint == "PJSIP/{number}"


def test_a_key_switches_to_elevenlabs() -> None:
    practice = read_options()
    real = read_options(elevenlabs_api_key="sk_1", elevenlabs_agent_id="agent_1")
    own = read_options(elevenlabs_base_url="http://other:1")
    assert (practice.is_real, real.is_real) == (False, True)
    assert practice.agent_url == "http://practice-agent:8765"
    assert real.agent_url == "https://api.elevenlabs.io"
    assert own.agent_url == "http://other:1"
    assert "ELEVENLABS_BASE_URL='https://api.elevenlabs.io'" in service_env(real, State())


def test_the_key_may_be_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    monkeypatch.setattr("lab.compose.options._KEY_FILE", file)
    monkeypatch.setenv("ELEVENLABS_AGENT_ID", "agent_1")
    assert not read_options().is_real
    file.write_text("sk_in_a_file\n")
    options = read_options()
    assert options.is_real
    assert "ELEVENLABS_API_KEY='sk_in_a_file'" in service_env(options, State())
    monkeypatch.setenv("ELEVENLABS_API_KEY", "sk_1")
    assert read_options().agent_key == "sk_1"


def test_a_key_file_that_cannot_be_read_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.compose.options._KEY_FILE", tmp_path)
    with pytest.raises(LabError, match="user 10001 must be allowed to read it"):
        read_options()


def test_the_caller_is_told_what_it_needs_and_no_more(places: Places) -> None:
    state = State()
    write_all(places, read_options(elevenlabs_api_key="sk_1", elevenlabs_agent_id="a"), state)
    told = read_caller_state(places.caller)
    assert (told.password, told.api_key) == (state.caller_password, state.api_key)
    assert told.calls_cost_money
    text = (places.caller / "caller.json").read_text()
    assert state.ari_password.get_secret_value() not in text
    assert "sk_1" not in text


def test_the_practice_agent_knows_the_callers_partner() -> None:
    assert AgentBook.from_yaml(dialogue()) == scene.agents()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"lab_bind": "0.0.0.0"}, "set LAB_ADDRESS to this machine's address"),
        ({"lab_bind": "here"}, "LAB_BIND: "),
        ({"lab_sip_port": "80"}, "LAB_SIP_PORT: "),
        ({"lab_rtp_first": "16385"}, "LAB_RTP_FIRST must be even"),
        ({"lab_rtp_first": "20000"}, "less than LAB_RTP_LAST"),
        ({"lab_phone_user": "caller"}, "must not be one of the lab's own"),
        ({"lab_phone_password": "short"}, "12 to 64 characters"),
        ({"lab_phone_password": "with;semicolon-in-it"}, "12 to 64 characters"),
        ({"elevenlabs_api_key": "sk_secret"}, "ELEVENLABS_AGENT_ID must name an agent"),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(options: dict[str, str], sentence: str) -> None:
    with pytest.raises(LabError) as caught:
        read_options(**options)
    assert sentence in str(caught.value)
    assert "sk_secret" not in str(caught.value)
    assert "with;semicolon" not in str(caught.value)


def test_phones_are_told_the_address_that_is_published() -> None:
    assert read_options(lab_bind="192.0.2.7").address == "192.0.2.7"
    everywhere = read_options(lab_bind="0.0.0.0", lab_address="192.0.2.8")
    assert everywhere.address == "192.0.2.8"


def test_the_card_holds_the_whole_account(tmp_path: Path) -> None:
    keep_state(tmp_path, read_options(lab_bind="192.0.2.7", lab_sip_port="5080"))
    # Shown again later, without what was said on the first command line.
    state = read_state(tmp_path)
    password = state.phone_password.get_secret_value()
    text = uri(state)
    assert text == f"sip:phone:{password}@192.0.2.7:5080;transport=udp"
    picture = qr(text)
    assert picture != qr(text.replace("5080", "5081"))
    assert len({len(line) for line in picture.splitlines()}) == 1
