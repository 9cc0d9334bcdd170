"""One write from admission to judgement: events into the log, then the wait for their outcomes, within the answer's bound."""

from __future__ import annotations

from contextlib import suppress
from typing import Final, NamedTuple

from schemas.codec import Written
from schemas.events import Body, Event
from schemas.reasons import DoorReason
from services.admission.completion import event_id_of
from services.admission.door import Admitted, Door
from services.clock import Clock
from services.identity.sealing import Sealer
from services.problems import Problem, unavailable
from services.publishing.log import Log, LogUnavailable, Position, RecordTooLarge
from services.recording.caller import Caller
from services.recording.composition import append, events_of
from services.recording.keys import KeyMemory
from services.recording.lateness import turn_away_late
from services.recording.outcomes import OUTCOME_WAIT_MS, Judgement, ListUnreachable, MedicationListClient
from services.recording.ownership import turn_away_anothers
from services.recording.write_metrics import WriteMetrics
from services.telemetry import new_registry

ANSWER_WITHIN_MS: Final = 8_000
"""Longer than the log takes to confirm or give up, so that nothing lands after the caller was told that it failed."""

WAITING_AT_MOST: Final = 150
"""*Policy*: when so many wait to be judged, the processor is behind, and who comes next is not made to wait for it."""


class Asked(NamedTuple):
    """How a write was requested: by whom, under which key, in which trace, and whether to wait for the outcome."""

    caller: Caller
    key: str
    traceparent: str | None
    is_async: bool


class Recorded(NamedTuple):
    """An event in the log, and how it was judged (None: not yet)."""

    event: Event[Body]
    position: Position
    judgement: Judgement | None


class Recorder:
    """What a service needs to record what it admitted."""

    def __init__(
        self,
        *,
        log: Log,
        medication_list: MedicationListClient,
        door: Door,
        sealer: Sealer,
        clock: Clock,
        list_public_url: str | None = None,
        metrics: WriteMetrics | None = None,
    ) -> None:
        """`list_public_url`: where callers reach the medication list; unless given, where this service does."""
        self.door = door
        self.sealer = sealer
        self.clock = clock
        self.medication_list = medication_list
        self.list_public_url = (list_public_url or medication_list.url).rstrip("/")
        self._log = log
        self._metrics = metrics or WriteMetrics(new_registry())
        self._waiting = 0
        self._keys = KeyMemory()

    async def record(self, admitted: Admitted, asked: Asked) -> list[Recorded]:
        """Append every event of a message in order, and wait for the outcomes.

        Raises TurnedAway (another patient's prescription, a late claim), Problem (key reused, too large, a late claim while
        the list cannot be asked for it), LogUnavailable.
        """
        began_ms = self.clock.monotonic_ms()
        await turn_away_anothers(admitted, self.medication_list)
        await self._turn_away_late(admitted, asked)
        events = await self._events(admitted, asked)
        places = await self._appended(events, asked.traceparent)
        # All events of a message share the wait: they are in one partition, so waiting for one is waiting for all.
        until_ms = min(self.clock.monotonic_ms() + OUTCOME_WAIT_MS, began_ms + ANSWER_WITHIN_MS)
        recorded: list[Recorded] = []
        for written, place in zip(events, places, strict=True):
            wait_ms = 0 if asked.is_async else max(0, until_ms - self.clock.monotonic_ms())
            judgement = await self._judgement(written, place, wait_ms)
            recorded.append(Recorded(written.event, place, None if asked.is_async else judgement))
        return recorded

    async def _turn_away_late(self, admitted: Admitted, asked: Asked) -> None:
        try:
            await turn_away_late(admitted, asked.caller.system, asked.key, self.medication_list)
        except ListUnreachable:
            raise unavailable(DoorReason.LIST_UNAVAILABLE) from None

    async def _events(self, admitted: Admitted, asked: Asked) -> list[Written]:
        now_ms = self.clock.now_ms()
        occurred_at_ms = await self._occurred_at_ms(admitted, event_id_of(asked.caller.system, asked.key), now_ms)
        events = events_of(
            admitted,
            source=asked.caller.source,
            key=asked.key,
            occurred_at_ms=occurred_at_ms,
            received_at_ms=now_ms,
            sealer=self.sealer,
        )
        self._keys.remember(events)
        return events

    async def _occurred_at_ms(self, admitted: Admitted, event_id: str, now_ms: int) -> int:
        """When it happened: as stated, or else now; of a repetition what was filled in the first time, by whichever process.

        The list is asked only where that time is content, so that the repetition is the same event and no other. Without
        an answer it is taken for new; the fold then judges by event id and content.
        """
        if admitted.occurred_at_ms is not None:
            return admitted.occurred_at_ms
        known = self._keys.occurred_at_ms(event_id)
        if known is None and any(part.is_timed for part in admitted.parts):
            with suppress(ListUnreachable):
                known = await self.medication_list.occurred_at_ms(admitted.patient, event_id)
        return now_ms if known is None else known

    async def _appended(self, events: list[Written], traceparent: str | None) -> list[Position]:
        """One after the other: the order within a message is kept, and a failure leaves the rest unsent.

        Then the first ones stay: a log takes nothing back. A repetition under the same key makes them known, and adds the rest.
        """
        places: list[Position] = []
        for written in events:
            try:
                with self._metrics.appending():
                    places.append(await append(self._log, written, traceparent))
            except RecordTooLarge:
                raise Problem(413, DoorReason.TOO_LARGE) from None
            except LogUnavailable:
                if not places:
                    raise
                done = f"{len(places)} of {len(events)} events are in the log, and the next one was not confirmed."
                raise unavailable(DoorReason.LOG_UNAVAILABLE, detail=done) from None
        return places

    async def _judgement(self, written: Written, at: Position, wait_ms: int) -> Judgement | None:
        """Asked for even without a wait: the list then knows where to look when the caller comes with the event's id."""
        if self._waiting >= WAITING_AT_MOST:
            wait_ms = 0
        self._waiting += 1
        try:
            with self._metrics.waiting():
                return await self.medication_list.outcome(written, at, wait_ms)
        except ListUnreachable:
            return None  # it is in the log; the caller is told where to ask
        finally:
            self._waiting -= 1
