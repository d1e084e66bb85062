"""What becomes of the calls of processes that were lost: they are gone on with, or given up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

import structlog

from ari_app.call.calls import Calls
from ari_app.call.checkpoint import Restored, give_up, is_poison, restore
from ari_app.call.states import State
from ari_app.line.interface import Gateway
from ari_app.process.memory import collecting_nothing
from ari_app.process.opening import Opened
from ari_app.records.checkpoints import Checkpoints, OrphanedCall, Unreadable
from ari_app.records.journal import Journal
from ari_app.records.recording.archive import RecordingArchive

log = structlog.get_logger(__name__)


class Adoption(Opened):
    """The calls that lost processes have left. Open it with `async with`: that reads them.

    With hundreds of them this takes seconds, in which the event loop must go on, here and where
    they are adopted or given up: the parent would take this process for stalled, and the next one
    would fare no better.

    Args:
        checkpoints: Where they are, and where this process keeps its own.
        journal: Told of those that are given up.
        goes_on: They are gone on with; otherwise no more than told of.
        on_refused: Told why, for each that is not gone on with.

    Raises:
        OSError: The folder cannot be used.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        journal: Journal,
        *,
        goes_on: bool,
        on_refused: Callable[[str], None],
    ) -> None:
        super().__init__()
        self.checkpoints = checkpoints
        self._journal = journal
        self._goes_on = goes_on
        self._on_refused = on_refused
        self._restored: list[Restored] = []
        self._given_up: list[tuple[Restored, str]] = []
        self._untouched = False

    async def _start(self) -> None:
        with collecting_nothing():
            left, refused = await asyncio.to_thread(self.checkpoints.open)
            # If this process cannot serve, they are left to the next one.
            self._exit.callback(self._leave)
            await asyncio.to_thread(self._sort, left, refused)
            self._untouched = True
        for reason in refused:
            self._not_adopted(reason)

    def _leave(self) -> None:
        leave = bool(self._restored or self._given_up)
        self.checkpoints.close(leave=leave, untouched=self._untouched)

    def _sort(self, left: Iterable[OrphanedCall], refused: list[str]) -> None:
        """Sort the calls that others have left: those to be adopted, and those to be given up."""
        for each in left:
            # What ends one process after the other may be this call.
            poison = is_poison(each.taken)
            if poison and not each.was_read:
                refused.append("poison")
                each.file.remove()
                continue
            try:
                restored = restore(each)
            except Unreadable as error:
                log.error("call_not_readable", why=str(error))
                refused.append("unreadable")
                each.file.remove()
                continue
            if poison or each.stale:
                self._given_up.append((restored, "poison" if poison else "stale"))
            elif each.foreign or not self._goes_on:
                self._given_up.append((restored, "line" if self._goes_on else "draining"))
            else:
                self._restored.append(restored)

    @property
    def waiting(self) -> bool:
        """Whether there are calls to be adopted."""
        return bool(self._restored)

    @property
    def session_ids(self) -> list[str]:
        """The calls to be adopted, and those to be given up."""
        given_up = (restored for restored, _ in self._given_up)
        return [each.record.session_id for each in (*self._restored, *given_up)]

    async def adopt(
        self, calls: Calls, gateways: Sequence[Gateway], recordings: RecordingArchive | None
    ) -> None:
        """Go on with the calls, as far as that is possible, and give the others up.

        Args:
            calls: Gets them.
            gateways: The ways in; that of a call makes its line again.
            recordings: Where calls are recorded; None: no call is.
        """
        self._untouched = False
        if self._restored:
            with collecting_nothing():
                for restored in self._restored:
                    self._adopt(restored, calls, gateways, recordings)
                    await asyncio.sleep(0)
            self._restored.clear()
        await self.give_up(recordings)

    async def give_up(self, recordings: RecordingArchive | None) -> None:
        """End the records of calls that cannot be gone on with, and tell of them."""
        self._untouched = False
        for restored, reason in self._given_up:
            self._give_up(restored, reason, recordings)
            await asyncio.sleep(0)
        self._given_up.clear()

    def _adopt(
        self,
        restored: Restored,
        calls: Calls,
        gateways: Sequence[Gateway],
        recordings: RecordingArchive | None,
    ) -> None:
        if self._had_ended(restored):
            return
        gateway = next((each for each in gateways if each.name == restored.record.way), None)
        if gateway is None or not calls.adopt(restored, gateway.adopt):
            self._give_up(restored, "line", recordings)

    def _had_ended(self, restored: Restored) -> bool:
        if restored.checkpoint.course.state is not State.ENDED:
            return False
        # It was told of its end, or not: who hears of it again knows it.
        for at, event in restored.events:
            self._journal.restore(restored.record, event, at)
        for _, event in restored.events[-1:]:
            self._journal.tell(restored.record, event)
        restored.file.remove()
        return True

    def _give_up(
        self, restored: Restored, reason: str, recordings: RecordingArchive | None
    ) -> None:
        """Have a call kept and told of that nobody goes on with, with all that is known of it."""
        if self._had_ended(restored):
            return
        record, parts = restored.record, restored.checkpoint.parts
        for at, event in restored.events:
            self._journal.restore(record, event, at)
        if recordings is not None and parts.recordings:
            recordings.goes_on(record, parts.recordings)
        self._journal.note(record, give_up(restored))
        restored.file.remove()
        self._not_adopted(reason)

    def _not_adopted(self, reason: str) -> None:
        self._on_refused(reason)
        log.warning("call_not_adopted", reason=reason)
