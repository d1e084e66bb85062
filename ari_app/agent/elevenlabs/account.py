"""What the workspace's plan still allows: credits, and conversations at once.

Source: `GET /v1/user` (https://elevenlabs.io/docs/api-reference/user/get). A key may lack the right
to ask (`user_read`); then nothing is known, and nothing is wrong.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from ari_app.agent.elevenlabs.errors import (
    AgentNotFound,
    AgentQuotaUsedUp,
    AgentRejected,
    AgentUnauthorized,
    ConnectError,
)

log = structlog.get_logger(__name__)

_NEAR: Final = 0.9
"""From this share of the credits on somebody is told."""
_FIRST_SECONDS: Final = 5.0
_EVERY_SECONDS: Final = 300.0
_NOT_TOLD_SECONDS: Final = 3600.0
_RECENT_SECONDS: Final = 300.0
_MOST_REFUSALS: Final = 1000


@dataclass(frozen=True, slots=True)
class Account:
    """A workspace's plan, as far as it is told.

    Attributes:
        tier: What the plan is called.
        used, limit: Credits of this period.
        beyond: So many may be used beyond the limit, at extra cost; None: any number.
        resets_at: When the next period begins.
        at_once: Conversations at once.
    """

    tier: str = ""
    used: int | None = None
    limit: int | None = None
    beyond: int | None = 0
    resets_at: datetime | None = None
    at_once: int | None = None

    @property
    def ratio(self) -> float | None:
        """Which share of all that may be used is used; None: it is not told, or has no end."""
        if self.used is None or self.limit is None or self.beyond is None:
            return None
        may = self.limit + self.beyond
        return self.used / may if may > 0 else None

    @property
    def runs_out(self) -> bool:
        """Whether nearly all that may be used is used."""
        return self.ratio is not None and self.ratio >= _NEAR

    @property
    def text(self) -> str:
        """What is told of it, a clause."""
        parts = []
        if self.used is not None and self.limit is not None:
            until = f" in the period until {self.resets_at:%Y-%m-%d}" if self.resets_at else ""
            parts.append(f"{self.used} of {self.limit} credits are used{until}")
            if self.beyond != 0:
                more = "any number" if self.beyond is None else self.beyond
                parts.append(f"{more} beyond them may be used")
        if self.at_once is not None:
            parts.append(f"{self.at_once} conversations may be held at once")
        return ", ".join(parts)


def read_account(answer: object) -> Account | None:
    """Read what the service answers; None: nothing of it is understood."""
    if not isinstance(answer, dict):
        return None
    plan = _mapping(answer.get("subscription"))
    extras = _mapping(answer.get("subscription_extras"))
    tier, reset = plan.get("tier"), _count(plan.get("next_character_count_reset_unix"))
    account = Account(
        tier=tier[:64] if isinstance(tier, str) else "",
        used=_count(plan.get("character_count")),
        limit=_count(plan.get("character_limit")),
        beyond=_beyond(plan),
        resets_at=datetime.fromtimestamp(reset, UTC) if reset and reset < 2**33 else None,
        at_once=_count(extras.get("convai_concurrency")) or None,
    )
    return None if account == Account(tier=account.tier, beyond=account.beyond) else account


def _beyond(plan: dict[str, Any]) -> int | None:
    match plan:
        case {"max_credit_limit_extension": "unlimited"}:
            return None
        case {"max_credit_limit_extension": int(more)}:
            return max(more, 0)
        case {
            "allowed_to_extend_character_limit": True,
            "max_character_limit_extension": int(more),
        }:
            return max(more, 0)
        case {"allowed_to_extend_character_limit": True}:
            return None
        case _:
            return 0


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value < 2**53 else None


class AccountWatch:
    """Asks now and then what the plan still allows, and remembers what it has refused.

    Args:
        ask: Asks for it; raises `ConnectError`.

    Attributes:
        account: As it was told last; None: it is not told.
    """

    def __init__(self, ask: Callable[[], Awaitable[object]]) -> None:
        self.account: Account | None = None
        self._ask = ask
        self._ran_out = False
        self._refusals: dict[str, deque[float]] = {}

    async def run(self) -> None:
        """Ask, until cancelled."""
        seconds = _FIRST_SECONDS
        while True:
            await asyncio.sleep(seconds)
            seconds = await self.look()

    async def look(self) -> float:
        """Ask once; in how many seconds to ask again."""
        try:
            self.account = read_account(await self._ask())
        except (AgentUnauthorized, AgentNotFound, AgentRejected) as error:
            # The key may not ask, or it is not ElevenLabs whom we ask.
            log.debug("agent_account_not_told", error=str(error))
            self.account = None
            return _NOT_TOLD_SECONDS
        except ConnectError as error:
            log.debug("agent_account_not_told", error=str(error))
            return _EVERY_SECONDS
        account = self.account
        runs_out = account is not None and account.runs_out
        if account is not None and runs_out and not self._ran_out:
            log.warning("agent_credits_run_out", used=account.used, limit=account.limit)
        self._ran_out = runs_out
        return _EVERY_SECONDS

    def refused(self, error: ConnectError) -> None:
        """Note why no conversation came about."""
        if error.code in _REFUSALS:
            now = asyncio.get_running_loop().time()
            self._refusals.setdefault(error.code, deque(maxlen=_MOST_REFUSALS)).append(now)

    def warnings(self) -> list[str]:
        """Say what is nearly used up, and what was refused in the last five minutes."""
        found = []
        account = self.account
        if account is not None and account.runs_out:
            found.append(f"ElevenLabs' quota is nearly used up: {account.text}.")
        since = asyncio.get_running_loop().time() - _RECENT_SECONDS
        for code, why in _REFUSALS.items():
            count = sum(at > since for at in self._refusals.get(code, ()))
            if count:
                allowed = account.at_once if account is not None else None
                plan = f" The plan has {allowed}." if code == _LIMIT and allowed else ""
                found.append(
                    f"ElevenLabs has refused conversations, {count} in the last five minutes: "
                    f"{why}.{plan}"
                )
        return found


_LIMIT: Final = "agent_limit"
_REFUSALS: Final = {
    _LIMIT: "more are held at once than the plan allows",
    AgentQuotaUsedUp.default_code: "the quota is used up",
}
