from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from ari_app.call.amd import AmdRules, OnMachine
from ari_app.call.keypad import DigitMode
from ari_app.call.plan import CallPolicy
from ari_app.errors import ConfigError
from ari_app.process.addresses import split_host_port
from ari_app.settings import Settings, load_settings
from linekit.listener import ConnectionLimits
from tests.unit.settings_maker import nothing_outside

ROOT = Path(__file__).parents[2]
SERVING = {"ari_username": "app", "ari_password": "secret-word"}


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nothing_outside(monkeypatch, tmp_path)


def documented() -> dict[str, str | None]:
    """What .env.example says: each name with its default, None where it must be set."""
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    found = (re.fullmatch(r"(#?)([A-Z_]+)=(.*)", line) for line in lines)
    return {m[2]: m[3] for m in found if m}


def test_every_setting_is_documented_with_its_default() -> None:
    names = {name.upper(): field for name, field in Settings.model_fields.items()}
    assert set(documented()) == set(names)
    from_example = load_settings(str(ROOT / ".env.example"))
    assert from_example.model_dump() == load_settings(None).model_dump()
    for name, value in documented().items():
        if value:
            parsed = load_settings(None, **{name.lower(): value})
            assert getattr(parsed, name.lower()) == names[name].default


def test_the_environment_wins_over_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    env_file = tmp_path / "env"
    env_file.write_text("ARI_APP=from-file\nMAX_CONCURRENT_CALLS=3\nUNKNOWN=1\n")
    monkeypatch.setenv("ARI_APP", "from-environment")
    settings = load_settings(str(env_file))
    assert settings.ari_app == "from-environment"
    assert settings.max_concurrent_calls == 3


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        (
            "ari_url",
            "127.0.0.1:8088",
            "ARI_URL: must be a URL with http:// or https://, such as http",
        ),
        ("ari_url", "http://u:hunter2@h", "ARI_URL: must not carry a user name or password"),
        ("ari_url", "http://h/?a=b", "ARI_URL: must not carry a query or a fragment."),
        ("audiosocket_bind", "9092", "AUDIOSOCKET_BIND: must be host:port, such as 127.0.0.1:9092"),
        ("api_bind", "8080", "API_BIND: must be host:port, such as 127.0.0.1:8080."),
        ("audiosocket_bind", "h:99999", "AUDIOSOCKET_BIND: must be host:port"),
        ("audiosocket_allow", "10.0.0.0/8 asterisk", "AUDIOSOCKET_ALLOW: 'asterisk' is no network"),
        (
            "audiosocket_max_half_open",
            "-1",
            "AUDIOSOCKET_MAX_HALF_OPEN: must be at least 0, such as",
        ),
        (
            "api_requests_per_second",
            "-1",
            "API_REQUESTS_PER_SECOND: must be at least 0, such as 50.",
        ),
        ("audiosocket_format", "mp3", "AUDIOSOCKET_FORMAT: must be slin, slin16, slin24 or auto."),
        ("uplink_chunk_ms", "50", "UPLINK_CHUNK_MS: must be a multiple of 20, such as 40."),
        ("max_concurrent_calls", "0", "MAX_CONCURRENT_CALLS: must be at least 1, such as 10."),
        ("call_timeout_seconds", "soon", "CALL_TIMEOUT_SECONDS: must be a number, such as 600."),
        ("max_concurrent_calls", "many", "MAX_CONCURRENT_CALLS: must be a whole number, such as"),
        (
            "max_concurrent_calls",
            "",
            "MAX_CONCURRENT_CALLS: is empty. Write a value such as 10, or",
        ),
        ("max_concurrent_calls", "99999", "MAX_CONCURRENT_CALLS: must be at most 10000, such as"),
        ("dtmf_sensitive", "maybe", "DTMF_SENSITIVE: must be true or false."),
        ("amd_on_machine", "scream", "AMD_ON_MACHINE: must be "),
        ("agent_resume_message", "x" * 501, "AGENT_RESUME_MESSAGE: must be at most 500 characters"),
        (
            "ari_url",
            "",
            "ARI_URL: is empty. Write a value such as http://127.0.0.1:8088, or take",
        ),
        ("webhook_spool", "", "WEBHOOK_SPOOL: is empty. Write a value such as webhooks.db, or"),
        (
            "ari_url",
            "http://h:many",
            "ARI_URL: must be a URL with http:// or https://, such as http",
        ),
        ("amd_context", "a b", "AMD_CONTEXT: must be the name of a context"),
        ("transfer_context", "a b", "TRANSFER_CONTEXT: must be the name of a context"),
        ("dtmf_terminator", "##", "DTMF_TERMINATOR: must be one key"),
        ("agent_variables", "a-b", "AGENT_VARIABLES: must be names of variables"),
        ("outbound_variables", "_A", "OUTBOUND_VARIABLES: must be names of variables"),
        ("outbound_variables", "A,Agent_Status", "OUTBOUND_VARIABLES: must not have a name that"),
        ("outbound_headers", "Diversion", "OUTBOUND_HEADERS: must be names of headers that begin"),
        ("precall_header", "a b", "PRECALL_HEADER: must be the name of an HTTP header"),
        ("precall_header", "Content-Length", "PRECALL_HEADER: must be a header of your own"),
        ("ari_app", "a b", "ARI_APP: must be 1 to 64 letters, digits"),
        ("number_pattern", "[0-9", "NUMBER_PATTERN: must be a regular expression: unclosed"),
        (
            "transfer_pattern",
            r"(?!900)[0-9]+",
            "TRANSFER_PATTERN: must be a regular expression: look",
        ),
        ("recordings_dir", "~/calls", "RECORDINGS_DIR: must be written out: what ~ or $ stands"),
        ("records_journal_dir", "$HOME/calls", "RECORDS_JOURNAL_DIR: must be written out: what ~"),
        ("webhook_spool", "~/webhooks.db", "WEBHOOK_SPOOL: must be written out: what ~ or $ st"),
        ("recordings_dir", "s3://calls/of", "RECORDINGS_DIR: must be a path on this machine, and"),
        ("database_url", "sqlite+aiosqlite:///~/calls.db", "DATABASE_URL: must be written out: "),
    ],
)
def test_a_bad_setting_is_one_sentence(name: str, value: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(None, **{name: value})
    assert sentence in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"ari_password": ""}, "ARI_PASSWORD is empty or not set."),
        ({"ari_username": ""}, "ARI_USERNAME is empty or not set."),
        (
            {"ari_username": "", "ari_password": ""},
            "ARI_USERNAME and ARI_PASSWORD are empty or not set.",
        ),
        ({"api_bind": "0.0.0.0:8080"}, "which others can reach, but API_KEY is not set."),
        ({"audiosocket_bind": "0.0.0.0:9092"}, "Asterisk cannot dial 0.0.0.0:9092."),
        ({"audiosocket_advertise": "10.0.0.1:0"}, "AUDIOSOCKET_ADVERTISE needs a port"),
        (
            {"api_bind": "127.0.0.1:9092"},
            "API_BIND and AUDIOSOCKET_BIND both take port 9092. Choose another for one of them.",
        ),
        (
            {"api_bind": "127.0.0.1:9094", "workers": "3"},
            "both take port 9094; each worker has one of its own.",
        ),
        (
            {
                "audiosocket_bind": "127.0.0.1:8090",
                "workers": "2",
                "cluster_url": "valkey://127.0.0.1",
            },
            "AUDIOSOCKET_BIND and CLUSTER_BIND both take port 8090",
        ),
    ],
)
def test_what_serve_cannot_run_without(changes: dict[str, str], sentence: str) -> None:
    settings = load_settings(None, **{**SERVING, **changes})
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        settings.require_serving()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"api_bind": "[::1]:8080"},
        {"api_bind": "localhost:8080"},
        {"api_bind": "0.0.0.0:8080", "api_key": "k"},
        {"audiosocket_bind": "0.0.0.0:9092", "audiosocket_advertise": "bridge.internal:9092"},
        {"api_bind": "127.0.0.1:9092", "media_transport": "websocket"},
        {"api_bind": "127.0.0.2:9092"},
        {"api_bind": "127.0.0.1:9094", "workers": "2"},
        {"api_bind": "127.0.0.1:0", "audiosocket_bind": "127.0.0.1:0"},
    ],
)
def test_what_serve_runs_with(changes: dict[str, str]) -> None:
    load_settings(None, **{**SERVING, **changes}).require_serving()


def test_a_file_that_was_looked_for_in_another_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=re.escape(f" There is no .env in {tmp_path}.")):
        load_settings().require_serving()
    (tmp_path / ".env").touch()
    for file in (".env", None):
        assert load_settings(file).without_file == ""


def test_what_is_missing_is_to_be_written_where_the_settings_are(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.env"
    elsewhere.write_text("ARI_APP=other\n")
    for file, where in ((str(elsewhere), str(elsewhere)), (None, "the environment")):
        with pytest.raises(ConfigError) as error:
            load_settings(file).require_serving()
        assert f"to ARI_USERNAME in {where}, and" in str(error.value)


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_the_end_of_a_line_is_no_part_of_a_value(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    """`echo key | base64` puts one into a secret of Kubernetes."""
    for name, value in {"API_KEY": "k y ", "ARI_PASSWORD": "p", "WORKERS": "2"}.items():
        monkeypatch.setenv(name, value + end)
    monkeypatch.setenv("ELEVENLABS_API_KEY", end)
    settings = load_settings(None)
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "k y "
    assert settings.ari_password.get_secret_value() == "p"
    assert settings.workers == 2
    assert settings.elevenlabs_api_key is None


@pytest.mark.parametrize("name", ["elevenlabs_api_key", "precall_secret", "api_key"])
def test_a_secret_is_one_line(name: str) -> None:
    """No header can hold another one: each request would fail."""
    with pytest.raises(ConfigError) as caught:
        load_settings(None, **{name: "one\r\ntwo"})
    assert str(caught.value) == (
        f"{name.upper()}: must be one line, without tabs and other control characters."
    )


def test_secrets_do_not_show() -> None:
    settings = load_settings(None, **SERVING, elevenlabs_api_key="sk_1", api_key="key_1")
    for secret in ("secret-word", "sk_1", "key_1"):
        assert secret not in repr(settings)
        assert secret not in settings.model_dump_json()


def test_an_address_in_a_setting() -> None:
    assert split_host_port("[::1]:9092") == ("::1", 9092)


def test_asterisk_is_told_of_this_machine_where_nothing_is_said() -> None:
    assert load_settings(None).audiosocket_target == "127.0.0.1:9092"


@pytest.mark.parametrize(
    "name",
    [
        *("api_bind", "audiosocket_bind", "audiosocket_advertise", "cluster_bind"),
        *("ari_url", "elevenlabs_base_url", "dialer_api_url", "precall_url", "webhook_url"),
        *("api_public_url", "twilio_api_base_url", "cluster_url"),
    ],
)
def test_a_host_that_cannot_be(name: str) -> None:
    schemes = {"cluster_url": "redis://", "webhook_url": "https://"}
    form = f"{schemes.get(name, 'http://')}{{}}" if name.endswith("_url") else "{}:9000"
    for host in ("media..example", f"{'x' * 64}.example", "media\\example", "xn--.example"):
        with pytest.raises(ConfigError, match=f"{name.upper()}: must be "):
            load_settings(None, **{name: form.format(host)})
    for host in ("media_1.example.", "xn--bcher-kva.example", "[fe80::1]", "*"):
        load_settings(None, **{name: form.format(host)})


def test_a_busy_process_sends_fewer_messages() -> None:
    settings = load_settings(None)
    assert [settings.chunk_ms(calls) for calls in (0, 49, 50, 500)] == [40, 40, 60, 60]
    assert load_settings(None, uplink_chunk_ms=100).chunk_ms(50) == 100


def test_limits_of_connections_grow_with_the_calls() -> None:
    few, many = (load_settings(None, max_concurrent_calls=n) for n in (1, 500))
    for settings in (few, many):
        limits = settings.audiosocket_limits()
        assert limits.half_open_per_address < limits.half_open
        assert limits.connections_per_address == limits.connections
        # Every call has its line, and one that has just ended may still be closing.
        assert limits.connections - limits.half_open >= 2 * settings.max_concurrent_calls
        http = settings.api_limits()
        assert http.connections_per_address < http.connections
        assert http.connections > 4 * settings.max_concurrent_calls


def test_limits_of_connections_may_be_set() -> None:
    settings = load_settings(
        None,
        audiosocket_max_connections=7,
        audiosocket_max_connections_per_address=6,
        audiosocket_max_half_open=5,
        audiosocket_max_half_open_per_address=4,
        api_max_connections=3,
        api_max_connections_per_address=2,
    )
    assert settings.audiosocket_limits() == ConnectionLimits(7, 6, 5, 4)
    limits = settings.api_limits()
    assert (limits.connections, limits.connections_per_address) == (3, 2)


def test_what_is_set_holds_for_every_call() -> None:
    said = {
        "amd_on_machine": "leave_message",
        "amd_on_words": "talk",
        "amd_on_silence": "hang_up",
        "amd_on_notsure": "hang_up",
        "transfer_ring_seconds": 11.0,
        "transfer_decline_key": "9",
        "no_speech_timeout_seconds": 12.0,
        "hold_timeout_seconds": 13.0,
        "agent_resume_message": "Again.",
        "agent_silence_timeout_seconds": 14.0,
        "dtmf_mode": "each",
        "dtmf_timeout_seconds": 1.5,
        "dtmf_terminator": "*",
        "dtmf_max_digits": 7,
        "dtmf_sensitive": True,
    }
    policy = load_settings(
        None, **said, agent_on_loss="dialplan", agent_variables="A, B"
    ).call_policy()
    assert policy == CallPolicy(
        number_pattern=policy.number_pattern,
        amd=AmdRules(
            machine=OnMachine.LEAVE_MESSAGE,
            words=OnMachine.TALK,
            silence=OnMachine.HANG_UP,
            notsure=OnMachine.HANG_UP,
        ),
        consult_ring_seconds=11,
        decline_key="9",
        no_speech_timeout_seconds=12,
        hold_timeout_seconds=13,
        replace_lost_agent=False,
        resume_message="Again.",
        silence_timeout_seconds=14,
        settable_variables=frozenset("AB"),
        digit_mode=DigitMode.EACH,
        digit_timeout_seconds=1.5,
        digit_terminator="*",
        max_digits=7,
        digits_are_sensitive=True,
    )


def test_headers_need_a_trunk_that_is_called_directly() -> None:
    said = {"outbound_headers": "X-Campaign, X-List", "outbound_variables": "TRUNK"}
    options = load_settings(None, **said).asterisk_options("127.0.0.1:9092")
    assert options.sip_headers == {"X-Campaign", "X-List"}
    assert options.channel_variables == {"TRUNK"}
    with pytest.raises(ConfigError, match="OUTBOUND_HEADERS: needs OUTBOUND_ENDPOINT=PJSIP/"):
        load_settings(None, **said, outbound_endpoint="Local/{number}@from-internal")


@pytest.mark.parametrize(
    "url",
    [
        "https://crm.example.com/hooks?token=1",
        "http://127.0.0.1:5678/webhook/x",
        "http://[::1]/x",
        "http://10.1.2.3/x",
        "http://n8n:5678/x",
        "http://n8n.internal/x",
        "http://localhost/x",
        "https://a.example/x, https://b.example/y",
    ],
)
def test_who_may_be_told_of_calls(url: str) -> None:
    assert load_settings(None, webhook_url=url).webhook_urls == tuple(
        each.strip() for each in url.split(",")
    )


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://crm.example.com/x", "must begin with https://"),
        ("http://8.8.8.8/x", "must begin with https://"),
        ("https://a.example/x,http://crm.example.com/x", "must begin with https://"),
        ("ftp://crm.example.com/x", "must be a URL"),
        ("crm.example.com", "must be a URL"),
        ("https://", "must be a URL"),
        ("https://a.example/x,", "must be a URL"),
        ("https://me:secret@a.example/x", "must not carry a user name"),
        ("https://a.example/x#y", "must not carry a user name"),
        (",".join(9 * ["https://a.example/x"]), "at most 8"),
    ],
)
def test_who_may_not(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        load_settings(None, webhook_url=url)
    assert "secret" not in str(caught.value)


def test_what_is_told_is_signed() -> None:
    settings = load_settings(None, **SERVING, webhook_url="https://a.example/x")
    assert settings.outbox_options() is None
    with pytest.raises(ConfigError, match="WEBHOOK_SECRET is not"):
        settings.require_serving()


def test_without_a_call_log_nothing_grows_too_old(tmp_path: Path) -> None:
    told = {**SERVING, "records_keep_days": 30, "database_url": ""}
    recorded = {"recordings_dir": tmp_path}
    hooks = {"webhook_url": "https://a.example/x", "webhook_secret": "s" * 20}
    for kept, names in (
        (recorded, "RECORDINGS_DIR"),
        (hooks, "WEBHOOK_URL"),
        (recorded | hooks, "RECORDINGS_DIR and WEBHOOK_URL"),
    ):
        with pytest.raises(ConfigError, match=f"^RECORDS_KEEP_DAYS is 30, .* what {names} keeps"):
            load_settings(None, **told, **kept).require_serving()
        load_settings(None, **{**told, **kept, "records_keep_days": 0}).require_serving()
        load_settings(None, **{**SERVING, **kept, "records_keep_days": 30}).require_serving()
    load_settings(None, **told).require_serving()


def test_limits_of_a_day(tmp_path: Path) -> None:
    assert not load_settings(None).spend_limits()
    file = tmp_path / "limits.yaml"
    file.write_text("agent_7: {calls: 3}")
    limits = load_settings(
        None,
        spend_minutes_per_day=90,
        spend_limits_file=file,
        spend_time_zone="Europe/Berlin",
    ).spend_limits()
    assert (limits.together.minutes, limits.together.calls) == (90, None)
    assert (limits.agents["agent_7"].calls, str(limits.zone)) == (3, "Europe/Berlin")
    with pytest.raises(ConfigError, match="DATABASE_URL is empty"):
        load_settings(None, spend_calls_per_day=1, database_url="").spend_limits()
    for zone in ("", "Berlin", "../etc", "/etc/passwd"):
        with pytest.raises(ConfigError, match="SPEND_TIME_ZONE"):
            load_settings(None, spend_time_zone=zone)


def test_each_worker_has_its_own_application_and_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "pbx 1.example")
    settings = load_settings(
        None, **SERVING, audiosocket_bind="[::1]:9092", audiosocket_advertise="10.0.0.5:7000"
    )
    third = settings.of_worker(3)
    assert third.ari_app == "voice-agent.pbx-1-example.3"
    assert third.audiosocket_bind == "[::1]:9094"
    assert third.audiosocket_target == "10.0.0.5:7002"
    assert third.env_file == settings.env_file
    assert load_settings(None, audiosocket_bind="127.0.0.1:0").of_worker(2).audiosocket_bind == (
        "127.0.0.1:0"
    )
    # Ids of channels begin with it, and Asterisk bounds those.
    long = [load_settings(None, ari_app="a" * 64).of_worker(n).ari_app for n in (1, 1, 12)]
    assert long[0] == long[1] != long[2]
    assert max(map(len, long)) <= 64
    assert long[2].endswith(".12")


def test_what_several_workers_find_at_twilio() -> None:
    settings = load_settings(
        None,
        dialer_type="twilio",
        twilio_account_sid="AC" + "0" * 32,
        twilio_auth_token="t",
        api_public_url="https://voice.example",
    )
    alone, second = settings.twilio_options(), settings.of_worker(2).twilio_options()
    assert alone.url("/twilio/after?a=b") == "https://voice.example/twilio/after?a=b"
    assert second.url("/twilio/after?a=b") == "https://voice.example/twilio/after?a=b&worker=2"
    assert second.url("/twilio/status") == "https://voice.example/twilio/status?worker=2"
    token = second.new_token()
    assert token.startswith("2.")
    assert "." not in alone.new_token()
    assert second.stream_url(token) == f"wss://voice.example/twilio/media/{token}"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dialer_type": "local"}, "microphone is one"),
        ({"audiosocket_bind": "127.0.0.1:65534"}, "AUDIOSOCKET_BIND is 127.0.0.1:65534"),
        ({"audiosocket_advertise": "10.0.0.5:65535"}, "AUDIOSOCKET_ADVERTISE"),
    ],
)
def test_what_several_workers_cannot_have(changes: dict[str, str], words: str) -> None:
    load_settings(None, **{**SERVING, **changes}, workers=1).require_serving()
    with pytest.raises(ConfigError, match=words):
        load_settings(None, **{**SERVING, **changes}, workers=3).require_serving()
