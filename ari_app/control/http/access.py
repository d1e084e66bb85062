"""Who may ask for what: requests bring a key, or the cookie of a browser that has signed in."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from ari_app.control.http.keys import HERE, ApiKey, Keys, Scope, end_of, read_token, sign
from ari_app.control.http.middleware import (
    FOREIGN_PAGE,
    KEY_NAME,
    READING,
    OnRefused,
    client_of,
    path_served,
    too_often,
    was_passed_on,
)
from ari_app.control.http.problems import Problem
from ari_app.control.http.rates import MOST_CLIENTS, ClientRates

_WRONG_KEYS_PER_SECOND: Final = 1.0
_WRONG_KEYS_AT_ONCE: Final = 10.0


class WrongKeys:
    """Slows down clients that guess keys.

    A client that has brought ten wrong keys may bring one a second; until then its right key, too,
    is refused. One that has brought a right key before is not slowed down: it may share its address
    with a client that guesses, as behind a proxy.
    """

    def __init__(self) -> None:
        self._wrong = ClientRates(_WRONG_KEYS_PER_SECOND, _WRONG_KEYS_AT_ONCE)
        self._trusted: OrderedDict[str, None] = OrderedDict()

    def wait(self, client: str, now: float) -> float:
        """Return the seconds until a client may bring a key again; 0 when it may now."""
        return 0.0 if client in self._trusted else self._wrong.wait(client, now)

    def right(self, client: str) -> None:
        """Note that a client has brought the right key."""
        self._trusted[client] = None
        self._trusted.move_to_end(client)
        if len(self._trusted) > MOST_CLIENTS:
            self._trusted.popitem(last=False)

    def wrong(self, client: str, now: float) -> None:
        """Note that a client has brought a wrong key."""
        self._wrong.take(client, now)


COOKIE: Final = "ari_app_sign_in"
PAGE_HEADER: Final = "X-Ari-App-Page"
"""What the page sends with each change: another site's page cannot, without asking us first."""


def given_key(request: web.Request) -> bytes:
    """Return the key that a request brings; empty when it brings none."""
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    given = request.headers.get("X-API-Key") or (bearer if scheme.lower() == "bearer" else "")
    return given.strip().encode("utf-8", "surrogateescape")


def needed_for(method: str) -> Scope:
    """Say what a request with this method needs."""
    if method in READING:
        return Scope.READ
    return Scope.ADMIN if method == hdrs.METH_DELETE else Scope.OPERATE


REQUEST_KEY: Final = web.RequestKey("api_key", ApiKey)
SIGNED_IN_SECONDS: Final = web.RequestKey("signed_in_seconds", float)
"""For how long the sign-in still counts that a request came with; whoever brings a key has none."""
_LOCAL: Final = ApiKey(HERE, Scope.ADMIN, b"")


def _time_of_day() -> float:
    # What a browser keeps outlives this process, so no other clock can say when it ends.
    return datetime.now(UTC).timestamp()  # noqa: TID251


_PASSED_ON: Final = (
    "A proxy has passed this on, so it may be from anywhere. Set API_KEY, and send it as X-API-Key."
)


class Access:
    """Decides who may ask for what.

    Without a key only programs of this machine can ask, and no page of another site.

    Args:
        keys: Those that are known.
        open_paths: Where none is asked for, as they were registered.
        checked_paths: Where whoever serves them checks by itself who comes, from wherever.
        needs: What a key must be allowed, by method and path as registered; what is not there goes
            by its method.
        page: What a browser is answered that wants a page and has brought no key; None answers as
            to everybody.
        on_refused: Told of each that is refused.
        sign_in_seconds: How long a browser stays signed in.
    """

    def __init__(
        self,
        keys: Keys,
        *,
        open_paths: frozenset[str],
        checked_paths: frozenset[str],
        needs: Mapping[tuple[str, str], Scope],
        page: Callable[[web.Request], web.Response | None],
        on_refused: OnRefused,
        sign_in_seconds: float,
    ) -> None:
        self._keys = keys
        self._open_paths = open_paths
        self._checked_paths = checked_paths
        self._needs = needs
        self._page = page
        self._on_refused = on_refused
        self._sign_in_seconds = sign_in_seconds
        self._wrong_keys = WrongKeys()

    def middleware(self) -> Middleware:
        """Return what stands before every handler."""

        @web.middleware
        async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
            path = path_served(request)
            if path in self._checked_paths:
                return await handler(request)
            if not self._keys:
                self._check_origin(request)
                request[REQUEST_KEY], request[KEY_NAME] = _LOCAL, HERE
            elif path not in self._open_paths:
                key = self._key(request)
                if key is None:
                    if (page := self._page(request)) is not None:
                        return page
                    self._on_refused("unauthorized")
                    raise Problem(
                        "unauthorized",
                        "Send the API key as X-API-Key, or as Authorization: Bearer.",
                        headers={"WWW-Authenticate": "Bearer"},
                    )
                request[REQUEST_KEY], request[KEY_NAME] = key, key.name
                self._check_scope(key, request.method, path or "")
            return await handler(request)

        return authenticate

    def _check_origin(self, request: web.Request) -> None:
        if request[FOREIGN_PAGE]:
            self._on_refused("forbidden_origin")
            detail = _PASSED_ON if was_passed_on(request) and not self._keys else None
            # Connections that it left idle would be missing to others.
            raise Problem("forbidden_origin", detail, closes=True)

    def _check_scope(self, key: ApiKey, method: str, path: str) -> None:
        needed = self._needs.get((method, path), needed_for(method))
        if key.scope < needed:
            self._on_refused("forbidden")
            raise Problem("forbidden", f"This needs a key with the scope {needed.name.lower()}.")

    def _key(self, request: web.Request) -> ApiKey | None:
        given = given_key(request)
        if not given:
            return self._signed_in(request)
        return self._check(request, given)

    def _check(self, request: web.Request, given: bytes) -> ApiKey | None:
        """Return the key with this secret.

        Raises:
            Problem: `rate_limited`, for one who guesses.
        """
        client, now = client_of(request), asyncio.get_running_loop().time()
        if (wait := self._wrong_keys.wait(client, now)) > 0:
            raise too_often(wait, self._on_refused)
        key = self._keys.owner(given)
        if key is None:
            self._wrong_keys.wrong(client, now)
        else:
            self._wrong_keys.right(client)
        return key

    def _signed_in(self, request: web.Request) -> ApiKey | None:
        token = request.cookies.get(COOKIE)
        if not token or request[FOREIGN_PAGE]:
            return None
        if request.method not in READING and PAGE_HEADER not in request.headers:
            return None
        now = _time_of_day()
        key = read_token(token, self._keys, now)
        if key is not None:
            request[SIGNED_IN_SECONDS] = end_of(token) - now
        return key

    # --- the page's own requests

    async def sign_in(self, request: web.Request) -> web.Response:
        """Take a key from the page, and give its browser a cookie."""
        given = given_key(request)
        key: ApiKey | None = _LOCAL
        if self._keys:
            self._check_origin(request)
            key = self._check(request, given) if given else None
        if key is None:
            self._on_refused("unauthorized")
            raise Problem("unauthorized", "This key is not known here.")
        request[REQUEST_KEY], request[KEY_NAME] = key, key.name
        response = web.json_response(who(key))
        if self._keys:
            until = int(_time_of_day() + self._sign_in_seconds)
            # Without an end of its own it ends with the browser, and with `until` at the latest.
            response.set_cookie(
                COOKIE,
                sign(key, until),
                httponly=True,
                samesite="Strict",
                secure=_is_https(request),
                path="/",
            )
        return response

    async def sign_out(self, request: web.Request) -> web.Response:
        """Take the cookie back."""
        response = web.Response(status=204)
        if self._keys and (key := self._signed_in(request)) is not None:
            request[KEY_NAME] = key.name
            # Only for the page itself: another site's could sign people out.
            response.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict")
        return response


def who(key: ApiKey) -> dict[str, str]:
    """Return the name and the scope of a key, for the page."""
    return {"name": key.name, "scope": key.scope.name.lower()}


def _is_https(request: web.Request) -> bool:
    return request.secure or request.headers.get("X-Forwarded-Proto", "").lower() == "https"
