"""A claim that comes late is turned away, unless it is one that came in time and is sent again."""

from __future__ import annotations

from schemas.reasons import DoorReason
from services.admission.door import Admitted
from services.admission.errors import Finding, TurnedAway
from services.recording.outcomes import MedicationListClient


async def turn_away_late(admitted: Admitted, event_id: str, medication_list: MedicationListClient) -> None:
    """Raises TurnedAway for a late claim whose event the list does not know; `event_id`: of the message's first event.

    One that it knows goes on, and the fold answers that it is a duplicate: to reject a claim that holds its prescription
    would leave the prescription held by somebody who was told that he does not have it. So whoever cannot ask cannot
    answer. Raises ListUnreachable.
    """
    if not admitted.is_late:
        return
    if await medication_list.occurred_at_ms(admitted.patient, event_id) is None:
        raise TurnedAway([Finding(("occurred_at",), DoorReason.CLAIM_TOO_OLD)])
