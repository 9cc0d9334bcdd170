"""What the relay notes as unsent beside its progress: records parked, or released, whose effects are still due.

A view made anew after a loss parks them again (`generations.enter`), so that a refold sends their effects.
"""

from typing import Final

import msgspec

from schemas.events import UnsentRecord
from schemas.reasons import ParkReason
from services.medication_list.store.waiting import Unsent

NOTED_AT_MOST: Final = 1_000
"""*Policy*: so many records of a partition are noted, of more than that any; the note is written as often as effects are sent."""


class _Note(msgspec.Struct, frozen=True, array_like=True):
    """The beginning of a `stored.parked_note.ParkedNote`, also of a release that knows more reasons."""

    reason: str
    patient: str | None


def unsent_records(found: Unsent) -> tuple[UnsentRecord, ...]:
    """By offset. Ownerless records are left out: they mark no list, are never judged, and have no effects due."""
    reasons = dict(found.withheld)
    for offset, packed in found.notes.items():
        note = _note_in(packed)
        if note.patient is not None:
            reasons[offset] = note.reason
    return tuple(
        UnsentRecord(offset=offset, reason=reason) for offset, reason in sorted(reasons.items())[:NOTED_AT_MOST]
    )


def _note_in(packed: bytes) -> _Note:
    """An unreadable note may concern any patient's record: it counts."""
    try:
        return msgspec.msgpack.decode(packed, type=_Note)
    except msgspec.DecodeError:
        return _Note(ParkReason.NOT_JUDGED, "")
