"""The evidence of a round in which nothing went wrong, made from the log alone: to break in one place, and be found out."""

from collections.abc import Iterable, Iterator
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

from schemas import events as ev
from services.simulator.history import Line
from tests.chaos.checker import Story, tell
from tests.chaos.client import Read
from tests.chaos.evidence import Delivered, Evidence, Place, Progressed, Submitted, of_log
from tests.oracle.comparing import compare
from tests.oracle.histories import history
from tests.oracle.history import LogRecord, Unreadable
from tests.oracle.memory_held import MemoryHeld
from tests.oracle.naive import Ownership, Told, show_told
from tests.oracle.reader import Log

PATIENT: Final = "0123456789abcdef0123456789abcdef"
_DELIVERED_AFTER_MS: Final = 10


def sound(seed: int, length: int = 60) -> Evidence:
    """What clients and receivers would have seen of one patient's history; every fourth event came by a submission."""
    records = history(seed, length, PATIENT)
    log = Log({PATIENT: records}, [], {record.partition: length for record in records})
    by_submission = {
        Place(record.partition, record.offset): _id(f"message {record.offset}")
        for record in records
        if not isinstance(record.event, Unreadable) and record.offset % 4 == 0
    }
    evidence = of_log(log, by_submission)
    story = tell(evidence)
    evidence.patients = {0: PATIENT}
    evidence.delivered = list(_deliveries(records, story))
    evidence.progress = [
        Progressed(each.time_ms, place.partition, place.offset)
        for each, place in zip(evidence.delivered, _places(records, story), strict=True)
    ]
    evidence.submitted = [
        Submitted("prescription-submissions.journal", 0, number, message_id)
        for number, message_id in enumerate(by_submission.values())
    ]
    evidence.lines = list(_lines(records, story))
    evidence.reads = list(_reads(records))
    last_ms = max(record.broker_time_ms for record in records)
    evidence.report = compare(log, MemoryHeld(log), [last_ms])
    return evidence


def _places(records: Iterable[LogRecord], story: Story) -> Iterator[Place]:
    for record in records:
        place = Place(record.partition, record.offset)
        yield from (place for _ in story.effects[place])


def _deliveries(records: list[LogRecord], story: Story) -> Iterator[Delivered]:
    for record in records:
        place = Place(record.partition, record.offset)
        for effect in sorted(story.effects[place]):
            topic = {"notice": "notices", "order": "dispense-orders", "receipt": "submission-receipts"}[effect[0]]
            yield Delivered(
                f"{topic}.{effect[1]}",
                0,
                record.offset,
                record.broker_time_ms + _DELIVERED_AFTER_MS,
                _message(effect, record, records, story),
            )


def _message(effect: tuple[str, ...], record: LogRecord, records: list[LogRecord], story: Story) -> Any:
    assert not isinstance(record.event, Unreadable)
    effect_id = _id(f"{record.offset} {effect}")
    source: dict[str, Any] = {"source_partition": record.partition, "source_offset": record.offset}
    if effect[0] == "receipt":
        return ev.SubmissionReceipt(effect_id=effect_id, outcome=effect[4], message_id=effect[2], event_id=effect[3])
    if effect[0] == "order":
        issued = next(body for body in _issues(records) if body.prescription == effect[2])
        return ev.DispenseOrder(
            effect_id=effect_id,
            dispatch=effect[3],
            prescription=effect[2],
            pharmacy=effect[1],
            delivery="pick_up",
            issued=issued,
            dosing_in_force=issued.dosing,
            bound_at_ms=record.broker_time_ms,
            **source,
        )
    prescription, subject = _named(effect[2], effect[3], story)
    return ev.Notice(
        effect_id=effect_id,
        kind=effect[2],
        organisation=effect[1],
        prescription=prescription,
        subject=subject,
        source_event=record.event.event_id,
        at_ms=record.broker_time_ms,
        **source,
    )


def _named(kind: str, subject: str, story: Story) -> tuple[str | None, str | None]:
    """Prescription and subject of a notice, as the platform has them for what the oracle calls so."""
    if kind in ("dispensed", "reversed"):
        return None, subject
    if kind == "outcome_changed":
        return None, next(event_id for event_id, reversal in story.reversals.items() if reversal == subject)
    if kind == "prescribed_after_discontinuation":
        return next(rx for rx, treatment in story.treatments.items() if treatment == subject), None
    return (None, None) if subject == "multidose" else (subject, None)


def _issues(records: Iterable[LogRecord]) -> Iterator[ev.PrescriptionIssued]:
    for record in records:
        if not isinstance(record.event, Unreadable) and isinstance(record.event.body, ev.PrescriptionIssued):
            yield record.event.body


def _lines(records: Iterable[LogRecord], story: Story) -> Iterator[Line]:
    for record in records:
        if isinstance(record.event, Unreadable):
            continue
        yield Line(
            channel="http",
            event_id=record.event.event_id,
            type=type(record.event.body).__name__,
            patient=0,
            organisation=record.event.source.organisation,
            sent_at_ms=record.broker_time_ms,
            answered_at_ms=record.broker_time_ms + 5,
            outcome=story.outcomes[Place(record.partition, record.offset)],
            ids={},
            position=f"{record.partition}-{record.offset}",
        )


def _reads(records: list[LogRecord]) -> Iterator[Read]:
    told = Told()
    for count, record in enumerate(records, 1):
        told.go_on(record)
        shown = show_told(told, records[:count], record.broker_time_ms, Ownership())
        yield Read(
            reader=0,
            patient=0,
            asked_at_ms=record.broker_time_ms,
            answered_at_ms=record.broker_time_ms + 5,
            status=200,
            position=record.offset,
            generation="g1-000000",
            version=told.chart.version,
            as_of_ms=record.broker_time_ms,
            empty=not any((shown.treatments, shown.other_prescriptions, shown.unseen_hand_outs, shown.allergies)),
            complete=not told.chart.parked,
        )


def _id(text: str) -> str:
    return str(uuid5(NAMESPACE_URL, f"medchain:recorded:{text}"))
