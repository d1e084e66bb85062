"""How often each client may ask, and how often it may bring a wrong key. Pure: `now` is given."""

from __future__ import annotations

from collections import OrderedDict

from ari_app.call.limits import TokenBucket

_MOST_CLIENTS = 4096
_READING_TIMES = 4.0
_BURST_SECONDS = 2.0
_WRONG_KEYS_PER_SECOND = 1.0
_WRONG_KEYS_AT_ONCE = 10.0


class ClientRates:
    """A token bucket for each client. The 4096 that asked last are remembered.

    Args:
        per_second: The rate; 0 lets everything through.
        burst: How many may come at once after a pause; None: those of two seconds.
    """

    def __init__(self, per_second: float, burst: float | None = None) -> None:
        self._per_second = per_second
        self._burst = max(1.0, per_second * _BURST_SECONDS) if burst is None else burst
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, client: str, now: float) -> float:
        """Let one request through: 0; or the seconds until one may pass."""
        if not self._per_second:
            return 0.0
        bucket = self._buckets.get(client)
        if bucket is None:
            bucket = self._buckets[client] = TokenBucket(self._per_second, self._burst)
            if len(self._buckets) > _MOST_CLIENTS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(client)
        return 0.0 if bucket.take(now) else bucket.wait(now)

    def wait(self, client: str, now: float) -> float:
        """Seconds until a request of this client may pass; 0 when one may pass now."""
        bucket = self._buckets.get(client)
        return 0.0 if bucket is None else bucket.wait(now)


class RequestRates:
    """How many requests each client may make a second, and how many of them may change something.

    Args:
        changes_per_second: Requests that change something; four times as many of all kinds, new
            connections included. Twice as many may come at once. 0: any number.
    """

    def __init__(self, changes_per_second: float = 0.0) -> None:
        every = changes_per_second * _READING_TIMES
        self._changes = ClientRates(
            changes_per_second, max(1.0, changes_per_second * _BURST_SECONDS)
        )
        self._every = ClientRates(every, max(1.0, every * _BURST_SECONDS))

    def take(self, client: str, now: float, *, changes: bool) -> float:
        """Let one request through: 0; or the seconds until one may pass."""
        wait = self._every.take(client, now)
        return max(wait, self._changes.take(client, now)) if changes else wait


class WrongKeys:
    """Slows down whoever guesses keys.

    A client that has brought ten wrong keys may bring one a second, and the right one counts for
    nothing in between; unless it has brought the right one before, for it may share its address
    with one that guesses, as behind a proxy.
    """

    def __init__(self) -> None:
        self._wrong = ClientRates(_WRONG_KEYS_PER_SECOND, _WRONG_KEYS_AT_ONCE)
        self._trusted: OrderedDict[str, None] = OrderedDict()

    def wait(self, client: str, now: float) -> float:
        """Seconds until a client may bring a key again; 0 when it may now."""
        return 0.0 if client in self._trusted else self._wrong.wait(client, now)

    def right(self, client: str) -> None:
        """A client has brought the right key."""
        self._trusted[client] = None
        self._trusted.move_to_end(client)
        if len(self._trusted) > _MOST_CLIENTS:
            self._trusted.popitem(last=False)

    def wrong(self, client: str, now: float) -> None:
        """A client has brought a wrong key."""
        self._wrong.take(client, now)
