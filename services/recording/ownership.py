"""A courtesy at the door: a write about what is known to belong to another patient is turned away before it reaches the log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from schemas.reasons import DoorReason
from services.admission.door import Admitted
from services.admission.errors import Finding, Place, TurnedAway
from services.recording.outcomes import ListUnreachable, MedicationListClient

_PRESCRIPTION_FIELDS: Final = ("prescription", "renews")
_NUMBER_FIELD: Final = "reference_number"


async def turn_away_anothers(admitted: Admitted, medication_list: MedicationListClient) -> None:
    """Raises TurnedAway if a prescription that is named belongs to another patient, as far as the list knows.

    Without an answer the write goes on: the fold will judge it.
    """
    known = medication_list.known_owners
    named = [(place, value) for place, value in _named(admitted) if known.get(value) != admitted.patient]
    if not named:
        return
    numbers = sorted({value for place, value in named if place[-1] == _NUMBER_FIELD})
    prescriptions = sorted({value for place, value in named if place[-1] != _NUMBER_FIELD})
    try:
        owners = await medication_list.owners(prescriptions, numbers)
    except ListUnreachable:
        return
    others = [place for place, value in named if owners.get(value, admitted.patient) != admitted.patient]
    if others:
        raise TurnedAway(Finding(place, DoorReason.OTHER_PATIENT) for place in others)


def _named(admitted: Admitted) -> Iterator[tuple[Place, str]]:
    for part in admitted.parts:
        for field in (*_PRESCRIPTION_FIELDS, _NUMBER_FIELD):
            value = part.fields.get(field)
            if value is not None:
                yield (*part.place, field), value
