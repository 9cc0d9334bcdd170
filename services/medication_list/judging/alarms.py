"""Alarms about what events say: a number under two patients, an id reported again with other content."""

from schemas.codec import name_of
from services.canonical_log import get_logger
from services.medication_list.fold import LogEntry

_log = get_logger()


def tell_number_conflict(partition: int, name: str) -> None:
    """Raise the alarm that a prescription id or reference number came under a second patient."""
    _log.error("prescription_number_conflict", partition=partition, prescription=name)


def tell_conflicting(partition: int, entry: LogEntry) -> None:
    """Raise the alarm that an event contradicts an earlier one of its id: refused(conflicting_duplicate)."""
    event = entry.event
    _log.error(
        "conflicting_duplicate",
        partition=partition,
        offset=entry.offset,
        event_id=event.event_id,
        event_type=name_of(event),
        system=event.source.system,
        organisation=event.source.organisation,
    )
