"""The worker's end of the line to its parent."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from ari_app.supervisor.duty import BEAT_SECONDS, Order, Standing


class ParentLink:
    """Tells the parent that the loop turns, and takes its orders.

    The beat comes from the loop itself: it fails exactly when calls are no longer served.

    Args:
        channel: The line, not blocking; closed with the link.
        on_order: Called with what the parent wants.
        on_orphaned: Called once, when the parent is gone.

    Attributes:
        standing: What the beats say.
    """

    def __init__(
        self,
        channel: socket.socket,
        on_order: Callable[[Order], None],
        on_orphaned: Callable[[], None],
    ) -> None:
        self.standing = Standing.STARTING
        self._channel = channel
        self._on_order = on_order
        self._on_orphaned = on_orphaned
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> ParentLink:
        self._loop.add_reader(self._channel.fileno(), self._readable)
        self._beat()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._hang_up()

    def stand(self, standing: Standing) -> None:
        """Say at once how the worker stands, and with every beat from now on."""
        self.standing = standing
        self._send()

    def _beat(self) -> None:
        self._timer = self._loop.call_later(BEAT_SECONDS, self._beat)
        self._send()

    def _send(self) -> None:
        # A parent that is stopped does not read, one that is gone is found by the reader.
        with contextlib.suppress(OSError):
            self._channel.send(self.standing.value)

    def _readable(self) -> None:
        try:
            words = self._channel.recv(64)
        except BlockingIOError:
            return
        except OSError:
            words = b""
        if not words:
            self._hang_up()
            self._on_orphaned()
            return
        for word in words:
            self._on_order(Order(bytes([word])))

    def _hang_up(self) -> None:
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        self._loop.remove_reader(self._channel.fileno())
        self._channel.close()
