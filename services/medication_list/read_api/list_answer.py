"""The answers to readers: the list or one prescription, and which position of the log it shows."""

from datetime import date
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import asdict

from schemas.medication_list import (
    MedicationList,
    ShownAllergy,
    ShownHandOut,
    ShownMultidose,
    ShownPrescription,
    ShownReconciliation,
    ShownTreatment,
)
from services.medication_list.log.last_record import recorded_at_ms_in
from services.medication_list.log.positions import position_before
from services.medication_list.read_api.view import Fields, incomplete_since
from services.medication_list.store.reading import Found


class Standing(NamedTuple):
    """What every read of a patient tells of itself: which state of the list it shows, and whether that lacks something.

    `position` is the last record that it takes account of, null before the first one, and `position_recorded_at_ms` when the
    log took that record, null where that is not known: nothing that came later is in it.
    """

    position: str | None
    position_recorded_at_ms: int | None
    generation: str
    complete: bool
    incomplete_since_ms: int | None


def standing(found: Found, fields: Fields) -> Standing:
    """Of a patient's fields as they were found; of the fields only META is needed."""
    recorded_at_ms = recorded_at_ms_in(found.last) if found.last else None
    return stood(found.generation, found.partition, found.offset, recorded_at_ms, fields)


def stood(generation: str, partition: int, offset: int, recorded_at_ms: int | None, fields: Fields) -> Standing:
    """Of a patient's fields as this generation had them before `offset`, whose last record the log took at this time."""
    since_ms = incomplete_since(fields)
    return Standing(position_before(partition, offset), recorded_at_ms, generation, since_ms is None, since_ms)


class PrescriptionAnswer(ShownPrescription, frozen=True, kw_only=True, omit_defaults=True):
    """One prescription. The last five are about the list in which it stands.

    `position` is the last record that this takes account of, `position_recorded_at` when the log took it. `complete` is false while an event of the patient could not be
    read; `incomplete_since` says since when.
    """

    position: str | None
    position_recorded_at_ms: int | None
    generation: str
    complete: bool
    incomplete_since_ms: int | None


def answered_alone(shown: ShownPrescription, stands: Standing) -> PrescriptionAnswer:
    """The prescription with what it shows."""
    return PrescriptionAnswer(**asdict(shown), **stands._asdict())


class ListAnswer(Struct, frozen=True, kw_only=True):
    """One citizen's list. `position` is the last record that it takes account of, null before the first one.

    `position_recorded_at` is when the log took that record: what came later is not in the list. `complete` is false while an event of this patient could not be read; `incomplete_since` says since when.
    `read_token` lets a doctor confirm this very list, if it is complete; there is none for the past.
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
    position_recorded_at_ms: int | None
    generation: str
    read_token: str | None


def answered(shown: MedicationList, stands: Standing, *, as_of_ms: int, read_token: str | None) -> ListAnswer:
    """The list with what it shows."""
    parts: dict[str, Any] = asdict(shown) | stands._asdict()
    return ListAnswer(**parts, as_of_ms=as_of_ms, read_token=read_token)
