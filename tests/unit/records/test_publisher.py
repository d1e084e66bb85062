from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from ari_app.records.events import AgentConnected, CallEnded, Noted, StateChanged
from ari_app.records.publisher import CallPublisher
from ari_app.records.record import CallRecord
from ari_app.records.store.log import CallLog
from ari_app.records.webhooks.outbox import Outbox


class Told:
    """Writes down what the call log is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def began(self, document: Mapping[str, Any]) -> None:
        self.calls.append(("began", document["session_id"]))

    def keep(self, document: Mapping[str, Any]) -> None:
        self.calls.append(("keep", document["session_id"]))


def document(record: CallRecord) -> dict[str, str]:
    return {"session_id": record.session_id}


def publisher() -> tuple[Told, CallPublisher]:
    told = Told()
    return told, CallPublisher(document, cast(CallLog, told), None)


def test_a_call_begins_once_and_again_with_each_conversation() -> None:
    told, listener = publisher()
    record = CallRecord("s1", "sip-1", 0.0)
    ended = CallEnded("COMPLETED", "agent_ended", 1.0)
    for event in (StateChanged("connecting", "x"), AgentConnected("c", 0.1), Noted("x"), ended):
        listener.heard(record, event)
    assert told.calls == [("began", "s1"), ("began", "s1"), ("keep", "s1")]


def test_a_waiting_caller_who_gets_another_name_as_a_call_is_one_call() -> None:
    told, listener = publisher()
    record = CallRecord("waits", "sip-1", 0.0)
    listener.heard(record, StateChanged("waiting", "initializing"))
    record.session_id = "call"
    listener.heard(record, StateChanged("connecting", "initializing"))
    listener.heard(record, CallEnded("COMPLETED", "agent_ended", 1.0))
    assert told.calls == [("began", "call"), ("keep", "call")]


def test_log_and_webhooks_share_one_document() -> None:
    made: list[dict[str, str]] = []
    seen: list[object] = []

    class Both:
        def began(self, told: object) -> None:
            seen.append(told)

        keep = ended = began

    def make(record: CallRecord) -> dict[str, str]:
        made.append(document(record))
        return made[-1]

    listener = CallPublisher(make, cast(CallLog, Both()), cast(Outbox, Both()))
    record = CallRecord("s1", "sip-1", 0.0)
    listener.heard(record, StateChanged("connecting", "x"))
    listener.heard(record, CallEnded("COMPLETED", "agent_ended", 1.0))
    assert len(made) == 2
    assert [id(each) for each in seen] == [id(each) for each in made for _ in range(2)]
