"""Closes a parked record that will never be judged: by an event in the patient's own order, or, if its patient is unknown, by a note."""

import time
from typing import Final
from uuid import UUID, uuid5

from msgspec import Struct
from msgspec.structs import replace

from schemas.events import Event, ParkedRecordClosed, Source
from schemas.reasons import ParkReason
from services.casework.appending import SYSTEM
from services.casework.desk import CaseRefusedError, Desk, NotCurrentError, NotNowError
from services.casework.parking import note_at
from services.identity.registers import InvalidIdentifier, parse_organisation_number
from services.medication_list.fold.remembering import event_key, recollect
from services.medication_list.fold.state import Remembered
from services.medication_list.judging.items import Readable, item_of
from services.medication_list.log.positions import LogPlace, position_of
from services.medication_list.store.port import Refused
from services.medication_list.stored.packing import unpack_memory
from services.medication_list.stored.parked_note import ParkedNote, pack_note

NOBODYS: Final = -1
"""In the place of an event's offset: closed by a note, since the record belongs to no patient's order."""
_CLOSINGS: Final = UUID("9b0f8f3e-4c55-5d0e-8f0e-2a6f6c1c7d11")
_JUDGED_WITHIN_S: Final = 10.0
_STEP_S: Final = 0.05
_ATTEMPTS: Final = 20
_MENDABLE: Final = frozenset({ParkReason.UNKNOWN_SCHEMA, ParkReason.NOT_JUDGED})


class Closing(Struct, frozen=True, omit_defaults=True):
    """What closing a record would do, or did. `by_event`: in the log, so that it survives a replay; otherwise by a note."""

    position: str
    park_reason: str
    by_event: bool
    done: bool
    outcome: str | None = None
    closed_at: str | None = None
    """The position of the event that closed it."""


def closing_of(desk: Desk, place: LogPlace, *, although_mendable: bool) -> Closing:
    """What closing would do. Raises CaseRefusedError where it must not be done."""
    note = note_at(desk, place)
    if note.closed is not None:
        raise CaseRefusedError(f"The record at {position_of(*place)} is closed already.")
    record = desk.records.read(place.partition, [place.offset]).get(place.offset)
    item = None if record is None else item_of(record, place.partition, desk.partitions, desk.framing)
    if isinstance(item, Readable) and note.reason != ParkReason.NOT_JUDGED:
        raise CaseRefusedError("This release can read the record: refold it instead.")
    if note.reason in _MENDABLE and not although_mendable:
        raise CaseRefusedError(
            f"A record that is parked({note.reason}) can be mended, and takes effect then also if it was closed: release "
            "what is missing, or say --although-mendable."
        )
    return Closing(position_of(*place), str(note.reason), note.patient is not None, done=False)


def organisation_of(closing: Closing, said: str | None) -> str:
    """Whose operator closes it; of what is closed by a note it need not be said. Raises CaseRefusedError."""
    if said is None:
        if closing.by_event:
            raise CaseRefusedError("Say --organisation: the closing stands in the log, and who is behind it.")
        return ""
    try:
        return parse_organisation_number(said)
    except InvalidIdentifier as error:
        raise CaseRefusedError(f"--organisation: {error}.") from None


def close(desk: Desk, place: LogPlace, closing: Closing, reason: str, organisation: str) -> Closing:
    """Do it, for whom `organisation_of` said. Raises LogUnavailable, NotCurrentError, NotNowError, StoreUnavailableError."""
    note = note_at(desk, place)
    if note.patient is None:
        return _close_by_note(desk, place, note, closing)
    now_ms = desk.clock.now_ms()
    event = Event(
        # The same closing, repeated because the first got no answer, is a duplicate.
        event_id=str(uuid5(_CLOSINGS, f"{position_of(*place)}/{organisation}/{reason}")),
        patient=note.patient,
        occurred_at_ms=now_ms,
        received_at_ms=now_ms,
        source=Source(system=SYSTEM, organisation=organisation, role="operator"),
        body=ParkedRecordClosed(offset=place.offset, reason=reason),
    )
    offset = desk.append(event)
    return replace(
        closing,
        done=True,
        closed_at=position_of(place.partition, offset),
        outcome=_outcome_of(desk, event, LogPlace(place.partition, offset)),
    )


def _outcome_of(desk: Desk, event: Event[ParkedRecordClosed], at: LogPlace) -> str:
    deadline = time.monotonic() + _JUDGED_WITHIN_S
    while desk.store.next_offsets([at.partition])[at.partition] <= at.offset:
        if time.monotonic() >= deadline:
            raise NotCurrentError(
                f"The closing is in the log at {position_of(*at)}, and not judged yet: see that the processor runs."
            )
        time.sleep(_STEP_S)
    key = event_key(event.event_id)
    packed = desk.store.read_whole(at.partition, event.patient, with_index=True).remembered.get(key)
    known = None if packed is None else unpack_memory(key, packed)
    if not isinstance(known, Remembered):
        return "parked"
    verdict = recollect(known)
    return f"refused({verdict.reason})" if verdict.reason else verdict.outcome


def _close_by_note(desk: Desk, place: LogPlace, note: ParkedNote, closing: Closing) -> Closing:
    """It marks no list, so nothing but what operators are shown depends on it; a view made anew lists it again."""
    packed = pack_note(replace(note, closed=NOBODYS))
    for _ in range(_ATTEMPTS):
        epoch = desk.store.read({place.partition: []})[place.partition].epoch
        if not isinstance(desk.store.note_parked(place.partition, epoch, {place.offset: packed}), Refused):
            return replace(closing, done=True)
    raise NotNowError("Others keep writing to this partition, or a switch is under way: try again.")
