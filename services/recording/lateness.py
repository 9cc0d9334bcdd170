"""Turns away a late claim, unless it came in time and was sent again."""

from __future__ import annotations

from schemas.reasons import DoorReason
from services.admission.completion import event_id_of
from services.admission.door import Admitted
from services.admission.errors import Finding, TurnedAway
from services.recording.outcomes import MedicationListClient


async def turn_away_late(admitted: Admitted, system: str, key: str, medication_list: MedicationListClient) -> None:
    """Raises TurnedAway for a late claim whose first event the list does not know; `key`: the sender's own (see `event_id_of`).

    A known one goes on, and the fold answers that it is a duplicate: rejecting a claim that holds its prescription would
    leave the prescription held by a pharmacy that was told that it does not have it. So without the list's answer there
    is none. Raises ListUnreachable.
    """
    if not admitted.is_late:
        return
    if await medication_list.occurred_at_ms(admitted.patient, event_id_of(system, key)) is None:
        raise TurnedAway([Finding(("occurred_at",), DoorReason.CLAIM_TOO_OLD)])
