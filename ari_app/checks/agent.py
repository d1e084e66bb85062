"""The agent's service: whether it accepts the key and knows the agent."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from ari_app.agent.elevenlabs.account import Account
from ari_app.agent.elevenlabs.client import AgentClient
from ari_app.checks.finding import EVERYTHING, Finding, failed, note, ok, warning
from ari_app.checks.host import connect_problem, host_and_port
from ari_app.errors import AgentError
from ari_app.process.addresses import is_loopback
from ari_app.settings import Settings

_WHAT: Final = "Agent"
_ACCOUNT: Final = "Agent's quota"
_OFFICIAL_HOST: Final = "elevenlabs.io"


async def check_agent_key(agents: AgentClient, settings: Settings) -> Finding:
    """Check whether ElevenLabs accepts the key, asked with the default agent."""
    host = urlsplit(settings.elevenlabs_base_url).hostname or ""
    official = host == _OFFICIAL_HOST or host.endswith("." + _OFFICIAL_HOST)
    if settings.elevenlabs_api_key is None:
        if official:
            return failed(
                _WHAT,
                "ELEVENLABS_API_KEY is not set. Make a key in ElevenLabs' settings and put it into "
                ".env; or talk to the practice agent: `ari-app agent`, "
                "ELEVENLABS_BASE_URL=http://127.0.0.1:8765.",
            )
        return ok(_WHAT, f"no key; {host} is asked for public agents only")
    if settings.elevenlabs_agent_id is None:
        problem = await connect_problem(
            settings.elevenlabs_base_url, settings.agent_connect_timeout_seconds
        )
        if problem:
            return _out_of_reach(settings, f"it {problem}")
        return warning(
            _WHAT,
            "ELEVENLABS_AGENT_ID is not set, so the key could not be tried. Calls must name their "
            "agent: Stasis(...,agent_id=...).",
            uses=EVERYTHING,
        )
    try:
        await agents.check(settings.elevenlabs_agent_id)
    except AgentError as error:
        return _agent_failure(error, settings, host)
    return ok(_WHAT, f"{host} accepts the key and knows the agent")


async def check_account(agents: AgentClient, settings: Settings) -> list[Finding]:
    """Look at what ElevenLabs' plan still allows; empty where it is not told."""
    if settings.elevenlabs_api_key is None:
        return []
    await agents.account.look()
    return judge_account(agents.account.account, settings)


def judge_account(account: Account | None, settings: Settings) -> list[Finding]:
    """Judge whether the plan is enough for what the settings want."""
    if account is None:
        return []
    if account.runs_out:
        return [
            warning(
                _ACCOUNT,
                f"{account.text}. When they are used up no call reaches an agent. In ElevenLabs' "
                "settings buy more, or allow for usage beyond the plan.",
            )
        ]
    if account.at_once is not None and account.at_once < settings.max_concurrent_calls:
        return [
            note(
                _ACCOUNT,
                f"{account.text}; MAX_CONCURRENT_CALLS is {settings.max_concurrent_calls}. What is "
                "beyond the plan is refused, unless the agent's settings allow for bursts, which "
                "cost double.",
            )
        ]
    return [ok(_ACCOUNT, account.text)]


def _agent_failure(error: AgentError, settings: Settings, host: str) -> Finding:
    match error.code:
        case "agent_unauthorized":
            return failed(
                _WHAT,
                f"{host} refuses ELEVENLABS_API_KEY. Compare it with the keys in ElevenLabs' "
                "settings; it needs the permission for Agents.",
            )
        case "agent_not_found":
            return failed(
                _WHAT,
                f"{host} knows no agent {settings.elevenlabs_agent_id!r}. Compare "
                "ELEVENLABS_AGENT_ID with the agent's page, and ELEVENLABS_BASE_URL "
                f"({settings.elevenlabs_base_url}) with where your account is.",
            )
        case "agent_untrusted":
            return failed(
                _WHAT,
                f"{host}: {error}. If that is not a stranger between us, set ELEVENLABS_CA_FILE to "
                "the certificate of whoever issued it.",
            )
        case "agent_quota":
            return failed(
                _WHAT,
                f"{host}: {error}. No call reaches an agent until there are credits again.",
                may_pass=True,
            )
        case "agent_rate_limited" | "agent_limit":
            return warning(_WHAT, f"{host} could not be asked: {error}.", uses=EVERYTHING)
        case _:
            return _out_of_reach(settings, str(error))


def _out_of_reach(settings: Settings, why: str) -> Finding:
    url = settings.elevenlabs_base_url
    if is_loopback(urlsplit(url).hostname or ""):
        advice = "If that is to be the practice agent, start it: `ari-app agent`."
    else:
        advice = (
            "See whether this machine reaches the internet and finds names "
            f"(`curl -I {url}`), or needs a proxy (HTTPS_PROXY)."
        )
    return failed(
        _WHAT,
        f"{host_and_port(url)} (ELEVENLABS_BASE_URL): {why}. While that lasts every call fails. "
        f"{advice}",
        may_pass=True,
    )
