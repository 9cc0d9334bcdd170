"""Reads a patient's event index: which records of the log are the patient's, and the outcome of each."""

from collections.abc import Mapping
from typing import Final

from services.medication_list.fold.state import HandOutPointer, Remembered
from services.medication_list.stored.packing import unpack_field, unpack_memory

_PARKED: Final = 3
_HAND_OUT: Final = "out:"


def places_of(fields: Mapping[str, bytes], index: Mapping[bytes, bytes]) -> dict[int, Remembered | None]:
    """Every offset at which the patient has a record that changed anything, in order; `fields` is the patient's hash.

    None: another report under an event id that was known, refused, which the index keeps nothing of.
    """
    memories = (unpack_memory(key, packed) for key, packed in index.items())
    known: dict[int, Remembered | None] = {each.offset: each for each in memories if isinstance(each, Remembered)}
    for name, packed in fields.items():
        if name.startswith(_HAND_OUT):
            pointer = unpack_field(name, packed)
            assert isinstance(pointer, HandOutPointer), "the field's name tells its type"
            for conflict in pointer.conflicts:
                known.setdefault(conflict.place, None)
    return dict(sorted(known.items()))


def is_parked(known: Remembered | None) -> bool:
    """Whether a record was set aside instead of being judged."""
    return known is not None and known.outcome == _PARKED
