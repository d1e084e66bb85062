"""Fills in the configuration of every container of the lab.

The templates are `asterisk-conf/`, and what `deploy/asterisk/` says in its place.
"""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml

from ari_app.audio.g711 import pcm_to_ulaw
from lab.asterisk import LabError
from lab.asterisk.config import write_config
from lab.asterisk.music import write_music
from lab.compose.options import Options
from lab.compose.state import CALLER_FILE, CallerState, State, write_private
from lab.demo import scene
from lab.demo.voice import caller_voice, spoken
from lab.softphone.sounds import silence, write_wav

APP = "voice-agent"
ARI_USERNAME = "ari-app"
INSIDE_SIP_PORT = 5060
OUTSIDE_SIP_PORT = 5070
ARI_PORT = 8088
AUDIOSOCKET_PORT = 9092
HOME = Path("/asterisk")
"""Asterisk's folder, the same in its container and in the one that fills it."""

_FOLDERS = ("etc", "lib/moh", "cache", "spool", "log", "run")
_PAUSE_BEFORE_S = 6.0
_PAUSE_BETWEEN_S = 8.0


@dataclass(frozen=True, slots=True)
class Places:
    """Where what goes; each is a volume of its own, so that nobody reads another's secrets."""

    lab: Path = Path("/lab")
    """All secrets: for `setup` alone."""
    service: Path = Path("/service")
    agent: Path = Path("/agent")
    caller: Path = Path("/caller")
    asterisk: Path = HOME
    phone: Path = Path("/phone")
    load: Path = Path("/load")
    templates: tuple[Path, ...] = (Path("/templates/asterisk-conf"), Path("/templates/docker"))
    """Of two templates of one name the later folder's is taken."""


def write_all(places: Places, options: Options, state: State) -> None:
    """Write everything; what an earlier start wrote is replaced.

    Raises:
        LabError: a folder cannot be written, or a template asks for what is not known.
    """
    try:
        _write_asterisk(places, options, state)
        write_private(places.service / "ari-app.env", service_env(options, state))
        write_private(places.agent / "dialogue.yaml", dialogue())
        write_private(places.caller / CALLER_FILE, _caller_state(options, state))
        speech = _speech()
        write_private(places.load / "accounts.csv", _sipp_account(state))
        write_private(places.load / "api.key", state.api_key.get_secret_value())
        (places.load / "speech.ulaw").write_bytes(pcm_to_ulaw(speech))
        write_private(places.phone / "accounts", _baresip_account(options, state))
        write_wav(places.phone / "speech.wav", speech)
    except OSError as error:
        raise LabError(f"{error.filename} cannot be written: {error.strerror}.") from None


def _write_asterisk(places: Places, options: Options, state: State) -> None:
    # What the operator took out of a template must not live on.
    shutil.rmtree(places.asterisk / "etc", ignore_errors=True)
    for folder in _FOLDERS:
        (places.asterisk / folder).mkdir(parents=True, exist_ok=True)
    (places.asterisk / "etc").chmod(0o700)
    write_config(
        places.asterisk / "etc", asterisk_values(options, state), None, templates=places.templates
    )
    write_music(places.asterisk / "lib/moh/tone.wav")


def asterisk_values(options: Options, state: State) -> dict[str, str]:
    """What stands for the names between at-signs in the templates."""
    return {
        "APP": APP,
        "ARI_PASSWORD": state.ari_password.get_secret_value(),
        "ARI_USERNAME": ARI_USERNAME,
        "BIND": "0.0.0.0",
        "CALLER_PASSWORD": state.caller_password.get_secret_value(),
        "CONF_DIR": str(HOME / "etc"),
        "DATA_DIR": "/usr/share/asterisk",
        "ENTITY_ID": ":".join(["02", *(f"{byte:02x}" for byte in secrets.token_bytes(5))]),
        "HTTP_PORT": str(ARI_PORT),
        "LOAD_PASSWORD": state.load_password.get_secret_value(),
        "MODULE_DIR": "/usr/lib/asterisk/modules",
        "OUTSIDE_PORT": str(OUTSIDE_SIP_PORT),
        "PHONE_PASSWORD": state.phone_password.get_secret_value(),
        "PHONE_USER": options.lab_phone_user,
        "PUBLIC_ADDRESS": options.address,
        "PUBLIC_SIP_PORT": str(options.lab_sip_port),
        "RTP_FIRST": str(options.lab_rtp_first),
        "RTP_LAST": str(options.lab_rtp_last),
        "RUN_DIR": str(HOME),
        "SIP_PORT": str(INSIDE_SIP_PORT),
        "WEBSOCKET_WRITE_TIMEOUT_MS": "1000",
    }


def service_env(options: Options, state: State) -> str:
    """The `--env-file` of `ari-app serve`: what docker-compose.yml does not say itself."""
    lines = {
        "ARI_URL": f"http://asterisk:{ARI_PORT}",
        "ARI_USERNAME": ARI_USERNAME,
        "ARI_PASSWORD": state.ari_password.get_secret_value(),
        "ARI_APP": APP,
        "AUDIOSOCKET_BIND": f"0.0.0.0:{AUDIOSOCKET_PORT}",
        "AUDIOSOCKET_ADVERTISE": f"ari-app:{AUDIOSOCKET_PORT}",
        "API_KEY": state.api_key.get_secret_value(),
        "ELEVENLABS_API_KEY": options.agent_key,
        "ELEVENLABS_AGENT_ID": options.elevenlabs_agent_id or scene.AGENT_ID,
        "ELEVENLABS_BASE_URL": options.agent_url,
        # initiate-call with the name of an account rings that phone.
        "OUTBOUND_ENDPOINT": "PJSIP/{number}",
        "NUMBER_PATTERN": options.lab_phone_user,
    }
    return "".join(f"{name}='{value}'\n" for name, value in lines.items())


def dialogue() -> str:
    """The practice agent's book as YAML: its own agents, and the automatic caller's partner."""
    book = scene.agents().model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump(book, sort_keys=False, allow_unicode=True)


def _caller_state(options: Options, state: State) -> str:
    return CallerState(
        password=state.caller_password,
        api_key=state.api_key,
        calls_cost_money=options.is_real,
    ).model_dump_json(indent=1)


def _baresip_account(options: Options, state: State) -> str:
    """The account as baresip wants it."""
    user = options.lab_phone_user
    where = f"{options.address}:{options.lab_sip_port}"
    return (
        f"<sip:{user}@{where};transport=udp>;auth_user={user};"
        f"auth_pass={state.phone_password.get_secret_value()};regint=60;audio_codecs=pcmu\n"
    )


def _sipp_account(state: State) -> str:
    """SIPp puts a field into its messages as it is, and then acts on what is in brackets."""
    password = state.load_password.get_secret_value()
    return f"SEQUENTIAL\nload;[authentication username=load password={password}]\n"


def _speech() -> bytes:
    """All lines of the caller's, with time for answers: 16-bit PCM at 8 kHz."""
    voice = caller_voice()
    pieces = [silence(1000 * _PAUSE_BEFORE_S)]
    for line in scene.CALLER:
        pieces += [spoken(voice, line.text), silence(1000 * _PAUSE_BETWEEN_S)]
    return b"".join(pieces)
