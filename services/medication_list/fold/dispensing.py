"""At the pharmacy: claims, hand-outs, and what is taken back."""

from collections.abc import Sequence
from decimal import Decimal
from typing import cast

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
from services.medication_list.fold.availability import (
    flags_for_pharmacy,
    is_substitution_reserved,
    refusal_of_closed,
)
from services.medication_list.fold.calendar import day_of, ended_ms
from services.medication_list.fold.dispatching import standing_dispatch, with_order_void, with_waiting_bound
from services.medication_list.fold.judgement import APPLIED, Draft, Verdict, applied, refused
from services.medication_list.fold.prescribing import keep_waiting, wait
from services.medication_list.fold.standing import (
    NOTHING,
    TOO_MUCH,
    Usage,
    amount_of,
    content_of,
    status,
    status_unheld,
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
    waiting_field,
)
from services.medication_list.fold.stopping import was_paused

# --- Claims ------------------------------------------------------------------------------------------------------


def claim_requested(draft: Draft, event: Event[ClaimRequested]) -> Verdict:
    """A pharmacy gets the prescription to itself, unless there is an obstacle; judged by `received_at`."""
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
    held = _held_by(draft, event.body.claim)
    if held is None:
        return refused(Reason.NO_CLAIM)
    if event.source.role != "operator":
        return refused(Reason.NOT_PERMITTED)
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
    prescription = with_waiting_bound(draft, event, prescription_id, replace(prescription, claim=None))
    draft.put(prescription_field(prescription_id), prescription)


# --- Hand-outs ---------------------------------------------------------------------------------------------------


def medication_dispensed(draft: Draft, event: Event[MedicationDispensed]) -> Verdict:
    """A hand-out is a fact: it counts, is flagged where it is irregular, and ends its holder's claim."""
    report, pharmacy = event.body, event.source.organisation
    prescription = draft.prescription(report.prescription)
    if prescription is None:
        return _hand_out_waits(draft, event)
    waited = draft.hand_out(report.dispense)
    if waited is None:
        draft.put(hand_out_field(report.dispense), _pointer(event, prescription))
    treatment, meta = draft.treatment_of(prescription), draft.meta()
    claim = prescription.claim
    is_holder = claim is not None and claim.pharmacy == pharmacy
    amount, is_comparable = amount_of(report, prescription)
    before = usage(prescription)
    flags = [] if is_holder else [Flag.DISPENSED_WITHOUT_CLAIM]
    flags += _flags_about_the_world(prescription, treatment, meta, event, draft.place)
    if _was_completed_before(before, event.occurred_at_ms):
        flags.append(Flag.DISPENSED_AFTER_COMPLETION)
    flags += _flags_about_quantity(prescription, before, amount)
    verdict = applied(*flags)
    hand_out = HandOut(
        dispense=report.dispense,
        pharmacy=pharmacy,
        occurred_at_ms=event.occurred_at_ms,
        place=claim.place if is_holder and claim is not None else draft.place,
        amount=amount,
        is_comparable=is_comparable,
        period_completed=report.period_completed,
        completed=report.completed,
        flags=tuple(flag.code for flag in verdict.flags),
        reversed=waited is not None and waited.reversed,
    )
    _notify_issuer(draft, event, NoticeKind.DISPENSED, report.prescription, prescription, report.dispense, verdict)
    if waited is not None:
        prescription = _with_what_became_of(draft, event, prescription, waited)
    as_it_was = prescription
    prescription = replace(prescription, hand_outs=(*prescription.hand_outs, hand_out))
    prescription = _with_dispatch_used(prescription, pharmacy, event.received_at_ms)
    completions = usage(prescription).completions
    is_completion = bool(completions) and any(each not in before.completions for each in completions)
    is_completion = is_completion and not _is_taken_back_already(draft, event)
    if is_completion:
        prescription = _closed_by_it(draft, event, as_it_was, prescription, meta)
    if is_holder or (claim is not None and is_completion):
        _put_unclaimed(draft, event, report.prescription, prescription)
    else:
        draft.put(prescription_field(report.prescription), prescription)
    return verdict


def _closed_by_it(
    draft: Draft, event: Event[MedicationDispensed], before: PrescriptionState, after: PrescriptionState, meta: Meta
) -> PrescriptionState:
    """It ends another pharmacy's claim, which is told, and voids another's order.

    Where it was recalled before, the pharmacy with the order was told then.
    """
    rx, pharmacy, now_ms = event.body.prescription, event.source.organisation, event.received_at_ms
    claim = before.claim
    if claim is not None and claim.pharmacy != pharmacy:
        about = {"prescription": rx, "subject": claim.claim, "by": pharmacy}
        draft.notify(NoticeKind.CLAIM_ENDED, claim.pharmacy, event, **about)
    if after.dispatch is None or status(before, meta.death, now_ms) not in "EU":
        return after
    if status_unheld(after, meta.death, now_ms) != "R":
        return after
    return with_order_void(draft, event, rx, after)


def _is_taken_back_already(draft: Draft, event: Event[MedicationDispensed]) -> bool:
    """Whether a reversal that came before the hand-out waits for it: then nothing is closed by it."""
    return any(
        isinstance(fact.event.body, DispenseReversed)
        and fact.event.body.quantity is None
        and fact.event.source.organisation == event.source.organisation
        for fact in draft.waiting(hand_out_field(event.body.dispense)).facts
    )


def _with_what_became_of(
    draft: Draft, event: Event[MedicationDispensed], prescription: PrescriptionState, waited: HandOutPointer
) -> PrescriptionState:
    """While a hand-out waited for its prescription, it or goods of it may have come back: the issuer is told now.

    What came back is judged anew, for only now is it known what the prescribed package holds.
    """
    dispense = event.body.dispense
    measured = _pointer(event, prescription)
    waited = replace(waited, quantities=measured.quantities, content=measured.content, returned=())
    for fact in draft.waiting(hand_out_field(dispense)).facts:
        came_back = cast("DispenseReversed", fact.event.body).quantity
        assert came_back is not None, "a whole reversal does not wait for the prescription"
        with_it = _returned(waited, came_back)
        if with_it is None:
            draft.change_outcome(fact, refused(Reason.OVER_RETURNED))
        waited = with_it or replace(waited, outcome_changed=True)
    draft.put(waiting_field(hand_out_field(dispense)), None)
    draft.put(hand_out_field(dispense), waited)
    if waited.reversed or waited.returned:
        about = (waited.prescription, prescription, dispense)
        _notify_issuer(draft, event, NoticeKind.REVERSED, *about, APPLIED)
    if not waited.outcome_changed:
        return prescription
    return replace(prescription, flags=tuple(sorted({*prescription.flags, Flag.OUTCOME_CHANGED.code})))


def _hand_out_waits(draft: Draft, event: Event[MedicationDispensed]) -> Verdict:
    """No list entry, but shown: handed out, prescription not seen."""
    wait(draft, prescription_field(event.body.prescription), event, Flag.PRESCRIPTION_UNKNOWN)
    flags = [Flag.DISPENSED_WITHOUT_CLAIM, Flag.PRESCRIPTION_UNKNOWN]
    if _is_after_death(draft.meta(), event.occurred_at_ms, draft.place):
        flags.append(Flag.DISPENSED_AFTER_DEATH)
    verdict = applied(*flags)
    codes = tuple(flag.code for flag in verdict.flags)
    pointer = replace(_pointer(event, None), flags_unseen=codes, moved=draft.move_version())
    draft.put(hand_out_field(event.body.dispense), pointer)
    return verdict


def _pointer(event: Event[MedicationDispensed], prescription: PrescriptionState | None) -> HandOutPointer:
    """The hand-out, with what its returns are judged by; by its own word alone while its prescription is unknown."""
    body, pharmacy = event.body, event.source.organisation
    told = [(line.quantity, content_of(line, prescription)) for line in body.lines]
    quantities: dict[str, Decimal] = {}
    if any(content is None and quantity.unit == "package" for quantity, content in told):
        # Their content is unknown.
        quantities["package"] = sum((each.value for each, _ in told if each.unit == "package"), NOTHING)
        return HandOutPointer(body.prescription, pharmacy, tuple(quantities.items()))
    for quantity, content in told:
        unit, value = quantity.unit, quantity.value
        quantities[unit] = quantities.get(unit, NOTHING) + value
        if unit == "package" and content is not None:
            quantities[content[0]] = quantities.get(content[0], NOTHING) + value * content[1]
    contents = [content for _, content in told if content is not None]
    return HandOutPointer(body.prescription, pharmacy, tuple(quantities.items()), _least(contents))


def _least(contents: Sequence[tuple[str, Decimal]]) -> tuple[str, Decimal] | None:
    """What any package of a hand-out holds, so that packages and what was in them add up when they come back."""
    return min(contents, default=None) if len({unit for unit, _ in contents}) == 1 else None


def _flags_about_the_world(
    prescription: PrescriptionState,
    treatment: TreatmentState,
    meta: Meta,
    event: Event[MedicationDispensed],
    place: int,
) -> list[Flag]:
    """What had happened in the world before the hand-out did, as far as the log knew it at that place.

    These compare `occurred_at`; effects follow the log.
    """
    at_ms = event.occurred_at_ms
    flags: list[Flag] = []
    for recall in prescription.recalls:
        if recall.place < place and recall.at_ms < at_ms and recall.from_ms <= at_ms:
            flags.append(_flag_after(recall))  # noqa: PERF401 - most have none, and then this makes nothing
    # A stop of what was recalled before is no recall of its own, but it happened all the same.
    for stop in treatment.stops:
        if stop.place < place and prescription.issued_at_ms < stop.at_ms < at_ms:
            flags.append(Flag.DISPENSED_AFTER_WITHDRAWAL if stop.withdrawn else Flag.DISPENSED_AFTER_RECALL)  # noqa: PERF401 - as above
    if at_ms >= prescription.valid_until_ms:
        flags.append(Flag.DISPENSED_AFTER_EXPIRY)
    if _is_after_death(meta, at_ms, place):
        flags.append(Flag.DISPENSED_AFTER_DEATH)
    if was_paused(treatment, at_ms):
        flags.append(Flag.TREATMENT_PAUSED)
    if any(line.substituted for line in event.body.lines) and _is_reserved(prescription, treatment, at_ms):
        flags.append(Flag.SUBSTITUTION_RESERVED)
    return flags


def _is_after_death(meta: Meta, at_ms: int, place: int) -> bool:
    """After the day of the death, or, on that day, after the death was reported."""
    death = meta.death
    return death is not None and death.place < place and at_ms > min(death.at_ms, ended_ms(death.on) - 1)


def _is_reserved(prescription: PrescriptionState, treatment: TreatmentState, at_ms: int) -> bool:
    """Whether the doctor had reserved against substitution when it was handed out."""
    by_itself = prescription.substitution_reserved
    return is_substitution_reserved(treatment, prescription.issued_at_ms, at_ms, by_itself=by_itself)


def _flag_after(recall: Recall) -> Flag:
    return Flag.DISPENSED_AFTER_WITHDRAWAL if recall.reason == "withdrawn" else Flag.DISPENSED_AFTER_RECALL


def _was_completed_before(before: Usage, at_ms: int) -> bool:
    """Whether a hand-out that completed it had happened by then."""
    return bool(before.completions) and any(hand_out.occurred_at_ms < at_ms for hand_out in before.completions)


def _flags_about_quantity(prescription: PrescriptionState, before: Usage, amount: Decimal) -> list[Flag]:
    flags: list[Flag] = []
    if not amount:
        return flags
    if before.amount + amount > total_of(prescription) * TOO_MUCH:
        flags.append(Flag.OVER_QUANTITY)
    periods_left = prescription.refills + 1 - before.periods
    if amount > prescription.amount and periods_left > 1:
        flags.append(Flag.AHEAD_OF_PERIOD)
    return flags


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
        return wait(draft, hand_out_field(body.dispense), event, Flag.DISPENSE_UNKNOWN)
    if pointer.pharmacy != event.source.organisation:
        return refused(Reason.NOT_DISPENSER)
    if pointer.reversed:
        return applied(Flag.ALREADY_REVERSED)
    taken_back = replace(pointer, reversed=True) if body.quantity is None else _returned(pointer, body.quantity)
    if taken_back is None:
        return refused(Reason.OVER_RETURNED)
    prescription = draft.prescription(pointer.prescription)
    if prescription is None:
        taken_back = replace(taken_back, moved=draft.move_version())
        if body.quantity is not None:
            keep_waiting(
                draft, hand_out_field(body.dispense), event
            )  # until it is known what the prescribed package holds
    draft.put(hand_out_field(body.dispense), taken_back)
    if prescription is None:
        return APPLIED  # its issuer is told when it comes
    if body.quantity is None:
        hand_outs = tuple(
            replace(each, reversed=True) if each.dispense == body.dispense else each for each in prescription.hand_outs
        )
        prescription = replace(prescription, hand_outs=hand_outs)
        prescription = with_waiting_bound(draft, event, pointer.prescription, prescription)
        draft.put(prescription_field(pointer.prescription), prescription)
    _notify_issuer(draft, event, NoticeKind.REVERSED, pointer.prescription, prescription, body.dispense, APPLIED)
    return APPLIED


def _returned(pointer: HandOutPointer, quantity: Quantity) -> HandOutPointer | None:
    """With the goods that came back; None where that is more than was handed out, as far as the units tell."""
    handed, returned, unit = dict(pointer.quantities), dict(pointer.returned), quantity.unit
    returned[unit] = returned.get(unit, NOTHING) + quantity.value
    if unit in handed and returned[unit] > handed[unit]:
        return None
    if pointer.content is not None:
        counted, of_a_package = pointer.content
        packages = returned.get("package", NOTHING)
        if counted in handed and returned.get(counted, NOTHING) + packages * of_a_package > handed[counted]:
            return None
    return replace(pointer, returned=tuple(returned.items()))
