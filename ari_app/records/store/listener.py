"""Tells the call log of calls, as a listener of the journal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakSet

from ari_app.records.events import AgentConnected, AgentResumed, CallEnded, CallEvent, StateChanged
from ari_app.records.record import CallRecord
from ari_app.records.store.log import CallLog


class Keeping:
    """Has each call kept: `heard` is the listener.

    Args:
        call_log: Where.
        document: Makes a call's document.
    """

    def __init__(
        self, call_log: CallLog, document: Callable[[CallRecord], Mapping[str, Any]]
    ) -> None:
        self._call_log = call_log
        self._document = document
        self._begun: WeakSet[CallRecord] = WeakSet()

    def heard(self, record: CallRecord, event: CallEvent) -> None:
        """Take down what has happened in a call."""
        match event:
            case CallEnded():
                self._call_log.keep(self._document(record))
            case AgentConnected() | AgentResumed():
                # Should this process be lost, its conversations are known.
                self._begins(record)
            case StateChanged(state="waiting"):
                pass  # no call yet, and it may get another name as one
            case _ if record not in self._begun:
                self._begins(record)
            case _:
                pass

    def _begins(self, record: CallRecord) -> None:
        self._begun.add(record)
        self._call_log.began(self._document(record))
