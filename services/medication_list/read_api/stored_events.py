"""A patient's events read back: what the view knows of each, and what the log's records say."""

from collections.abc import Mapping
from typing import Final

from schemas.codec import UndecodableError, decode
from schemas.events import Body, Event
from services.medication_list.fold.state import HandOutPointer, Remembered, State
from services.medication_list.packing import unpack_field, unpack_memory
from services.medication_list.read_api.log_lookup import StoredRecord
from services.medication_list.store.reading import Found

_ID_HEADER: Final = "ce_id"
_PARKED: Final = 3
_HAND_OUT: Final = b"out:"


def unpacked(values: Mapping[bytes, bytes]) -> dict[str, State]:
    """A patient's hash as the fold's values."""
    return {name.decode(): unpack_field(name.decode(), packed) for name, packed in values.items()}


def places_of(listed: Found, index: Found) -> dict[int, Remembered | None]:
    """Every offset at which the patient has a record that the list shows something of, in order.

    None: another report under an event id that was known, refused, which the index keeps nothing of.
    """
    memories = (unpack_memory(key, packed) for key, packed in index.values.items())
    known: dict[int, Remembered | None] = {each.offset: each for each in memories if isinstance(each, Remembered)}
    for name, packed in listed.values.items():
        if name.startswith(_HAND_OUT):
            pointer = unpack_field(name.decode(), packed)
            assert isinstance(pointer, HandOutPointer), "the field's name tells its type"
            for conflict in pointer.conflicts:
                known.setdefault(conflict.place, None)
    return dict(sorted(known.items()))


def is_parked(known: Remembered | None) -> bool:
    """Whether a record was set aside instead of being judged."""
    return known is not None and known.outcome == _PARKED


def event_of(record: StoredRecord) -> Event[Body] | None:
    """The event that a record holds, None if it cannot be read."""
    try:
        event = decode(record.value)
    except UndecodableError:
        return None
    return event if isinstance(event, Event) else None


def event_id_of(record: StoredRecord) -> str | None:
    """The id of the event in a record: its own, or, if it cannot be read, the one in its headers."""
    event = event_of(record)
    if event is not None:
        return event.event_id
    return next((value.decode(errors="replace") for name, value in record.headers if name == _ID_HEADER), None)
