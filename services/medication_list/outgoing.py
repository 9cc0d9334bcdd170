"""Effects as they leave: from what the fold says is due to a record of the contract, for one recipient's own topic."""

from uuid import UUID, uuid5

import msgspec

from schemas.codec import decode, encode
from schemas.events import (
    AllergyWarning,
    DispenseOrder,
    Event,
    Notice,
    PrescriptionIssued,
    SubmissionReceipt,
    TreatmentChanged,
)
from services.medication_list.fold.judgement import Effect as Due
from services.medication_list.fold.judgement import NoticeDue, OrderDue, ReceiptDue
from services.medication_list.store.effects import Effect

EFFECTS = UUID("6f3c2a52-6f0e-5d0b-9d65-5a5c1f1a7c11")
"""Namespace of effect ids: the same effect made again (after a loss, by another generation) has the same id."""


def outgoing(due: Due, partition: int, offset: int) -> Effect:
    """The outbox entry of what is due because of the record at that place."""
    match due:
        case NoticeDue():
            return _notice(due, partition, offset)
        case OrderDue():
            return _order(due, partition, offset)
        case ReceiptDue():
            return _receipt(due, offset)


def _effect_id(source_event: str, kind: str, recipient: str, subject: str) -> str:
    return str(uuid5(EFFECTS, f"{source_event}/{kind}/{recipient}/{subject}"))


def _notice(due: NoticeDue, partition: int, offset: int) -> Effect:
    subject = due.subject or due.prescription or ""
    effect_id = _effect_id(due.source_event, due.kind, due.organisation, f"{due.prescription}/{subject}")
    notice = Notice(
        effect_id=effect_id,
        kind=due.kind,
        organisation=due.organisation,
        prescription=due.prescription,
        source_event=due.source_event,
        source_partition=partition,
        source_offset=offset,
        at_ms=due.at_ms,
        subject=due.subject,
        flags=tuple(str(flag) for flag in due.flags),
        reason=due.reason,
        by=due.by,
        outcome=due.outcome,
    )
    key = due.prescription or effect_id
    return Effect(offset, "notices", due.organisation, key, effect_id, encode(notice))


def _order(due: OrderDue, partition: int, offset: int) -> Effect:
    signed: Event[PrescriptionIssued] = decode(due.signed)
    changed: Event[TreatmentChanged] | None = decode(due.dosed) if due.dosed is not None else None
    effect_id = _effect_id(due.source_event, "dispense-order", due.pharmacy, due.dispatch)
    order = DispenseOrder(
        effect_id=effect_id,
        dispatch=due.dispatch,
        prescription=due.prescription,
        pharmacy=due.pharmacy,
        delivery=due.delivery,
        issued=msgspec.structs.replace(signed.body, identity=None),
        dosing_in_force=(changed.body.dosing if changed is not None else None) or signed.body.dosing,
        bound_at_ms=due.bound_at_ms,
        source_partition=partition,
        source_offset=offset,
        allergies=_warnings(due),
        flags=tuple(str(flag) for flag in due.flags),
        identity=signed.body.identity,
    )
    return Effect(offset, "dispense-orders", due.pharmacy, due.prescription, effect_id, encode(order))


def _warnings(due: OrderDue) -> tuple[AllergyWarning, ...]:
    standing = (entry.recorded for entry in due.allergies.entries if not entry.refuted)
    return tuple(
        AllergyWarning(
            allergy=each.allergy,
            none_known=each.none_known,
            substance=each.substance,
            atc=each.atc,
            reaction=each.reaction,
            severity=each.severity,
        )
        for each in standing
    )


def _receipt(due: ReceiptDue, offset: int) -> Effect:
    effect_id = _effect_id(due.event_id, "receipt", due.system, due.outcome)
    receipt = SubmissionReceipt(
        effect_id=effect_id,
        outcome=due.outcome,
        message_id=due.message_id,
        event_id=due.event_id,
        reason=due.reason,
        flags=tuple(str(flag) for flag in due.flags),
        named=": ".join(due.named) if due.named else None,
    )
    return Effect(offset, "submission-receipts", due.system, due.message_id, effect_id, encode(receipt))
