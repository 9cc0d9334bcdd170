"""What an event is about, as it is now: the prescription, the treatment, or the part of the list that it concerns."""

import base64
from collections.abc import Collection
from typing import Any, assert_never, cast

from schemas.codec import decode
from schemas.events import (
    AllergyRecorded,
    AllergyRefuted,
    Body,
    ClaimAborted,
    ClaimReleased,
    ClaimRequested,
    DeathRetracted,
    DispatchRequested,
    DispatchWithdrawn,
    DispenseReversed,
    Event,
    ListReconciled,
    MedicationDispensed,
    MultidoseAssigned,
    MultidoseEnded,
    ParkedRecordClosed,
    PatientDied,
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
from schemas.medication_list import RegisteredDeath, ShownClaim, ShownRenewalRequest
from services.medication_list.fold.state import (
    HandOutPointer,
    RenewalState,
    hand_out_field,
    request_field,
    signed_field,
)
from services.medication_list.read_api.view import (
    Fields,
    show,
    show_allergies,
    show_dosing,
    show_prescription,
    show_treatment,
)


class SealedClaim(ShownClaim, frozen=True, omit_defaults=True):
    """What the pharmacy service is given with a claim. `identity`: who the patient is, still sealed, in base64."""

    identity: str | None = None


def resource_of(  # noqa: C901, PLR0911 - one line a kind of resource, no default branch
    fields: Fields,
    body: Body,
    flags: tuple[str, ...],
    at_ms: int,
    *,
    claimed: str | None = None,
    flagged: Collection[str] = (),
) -> Any:
    """What an event with this body is about; None where the list knows nothing of it (yet).

    flags: the event's own. claimed: the prescription of the claim that a ClaimAborted or ClaimReleased names.
    flagged: prescriptions whose number came under another patient later.
    """
    match body:
        case ClaimRequested(prescription=prescription):
            return _claim_answer(fields, prescription, flags, at_ms, flagged)
        case (
            PrescriptionIssued(prescription=prescription)
            | PrescriptionRecalled(prescription=prescription)
            | DispatchRequested(prescription=prescription)
            | DispatchWithdrawn(prescription=prescription)
            | MedicationDispensed(prescription=prescription)
        ):
            return show_prescription(fields, prescription, at_ms, flagged)
        case ClaimAborted() | ClaimReleased():
            return None if claimed is None else show_prescription(fields, claimed, at_ms, flagged)
        case DispenseReversed(dispense=dispense):
            pointer = cast("HandOutPointer | None", fields.get(hand_out_field(dispense)))
            return None if pointer is None else show_prescription(fields, pointer.prescription, at_ms, flagged)
        case (
            TreatmentRecorded(treatment=treatment)
            | TreatmentChanged(treatment=treatment)
            | TreatmentPaused(treatment=treatment)
            | TreatmentResumed(treatment=treatment)
            | TreatmentDiscontinued(treatment=treatment)
            | TreatmentReinstated(treatment=treatment)
            | TreatmentWithdrawn(treatment=treatment)
            | UseReported(treatment=treatment)
        ):
            return show_treatment(fields, treatment, at_ms)
        case RenewalRequested(request=request) | RenewalDeclined(request=request):
            return _renewal_request(fields, request)
        case ListReconciled():
            return show(fields, at_ms).reconciled
        case AllergyRecorded() | AllergyRefuted():
            return show_allergies(fields)
        case MultidoseAssigned() | MultidoseEnded():
            return show(fields, at_ms).multidose
        case ParkedRecordClosed():
            return None
        case PatientDied() | DeathRetracted():
            return RegisteredDeath(show(fields, at_ms).deceased_on)
        case _ as never:
            assert_never(never)


def _claim_answer(
    fields: Fields, prescription_id: str, flags: tuple[str, ...], at_ms: int, flagged: Collection[str]
) -> SealedClaim | None:
    prescription = show_prescription(fields, prescription_id, at_ms, flagged)
    dosing = show_dosing(fields, prescription_id)
    if prescription is None or dosing is None:
        return None
    known = show_allergies(fields)
    signed = cast("Event[PrescriptionIssued]", decode(cast("bytes", fields[signed_field(prescription_id)])))
    sealed = signed.body.identity
    return SealedClaim(
        prescription=prescription,
        dosing_in_force=dosing,
        allergy_status=known.allergy_status,
        allergies=known.allergies,
        flags=flags,
        identity=None if sealed is None else base64.b64encode(sealed).decode("ascii"),
    )


def _renewal_request(fields: Fields, request: str) -> ShownRenewalRequest | None:
    state = fields.get(request_field(request))
    if not isinstance(state, RenewalState):
        return None
    return ShownRenewalRequest(request, state.prescription, state.to, state.asked_by, state.declined)
