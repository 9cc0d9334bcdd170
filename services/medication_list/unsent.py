"""What the relay notes as unsent beside its progress: records that are parked, or were, and whose effects are still to come.

A view that is made anew after a loss parks them again (`generations.enter`), so that a refold sends what they owe.
"""

from typing import Final

import msgspec

from schemas.events import UnsentRecord
from schemas.reasons import ParkReason
from services.medication_list.store.waiting import Unsent

NOTED_AT_MOST: Final = 1_000
"""*Policy*: so many records of a partition are noted, of more than that any; the note is written as often as effects are sent."""


class _Note(msgspec.Struct, frozen=True, array_like=True):
    """The beginning of a `judging.ParkedNote`, also of a release that knows more reasons."""

    reason: str
    patient: str | None


def unsent_records(found: Unsent) -> tuple[UnsentRecord, ...]:
    """By offset. What belongs to nobody is left out: it marks no list, is judged by nobody, and owes nothing."""
    reasons = dict(found.withheld)
    for offset, packed in found.notes.items():
        note = _note_in(packed)
        if note.patient is not None:
            reasons[offset] = note.reason
    return tuple(
        UnsentRecord(offset=offset, reason=reason) for offset, reason in sorted(reasons.items())[:NOTED_AT_MOST]
    )


def _note_in(packed: bytes) -> _Note:
    """A note that cannot be read may be of anybody's record: it counts."""
    try:
        return msgspec.msgpack.decode(packed, type=_Note)
    except msgspec.DecodeError:
        return _Note(ParkReason.NOT_JUDGED, "")
