"""A patient's events in log order, page by page: what was reported, by whom, and its outcome."""

from collections.abc import Collection
from itertools import islice
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from schemas.codec import name_of
from schemas.events import Body, PrescriptionIssued
from schemas.medication_list import Who
from schemas.reasons import ParkReason, Reason
from services.medication_list.fold.judgement import Verdict
from services.medication_list.fold.remembering import recollect
from services.medication_list.fold.state import META, Remembered
from services.medication_list.log.positions import position_of
from services.medication_list.log.record import Record
from services.medication_list.log.record_log import all_of
from services.medication_list.read_api.list_answer import standing
from services.medication_list.read_api.locked import Withheld
from services.medication_list.read_api.log_lookup import LogLookup
from services.medication_list.read_api.outcomes import FirstOutcome, first_outcome, named_by
from services.medication_list.read_api.stored_events import event_id_of, event_of, fields_in, places_of
from services.medication_list.store.reading import ViewReader
from services.medication_list.stored.answered import ANSWERED, changed_answers
from services.medication_list.stored.event_index import is_parked

NOTHING_WITHHELD: Final = Withheld()
_AGAIN: Final = Verdict("refused", reason=Reason.CONFLICTING_DUPLICATE)


class HistoryEntry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event. recorded_at: when the log took it. A parked one cannot be read, and has neither sender nor content."""

    position: str
    outcome: str
    recorded_at_ms: int
    event_id: str | None = None
    type: str | None = None
    occurred_at_ms: int | None = None
    received_at_ms: int | None = None
    by: Who | None = None
    system: str | None = None
    reason: str | None = None
    flags: tuple[str, ...] = ()
    named: dict[str, str] | None = None
    answered: FirstOutcome | None = None
    """What was answered first, where the patient was folded anew and this came to another outcome."""
    content: Any = None
    """The event's own fields, without the sealed identity."""


class HistoryPage(Struct, frozen=True):
    """Some events in log order. `cursor` asks for those after them; null when these are the last.

    `position` is the last record that this takes account of, null before the first one. `complete` is false while an event of
    this patient could not be read; `incomplete_since` says since when.
    """

    events: tuple[HistoryEntry, ...]
    cursor: str | None
    position: str | None
    position_recorded_at_ms: int | None
    generation: str
    complete: bool
    incomplete_since_ms: int | None


async def page_of(
    reader: ViewReader, log: LogLookup, patient: str, after: int, limit: int, withheld: Withheld = NOTHING_WITHHELD
) -> HistoryPage:
    """The patient's first `limit` events after an offset, without those that are withheld.

    Raises NotReadyError, StoreUnavailableError, LogLookupError.
    """
    listed, index = await reader.list_and_index(patient)
    known = places_of(listed, index)
    following = list(islice((offset for offset in known if offset > after), limit + 1))
    offsets = following[:limit]
    records = all_of(patient, index.partition, offsets, await log.read(index.partition, offsets))
    kept = fields_in(listed.values, META, ANSWERED)
    changed = {each.first.offset: each.first for each in changed_answers(kept)}
    entries = tuple(
        as_shown(
            entry_of(index.partition, records[offset], known[offset], changed.get(offset)), offset, withheld.offsets
        )
        for offset in offsets
        if not _is_withheld(records[offset], withheld)
    )
    cursor = position_of(index.partition, offsets[-1]) if len(following) > limit else None
    return HistoryPage(entries, cursor, *standing(index, kept))


def as_shown(entry: HistoryEntry, offset: int, hidden: Collection[int]) -> HistoryEntry:
    """A prescription whose number is another patient's came, and what it says is shown to nobody."""
    return replace(entry, content=None) if offset in hidden else entry


def _is_withheld(record: Record, withheld: Withheld) -> bool:
    if not withheld.prescriptions:
        return False
    event = event_of(record)
    return event is not None and withheld.is_about(event.body)


def entry_of(partition: int, record: Record, known: Remembered | None, answered: Remembered | None) -> HistoryEntry:
    """One record with what became of it; `answered` is there where that is not what was answered first."""
    position = position_of(partition, record.offset)
    event = event_of(record)
    if event is None or (known is not None and is_parked(known)):
        return HistoryEntry(
            position=position,
            outcome="parked",
            recorded_at_ms=record.timestamp,
            event_id=event_id_of(record),
            reason=ParkReason.from_code(known.reason) if known is not None else None,
        )
    verdict = _AGAIN if known is None else recollect(known)
    source = event.source
    return HistoryEntry(
        position=position,
        outcome=verdict.outcome,
        recorded_at_ms=record.timestamp,
        event_id=event.event_id,
        type=name_of(event),
        occurred_at_ms=event.occurred_at_ms,
        received_at_ms=event.received_at_ms,
        by=Who(organisation=source.organisation, role=source.role, person=source.person),
        system=source.system,
        reason=verdict.reason,
        flags=tuple(verdict.flags),
        named=named_by(verdict),
        answered=None if answered is None else first_outcome(answered),
        content=_without_identity(event.body),
    )


def _without_identity(body: Body) -> Body:
    return replace(body, identity=None) if isinstance(body, PrescriptionIssued) else body
