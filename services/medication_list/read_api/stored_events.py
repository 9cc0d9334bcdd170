"""Reads a patient's events back: what the view knows of each, and what the log's records say."""

from collections.abc import Mapping
from typing import Final

from schemas.codec import UndecodableError, decode
from schemas.events import Body, Event
from services.medication_list.fold.state import Remembered, State
from services.medication_list.log.record import Record
from services.medication_list.store.reading import Found
from services.medication_list.stored import event_index
from services.medication_list.stored.packing import unpack_fields

_ID_HEADER: Final = "ce_id"


def fields_of(values: Mapping[bytes, bytes]) -> dict[str, State]:
    """A patient's hash, as the store answers with it, as the fold's values."""
    return unpack_fields(_named(values))


def fields_in(values: Mapping[bytes, bytes], *names: str) -> Mapping[str, State]:
    """Of a patient's hash, those of these fields that stand."""
    wanted = {name.encode() for name in names}
    return fields_of({name: packed for name, packed in values.items() if name in wanted})


def places_of(listed: Found, index: Found) -> dict[int, Remembered | None]:
    """Every offset at which the patient has a record that the list shows something of (see `event_index.places_of`)."""
    return event_index.places_of(_named(listed.values), index.values)


def _named(values: Mapping[bytes, bytes]) -> dict[str, bytes]:
    return {name.decode(): packed for name, packed in values.items()}


def event_of(record: Record) -> Event[Body] | None:
    """The event that a record holds, None if it cannot be read."""
    try:
        event = decode(record.value)
    except UndecodableError:
        return None
    return event if isinstance(event, Event) else None


def event_id_of(record: Record) -> str | None:
    """The id of the event in a record: its own, or, if it cannot be read, the one in its headers."""
    event = event_of(record)
    if event is not None:
        return event.event_id
    return header(record, _ID_HEADER)


def header(record: Record, wanted: str) -> str | None:
    """The first header of that name as text, whatever its sender put there; None where there is none, or it is null."""
    return next(
        (value.decode(errors="replace") for name, value in record.headers if name == wanted and value is not None), None
    )
