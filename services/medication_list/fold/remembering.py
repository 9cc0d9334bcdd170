"""The memory of events: each is remembered for ever by a short id, in constant space; likewise what it names."""

from hashlib import blake2b

from schemas.events import (
    AllergyRecorded,
    Body,
    ClaimRequested,
    DispatchRequested,
    DispenseReversed,
    Event,
    MedicationDispensed,
    PrescriptionIssued,
    RenewalRequested,
    TreatmentRecorded,
)
from schemas.reasons import Flag, Reason
from services.medication_list.fold.judgement import OUTCOMES, Verdict
from services.medication_list.fold.state import Remembered

SHORT = 8
"""Bytes of a short id. Two of a patient's thousand events meet by chance once in some ten thousand billion patients."""
EVENT, NATURAL, PARKED = b"e", b"n", b"p"
_NOTHING_YET = blake2b(digest_size=SHORT)
"""Copied for each short id: to make one anew takes longer than to digest an id."""
_PLACES = {outcome: place for place, outcome in enumerate(OUTCOMES)}


def event_key(event_id: str) -> bytes:
    """Where an event is remembered."""
    return EVENT + _short(event_id)


def parked_key(offset: int) -> bytes:
    """Where a record that could not be judged is remembered."""
    return PARKED + offset.to_bytes(SHORT, "big")


def natural_key(event: Event[Body]) -> bytes | None:
    """Where the thing that an event makes known is remembered: prescription, dispense, claim, ...; None if none."""
    match event.body:
        case ClaimRequested(claim=natural):
            pass
        case MedicationDispensed(dispense=natural):
            pass
        case PrescriptionIssued(prescription=natural):
            pass
        case DispenseReversed(reversal=natural):
            pass
        case DispatchRequested(dispatch=natural):
            pass
        case AllergyRecorded(allergy=natural):
            pass
        case TreatmentRecorded(treatment=natural):
            pass
        case RenewalRequested(request=natural):
            pass
        case _:
            return None
    return NATURAL + _short(f"{type(event.body).__name__}:{natural}")


def _short(named: str) -> bytes:
    short = _NOTHING_YET.copy()
    short.update(named.encode())
    return short.digest()


def remembered(verdict: Verdict, offset: int, digest: bytes) -> Remembered:
    """What stays of a judged event."""
    return Remembered(
        offset,
        digest,
        _PLACES[verdict.outcome],
        verdict.reason.code if verdict.reason else 0,
        bytes([flag.code for flag in verdict.flags]) if verdict.flags else b"",
        verdict.named,
    )


def recollect(known: Remembered) -> Verdict:
    """The verdict that was remembered. Raises ValueError for a parked record: it has none yet."""
    outcome = OUTCOMES[known.outcome]
    if outcome == "parked":
        raise ValueError("a parked record has not been judged")
    return Verdict(
        outcome,
        tuple(Flag.from_code(code) for code in known.flags),
        Reason.from_code(known.reason) if known.reason else None,
        known.named,
    )
