"""What concerns the patient as a whole: allergies, multi-dose, reconciliation, death, requests for renewal."""

from msgspec.structs import replace

from schemas.events import (
    AllergyRecorded,
    AllergyRefuted,
    DeathRetracted,
    Event,
    ListReconciled,
    MultidoseAssigned,
    MultidoseEnded,
    ParkedRecordClosed,
    PatientDied,
    RenewalDeclined,
    RenewalRequested,
)
from schemas.reasons import Flag, NoticeKind, Reason
from services.medication_list.fold.dispatching import with_order_after_death
from services.medication_list.fold.judgement import APPLIED, Draft, Verdict, applied, refused
from services.medication_list.fold.policy import READ_TOKEN_LIVES_MS
from services.medication_list.fold.prescribing import by, tell_of_recall, wait
from services.medication_list.fold.standing import first_recall, status
from services.medication_list.fold.state import (
    ALLERGIES,
    BEFORE_ANY_EVENT,
    META,
    Allergies,
    AllergyState,
    Death,
    HandOutPointer,
    Meta,
    Multidose,
    PrescriptionState,
    Reconciliation,
    RenewalState,
    Superseded,
    TreatmentState,
    Waiting,
    allergy_awaited,
    prescription_field,
    request_field,
)

# --- Allergies ---------------------------------------------------------------------------------------------------


def allergy_recorded(draft: Draft, event: Event[AllergyRecorded]) -> Verdict:
    """A new allergy replaces none_known; none_known while allergies stand is refused."""
    allergies = draft.allergies()
    standing = [entry for entry in allergies.entries if not entry.refuted and not entry.recorded.none_known]
    if event.body.none_known and standing:
        return refused(Reason.ALLERGIES_RECORDED)
    kept = tuple(entry for entry in allergies.entries if not entry.recorded.none_known)
    replaced = tuple(
        Superseded(entry.recorded.allergy, entry.refuted) for entry in allergies.entries if entry.recorded.none_known
    )
    entry = AllergyState(event.body, by(event.source), event.occurred_at_ms, moved=draft.move_version())
    draft.put(ALLERGIES, Allergies((*kept, entry), (*allergies.superseded, *replaced)))
    return APPLIED


def allergy_refuted(draft: Draft, event: Event[AllergyRefuted]) -> Verdict:
    """The allergy is no warning any more; both steps stay in the history."""
    allergies = draft.allergies()
    known = next((entry for entry in allergies.entries if entry.recorded.allergy == event.body.allergy), None)
    if known is None:
        return _superseded_refuted(draft, event, allergies)
    if known.refuted:
        return applied(Flag.ALREADY_REFUTED)
    entry = replace(known, refuted=True, moved=draft.move_version())
    entries = tuple(entry if each is known else each for each in allergies.entries)
    draft.put(ALLERGIES, replace(allergies, entries=entries))
    return APPLIED


def _superseded_refuted(draft: Draft, event: Event[AllergyRefuted], allergies: Allergies) -> Verdict:
    """A none_known that a later record replaced is known, though nothing of it is shown any more."""
    refuted = Superseded(event.body.allergy, refuted=True)
    if refuted in allergies.superseded:
        return applied(Flag.ALREADY_REFUTED)
    if replace(refuted, refuted=False) not in allergies.superseded:
        return wait(draft, allergy_awaited(event.body.allergy), event, Flag.ALLERGY_UNKNOWN)
    superseded = tuple(refuted if each.allergy == refuted.allergy else each for each in allergies.superseded)
    draft.put(ALLERGIES, replace(allergies, superseded=superseded))
    return APPLIED


# --- Multi-dose --------------------------------------------------------------------------------------------------


def multidose_assigned(draft: Draft, event: Event[MultidoseAssigned]) -> Verdict:
    """By a doctor, with one pharmacy; another doctor may take over, another pharmacy may not."""
    body, meta = event.body, draft.meta()
    present = meta.multidose
    if present is not None and _is_same_assignment(present, event):
        return Verdict("duplicate")
    if event.source.role != "doctor":
        return refused(Reason.NOT_PERMITTED)
    if present is not None:
        if present.pharmacy not in (None, body.pharmacy):
            return refused(Reason.MULTIDOSE_ELSEWHERE, ("pharmacy", str(present.pharmacy)))
        if present.doctor != body.doctor:
            draft.notify(NoticeKind.MULTIDOSE_TAKEN_OVER, present.organisation, event, by=event.source.organisation)
    multidose = Multidose(
        body.doctor,
        event.source.organisation,
        body.pharmacy,
        body.start,
        body.packing_days,
        body.next_pack,
        draft.move_version(),
    )
    draft.put(META, replace(meta, multidose=multidose))
    return APPLIED


def _is_same_assignment(present: Multidose, event: Event[MultidoseAssigned]) -> bool:
    """Content is what it says and who sent it, as everywhere."""
    body = event.body
    assigned = (body.doctor, event.source.organisation, body.pharmacy, body.start, body.packing_days, body.next_pack)
    return assigned == (
        present.doctor,
        present.organisation,
        present.pharmacy,
        present.start,
        present.packing_days,
        present.next_pack,
    )


def multidose_ended(draft: Draft, event: Event[MultidoseEnded]) -> Verdict:
    """The registered doctor ends it; the pharmacy ends its own part, and the doctor is told."""
    meta = draft.meta()
    present = meta.multidose
    if present is None:
        return refused(Reason.NOT_RESPONSIBLE)
    if event.source.person == present.doctor:
        draft.put(META, replace(meta, multidose=None, moved_otherwise=draft.move_version()))
        return APPLIED
    if event.source.organisation != present.pharmacy:
        return refused(Reason.NOT_RESPONSIBLE)
    draft.notify(
        NoticeKind.MULTIDOSE_PART_ENDED,
        present.organisation,
        event,
        reason=event.body.reason,
        by=event.source.organisation,
    )
    draft.put(META, replace(meta, multidose=replace(present, pharmacy=None, moved=draft.move_version())))
    return APPLIED


# --- Reconciliation ----------------------------------------------------------------------------------------------


def list_reconciled(draft: Draft, event: Event[ListReconciled]) -> Verdict:
    """A doctor confirms the version that was read; refused when the list moved on, naming what moved.

    Who read a list with something missing confirms a version that no list has: its token says so.
    """
    body, meta = event.body, draft.meta()
    if event.received_at_ms - body.read_at_ms > READ_TOKEN_LIVES_MS:
        return refused(Reason.TOKEN_EXPIRED)
    if event.source.role != "doctor":
        return refused(Reason.NOT_PERMITTED)
    if meta.incomplete_since_ms:
        return refused(Reason.LIST_INCOMPLETE)
    if body.version != meta.version:
        moved = ",".join(_moved_since(draft, body.version))
        return refused(Reason.STALE, ("moved", moved) if moved else None)
    reconciled = Reconciliation(event.occurred_at_ms, by(event.source), body.version)
    draft.put(META, replace(meta, reconciled=reconciled))
    return APPLIED


def parked_record_closed(draft: Draft, event: Event[ParkedRecordClosed]) -> Verdict:
    """An operator's word that a record will never be judged: the list waits for it no longer."""
    meta, closed = draft.meta(), event.body.offset
    if event.source.role != "operator":
        return refused(Reason.NOT_PERMITTED)
    left = tuple(each for each in meta.parked if each.place != closed)
    if left == meta.parked:
        return refused(Reason.UNKNOWN)
    since_ms = min((each.at_ms for each in left), default=0)
    moved = meta.moved_otherwise if since_ms == meta.incomplete_since_ms else draft.move_version()
    draft.put(META, replace(meta, parked=left, incomplete_since_ms=since_ms, moved_otherwise=moved))
    return APPLIED


def _moved_since(draft: Draft, version: int) -> list[str]:
    """Ids of prescriptions that moved, of treatments that moved otherwise than by a new prescription, and words for the rest.

    By the version of no list, which is given to who read one with something missing: all that ever moved.
    """
    version = max(version, BEFORE_ANY_EVENT)
    prescriptions: list[str] = []
    treatments: dict[str, int] = {}
    signed: set[tuple[str, int]] = set()
    rest: list[str] = []
    for field, value in sorted(draft.everything().items()):
        match value:
            case PrescriptionState() if value.moved > version:
                prescriptions.append(field.removeprefix("rx:"))
                signed.add((value.treatment, value.place))
            case TreatmentState() if value.moved > version:
                treatments[field.removeprefix("t:")] = value.moved
            case Allergies() if any(entry.moved > version for entry in value.entries):
                rest.append("allergies")
            case Waiting() if any(fact.offset > version for fact in value.facts):
                rest.append(field.rpartition(":")[2])
            case HandOutPointer() if value.moved > version:
                rest.append(field.split(":")[1])
            case Meta():
                rest += _moved_of_patient(value, version)
            case _:
                pass  # claims and requests never move the list by themselves; documents move with their field
    moved_otherwise = [treatment for treatment, moved in treatments.items() if (treatment, moved) not in signed]
    return list(dict.fromkeys([*prescriptions, *moved_otherwise, *rest]))


def _moved_of_patient(meta: Meta, version: int) -> list[str]:
    names = []
    if meta.death is not None and meta.death.place > version:
        names.append("death")
    if meta.multidose is not None and meta.multidose.moved > version:
        names.append("multidose")
    if meta.moved_otherwise > version:
        names.append("patient")
    return names


# --- Death -------------------------------------------------------------------------------------------------------


def patient_died(draft: Draft, event: Event[PatientDied]) -> Verdict:
    """Recalls whatever is dispensable, now and until the death is retracted."""
    meta = draft.meta()
    if meta.death is not None:
        return applied(Flag.ALREADY_DECEASED)
    for prescription_id, prescription in _prescriptions(draft):
        if status(prescription, None, event.received_at_ms) in "EU" and not _is_recalled(prescription, event):
            tell_of_recall(draft, event, prescription_id, prescription, "death")
    draft.move_version()
    death = Death(event.body.on, draft.place, event.occurred_at_ms, by(event.source))
    draft.put(META, replace(meta, death=death))
    return APPLIED


def _is_recalled(prescription: PrescriptionState, event: Event[PatientDied]) -> bool:
    return any(recall.from_ms <= event.received_at_ms for recall in prescription.recalls)


def death_retracted(draft: Draft, event: Event[DeathRetracted]) -> Verdict:
    """Takes back the recalls by death, and tells the issuers of what can be dispensed again."""
    meta, now_ms = draft.meta(), event.received_at_ms
    if meta.death is None:
        return refused(Reason.NOT_DECEASED)
    for prescription_id, prescription in _prescriptions(draft):
        by_death = first_recall(prescription, meta.death, now_ms) == meta.death.place
        if by_death and status(prescription, meta.death, now_ms) in "TU":
            draft.notify(
                NoticeKind.DEATH_RETRACTED,
                prescription.issuer.organisation,
                event,
                prescription=prescription_id,
                reason=event.body.reason,
                by=event.source.organisation,
            )
    draft.put(META, replace(meta, death=None, moved_otherwise=draft.move_version()))
    for prescription_id, prescription in _prescriptions(draft):
        bound = with_order_after_death(draft, event, prescription_id, prescription)
        if bound is not prescription:
            draft.put(prescription_field(prescription_id), bound)
    return APPLIED


def _prescriptions(draft: Draft) -> list[tuple[str, PrescriptionState]]:
    return [
        (field.removeprefix("rx:"), value)
        for field, value in sorted(draft.everything().items())
        if isinstance(value, PrescriptionState)
    ]


# --- Requests for renewal ----------------------------------------------------------------------------------------


def renewal_requested(draft: Draft, event: Event[RenewalRequested]) -> Verdict:
    """Asks a prescriber's organisation; the list does not show it."""
    body = event.body
    if draft.prescription(body.prescription) is None:
        return refused(Reason.UNKNOWN)
    request = RenewalState(body.prescription, body.to, event.source.organisation)
    draft.put(request_field(body.request), request)
    draft.notify(
        NoticeKind.RENEWAL_REQUESTED,
        body.to,
        event,
        prescription=body.prescription,
        subject=body.request,
        by=event.source.organisation,
    )
    return APPLIED


def renewal_declined(draft: Draft, event: Event[RenewalDeclined]) -> Verdict:
    """The organisation asked declines; the one that asked is told."""
    request = draft.renewal_request(event.body.request)
    if request is None:
        return refused(Reason.UNKNOWN)
    if request.declined:
        return refused(Reason.NO_REQUEST)
    if request.to != event.source.organisation:
        return refused(Reason.NOT_PERMITTED)
    draft.put(request_field(event.body.request), replace(request, declined=True))
    draft.notify(
        NoticeKind.RENEWAL_DECLINED,
        request.asked_by,
        event,
        prescription=request.prescription,
        subject=event.body.request,
        reason=event.body.reason,
        by=event.source.organisation,
    )
    return APPLIED
