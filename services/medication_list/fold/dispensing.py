"""At the pharmacy: claims, hand-outs, and what is taken back."""

from decimal import Decimal

from msgspec.structs import replace

from schemas.events import (
    Body,
    ClaimAborted,
    ClaimReleased,
    ClaimRequested,
    DispenseReversed,
    Event,
    MedicationDispensed,
    Quantity,
)
from schemas.reasons import Flag, NoticeKind, Reason
from services.medication_list.fold.availability import flags_for_pharmacy, refusal_of_closed
from services.medication_list.fold.calendar import day_of, ended_ms
from services.medication_list.fold.dispatching import bind, standing_dispatch
from services.medication_list.fold.judgement import APPLIED, Draft, Verdict, applied, refused
from services.medication_list.fold.prescribing import wait
from services.medication_list.fold.standing import (
    NEVER,
    TOO_MUCH,
    Usage,
    amount_of,
    total_of,
    usage,
)
from services.medication_list.fold.state import (
    Claim,
    HandOut,
    HandOutPointer,
    Meta,
    PrescriptionState,
    Recall,
    TreatmentState,
    claim_field,
    hand_out_field,
    prescription_field,
)
from services.medication_list.fold.stopping import is_paused

# --- Claims ------------------------------------------------------------------------------------------------------


def claim_requested(draft: Draft, event: Event[ClaimRequested]) -> Verdict:
    """A pharmacy gets the prescription to itself, unless something stands in the way; judged by `received_at`."""
    body, pharmacy, now_ms = event.body, event.source.organisation, event.received_at_ms
    prescription = draft.prescription(body.prescription)
    if prescription is None:
        return refused(Reason.UNKNOWN)
    treatment, meta = draft.treatment_of(prescription), draft.meta()
    obstacle = _obstacle_to_claim(prescription, treatment, meta, pharmacy, now_ms)
    if obstacle is not None:
        return obstacle
    claim = Claim(body.claim, pharmacy, draft.place)
    draft.put(prescription_field(body.prescription), replace(prescription, claim=claim))
    draft.put(claim_field(body.claim), body.prescription)
    return applied(*flags_for_pharmacy(prescription, treatment, meta, pharmacy, now_ms))


def _obstacle_to_claim(  # noqa: PLR0911 - one line a reason, in the order of the rulings
    prescription: PrescriptionState, treatment: TreatmentState, meta: Meta, pharmacy: str, now_ms: int
) -> Verdict | None:
    """The first that fits, in the order of the rulings."""
    if meta.death is not None:
        return refused(Reason.DECEASED)
    if prescription.claim is not None:
        if prescription.claim.pharmacy == pharmacy:
            return refused(Reason.ALREADY_HELD, ("holder", pharmacy))
        return refused(Reason.HELD, ("holder", prescription.claim.pharmacy))
    closed = refusal_of_closed(prescription, treatment, meta, now_ms)
    if closed is not None:
        return refused(closed)
    dispatch = standing_dispatch(prescription, now_ms)
    if dispatch is not None and dispatch.bound and dispatch.pharmacy != pharmacy:
        return refused(Reason.DISPATCHED_TO, ("pharmacy", dispatch.pharmacy))
    if prescription.earliest_ms > now_ms:
        return refused(Reason.TOO_EARLY, ("earliest_dispense", day_of(prescription.earliest_ms).isoformat()))
    return None


def claim_aborted(draft: Draft, event: Event[ClaimAborted]) -> Verdict:
    """The holder gives back the claim that it names."""
    held = _held_by(draft, event.body.claim)
    if held is None:
        return refused(Reason.NO_CLAIM)
    prescription_id, prescription, claim = held
    if claim.pharmacy != event.source.organisation:
        return refused(Reason.NOT_HOLDER)
    _put_unclaimed(draft, event, prescription_id, prescription)
    return APPLIED


def claim_released(draft: Draft, event: Event[ClaimReleased]) -> Verdict:
    """An operator frees a claim that its pharmacy cannot give back; the former holder is told."""
    if event.source.role != "operator":
        return refused(Reason.NOT_PERMITTED)
    held = _held_by(draft, event.body.claim)
    if held is None:
        return refused(Reason.NO_CLAIM)
    prescription_id, prescription, claim = held
    draft.notify(
        NoticeKind.CLAIM_RELEASED,
        claim.pharmacy,
        event,
        prescription=prescription_id,
        subject=claim.claim,
        reason=event.body.reason,
        by=event.source.organisation,
    )
    _put_unclaimed(draft, event, prescription_id, prescription)
    return APPLIED


def _held_by(draft: Draft, claim: str) -> tuple[str, PrescriptionState, Claim] | None:
    """The prescription that this very claim holds now."""
    prescription_id = draft.get(claim_field(claim))
    if not isinstance(prescription_id, str):
        return None
    prescription = draft.prescription(prescription_id)
    assert prescription is not None, "a claim leads to a known prescription"
    assert prescription.claim is not None, "a claim is forgotten when it ends"
    return prescription_id, prescription, prescription.claim


def _put_unclaimed(draft: Draft, event: Event[Body], prescription_id: str, prescription: PrescriptionState) -> None:
    """The present claim ends; a dispatch that waited for that binds now."""
    if prescription.claim is not None:
        draft.put(claim_field(prescription.claim.claim), None)
    prescription = replace(prescription, claim=None)
    dispatch = standing_dispatch(prescription, event.received_at_ms)
    if dispatch is not None and not dispatch.bound:
        treatment, meta = draft.treatment_of(prescription), draft.meta()
        if refusal_of_closed(prescription, treatment, meta, event.received_at_ms) is None:
            flags = flags_for_pharmacy(prescription, treatment, meta, dispatch.pharmacy, event.received_at_ms)
            prescription = bind(draft, event, prescription_id, prescription, dispatch, flags)
    draft.put(prescription_field(prescription_id), prescription)


# --- Hand-outs ---------------------------------------------------------------------------------------------------


def medication_dispensed(draft: Draft, event: Event[MedicationDispensed]) -> Verdict:
    """A hand-out is a fact: it counts, is flagged where it is irregular, and ends its holder's claim."""
    report, pharmacy = event.body, event.source.organisation
    draft.put(hand_out_field(report.dispense), _pointer(event))
    prescription = draft.prescription(report.prescription)
    if prescription is None:
        verdict = wait(draft, report.prescription, event, Flag.PRESCRIPTION_UNKNOWN)
        return replace(verdict, flags=(Flag.DISPENSED_WITHOUT_CLAIM, *verdict.flags))
    treatment, meta = draft.treatment_of(prescription), draft.meta()
    claim = prescription.claim
    is_holder = claim is not None and claim.pharmacy == pharmacy
    amount = amount_of(report, prescription)
    before = usage(prescription)
    flags = [] if is_holder else [Flag.DISPENSED_WITHOUT_CLAIM]
    flags += _flags_about_the_world(prescription, treatment, meta, event)
    flags += _flags_about_quantity(prescription, before, amount)
    verdict = applied(*flags)
    hand_out = HandOut(
        dispense=report.dispense,
        pharmacy=pharmacy,
        occurred_at_ms=event.occurred_at_ms,
        place=claim.place if is_holder and claim is not None else draft.place,
        amount=amount,
        period_completed=report.period_completed,
        completed=report.completed,
        flags=tuple(flag.code for flag in verdict.flags),
    )
    _notify_issuer(draft, event, NoticeKind.DISPENSED, report.prescription, prescription, report.dispense, verdict)
    prescription = replace(prescription, hand_outs=(*prescription.hand_outs, hand_out))
    prescription = _with_dispatch_used(prescription, pharmacy, event.received_at_ms)
    if claim is not None and not is_holder and _closes(before, usage(prescription)):
        about = {"prescription": report.prescription, "subject": claim.claim, "by": pharmacy}
        draft.notify(NoticeKind.CLAIM_ENDED, claim.pharmacy, event, **about)
        is_holder = True
    if is_holder:
        _put_unclaimed(draft, event, report.prescription, prescription)
    else:
        draft.put(prescription_field(report.prescription), prescription)
    return verdict


def _pointer(event: Event[MedicationDispensed]) -> HandOutPointer:
    quantities: dict[str, Decimal] = {}
    for line in event.body.lines:
        unit, value = _counted(line.quantity, line.content)
        quantities[unit] = quantities.get(unit, Decimal(0)) + value
    return HandOutPointer(event.body.prescription, event.source.organisation, tuple(quantities.items()))


def _counted(quantity: Quantity, content: Quantity | None) -> tuple[str, Decimal]:
    """An amount in the unit of what the packages hold, where that is stated."""
    if quantity.unit == "package" and content is not None:
        return content.unit, quantity.value * content.value
    return quantity.unit, quantity.value


def _flags_about_the_world(
    prescription: PrescriptionState, treatment: TreatmentState, meta: Meta, event: Event[MedicationDispensed]
) -> list[Flag]:
    """What had happened in the world before the hand-out did: these compare `occurred_at`; effects follow the log."""
    at_ms = event.occurred_at_ms
    flags: list[Flag] = []
    flags.extend(
        _flag_after(recall)
        for recall in prescription.recalls
        if max(recall.at_ms, recall.from_ms) < at_ms and recall.from_ms <= event.received_at_ms
    )
    if at_ms >= prescription.valid_until_ms:
        flags.append(Flag.DISPENSED_AFTER_EXPIRY)
    if _was_completed_before(prescription, at_ms):
        flags.append(Flag.DISPENSED_AFTER_COMPLETION)
    if meta.death is not None and at_ms >= ended_ms(meta.death.on):
        flags.append(Flag.DISPENSED_AFTER_DEATH)
    if is_paused(treatment, at_ms):
        flags.append(Flag.TREATMENT_PAUSED)
    is_reserved = prescription.substitution_reserved or treatment.substitution_reserved
    if is_reserved and any(line.substituted for line in event.body.lines):
        flags.append(Flag.SUBSTITUTION_RESERVED)
    return flags


def _flag_after(recall: Recall) -> Flag:
    return Flag.DISPENSED_AFTER_WITHDRAWAL if recall.reason == "withdrawn" else Flag.DISPENSED_AFTER_RECALL


def _was_completed_before(prescription: PrescriptionState, at_ms: int) -> bool:
    """Whether the hand-outs that had happened by then had completed it."""
    if not prescription.hand_outs:
        return False
    earlier = tuple(hand_out for hand_out in prescription.hand_outs if hand_out.occurred_at_ms < at_ms)
    return usage(replace(prescription, hand_outs=earlier)).completed_at < NEVER


def _flags_about_quantity(prescription: PrescriptionState, before: Usage, amount: Decimal | None) -> list[Flag]:
    if amount is None:
        return []
    flags = []
    if before.amount + amount > total_of(prescription) * TOO_MUCH:
        flags.append(Flag.OVER_QUANTITY)
    periods_left = prescription.refills + 1 - before.periods
    if amount > prescription.amount * TOO_MUCH and periods_left > 1:
        flags.append(Flag.AHEAD_OF_PERIOD)
    return flags


def _closes(before: Usage, after: Usage) -> bool:
    return before.completed_at == NEVER and after.completed_at < NEVER


def _with_dispatch_used(prescription: PrescriptionState, pharmacy: str, now_ms: int) -> PrescriptionState:
    """A dispatch ties the next dispense, unless it says every one."""
    dispatch = standing_dispatch(prescription, now_ms)
    if dispatch is None or not dispatch.bound or dispatch.every or dispatch.pharmacy != pharmacy:
        return prescription
    return replace(prescription, dispatch=None)


def _notify_issuer(
    draft: Draft,
    event: Event[MedicationDispensed] | Event[DispenseReversed],
    kind: NoticeKind,
    prescription_id: str,
    prescription: PrescriptionState,
    subject: str,
    verdict: Verdict,
) -> None:
    """The prescriber is told of every real dispense, and of each that is taken back."""
    draft.notify(
        kind,
        prescription.issuer.organisation,
        event,
        prescription=prescription_id,
        subject=subject,
        flags=verdict.flags,
        by=event.source.organisation,
    )


# --- Taken back --------------------------------------------------------------------------------------------------


def dispense_reversed(draft: Draft, event: Event[DispenseReversed]) -> Verdict:
    """The pharmacy that handed out takes the hand-out back, whole; or goods came back, which gives nothing back."""
    body = event.body
    pointer = draft.hand_out(body.dispense)
    if pointer is None:
        return wait(draft, body.dispense, event, Flag.DISPENSE_UNKNOWN)
    if pointer.pharmacy != event.source.organisation:
        return refused(Reason.NOT_DISPENSER)
    prescription = draft.prescription(pointer.prescription)
    if prescription is None:
        return wait(draft, pointer.prescription, event, Flag.PRESCRIPTION_UNKNOWN)
    if body.quantity is not None:
        return _goods_returned(draft, event, pointer, prescription, body.quantity)
    if any(each.dispense == body.dispense and each.reversed for each in prescription.hand_outs):
        return applied(Flag.ALREADY_REVERSED)
    hand_outs = tuple(
        replace(each, reversed=True) if each.dispense == body.dispense else each for each in prescription.hand_outs
    )
    draft.put(prescription_field(pointer.prescription), replace(prescription, hand_outs=hand_outs))
    _notify_issuer(draft, event, NoticeKind.REVERSED, pointer.prescription, prescription, body.dispense, APPLIED)
    return APPLIED


def _goods_returned(
    draft: Draft,
    event: Event[DispenseReversed],
    pointer: HandOutPointer,
    prescription: PrescriptionState,
    quantity: Quantity,
) -> Verdict:
    """Returned goods are shown, and add up to at most what was handed out."""
    handed, returned = dict(pointer.quantities), dict(pointer.returned)
    unit, value = quantity.unit, quantity.value
    if unit == "package" and unit not in handed and prescription.package_content is not None:
        unit, value = prescription.unit, value * prescription.package_content
    returned[unit] = returned.get(unit, Decimal(0)) + value
    if returned[unit] > handed.get(unit, Decimal(0)):
        return refused(Reason.OVER_RETURNED)
    draft.put(hand_out_field(event.body.dispense), replace(pointer, returned=tuple(returned.items())))
    is_reversed = any(each.dispense == event.body.dispense and each.reversed for each in prescription.hand_outs)
    verdict = applied(Flag.ALREADY_REVERSED) if is_reversed else APPLIED
    _notify_issuer(draft, event, NoticeKind.REVERSED, pointer.prescription, prescription, event.body.dispense, verdict)
    return verdict
