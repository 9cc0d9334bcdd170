"""Judges one event of one patient: the entry function of the fold is `evolve`, and every event type stands in `judge`."""

from typing import Any, assert_never, cast

from msgspec import Struct
from msgspec.structs import replace

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
from schemas.reasons import Flag, Reason
from services.medication_list.fold import dispatching, dispensing, patient, prescribing, treating
from services.medication_list.fold.judgement import Draft, Effect, Verdict, refused
from services.medication_list.fold.remembering import event_key, natural_key, parked_key, remembered
from services.medication_list.fold.state import (
    META,
    Conflict,
    HandOutPointer,
    Meta,
    ParkedPlace,
    Remembered,
    State,
    allergy_awaited,
    dosed_field,
    hand_out_field,
    handed_field,
    prescription_field,
    recorded_field,
    refused_report_field,
    signed_field,
    treatment_field,
    waiting_field,
)

Memory = Remembered | bytes
"""What is remembered of an event, or the digest of what made a natural id known."""


class Patient(Struct, gc=False):
    """A patient as far as read from the store. fields: None where nothing is stored; complete: every field is here."""

    fields: dict[str, State | None]
    memory: dict[bytes, Memory | None]
    complete: bool = False


class LogEntry(Struct, frozen=True, gc=False):
    """One event as it is in the log. digest: of its content, NFC; raw: the record's bytes.

    own_key, natural_key: where it, and what it makes known, are remembered (`remembering.py`).
    """

    event: Event[Body]
    offset: int
    digest: bytes
    raw: bytes
    own_key: bytes
    natural_key: bytes | None


def entry_of(event: Event[Body], offset: int, digest: bytes, raw: bytes) -> LogEntry:
    """An event with the keys under which it is remembered."""
    return LogEntry(event, offset, digest, raw, event_key(event.event_id), natural_key(event))


class Judgement(Struct, frozen=True, gc=False):
    """What one event changes: fields (None removes), memory, effects. `first`: a duplicate's first outcome."""

    verdict: Verdict
    puts: dict[str, State | None]
    remember: dict[bytes, Memory]
    effects: tuple[Effect, ...] = ()
    first: Remembered | None = None


def evolve(before: Patient, entry: LogEntry) -> Judgement:
    """What this event means to this patient. Pure: the same arguments give the same judgement, and nothing is changed.

    Raises NotLoadedError when it needs a field that was not read.
    """
    event = entry.event
    draft = Draft(before.fields, entry.offset, entry.offset, event.received_at_ms, entry.digest, before.complete)
    own_key, natural = entry.own_key, entry.natural_key
    known = before.memory[own_key]
    if known is not None:
        return _seen_before(draft, event, cast("Remembered", known))
    known_digest = before.memory[natural] if natural is not None else None
    if known_digest is not None and known_digest != entry.digest:
        verdict = refused(Reason.CONFLICTING_DUPLICATE)
        _show_conflict(draft, event)
    elif known_digest is not None:
        verdict = Verdict("duplicate")
    else:
        verdict = _take(draft, event, entry.raw)
    remember: dict[bytes, Memory] = {own_key: remembered(verdict, entry.offset, entry.digest)}
    if natural is not None and known_digest is None:
        remember[natural] = entry.digest
    for each in draft.rejudged:
        key = event_key(each.fact.event.event_id)
        remember[key] = remembered(each.verdict, each.fact.offset, each.fact.digest)
    _close_draft(draft)
    return Judgement(verdict, draft.puts, remember, tuple(draft.effects))


def park(meta: Meta | None, offset: int, at_ms: int, reason_code: int) -> Judgement:
    """A record of this patient that cannot be read: the list says that it is incomplete, and since when."""
    meta = meta or Meta()
    parked = (*meta.parked, ParkedPlace(offset, at_ms, reason_code))
    since_ms = meta.incomplete_since_ms or at_ms
    version = meta.version if meta.incomplete_since_ms else offset
    puts: dict[str, State | None] = {
        META: replace(meta, incomplete_since_ms=since_ms, version=version, position=offset + 1, parked=parked)
    }
    memory = Remembered(offset, b"", 3, reason_code)
    return Judgement(Verdict("parked"), puts, {parked_key(offset): memory})


def _seen_before(draft: Draft, event: Event[Body], known: Remembered) -> Judgement:
    """A known event id: the same content is a duplicate, whatever its first outcome was; other content is refused."""
    if known.digest == draft.digest:
        verdict = Verdict("duplicate")
    else:
        verdict = refused(Reason.CONFLICTING_DUPLICATE)
        _show_conflict(draft, event)
    _close_draft(draft)
    return Judgement(verdict, draft.puts, {}, (), known)


def _show_conflict(draft: Draft, event: Event[Body]) -> None:
    """A hand-out reported again with other content: refused, but the treatment of its first report shows it, once."""
    if not isinstance(event.body, MedicationDispensed):
        return
    report, pharmacy = event.body, event.source.organisation
    refused_field, field = refused_report_field(report.dispense), hand_out_field(report.dispense)
    refused_first = cast("HandOutPointer | None", draft.get(refused_field))
    pointer = draft.hand_out(report.dispense)
    known = [*(refused_first.conflicts if refused_first else ()), *(pointer.conflicts if pointer else ())]
    if any((each.pharmacy, each.at_ms) == (pharmacy, event.occurred_at_ms) for each in known):
        return
    first = refused_first or pointer or HandOutPointer(report.prescription, pharmacy, ())
    conflict = Conflict(pharmacy, event.occurred_at_ms, draft.offset)
    first = replace(first, conflicts=(*first.conflicts, conflict))
    if draft.prescription(first.prescription) is not None:
        first = replace(first, moved=draft.move_version())
    draft.put(refused_field if refused_first or not pointer else field, first)


def _close_draft(draft: Draft) -> None:
    """The patient's own position moves with every event; the version with what the list shows."""
    meta, position = draft.meta(), draft.offset + 1
    draft.put(META, replace(meta, position=position, version=draft.offset if draft.moved else meta.version))


def _take(draft: Draft, event: Event[Body], raw: bytes) -> Verdict:
    """Judges an event that was never seen, keeps its record where readers need it, and releases what waited for it."""
    verdict = judge(draft, event)
    if verdict.outcome != "applied":
        return verdict
    document = _document_field(draft, event)
    if document is not None:
        draft.put(document, raw)
    _release(draft, event.body)
    if isinstance(event.body, PrescriptionIssued):
        prescribing.tell_of_arriving_recalled(draft, cast("Event[PrescriptionIssued]", event))
    return verdict


def _document_field(draft: Draft, event: Event[Body]) -> str | None:
    """Where readers find the record; of changes of a dosing, they need the latest alone."""
    match event.body:
        case ClaimRequested():  # the commonest, which would be compared with all others first
            return None
        case PrescriptionIssued() as body:
            return signed_field(body.prescription)
        case MedicationDispensed() as body:
            return handed_field(body.dispense)
        case TreatmentRecorded() as body:
            return recorded_field(body.treatment)
        case TreatmentChanged(dosing=dosing) as body if dosing is not None:
            treatment = draft.treatment(body.treatment)
            is_latest = treatment is not None and treatment.dosed_at_ms == event.occurred_at_ms
            return dosed_field(body.treatment) if is_latest else None
        case _:
            return None


def _release(draft: Draft, body: Body) -> None:
    """Judges anew, each in its own place, the facts that had waited for what has come."""
    for awaited in _made_known(body):
        waiting = draft.waiting(awaited)
        if not waiting.facts and not waiting.replacements:
            continue
        draft.put(waiting_field(awaited), None)
        own_place, own_digest = draft.place, draft.digest
        for fact in waiting.facts:
            draft.place, draft.digest = fact.offset, fact.digest
            verdict = judge(draft, fact.event)
            if verdict.outcome == "refused":
                draft.change_outcome(fact, verdict)
                _show_changed_outcome(draft, fact.event)
            _release(draft, fact.event.body)
        draft.place, draft.digest = own_place, own_digest


def _made_known(body: Body) -> tuple[str, ...]:
    """By its field, what facts may have waited for."""
    match body:
        case ClaimRequested():  # as above
            return ()
        case PrescriptionIssued():
            return treatment_field(body.treatment), prescription_field(body.prescription)
        case TreatmentRecorded():
            return (treatment_field(body.treatment),)
        case MedicationDispensed():
            return (hand_out_field(body.dispense),)
        case AllergyRecorded():
            return (allergy_awaited(body.allergy),)
        case _:
            return ()


def _show_changed_outcome(draft: Draft, event: Event[Body]) -> None:
    """What was answered stays recorded; the entry shows it."""
    if not isinstance(event.body, DispenseReversed):
        return
    pointer = draft.hand_out(event.body.dispense)
    assert pointer is not None, "a reversal waits for its hand-out alone"
    prescription = draft.prescription(pointer.prescription)
    draft.put(hand_out_field(event.body.dispense), replace(pointer, outcome_changed=True))
    if prescription is None:
        return
    flags = tuple(sorted({*prescription.flags, Flag.OUTCOME_CHANGED.code}))
    draft.put(prescription_field(pointer.prescription), replace(prescription, flags=flags))


def judge(draft: Draft, event: Event[Any]) -> Verdict:  # noqa: C901, PLR0911, PLR0912 - one line an event, no default branch
    """Every event type, and the function that knows its rule; the commonest come first."""
    body: Body = event.body
    match body:
        case ClaimRequested():
            return dispensing.claim_requested(draft, event)
        case MedicationDispensed():
            return dispensing.medication_dispensed(draft, event)
        case PrescriptionIssued():
            return prescribing.prescription_issued(draft, event)
        case PrescriptionRecalled():
            return prescribing.prescription_recalled(draft, event)
        case TreatmentRecorded():
            return treating.treatment_recorded(draft, event)
        case TreatmentChanged():
            return treating.treatment_changed(draft, event)
        case TreatmentPaused():
            return treating.treatment_paused(draft, event)
        case TreatmentResumed():
            return treating.treatment_resumed(draft, event)
        case TreatmentDiscontinued():
            return treating.treatment_discontinued(draft, event)
        case TreatmentReinstated():
            return treating.treatment_reinstated(draft, event)
        case TreatmentWithdrawn():
            return treating.treatment_withdrawn(draft, event)
        case UseReported():
            return treating.use_reported(draft, event)
        case ListReconciled():
            return patient.list_reconciled(draft, event)
        case AllergyRecorded():
            return patient.allergy_recorded(draft, event)
        case AllergyRefuted():
            return patient.allergy_refuted(draft, event)
        case MultidoseAssigned():
            return patient.multidose_assigned(draft, event)
        case MultidoseEnded():
            return patient.multidose_ended(draft, event)
        case PatientDied():
            return patient.patient_died(draft, event)
        case DeathRetracted():
            return patient.death_retracted(draft, event)
        case ClaimAborted():
            return dispensing.claim_aborted(draft, event)
        case ClaimReleased():
            return dispensing.claim_released(draft, event)
        case DispenseReversed():
            return dispensing.dispense_reversed(draft, event)
        case DispatchRequested():
            return dispatching.dispatch_requested(draft, event)
        case DispatchWithdrawn():
            return dispatching.dispatch_withdrawn(draft, event)
        case RenewalRequested():
            return patient.renewal_requested(draft, event)
        case RenewalDeclined():
            return patient.renewal_declined(draft, event)
        case ParkedRecordClosed():
            return patient.parked_record_closed(draft, event)
        case _ as never:
            assert_never(never)
