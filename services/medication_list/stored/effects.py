"""What an effect is known by wherever it is: its id, the same however often it is made, and its recipient's topic."""

from uuid import UUID, uuid5

from services.medication_list.fold.judgement import Effect as Due
from services.medication_list.fold.judgement import NoticeDue, OrderDue, ReceiptDue

EFFECTS = UUID("6f3c2a52-6f0e-5d0b-9d65-5a5c1f1a7c11")
"""Namespace of effect ids: the same effect made again (after a loss, by another generation) has the same id."""


def topic_of(due: Due) -> str:
    """The one topic of the recipient."""
    match due:
        case NoticeDue():
            return f"notices.{due.organisation}"
        case OrderDue():
            return f"dispense-orders.{due.pharmacy}"
        case ReceiptDue():
            return f"submission-receipts.{due.system}"


def effect_id_of(due: Due) -> str:
    """The id that is the same however often the effect is made."""
    match due:
        case NoticeDue():
            about = f"{due.prescription}/{due.subject or due.prescription or ''}"
            if due.change:
                about += f"/{due.change}/{due.outcome}/{due.reason or ''}"
            return _effect_id(due.source_event, due.kind, due.organisation, about)
        case OrderDue():
            return _effect_id(due.source_event, "dispense-order", due.pharmacy, due.dispatch)
        case ReceiptDue():
            return _effect_id(due.event_id, "receipt", due.system, due.outcome)


def _effect_id(source_event: str, kind: str, recipient: str, subject: str) -> str:
    return str(uuid5(EFFECTS, f"{source_event}/{kind}/{recipient}/{subject}"))
