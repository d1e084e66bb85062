"""How often a client may ask: token buckets by its address. Pure: time is an argument."""

from __future__ import annotations

from collections import OrderedDict

from ari_app.call.admission import TokenBucket

MOST_CLIENTS = 4096
_READING_TIMES = 4.0
_BURST_SECONDS = 2.0


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
            if len(self._buckets) > MOST_CLIENTS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(client)
        return 0.0 if bucket.take(now) else bucket.wait(now)

    def give_back(self, client: str) -> None:
        """Count the last request of this client as another's."""
        if (bucket := self._buckets.get(client)) is not None:
            bucket.give_back()

    def wait(self, client: str, now: float) -> float:
        """Return the seconds until a request of this client may pass; 0 when one may pass now."""
        bucket = self._buckets.get(client)
        return 0.0 if bucket is None else bucket.wait(now)


class RequestRates:
    """Limits the requests of each client a second, and those of them that change something.

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

    def give_back(self, client: str) -> None:
        """Count the last connection of this client as another's."""
        self._every.give_back(client)
