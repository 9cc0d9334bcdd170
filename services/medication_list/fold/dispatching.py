"""Dispatches: the next dispense, or every one, tied to a pharmacy; and the order that is sent when it binds."""

from collections.abc import Sequence
from datetime import timedelta

from msgspec.structs import replace

from schemas.events import Body, DispatchRequested, DispatchWithdrawn, Event
from schemas.reasons import Flag, NoticeKind, Reason
from services.medication_list.fold.availability import flags_for_pharmacy, refusal_of_closed
from services.medication_list.fold.calendar import day_of, ended_ms
from services.medication_list.fold.judgement import APPLIED, Draft, OrderDue, Verdict, refused
from services.medication_list.fold.policy import DISPATCH_LAPSES_DAYS
from services.medication_list.fold.state import (
    Dispatch,
    PrescriptionState,
    dosed_field,
    prescription_field,
    signed_field,
)

CITIZENS = frozenset({"citizen", "proxy"})
PRESCRIBERS = frozenset({"doctor", "dentist", "nurse"})


def standing_dispatch(prescription: PrescriptionState, now_ms: int) -> Dispatch | None:
    """The dispatch that has not lapsed."""
    dispatch = prescription.dispatch
    return dispatch if dispatch is not None and now_ms < dispatch.lapses_at_ms else None


def dispatch_requested(draft: Draft, event: Event[DispatchRequested]) -> Verdict:
    """The latest counts; the pharmacy that lost it is told. It binds at once, or when the present claim ends."""
    body, now_ms = event.body, event.received_at_ms
    prescription = draft.prescription(body.prescription)
    if prescription is None:
        return refused(Reason.UNKNOWN)
    treatment, meta = draft.treatment_of(prescription), draft.meta()
    if meta.death is not None:
        return refused(Reason.DECEASED)
    closed = refusal_of_closed(prescription, treatment, meta, now_ms, is_held=prescription.claim is not None)
    if closed is not None:
        return refused(closed)
    former = standing_dispatch(prescription, now_ms)
    if former is not None and former.bound and former.pharmacy != body.pharmacy:
        _void(draft, event, body.prescription, former)
    begins_on = day_of(max(event.occurred_at_ms, prescription.earliest_ms))
    lapses_at_ms = ended_ms(begins_on + timedelta(days=DISPATCH_LAPSES_DAYS))
    dispatch = Dispatch(body.dispatch, body.pharmacy, body.delivery, body.every, lapses_at_ms, bound=False)
    prescription = replace(prescription, dispatch=dispatch)
    if prescription.claim is None:
        flags = flags_for_pharmacy(prescription, treatment, meta, body.pharmacy, now_ms)
        prescription = bind(draft, event, body.prescription, prescription, dispatch, flags)
    draft.put(prescription_field(body.prescription), prescription)
    return APPLIED


def bind(
    draft: Draft,
    event: Event[Body],
    prescription_id: str,
    prescription: PrescriptionState,
    dispatch: Dispatch,
    flags: Sequence[Flag],
) -> PrescriptionState:
    """The dispatch binds, and its order is sent with the dosing in force, allergies and flags."""
    signed = draft.get(signed_field(prescription_id))
    assert isinstance(signed, bytes), "a known prescription is kept as it was signed"
    dosed = draft.get(dosed_field(prescription.treatment)) if Flag.DOSING_CHANGED in flags else None
    draft.effects.append(
        OrderDue(
            dispatch=dispatch.dispatch,
            prescription=prescription_id,
            pharmacy=dispatch.pharmacy,
            delivery=dispatch.delivery,
            source_event=event.event_id,
            bound_at_ms=draft.now_ms,
            signed=signed,
            dosed=dosed if isinstance(dosed, bytes) else None,
            allergies=draft.allergies(),
            flags=tuple(flags),
        )
    )
    return replace(prescription, dispatch=replace(dispatch, bound=True))


def with_waiting_bound(
    draft: Draft, event: Event[Body], prescription_id: str, prescription: PrescriptionState
) -> PrescriptionState:
    """A dispatch that waited for a claim to end binds as soon as nobody holds it and it can be dispensed.

    That is mostly when the claim ends; or later, when what had closed the prescription meanwhile is taken back.
    """
    dispatch = standing_dispatch(prescription, draft.now_ms)
    if dispatch is None or dispatch.bound:
        return prescription
    return _with_order_out(draft, event, prescription_id, prescription, dispatch)


def with_order_after_death(
    draft: Draft, event: Event[Body], prescription_id: str, prescription: PrescriptionState
) -> PrescriptionState:
    """A retracted death opens the prescription again: what waited binds, and the order of what was bound goes out once more.

    Its pharmacy was told of the recall by the death, and nobody else is let in: without an order nobody would dispense.
    """
    dispatch = standing_dispatch(prescription, draft.now_ms)
    if dispatch is None:
        return prescription
    return _with_order_out(draft, event, prescription_id, prescription, dispatch)


def _with_order_out(
    draft: Draft, event: Event[Body], prescription_id: str, prescription: PrescriptionState, dispatch: Dispatch
) -> PrescriptionState:
    """Bound, if nobody holds it and it can be dispensed."""
    if prescription.claim is not None:
        return prescription
    treatment, meta = draft.treatment_of(prescription), draft.meta()
    if refusal_of_closed(prescription, treatment, meta, draft.now_ms) is not None:
        return prescription
    flags = flags_for_pharmacy(prescription, treatment, meta, dispatch.pharmacy, draft.now_ms)
    return bind(draft, event, prescription_id, prescription, dispatch, flags)


def dispatch_withdrawn(draft: Draft, event: Event[DispatchWithdrawn]) -> Verdict:
    """Citizen, prescriber or the bound pharmacy takes it back; the pharmacy is told unless it did so itself."""
    prescription = draft.prescription(event.body.prescription)
    if prescription is None:
        return refused(Reason.UNKNOWN)
    dispatch = standing_dispatch(prescription, event.received_at_ms)
    if dispatch is None:
        return refused(Reason.NO_DISPATCH)
    is_bound_pharmacy = event.source.organisation == dispatch.pharmacy
    if not is_bound_pharmacy and event.source.role not in CITIZENS | PRESCRIBERS:
        return refused(Reason.NOT_PERMITTED)
    if dispatch.bound and not is_bound_pharmacy:
        _void(draft, event, event.body.prescription, dispatch)
    draft.put(prescription_field(event.body.prescription), replace(prescription, dispatch=None))
    return APPLIED


def with_order_void(
    draft: Draft, event: Event[Body], prescription_id: str, prescription: PrescriptionState
) -> PrescriptionState:
    """Another's hand-out completed the prescription: the order of the bound pharmacy is void.

    The dispatch waits again: should the hand-out be taken back, it binds anew, and its order goes out once more.
    """
    dispatch = standing_dispatch(prescription, event.received_at_ms)
    if dispatch is None or not dispatch.bound or dispatch.pharmacy == event.source.organisation:
        return prescription
    _void(draft, event, prescription_id, dispatch)
    return replace(prescription, dispatch=replace(dispatch, bound=False))


def _void(draft: Draft, event: Event[Body], prescription_id: str, dispatch: Dispatch) -> None:
    draft.notify(
        NoticeKind.ORDER_VOID,
        dispatch.pharmacy,
        event,
        prescription=prescription_id,
        subject=dispatch.dispatch,
        by=event.source.organisation,
    )
