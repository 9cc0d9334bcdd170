"""Effects as they are sent: turns an effect due by the fold into a record of the contract, for the recipient's topic."""

from collections.abc import Callable
from typing import NamedTuple

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
from services.identity.sealing import Sealer
from services.medication_list.fold.judgement import NoticeDue, OrderDue, ReceiptDue
from services.medication_list.stored.effects import effect_id_of
from services.medication_list.stored.packing import WaitingEffect


class Outgoing(NamedTuple):
    """A record for one recipient: its key, the effect's id, the name of its type, and contract bytes."""

    key: str
    effect_id: str
    event_type: str
    value: bytes


def outgoing(waiting: WaitingEffect, partition: int, sealer: Sealer) -> Outgoing:
    """What is sent for an effect of that source partition.

    An order holds the patient's identity, opened for its pharmacy. Raises SealBroken when it does not open, and
    UndecodableError when what was signed cannot be read.
    """
    match waiting.due:
        case NoticeDue() as due:
            return _notice(due, partition, waiting.source_offset)
        case OrderDue() as due:
            return _order(due, partition, waiting.source_offset, _opener(sealer, waiting.patient))
        case ReceiptDue() as due:
            return _receipt(due)


def _notice(due: NoticeDue, partition: int, offset: int) -> Outgoing:
    effect_id = effect_id_of(due)
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
    return Outgoing(due.prescription or effect_id, effect_id, "Notice", encode(notice))


def _order(due: OrderDue, partition: int, offset: int, opened: Callable[[bytes], bytes]) -> Outgoing:
    signed: Event[PrescriptionIssued] = decode(due.signed)
    changed: Event[TreatmentChanged] | None = decode(due.dosed) if due.dosed is not None else None
    effect_id, sealed = effect_id_of(due), signed.body.identity
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
        identity=None if sealed is None else opened(sealed),
    )
    return Outgoing(due.prescription, effect_id, "DispenseOrder", encode(order))


def _opener(sealer: Sealer, patient: str | None) -> Callable[[bytes], bytes]:
    """Opens what is sealed for this patient: JSON of national id and name."""

    def opened(sealed: bytes) -> bytes:
        inside = sealer.open(sealed, patient or "")
        return msgspec.json.encode({"national_id": inside.national_id.digits, "name": inside.name})

    return opened


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


def _receipt(due: ReceiptDue) -> Outgoing:
    effect_id = effect_id_of(due)
    receipt = SubmissionReceipt(
        effect_id=effect_id,
        outcome=due.outcome,
        message_id=due.message_id,
        event_id=due.event_id,
        reason=due.reason,
        flags=tuple(str(flag) for flag in due.flags),
        named=": ".join(due.named) if due.named else None,
    )
    return Outgoing(due.message_id, effect_id, "SubmissionReceipt", encode(receipt))
