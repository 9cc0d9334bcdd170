"""What a reader of a list is answered: the list, and what it shows of the log."""

from datetime import date
from typing import Any

from msgspec import Struct

from schemas.medication_list import (
    MedicationList,
    ShownAllergy,
    ShownHandOut,
    ShownMultidose,
    ShownReconciliation,
    ShownTreatment,
)


class ListAnswer(Struct, frozen=True, kw_only=True):
    """One citizen's list. `position` is the last record that it takes account of, null before the first one.

    `complete` is false while an event of this patient could not be read; `incomplete_since` says since when.
    `read_token` lets a doctor confirm this very list; there is none for the past.
    """

    version: int
    treatments: tuple[ShownTreatment, ...]
    other_prescriptions: tuple[ShownTreatment, ...]
    unseen_hand_outs: tuple[ShownHandOut, ...]
    allergies: tuple[ShownAllergy, ...]
    allergy_status: str
    multidose: ShownMultidose | None
    deceased_on: date | None
    reconciled: ShownReconciliation | None
    incomplete_since_ms: int | None
    complete: bool
    as_of_ms: int
    position: str | None
    generation: str
    read_token: str | None


def answered(
    shown: MedicationList, *, as_of_ms: int, position: str | None, generation: str, read_token: str | None
) -> ListAnswer:
    """The list with what it shows."""
    parts: dict[str, Any] = {name: getattr(shown, name) for name in MedicationList.__struct_fields__}
    return ListAnswer(
        **parts,
        complete=shown.incomplete_since_ms is None,
        as_of_ms=as_of_ms,
        position=position,
        generation=generation,
        read_token=read_token,
    )
