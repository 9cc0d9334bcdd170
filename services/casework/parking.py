"""Parked records, as an operator sees them: where, why, since when, from whom; and one record as far as it can be read."""

import re
from collections.abc import Iterator, Mapping
from datetime import date
from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from schemas.codec import UndecodableError, decode, name_of, release_of
from schemas.events import Event, PrescriptionIssued, Submission
from schemas.reasons import ParkReason
from services.casework.desk import Desk, NotThereError
from services.casework.numbers import MASK, mask
from services.medication_list.judging.items import Readable, item_of
from services.medication_list.log.positions import LogPlace, position_of
from services.medication_list.log.record import Record
from services.medication_list.log.record_log import all_of
from services.medication_list.read_api.stored_events import header
from services.medication_list.stored.parked_note import ParkedNote, unpack_note

_AT_ONCE: Final = 500
_SHOWN_HEADERS: Final = frozenset({"ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "traceparent"})
_UUID: Final = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_ID: Final = re.compile(rf"[0-9a-f]{{32}}|{_UUID}")
_IDS_IN_HEADERS: Final = {
    "ce_id": re.compile(_UUID),
    "traceparent": re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"),
}
"""Headers with ids of this form: their digits are no identity number, however many follow one another over the dashes."""
_MARK_BYTES: Final = 10
_NATIVE: Final = (date, Decimal)


class ParkedRecord(Struct, frozen=True, omit_defaults=True):
    """One parked record. `sender` and `type` are what its headers say; `schema` is its writer's schema.

    `mendable`: whether this release can judge it, so that a refold would.
    """

    position: str
    reason: str
    at_ms: int
    age_ms: int
    marks_a_list: bool
    mendable: bool
    closed: bool
    sender: str | None = None
    type: str | None = None
    schema: str | None = None


class ShownRecord(Struct, frozen=True, omit_defaults=True):
    """A parked record as far as it can be read. Identities are masked, and unreadable bytes are not shown."""

    record: ParkedRecord
    patient: str | None
    headers: dict[str, str]
    bytes: int
    begins_with: str
    schema_is_known: bool
    why: str
    content: Any = None


def parked_records(desk: Desk) -> Iterator[ParkedRecord]:
    """Everything that is parked, by place. Raises LogLookupError, StoreUnavailableError, RegistryUnavailableError."""
    for partition in range(desk.partitions):
        notes = {offset: unpack_note(packed) for offset, packed in sorted(desk.store.parked(partition).items())}
        offsets = list(notes)
        for start in range(0, len(offsets), _AT_ONCE):
            some = offsets[start : start + _AT_ONCE]
            records = desk.records.read(partition, some)
            yield from (_parked(desk, LogPlace(partition, each), notes[each], records.get(each)) for each in some)


def note_at(desk: Desk, place: LogPlace) -> ParkedNote:
    """Why the record at this place is parked. Raises NotThereError where none is."""
    packed = desk.store.parked(place.partition).get(place.offset)
    if packed is None:
        raise NotThereError(f"Nothing is parked at {position_of(*place)}.")
    return unpack_note(packed)


def shown(desk: Desk, place: LogPlace) -> ShownRecord:
    """One parked record. Raises NotThereError, and as `parked_records` does."""
    note = note_at(desk, place)
    record = desk.records.read(place.partition, [place.offset]).get(place.offset)
    if record is None:
        raise NotThereError(f"The log has no record at {position_of(*place)} any more.")
    if note.patient is not None:
        all_of(note.patient, place.partition, [place.offset], {place.offset: record})
    value = record.value or b""
    content, why = _content(desk, record)
    return ShownRecord(
        record=_parked(desk, place, note, record),
        patient=note.patient,
        headers={name: _shown_header(name, content) for name, content in record.headers},
        bytes=len(value),
        # What begins otherwise than our records may be anybody's text, and begin with a national id.
        begins_with=desk.framing.head_of(value).hex(),
        schema_is_known=release_of(value[2:_MARK_BYTES]) is not None,
        why=why,
        content=content,
    )


def _shown_header(name: str, content: bytes | None) -> str:
    text = (content or b"").decode(errors="replace")
    form = _IDS_IN_HEADERS.get(name)
    if form is not None and form.fullmatch(text):
        return text
    return mask(text) if name in _SHOWN_HEADERS else MASK


def _header(record: Record | None, name: str) -> str | None:
    text = None if record is None else header(record, name)
    return None if text is None else mask(text)


def _parked(desk: Desk, place: LogPlace, note: ParkedNote, record: Record | None) -> ParkedRecord:
    item = None if record is None else item_of(record, place.partition, desk.partitions, desk.framing)
    return ParkedRecord(
        position=position_of(*place),
        reason=str(note.reason),
        at_ms=note.at_ms,
        age_ms=max(0, desk.clock.now_ms() - note.at_ms),
        marks_a_list=note.patient is not None,
        sender=_header(record, "ce_source"),
        type=_header(record, "ce_type"),
        schema=note.schema,
        closed=note.closed is not None,
        mendable=isinstance(item, Readable) and note.reason != ParkReason.NOT_JUDGED,
    )


def _content(desk: Desk, record: Record) -> tuple[Any, str]:
    """What can be read of it, masked, and why not the rest."""
    try:
        message = decode(desk.framing.from_topic(record.value))
    except UndecodableError as error:
        return None, str(error)
    if isinstance(message, Event) and isinstance(message.body, PrescriptionIssued):
        message = replace(message, body=replace(message.body, identity=None))
    if isinstance(message, Submission):
        return None, f"a {name_of(message)}, which names its patient: nothing of it is shown"
    return _masked(msgspec.to_builtins(message, builtin_types=_NATIVE)), f"readable: {name_of(message)}"


def _masked(value: Any) -> Any:
    match value:
        case str():
            return value if _is_id(value) else mask(value)
        case bytes():
            return MASK
        case Mapping():
            return {name: _masked(each) for name, each in value.items()}
        case list() | tuple():
            return [_masked(each) for each in value]
        case _:
            return value


def _is_id(text: str) -> bool:
    """A UUID or a pseudonym: its digits are no identity number."""
    return bool(_ID.fullmatch(text))
