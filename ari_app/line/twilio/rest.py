"""The part of Twilio's REST interface that calls need.

Nothing that calls somebody is asked for twice without a look whether the first time was heard.
Refusals (too many at once, an old token) are no such danger and are tried again.

Source: https://www.twilio.com/docs/voice/api/call-resource
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, cast
from urllib.parse import quote

import aiohttp
import orjson

from ari_app.errors import ControlError
from ari_app.line.twilio.protocol import is_sid
from ari_app.process.network import read_bounded, session_for_others, why_unreachable

_SECONDS: Final = 5.0
_CREATE_SECONDS: Final = 8.0
_MAX_ANSWER_BYTES: Final = 512 * 1024
_TIMES_BUSY: Final = 2
_BUSY_SECONDS: Final = 0.5
_LONGEST_WAIT_SECONDS: Final = 2.0
_GONE: Final = frozenset({20404, 21220})
"""There is no such call, or it is in no state for this any more."""
_WHOLE_SECOND: Final = 1.0
"""Its times have no fractions."""

Fields = Mapping[str, str | Sequence[str]]


class TwilioError(ControlError):
    """Twilio refused something, failed, or could not be reached.

    Attributes:
        code: `twilio_refused`, `twilio_unauthorized`, `twilio_busy`, `twilio_failed`,
            `twilio_unreachable` or `twilio_timeout`.
        number: Twilio's own number of the error; 0 when it gave none.
        may_be_done: It may have been carried out all the same.
    """

    default_code = "twilio_refused"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        number: int = 0,
        may_be_done: bool = False,
    ) -> None:
        super().__init__(message, code=code, retryable=may_be_done)
        self.number = number
        self.may_be_done = may_be_done


@dataclass(frozen=True, slots=True)
class CallInfo:
    """What Twilio says of a call.

    Attributes:
        sid: Its name.
        status: A `CallStatus`.
        created: When it was made; None where it does not say.
    """

    sid: str
    status: str
    created: datetime | None = None


class TwilioApi:
    """Twilio's REST interface for one account. Close it.

    Args:
        base_url: Where it answers, such as `https://api.twilio.com`.
        account_sid: The account.
        tokens: Its auth tokens; the first that is accepted is used.

    Attributes:
        refused: The last that Twilio said is that it accepts none of the tokens.
    """

    def __init__(self, base_url: str, account_sid: str, tokens: Sequence[str]) -> None:
        self._account = f"{base_url}/2010-04-01/Accounts/{quote(account_sid, safe='')}"
        self._auths = [_basic(account_sid, token) for token in tokens]
        self._accepted = 0
        self._session = session_for_others()
        self.refused = False

    async def close(self) -> None:
        """Close the connections. May be called twice."""
        await self._session.close()

    async def check(self) -> None:
        """Make sure that Twilio answers and accepts us.

        Raises:
            TwilioError: It does not.
        """
        await self._ask("GET", ".json")

    async def numbers(self, number: str) -> list[dict[str, Any]]:
        """Return the account's incoming numbers that are this one.

        Raises:
            TwilioError: They could not be looked up.
        """
        answer, _ = await self._ask(
            "GET", "/IncomingPhoneNumbers.json", query={"PhoneNumber": number}
        )
        found = answer.get("incoming_phone_numbers")
        return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []

    async def create(self, fields: Fields) -> CallInfo:
        """Call somebody; asked once.

        Raises:
            TwilioError: Nobody is called, unless `may_be_done`.
        """
        answer, _ = await self._ask("POST", "/Calls.json", fields=fields, seconds=_CREATE_SECONDS)
        return _info(answer, may_be_done=True)

    async def find(self, call_sid: str) -> CallInfo | None:
        """Look up a call; None where there is none.

        Raises:
            TwilioError: It could not be looked up.
        """
        try:
            answer, _ = await self._ask("GET", f"/Calls/{quote(call_sid, safe='')}.json")
            return _info(answer)
        except TwilioError as error:
            if error.number in _GONE:
                return None
            raise

    async def placed(self, to: str, sender: str, within_seconds: float) -> list[str]:
        """Return the names of the calls between two numbers that were made so recently, by Twilio's
        clock.

        Raises:
            TwilioError: They could not be looked up.
        """
        query = {"To": to, "From": sender, "PageSize": "20"}
        answer, now = await self._ask("GET", "/Calls.json", query=query)
        listed = answer.get("calls")
        calls = [
            _info(each)
            for each in (listed if isinstance(listed, list) else [])
            if isinstance(each, dict) and each.get("direction") == "outbound-api"
        ]
        return [
            call.sid
            for call in calls
            if now is not None
            and call.created is not None
            and (now - call.created).total_seconds() <= within_seconds + _WHOLE_SECOND
        ]

    async def update(self, call_sid: str, fields: Fields, *, once: bool = False) -> bool:
        """Change a call; whether it was still there.

        Args:
            call_sid: The call.
            fields: What is to be otherwise.
            once: It must not be done twice, so it is asked for once; else again where the answer
                was lost.

        Raises:
            TwilioError: It was not done, unless `may_be_done`.
        """
        path = f"/Calls/{quote(call_sid, safe='')}.json"
        try:
            try:
                await self._ask("POST", path, fields=fields)
            except TwilioError as error:
                if once or not error.may_be_done:
                    raise
                await self._ask("POST", path, fields=fields)
        except TwilioError as error:
            if error.number in _GONE:
                return False
            raise
        return True

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        fields: Fields | None = None,
        seconds: float = _SECONDS,
    ) -> tuple[dict[str, Any], datetime | None]:
        """Return the answer to a request, and when Twilio gave it, by its own clock.

        Raises:
            TwilioError: There is none that can be used.
        """
        try:
            async with asyncio.timeout(seconds):
                refused = busy = 0
                while True:
                    used = self._accepted
                    async with self._session.request(
                        method,
                        self._account + path,
                        params=query,
                        data=None if fields is None else _pairs(fields),
                        headers={"Authorization": self._auths[used]},
                        # A redirect would take the token elsewhere.
                        allow_redirects=False,
                    ) as response:
                        status = response.status
                        body = await read_bounded(response, _MAX_ANSWER_BYTES)
                    if body is None:
                        raise TwilioError(
                            "Twilio's answer is too long.", code="twilio_failed", may_be_done=True
                        )
                    if status == 401 and refused + 1 < len(self._auths):
                        refused += 1
                        self._accepted = (used + 1) % len(self._auths)
                    elif status == 429 and busy < _TIMES_BUSY:
                        busy += 1
                        await asyncio.sleep(_pause(response))
                    else:
                        break
        except TimeoutError:
            raise TwilioError(
                f"Twilio did not answer within {seconds:g} s.",
                code="twilio_timeout",
                may_be_done=True,
            ) from None
        except aiohttp.ClientConnectorError as error:
            raise TwilioError(
                f"Twilio cannot be reached: {why_unreachable(error)}.", code="twilio_unreachable"
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise TwilioError(
                f"Twilio did not answer ({type(error).__name__}).",
                code="twilio_unreachable",
                may_be_done=True,
            ) from None
        self.refused = status == 401
        return _judge(status, body), _time(response.headers.get("Date"))


def _basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def _pairs(fields: Fields) -> aiohttp.FormData:
    form = aiohttp.FormData()
    for name, value in fields.items():
        for each in (value,) if isinstance(value, str) else value:
            form.add_field(name, each)
    return form


def _pause(response: aiohttp.ClientResponse) -> float:
    told = response.headers.get("Retry-After", "")
    seconds = float(told) if told.isascii() and told.isdigit() else _BUSY_SECONDS
    return min(seconds, _LONGEST_WAIT_SECONDS)


def _judge(status: int, body: bytes) -> dict[str, Any]:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    if 200 <= status < 300 and isinstance(answer, dict):
        return cast("dict[str, Any]", answer)
    number = answer.get("code") if isinstance(answer, dict) else None
    number = number if isinstance(number, int) else 20404 if status == 404 else 0
    # Twilio's sentence may repeat a number of a person's; its own number says as much.
    what = f"error {number}" if number else f"HTTP status {status}"
    if status == 401:
        raise TwilioError(
            "Twilio accepts neither TWILIO_ACCOUNT_SID nor TWILIO_AUTH_TOKEN.",
            code="twilio_unauthorized",
            number=number,
        )
    if status == 429:
        raise TwilioError(
            f"Twilio takes no more at present ({what}).", code="twilio_busy", number=number
        )
    if status >= 500 or 200 <= status < 400:
        raise TwilioError(
            f"Twilio failed ({what}).", code="twilio_failed", number=number, may_be_done=True
        )
    raise TwilioError(f"Twilio refused it ({what}).", number=number)


def _info(answer: Mapping[str, Any], *, may_be_done: bool = False) -> CallInfo:
    sid, status = answer.get("sid"), answer.get("status")
    if not isinstance(sid, str) or not is_sid(sid) or not isinstance(status, str):
        raise TwilioError(
            "Twilio's answer names no call.", code="twilio_failed", may_be_done=may_be_done
        )
    created = answer.get("date_created")
    return CallInfo(sid, status, _time(created) if isinstance(created, str) else None)


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        time = parsedate_to_datetime(text)
    except ValueError:
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
