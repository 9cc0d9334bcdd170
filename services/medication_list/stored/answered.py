"""Outcomes that have changed since they were answered: kept beside a patient's fields when the patient is folded anew.

It is the only field of a patient that is not derived from the log, so the fold neither writes nor reads it.
"""

from collections.abc import Mapping
from typing import Final, cast

from msgspec import Struct

from services.medication_list.fold.state import Remembered, State

ANSWERED: Final = "answered"
"""The field of a patient's hash."""


class ChangedAnswer(Struct, frozen=True, array_like=True, gc=False):
    """One event whose outcome changed after it was answered."""

    first: Remembered
    """What was answered first, and where the event is."""
    event_id: str
    entry: str | None
    """The treatment that shows the flag, None where the list has no entry of it."""
    times: int
    """How often it has changed since it was answered in this view. Earlier releases tell the corrections of one event apart by it."""


class Answered(Struct, frozen=True, array_like=True, gc=False):
    """Every such event of a patient, in log order."""

    changes: tuple[ChangedAnswer, ...] = ()


def changed_answers(fields: Mapping[str, State]) -> tuple[ChangedAnswer, ...]:
    """Those that stand in a patient's unpacked fields."""
    found = cast("Answered | None", fields.get(ANSWERED))
    return () if found is None else found.changes
