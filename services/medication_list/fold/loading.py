"""Which of a patient's fields an event is judged by: what to read first, and what a first read points to."""

from schemas.events import (
    AllergyRecorded,
    AllergyRefuted,
    Body,
    ClaimAborted,
    ClaimReleased,
    ClaimRequested,
    DispatchRequested,
    DispatchWithdrawn,
    DispenseReversed,
    MedicationDispensed,
    PrescriptionIssued,
    PrescriptionRecalled,
    RenewalDeclined,
    RenewalRequested,
    TreatmentChanged,
    TreatmentDiscontinued,
    TreatmentPaused,
    TreatmentRecorded,
    TreatmentReinstated,
    TreatmentResumed,
    TreatmentWithdrawn,
    UseReported,
)
from services.medication_list.fold.state import (
    ALLERGIES,
    META,
    HandOutPointer,
    PrescriptionState,
    State,
    TreatmentState,
    allergy_awaited,
    claim_field,
    dosed_field,
    hand_out_field,
    prescription_field,
    request_field,
    signed_field,
    treatment_field,
    waiting_field,
)


def named_by(body: Body) -> tuple[str, ...]:  # noqa: C901, PLR0911 - one line a shape of event
    """Fields that the event itself names."""
    match body:
        case ClaimRequested() | PrescriptionRecalled() | RenewalRequested() | DispatchWithdrawn():
            return META, prescription_field(body.prescription)
        case MedicationDispensed():
            own = hand_out_field(body.dispense), waiting_field(hand_out_field(body.dispense))
            return META, prescription_field(body.prescription), *own
        case PrescriptionIssued():
            return _named_by_issued(body)
        case DispatchRequested():
            return META, ALLERGIES, prescription_field(body.prescription), signed_field(body.prescription)
        case DispenseReversed():
            return META, hand_out_field(body.dispense)
        case ClaimAborted() | ClaimReleased():
            return META, claim_field(body.claim)
        case TreatmentRecorded():
            return META, treatment_field(body.treatment), waiting_field(treatment_field(body.treatment))
        case (
            TreatmentChanged()
            | TreatmentPaused()
            | TreatmentResumed()
            | TreatmentDiscontinued()
            | TreatmentReinstated()
            | TreatmentWithdrawn()
            | UseReported()
        ):
            return META, treatment_field(body.treatment)
        case AllergyRecorded() | AllergyRefuted():
            return META, ALLERGIES, waiting_field(allergy_awaited(body.allergy))
        case RenewalDeclined():
            return META, request_field(body.request)
        case _:
            return (META,)


def _named_by_issued(issued: PrescriptionIssued) -> tuple[str, ...]:
    fields = (
        META,
        treatment_field(issued.treatment),
        prescription_field(issued.prescription),
        waiting_field(prescription_field(issued.prescription)),
        waiting_field(treatment_field(issued.treatment)),
    )
    if issued.renews is None:
        return fields
    return *fields, prescription_field(issued.renews), waiting_field(prescription_field(issued.renews))


def pointed_at(body: Body, fields: dict[str, State | None]) -> tuple[str, ...]:  # noqa: PLR0911 - as above
    """Fields that the event will need, as far as those already read tell.

    A guess that saves a round trip: a field left out here is asked for by the judgement itself.
    """
    match body:
        case ClaimRequested():
            return _treatment_of(fields.get(prescription_field(body.prescription)))
        case MedicationDispensed():
            found = fields.get(prescription_field(body.prescription))
            return (
                _treatment_of(found) if found is not None else (waiting_field(prescription_field(body.prescription)),)
            )
        case DispatchRequested():
            found = fields.get(prescription_field(body.prescription))
            dosed = (dosed_field(found.treatment),) if isinstance(found, PrescriptionState) else ()
            return *_treatment_of(found), *dosed
        case PrescriptionIssued(treatment=treatment) | TreatmentDiscontinued(treatment=treatment):
            known = fields.get(treatment_field(treatment))
            open_ones = known.open if isinstance(known, TreatmentState) else ()
            return tuple(prescription_field(each.prescription) for each in open_ones)
        case DispenseReversed():
            pointer = fields.get(hand_out_field(body.dispense))
            if isinstance(pointer, HandOutPointer):
                return (prescription_field(pointer.prescription),)
            return (waiting_field(hand_out_field(body.dispense)),)
        case ClaimAborted() | ClaimReleased():
            claimed = fields.get(claim_field(body.claim))
            return (prescription_field(claimed),) if isinstance(claimed, str) else ()
        case _:
            return ()


def _treatment_of(found: State | None) -> tuple[str, ...]:
    return (treatment_field(found.treatment),) if isinstance(found, PrescriptionState) else ()
