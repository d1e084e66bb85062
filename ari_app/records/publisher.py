"""Tells the call log, and whoever is sent webhooks, of calls, as a listener of the journal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakSet

from ari_app.records.events import (
    Adopted,
    AgentConnected,
    AgentResumed,
    CallEnded,
    CallEvent,
    StateChanged,
    StepTook,
)
from ari_app.records.record import CallRecord
from ari_app.records.store.log import CallLog
from ari_app.records.webhooks.outbox import Outbox


class CallPublisher:
    """Has each call kept and told of: `heard` is the listener.

    Both get the same document, which is made once: of a long call that takes longer than a frame.

    Args:
        document: Makes a call's document.
        call_log: Where calls are kept; None: nowhere.
        outbox: What others are told of them by; None: they are not.
    """

    def __init__(
        self,
        document: Callable[[CallRecord], Mapping[str, Any]],
        call_log: CallLog | None,
        outbox: Outbox | None,
    ) -> None:
        self._document = document
        self._call_log = call_log
        self._outbox = outbox
        self._begun: WeakSet[CallRecord] = WeakSet()
        self._together: WeakSet[CallRecord] = WeakSet()

    def heard(self, record: CallRecord, event: CallEvent) -> None:
        """Take down what has happened in a call."""
        match event:
            case StateChanged(state="waiting") | StepTook():
                pass  # no call yet, and it may get another name as one
            case CallEnded():
                self._ended(record)
            case Adopted():
                # The process that was lost has told of its beginning.
                self._begun.add(record)
                self._begins(record)
            case AgentConnected() | AgentResumed():
                # Should this process be lost, its conversations are known.
                self._begins(record)
            case StateChanged() if record.answered_at and record not in self._together:
                # So is that caller and agent were together.
                self._together.add(record)
                self._begins(record)
            case _ if record not in self._begun:
                self._begins(record)
            case _:
                pass

    def _begins(self, record: CallRecord) -> None:
        document = self._document(record)
        if self._call_log is not None:
            self._call_log.began(document)
        self._tell_of_beginning(record, document)

    def _ended(self, record: CallRecord) -> None:
        document = self._document(record)
        if self._call_log is not None:
            self._call_log.keep(document)
        self._tell_of_beginning(record, document)
        if self._outbox is not None:
            self._outbox.ended(document)

    def _tell_of_beginning(self, record: CallRecord, document: Mapping[str, Any]) -> None:
        if record not in self._begun:
            self._begun.add(record)
            if self._outbox is not None:
                self._outbox.began(document)
