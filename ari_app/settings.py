"""Settings of the service, from the environment or a `.env` file.

Every field is described in `.env.example`; a test holds the two against each other. A value that
does not fit ends in `ari_app.errors.ConfigError` with one sentence a line, which never
repeats a secret.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import (
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from ari_app.call.amd import AmdRules, OnMachine
from ari_app.call.keypad import DigitMode
from ari_app.errors import ConfigError, in_words
from ari_app.line.asterisk.names import worker_app
from ari_app.line.numbers import number_pattern
from ari_app.patterns import LinearPattern
from ari_app.process.addresses import (
    is_loopback,
    is_unspecified,
    join_host,
    split_host_port,
)
from ari_app.process.files import is_absent
from ari_app.process.logs import NumberStyle
from ari_app.records.hiding import what_to_hide
from ari_app.records.store.address import read_address
from ari_app.setting_types import (
    EMPTY_IS_NONE,
    AccountSid,
    DatabaseUrl,
    Device,
    DialplanContext,
    Edge,
    Endpoint,
    FallbackUrl,
    HeaderName,
    HostPort,
    Hosts,
    HttpUrl,
    InviteHeaders,
    LineFormatName,
    MediaTransport,
    NetworkList,
    Number,
    OptionalPath,
    OptionalSecret,
    OptionalText,
    OwnVariables,
    Pattern,
    Region,
    SecretForHeader,
    SpoolPath,
    StoreUrl,
    Tokens,
    WaysIn,
    WebhookUrls,
    WhatToHide,
    ZoneName,
    listed,
)
from linekit.listener import ConnectionLimits

if TYPE_CHECKING:
    # Who makes them needs all of a call; every command reads settings, and most carry no calls.
    from ari_app.call.plan import CallPolicy
    from ari_app.line.asterisk.line import AsteriskOptions
    from ari_app.line.twilio.leg import TwilioOptions
    from ari_app.records.spend.limits import SpendLimits
    from ari_app.records.webhooks.outbox import OutboxOptions

_BUSY_CALLS = 50
MOST_WORKERS: Final = 64
# What it cannot read `ari-app check` tells of (`ari_app.checks.env_file`).
logging.getLogger("dotenv").setLevel(logging.CRITICAL)

_SHAPES: Final = {
    "ari_app": "must be 1 to 64 letters, digits, dots, hyphens and underscores",
    "amd_context": "must be the name of a context: letters, digits, hyphens and underscores",
    "transfer_context": "must be the name of a context: letters, digits, hyphens and underscores",
    "agent_price_per_minute": "must be an amount and a currency's three letters: 0.10 EUR",
    "dtmf_terminator": "must be one key, 0 to 9, *, # or A to D, or empty",
    "outbound_variables": "must be names of variables: a letter, then letters, digits and "
    "underscores, with commas between them",
    "outbound_headers": "must be names of headers that begin with X-: letters, digits and hyphens, "
    "with commas between them",
    "agent_variables": "must be names of variables: letters, digits and underscores, with commas "
    "between them",
    "twilio_account_sid": "must be AC and the 32 letters and digits that follow it in the console",
    "twilio_region": "must be the name of a region, such as ie1",
    "twilio_edge": "must be the name of an edge, such as dublin",
    "precall_header": "must be the name of an HTTP header: letters, digits and hyphens",
}
"""What to say of a text whose shape is wrong."""


class Settings(BaseSettings):
    """What the service is told from outside. Field names are the environment's names in lower
    case."""

    model_config = SettingsConfigDict(
        env_file=".env",
        # Some editors put a byte order mark before the first name.
        env_file_encoding="utf-8-sig",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    _read_from: str | None = PrivateAttr(default=".env")
    _worker: int = PrivateAttr(default=0)

    @model_validator(mode="before")
    @classmethod
    def _without_line_ends(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Take the line's end off values: `echo` puts it into secrets of Kubernetes, and editors of
        Windows into files that Docker reads."""
        return {
            name: value.rstrip("\r\n") if isinstance(value, str) else value
            for name, value in given.items()
        }

    dialer_type: WaysIn = "asterisk"
    use_dialer_audio: bool = True
    local_audio_device: OptionalText = None

    dialer_api_url: Annotated[HttpUrl | None, EMPTY_IS_NONE] = None
    dialer_api_key: SecretForHeader = None
    dialer_ca_file: OptionalPath = None
    dialer_audio_hosts: Hosts = ""

    ari_url: HttpUrl = "http://127.0.0.1:8088"
    ari_username: str = ""
    ari_password: SecretStr = SecretStr("")
    ari_ca_file: OptionalPath = None
    ari_app: str = Field(default="voice-agent", pattern=r"^[A-Za-z0-9_.-]{1,64}$")

    media_transport: MediaTransport = "audiosocket"
    audiosocket_bind: HostPort = "127.0.0.1:9092"
    audiosocket_advertise: Annotated[HostPort | None, EMPTY_IS_NONE] = None
    audiosocket_format: LineFormatName = "slin"
    audiosocket_allow: NetworkList = ""
    audiosocket_max_connections: int = Field(default=0, ge=0, le=60_000)
    audiosocket_max_connections_per_address: int = Field(default=0, ge=0, le=60_000)
    audiosocket_max_half_open: int = Field(default=0, ge=0, le=10_000)
    audiosocket_max_half_open_per_address: int = Field(default=0, ge=0, le=10_000)

    twilio_account_sid: Annotated[AccountSid | None, EMPTY_IS_NONE] = None
    twilio_auth_token: Annotated[Tokens | None, EMPTY_IS_NONE] = None
    twilio_phone_number: Number = None
    twilio_fallback_url: Annotated[FallbackUrl | None, EMPTY_IS_NONE] = None
    twilio_fallback_number: Number = None
    twilio_region: Annotated[Region | None, EMPTY_IS_NONE] = None
    twilio_edge: Annotated[Edge | None, EMPTY_IS_NONE] = None
    twilio_api_base_url: Annotated[HttpUrl | None, EMPTY_IS_NONE] = None

    elevenlabs_api_key: OptionalSecret = None
    elevenlabs_agent_id: OptionalText = None
    elevenlabs_base_url: HttpUrl = "https://api.elevenlabs.io"
    elevenlabs_ca_file: OptionalPath = None

    api_bind: HostPort = "127.0.0.1:8080"
    api_key: OptionalSecret = None
    api_keys_file: OptionalPath = None
    audit_file: OptionalPath = None
    page_sign_in_hours: float = Field(default=12, gt=0, le=720)
    api_max_connections: int = Field(default=0, ge=0, le=60_000)
    api_max_connections_per_address: int = Field(default=0, ge=0, le=60_000)
    api_requests_per_second: float = Field(default=50, ge=0, le=10_000)
    api_public_url: Annotated[HttpUrl | None, EMPTY_IS_NONE] = None

    max_concurrent_calls: int = Field(default=10, ge=1, le=10_000)
    call_timeout_seconds: float = Field(default=600, gt=0, le=86_400)
    agent_connect_timeout_seconds: float = Field(default=8, gt=0, le=60)
    agent_dead_after_seconds: float = Field(default=4, ge=1, le=60)
    agent_on_loss: Literal["reconnect", "dialplan"] = "reconnect"
    agent_resume_message: str = Field(default="", max_length=500)
    agent_loss_sound: OptionalPath = None
    agent_silence_timeout_seconds: float = Field(default=15, ge=0, le=3600)
    drain_timeout_seconds: float = Field(default=600, ge=0, le=86_400)
    uplink_chunk_ms: int = Field(default=40, ge=20, le=250, multiple_of=20)
    uplink_busy_chunk_ms: int = Field(default=60, ge=20, le=250, multiple_of=20)
    recordings_dir: OptionalPath = None
    recordings_format: Literal["wav", "flac", "opus"] = "wav"
    record_calls: Literal["all", "asked", "none"] = "all"
    recording_sound: OptionalPath = None
    listening_sound: OptionalPath = None
    no_speech_timeout_seconds: float = Field(default=0, ge=0, le=86_400)
    hold_timeout_seconds: float = Field(default=0, ge=0, le=86_400)

    database_url: DatabaseUrl = Field(default="sqlite+aiosqlite:///./calls.db", repr=False)
    records_journal_dir: OptionalPath = None
    records_keep_days: int = Field(default=0, ge=0, le=36_500)
    records_hide: WhatToHide = "nothing"

    spend_minutes_per_day: float = Field(default=0, ge=0, le=1e9)
    spend_calls_per_day: int = Field(default=0, ge=0, le=1_000_000_000)
    spend_limits_file: OptionalPath = None
    agent_price_per_minute: str = Field(
        default="", pattern=r"^([0-9]{1,6}(\.[0-9]{1,6})? [A-Z]{3})?$"
    )
    spend_time_zone: ZoneName = "UTC"

    outbound_endpoint: Endpoint = "PJSIP/{number}@trunk"
    outbound_variables: OwnVariables = Field(
        default="", pattern=r"^([A-Za-z][A-Za-z0-9_]*([ ,]+|$))*$"
    )
    outbound_headers: InviteHeaders = Field(default="", pattern=r"^(X-[A-Za-z0-9-]+([ ,]+|$))*$")
    number_pattern: Pattern = None
    outbound_calls_per_second: float = Field(default=0, ge=0, le=1000)
    outbound_queue_size: int = Field(default=100, ge=0, le=10_000)
    amd_context: DialplanContext = "voice-agent-amd"
    amd_on_machine: OnMachine = OnMachine.TALK
    amd_on_words: Annotated[OnMachine | None, EMPTY_IS_NONE] = None
    amd_on_silence: OnMachine = OnMachine.TALK
    amd_on_notsure: OnMachine = OnMachine.TALK
    transfer_endpoint: Annotated[Endpoint | None, EMPTY_IS_NONE] = None
    transfer_state: Annotated[Device | None, EMPTY_IS_NONE] = None
    transfer_pattern: Pattern = None
    transfer_context: DialplanContext = "voice-agent-after"
    transfer_ring_seconds: float = Field(default=30, gt=0, le=300)
    transfer_decline_key: str = Field(default="", pattern=r"^[0-9*#A-D]?$")
    take_over_endpoint: Annotated[Endpoint | None, EMPTY_IS_NONE] = None
    take_over_pattern: Pattern = None

    dtmf_mode: DigitMode = DigitMode.COLLECT
    dtmf_timeout_seconds: float = Field(default=3, gt=0, le=60)
    dtmf_terminator: str = Field(default="#", pattern=r"^[0-9*#A-D]?$")
    dtmf_max_digits: int = Field(default=32, ge=1, le=200)
    dtmf_sensitive: bool = False
    agent_variables: str = Field(default="", pattern=r"^([A-Za-z_][A-Za-z0-9_]*([ ,]+|$))*$")
    tools_file: OptionalPath = None

    precall_url: Annotated[HttpUrl | None, EMPTY_IS_NONE] = None
    precall_secret: OptionalSecret = None
    precall_header: HeaderName = Field(default="Authorization", pattern=r"^[A-Za-z0-9-]{1,64}$")
    precall_timeout_seconds: float = Field(default=3, gt=0, le=30)
    precall_on_failure: Literal["go_on", "fail"] = "go_on"

    webhook_url: WebhookUrls = None
    webhook_secret: OptionalSecret = None
    webhook_ca_file: OptionalPath = None
    webhook_spool: SpoolPath = Path("webhooks.db")
    elevenlabs_webhook_secret: OptionalSecret = None
    elevenlabs_fetch_reports: bool = False

    otel_traces_exporter: Literal["none", "otlp"] = "none"

    workers: int = Field(default=1, ge=1, le=MOST_WORKERS)
    worker_loss: Literal["adopt", "dialplan"] = "adopt"
    worker_stall_seconds: float = Field(default=2, ge=0, le=60)

    cluster_url: StoreUrl = None
    cluster_bind: HostPort = "0.0.0.0:8090"
    cluster_secret: SecretForHeader = None
    cluster_max_calls: int = Field(default=0, ge=0, le=100_000)

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["console", "json"] = "console"
    log_numbers: NumberStyle = "masked"

    def chunk_ms(self, active_calls: int) -> int:
        """Return how much user audio a message to the agent holds, in ms, for a call that begins
        now.

        A message costs much the same whatever is in it, so a busy process sends fewer.
        """
        if active_calls < _BUSY_CALLS:
            return self.uplink_chunk_ms
        return max(self.uplink_chunk_ms, self.uplink_busy_chunk_ms)

    def of_worker(self, number: int) -> Settings:
        """Return what differs for one of several workers: its application in Asterisk, and where
        it takes sound in.

        Args:
            number: Which one; from 1.
        """

        def after(address: str) -> str:
            host, port = split_host_port(address)
            return join_host(host, port + number - 1 if port else 0)

        advertise = self.audiosocket_advertise
        found = self.model_copy(
            update={
                "ari_app": worker_app(self.ari_app, number),
                "audiosocket_bind": after(self.audiosocket_bind),
                "audiosocket_advertise": None if advertise is None else after(advertise),
            }
        )
        found._read_from, found._worker = self._read_from, number
        return found

    @property
    def _processes(self) -> int:
        """How many processes take sound in by these settings."""
        return 1 if self._worker else self.workers

    @property
    def worker(self) -> int:
        """Return for which of several workers this is; 0: for all, or for the only one."""
        return self._worker

    @property
    def env_file(self) -> str | None:
        """The file beside the environment that the settings were read from; None: no file."""
        return self._read_from

    @property
    def without_file(self) -> str:
        """A sentence, after a space, that says where the file was looked for in vain; or empty."""
        if self._read_from is None or not is_absent(Path(self._read_from)):
            return ""
        return f" There is no {self._read_from} in {Path.cwd()}."

    @property
    def hidden(self) -> frozenset[str]:
        """What the call log must not hold: `numbers`, `words`."""
        return what_to_hide(self.records_hide)

    @property
    def ways_in(self) -> tuple[str, ...]:
        """Where callers come from; a call that is placed takes the first that can."""
        return tuple(self.dialer_type.split(",")) if self.use_dialer_audio else ("local",)

    @property
    def has_asterisk(self) -> bool:
        """Whether Asterisk is one of the ways in."""
        return "asterisk" in self.ways_in

    @property
    def dialer_holds_calls(self) -> bool:
        """Whether a request that brings no sound is for a call that the dialer holds, and is asked
        for its sound: it is the first way in, and has a service."""
        return self.ways_in[0] == "custom" and self.dialer_api_url is not None

    @property
    def dialer_hosts(self) -> tuple[str, ...]:
        """Hosts beside DIALER_API_URL's whose sound may be fetched."""
        return listed(self.dialer_audio_hosts)

    @property
    def has_audiosocket(self) -> bool:
        """Whether Asterisk may bring sound over AudioSocket."""
        return self.has_asterisk and self.media_transport != "websocket"

    @property
    def audiosocket_target(self) -> str:
        """`host:port` that Asterisk is told to dial."""
        return self.audiosocket_advertise or self.audiosocket_bind

    @property
    def api_is_open(self) -> bool:
        """Whether others than this machine could use the HTTP interface without a key."""
        keyless = self.api_key is None and self.api_keys_file is None
        return keyless and not is_loopback(split_host_port(self.api_bind)[0])

    def audiosocket_limits(self) -> ConnectionLimits:
        """Return how many AudioSocket connections there may be; 0 in the settings: by the calls.

        Asterisk is usually one address, so one address may have them all. A call has one
        connection, and for a second or two another one: that of the call before in its place.
        """
        half_open = self.audiosocket_max_half_open or max(64, 2 * self.max_concurrent_calls)
        connections = self.audiosocket_max_connections or (
            2 * self.max_concurrent_calls + half_open
        )
        return ConnectionLimits(
            connections=connections,
            connections_per_address=self.audiosocket_max_connections_per_address or connections,
            half_open=half_open,
            half_open_per_address=(
                self.audiosocket_max_half_open_per_address or max(1, half_open // 2)
            ),
        )

    def api_limits(self) -> ConnectionLimits:
        """Return how many HTTP connections there may be; 0 in the settings: by the calls.

        One address leaves some for others, such as for whatever watches the service.
        """
        return self._http_limits(self.api_max_connections, self.api_max_connections_per_address)

    def cluster_limits(self) -> ConnectionLimits:
        """Return how many connections of other machines there may be: they ask for the clients
        that follow calls of this one. One address leaves some for the others."""
        return self._http_limits()

    def _http_limits(self, connections: int = 0, per_address: int = 0) -> ConnectionLimits:
        # Each call may be followed by a few streams.
        connections = connections or 4 * self.max_concurrent_calls + 128
        return ConnectionLimits(
            connections=connections,
            connections_per_address=per_address or max(1, connections * 3 // 4),
            half_open=connections,
            half_open_per_address=connections,
        )

    @property
    def webhook_urls(self) -> tuple[str, ...]:
        """Who is told of calls."""
        return tuple(self.webhook_url.split(",")) if self.webhook_url else ()

    def outbox_options(self) -> OutboxOptions | None:
        """Return who is told of calls, and how; None: nobody is."""
        from ari_app.records.webhooks.outbox import OutboxOptions

        if not self.webhook_urls or self.webhook_secret is None:
            return None
        return OutboxOptions(
            urls=self.webhook_urls,
            secret=self.webhook_secret.get_secret_value(),
            spool=self.webhook_spool,
            ca_file=self.webhook_ca_file,
        )

    def spend_limits(self) -> SpendLimits:
        """Return what may be spent on agents in a day.

        Raises:
            ConfigError: `SPEND_LIMITS_FILE` cannot be used, or there is no call log to count in.
        """
        from ari_app.records.spend.limits import Limit, SpendLimits, read_limits

        agents, others = read_limits(self.spend_limits_file)
        together = Limit(self.spend_minutes_per_day or None, self.spend_calls_per_day or None)
        limits = SpendLimits(together, agents, others, ZoneInfo(self.spend_time_zone))
        if limits and not self.database_url:
            raise ConfigError(
                "SPEND_MINUTES_PER_DAY, SPEND_CALLS_PER_DAY and SPEND_LIMITS_FILE count in the "
                "call log, and DATABASE_URL is empty. Name a database; RECORDS_HIDE=numbers,words "
                "and RECORDS_KEEP_DAYS=1 let it hold next to nothing."
            )
        return limits

    def call_policy(self) -> CallPolicy:
        """Return what holds for every call."""
        from ari_app.call.plan import CallPolicy

        def compiled(text: str | None) -> LinearPattern | None:
            return None if text is None else number_pattern(text)

        return CallPolicy(
            number_pattern=compiled(self.number_pattern),
            target_pattern=compiled(self.transfer_pattern),
            amd=AmdRules(
                machine=self.amd_on_machine,
                words=self.amd_on_words,
                silence=self.amd_on_silence,
                notsure=self.amd_on_notsure,
            ),
            consult_ring_seconds=self.transfer_ring_seconds,
            decline_key=self.transfer_decline_key,
            supervisor_pattern=compiled(self.take_over_pattern),
            no_speech_timeout_seconds=self.no_speech_timeout_seconds,
            hold_timeout_seconds=self.hold_timeout_seconds,
            replace_lost_agent=self.agent_on_loss == "reconnect",
            resume_message=self.agent_resume_message,
            silence_timeout_seconds=self.agent_silence_timeout_seconds,
            settable_variables=frozenset(listed(self.agent_variables)),
            digit_mode=self.dtmf_mode,
            digit_timeout_seconds=self.dtmf_timeout_seconds,
            digit_terminator=self.dtmf_terminator,
            max_digits=self.dtmf_max_digits,
            digits_are_sensitive=self.dtmf_sensitive,
        )

    def asterisk_options(self, audiosocket_target: str) -> AsteriskOptions:
        """Return how calls go through Asterisk.

        Args:
            audiosocket_target: What Asterisk dials for sound: `host:port`.
        """
        from ari_app.line.asterisk.line import AsteriskOptions

        return AsteriskOptions(
            app=self.ari_app,
            audiosocket_target=audiosocket_target,
            media_transport=self.media_transport,
            audiosocket_format=self.audiosocket_format,
            outbound_endpoint=self.outbound_endpoint,
            transfer_endpoint=self.transfer_endpoint or self.outbound_endpoint,
            transfer_state=self.transfer_state or "",
            take_over_endpoint=self.take_over_endpoint or "",
            transfer_context=self.transfer_context,
            amd_context=self.amd_context,
            channel_variables=frozenset(listed(self.outbound_variables)),
            sip_headers=frozenset(listed(self.outbound_headers)),
        )

    @property
    def twilio_tokens(self) -> tuple[str, ...]:
        """The auth tokens of Twilio's account; any of them may have signed."""
        if self.twilio_auth_token is None:
            return ()
        return tuple(each.strip() for each in self.twilio_auth_token.get_secret_value().split(","))

    @property
    def twilio_api_url(self) -> str:
        """Where Twilio's REST interface answers."""
        if self.twilio_api_base_url is not None:
            return self.twilio_api_base_url
        if self.twilio_region is None or self.twilio_edge is None:
            return "https://api.twilio.com"
        return f"https://api.{self.twilio_edge}.{self.twilio_region}.twilio.com"

    def twilio_options(self) -> TwilioOptions:
        """Return how calls go through Twilio."""
        from ari_app.line.twilio.leg import TwilioOptions
        from ari_app.line.twilio.twiml import Elsewhere

        return TwilioOptions(
            public_url=self.api_public_url or "",
            account_sid=self.twilio_account_sid or "",
            number=self.twilio_phone_number,
            worker=self._worker,
            elsewhere=Elsewhere(
                url=self.twilio_fallback_url,
                number=self.twilio_fallback_number,
                caller_id=self.twilio_phone_number,
                ring_seconds=self.transfer_ring_seconds,
            ),
        )

    def require_serving(self) -> None:
        """Check what `serve` cannot run without.

        Raises:
            ConfigError: Credentials of ARI are missing, or the HTTP service would be open to the
                network without a key.
        """
        if self.has_asterisk:
            self._require_credentials()
        if self.api_is_open:
            raise ConfigError(
                f"API_BIND is {self.api_bind}, which others can reach, but API_KEY is not set. "
                "Set API_KEY, or bind to 127.0.0.1."
            )
        if self.webhook_urls and self.webhook_secret is None:
            raise ConfigError(
                "WEBHOOK_URL is set, but WEBHOOK_SECRET is not, so receivers could not tell our "
                "events from anybody's. `python3 -c 'import secrets; print(secrets.token_hex(32))'`"
                " makes one; give it to the receivers, too."
            )
        self.spend_limits()
        self._require_what_forgets()
        if self.has_audiosocket:
            self._require_target()
        self._require_ports_apart()
        if "twilio" in self.ways_in:
            self._require_twilio()
        if self.workers > 1:
            self._require_workers()
        if self.cluster_url is not None:
            self._require_cluster()

    def _require_what_forgets(self) -> None:
        kept = {"RECORDINGS_DIR": self.recordings_dir, "WEBHOOK_URL": self.webhook_urls}
        if self.records_keep_days and not self.database_url and any(kept.values()):
            names = " and ".join(name for name, value in kept.items() if value)
            raise ConfigError(
                f"RECORDS_KEEP_DAYS is {self.records_keep_days}, but DATABASE_URL is empty: it is "
                f"the call log that knows how old a call is, and what {names} keeps of it would "
                "stay. Name a database; RECORDS_HIDE=numbers,words lets it hold next to nothing. "
                "Or set RECORDS_KEEP_DAYS=0, and remove old files yourself."
            )

    def _require_ports_apart(self) -> None:
        binds = [("API_BIND", self.api_bind, 1)]
        if self.has_audiosocket:
            binds.append(("AUDIOSOCKET_BIND", self.audiosocket_bind, self._processes))
        if self.cluster_url is not None:
            binds.append(("CLUSTER_BIND", self.cluster_bind, 1))
        for (name, bind, ports), (other, their_bind, their_ports) in combinations(binds, 2):
            (host, first), (their_host, their_first) = map(split_host_port, (bind, their_bind))
            common = max(first, their_first)
            if (
                min(first, their_first) > 0
                and common < min(first + ports, their_first + their_ports)
                and (host == their_host or is_unspecified(host) or is_unspecified(their_host))
            ):
                workers = "; each worker has one of its own" if ports + their_ports > 2 else ""
                raise ConfigError(
                    f"{name} and {other} both take port {common}{workers}. Choose another for one "
                    "of them."
                )

    def _require_cluster(self) -> None:
        if self.workers == 1:
            raise ConfigError(
                "CLUSTER_URL is set, but WORKERS is 1: what joins several machines is the front "
                "that stands before several workers. Set WORKERS=2, or more where there are cores."
            )
        if self.cluster_secret is None or len(self.cluster_secret.get_secret_value()) < 16:
            raise ConfigError(
                "CLUSTER_URL is set, so CLUSTER_SECRET must be, too: the same on all machines, 16 "
                "characters at least. `python3 -c 'import secrets; print(secrets.token_hex(32))'` "
                "makes one."
            )
        if self.database_url and read_address(self.database_url).kind == "sqlite":
            raise ConfigError(
                "CLUSTER_URL is set, but DATABASE_URL is SQLite, which one machine has for itself: "
                "several keep their calls in PostgreSQL, or DATABASE_URL is empty."
            )

    def _require_workers(self) -> None:
        if "local" in self.ways_in:
            raise ConfigError(
                f"WORKERS is {self.workers}, but this machine's microphone is one: set WORKERS=1."
            )
        for name, address in (
            ("AUDIOSOCKET_BIND", self.audiosocket_bind),
            ("AUDIOSOCKET_ADVERTISE", self.audiosocket_advertise),
        ):
            last = split_host_port(address)[1] + self._processes - 1 if address else 0
            if self.has_audiosocket and last > 65535:
                raise ConfigError(
                    f"{name} is {address}, and each of the {self.workers} workers has a port of "
                    "its own, the next ones: choose a lower one."
                )

    def _require_twilio(self) -> None:
        values = {
            "TWILIO_ACCOUNT_SID": self.twilio_account_sid,
            "TWILIO_AUTH_TOKEN": self.twilio_auth_token,
            "API_PUBLIC_URL": self.api_public_url,
        }
        if missing := [name for name, value in values.items() if value is None]:
            raise ConfigError(
                f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} empty or not set, "
                "and DIALER_TYPE names twilio. The account and its token stand on the first page "
                "of Twilio's console; API_PUBLIC_URL is the https:// address at which Twilio "
                "reaches this service. See docs/twilio.md."
            )
        public = urlsplit(self.api_public_url or "")
        if public.scheme != "https" and not is_loopback(public.hostname or ""):
            raise ConfigError(
                "Twilio opens streams with TLS only: API_PUBLIC_URL must begin with https://."
            )
        if (self.twilio_region is None) != (self.twilio_edge is None):
            raise ConfigError(
                "TWILIO_REGION and TWILIO_EDGE belong together, such as ie1 and dublin: with one "
                "of them alone requests do not reach the region."
            )

    def _require_credentials(self) -> None:
        missing = [
            name
            for name, value in (
                ("ARI_USERNAME", self.ari_username),
                ("ARI_PASSWORD", self.ari_password.get_secret_value()),
            )
            if not value
        ]
        if missing:
            raise ConfigError(
                f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} empty or not set. "
                "Write the name of the user's section in Asterisk's ari.conf to ARI_USERNAME in "
                f"{self.env_file or 'the environment'}, and its password to ARI_PASSWORD "
                f"(asterisk-conf/ shows such a user).{self.without_file}"
            )

    def _require_target(self) -> None:
        advertised, port = split_host_port(self.audiosocket_target)
        if is_unspecified(advertised):
            raise ConfigError(
                f"Asterisk cannot dial {self.audiosocket_target}. Set AUDIOSOCKET_ADVERTISE to an "
                "address of this machine that Asterisk reaches."
            )
        if port == 0 and self.audiosocket_advertise is not None:
            raise ConfigError("AUDIOSOCKET_ADVERTISE needs a port that is not 0.")


def load_settings(env_file: str | None = ".env", **overrides: object) -> Settings:
    """Read the settings from the environment and `env_file`; `overrides` win.

    Raises:
        ConfigError: One sentence for each setting that does not fit.
    """
    try:
        settings = Settings(_env_file=env_file, **overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        problems = [_sentence(item) for item in error.errors(include_url=False)]
        raise ConfigError(" ".join(problems)) from None
    settings._read_from = env_file
    return settings


def _sentence(item: Mapping[str, Any]) -> str:
    """Say what is wrong with a setting, without its value, which may be a secret in the wrong
    place."""
    name = str(item["loc"][0])
    default = Settings.model_fields[name].default
    such = ""
    if isinstance(default, bool):
        such = f" such as {str(default).lower()}"
    elif isinstance(default, int | float):
        such = f" such as {default:g}"
    elif isinstance(default, str | Path) and str(default):
        such = f" such as {default}"
    if item["input"] == "":
        return f"{name.upper()}: is empty. Write a value{such}, or take the line out."
    words = _SHAPES[name] if item["type"] == "string_pattern_mismatch" else in_words(item)
    exemplary = item["type"].startswith(("int_", "float_", "greater", "less", "multiple"))
    if such and (exemplary or words.endswith(("https://", "host:port"))):
        words += f",{such}"
    return f"{name.upper()}: {words}."
