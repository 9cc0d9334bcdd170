"""Where one event is in the chain: in the log, in the view, and each of its effects in the outbox or on its topic."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from msgspec import Struct

from schemas.codec import name_of
from schemas.reasons import ParkReason
from services.casework.desk import Desk, NotNowError, NotThereError
from services.medication_list.fold.judgement import Effect, NoticeDue, OrderDue
from services.medication_list.fold.remembering import event_key, recollect
from services.medication_list.fold.state import Remembered
from services.medication_list.log.positions import LogPlace, position_of
from services.medication_list.log.record import Record, unframed
from services.medication_list.log.record_log import all_of
from services.medication_list.read_api.stored_events import event_id_of, event_of, header
from services.medication_list.refolding.patient_fold import as_it_stood, fold_anew
from services.medication_list.store.waiting import FIRST
from services.medication_list.stored.effects import effect_id_of, topic_of
from services.medication_list.stored.event_index import is_parked, places_of
from services.medication_list.stored.packing import unpack_effect, unpack_memory
from services.publishing.kafka_clients import connect
from services.topics.reading import is_behind, places

_AT_ONCE: Final = 1000
_FOUND_WITHIN_S: Final = 5.0
_POLL_MS: Final = 200
_ANSWER_MS: Final = 3_000
_PARTS_OF_ENTRY: Final = "-"


class TracedEffect(Struct, frozen=True, omit_defaults=True):
    """One effect. `state`: waiting in the outbox, sent (found on its topic), or neither.

    `position`, `at_ms`: where on the topic, when the broker took it; of one that waits, since when it waits.
    """

    effect_id: str
    what: str
    topic: str
    state: str
    at_ms: int | None = None
    position: str | None = None


class Trace(Struct, frozen=True, omit_defaults=True):
    """One event. `judged`: false while the view has not come to it. Outcome as in the history."""

    event_id: str | None
    position: str
    recorded_at_ms: int
    generation: str
    view_offset: int
    judged: bool
    type: str | None = None
    occurred_at_ms: int | None = None
    received_at_ms: int | None = None
    system: str | None = None
    organisation: str | None = None
    outcome: str | None = None
    reason: str | None = None
    flags: tuple[str, ...] = ()
    first_position: str | None = None
    """Of an event that was known: where it came first."""
    effects: tuple[TracedEffect, ...] = ()


def place_of_event(desk: Desk, event_id: str, patient: str) -> LogPlace:
    """Where a patient's event is. Raises NotThereError if the patient has none of that id."""
    partition = desk.partition_of(patient)
    whole = desk.store.read_whole(partition, patient, with_index=True)
    packed = whole.remembered.get(event_key(event_id))
    known = None if packed is None else unpack_memory(event_key(event_id), packed)
    if isinstance(known, Remembered):
        return LogPlace(partition, known.offset)
    parked = [offset for offset, each in places_of(whole.fields, whole.remembered).items() if is_parked(each)]
    for offset, record in all_of(patient, partition, parked, desk.records.read(partition, parked)).items():
        if event_id_of(unframed(record, desk.framing)) == event_id:
            return LogPlace(partition, offset)
    raise NotThereError("This patient has no event of that id, judged or parked.")


def trace(desk: Desk, place: LogPlace) -> tuple[Trace, str | None]:
    """The record at this place, and whose it is. Raises NotThereError, NotNowError, LogLookupError, StoreUnavailableError."""
    found = desk.records.read(place.partition, [place.offset]).get(place.offset)
    if found is None:
        raise NotThereError(f"The log has no record at {position_of(*place)}.")
    record = unframed(found, desk.framing)
    stands = desk.store.next_offsets([place.partition])[place.partition]
    owner = (record.key or b"").decode(errors="replace")
    patient = owner if desk.partition_of(owner) == place.partition and len(owner) == len(owner.encode()) else None
    return _traced(desk, place, record, patient, stands), patient


def _traced(desk: Desk, place: LogPlace, record: Record, patient: str | None, stands: int) -> Trace:
    event = event_of(record)
    facts: dict[str, Any] = {
        "event_id": event_id_of(record),
        "position": position_of(*place),
        "recorded_at_ms": record.timestamp,
        "generation": desk.generation,
        "view_offset": stands,
        "judged": stands > place.offset,
    }
    if event is not None:
        facts |= {
            "type": name_of(event),
            "occurred_at_ms": event.occurred_at_ms,
            "received_at_ms": event.received_at_ms,
            "system": event.source.system,
            "organisation": event.source.organisation,
        }
    if stands > place.offset and patient is not None:
        facts |= _judgement(desk, place, patient, facts["event_id"])
    return Trace(**facts)


def _judgement(desk: Desk, place: LogPlace, patient: str, event_id: str | None) -> dict[str, Any]:
    whole = desk.store.read_whole(place.partition, patient, with_index=True)
    was = places_of(whole.fields, whole.remembered)
    known = was.get(place.offset)
    if known is not None and is_parked(known):
        return {"outcome": "parked", "reason": str(ParkReason.from_code(known.reason))}
    if known is None:
        packed = whole.remembered.get(event_key(event_id or ""))
        first = None if packed is None else unpack_memory(event_key(event_id or ""), packed)
        again = {"outcome": "duplicate or refused(conflicting_duplicate)"}
        return again | (
            {"first_position": position_of(place.partition, first.offset)} if isinstance(first, Remembered) else {}
        )
    verdict = recollect(known)
    effects = _effects(desk, place, patient, was)
    return {
        "outcome": verdict.outcome,
        "reason": str(verdict.reason) if verdict.reason else None,
        "flags": tuple(str(flag) for flag in verdict.flags),
        "effects": effects,
    }


# --- Effects -----------------------------------------------------------------------------------------------------


def _effects(
    desk: Desk, place: LogPlace, patient: str, was: Mapping[int, Remembered | None]
) -> tuple[TracedEffect, ...]:
    """What the fold says that the event brought about, and what a refold has put into the outbox for it since."""
    records = all_of(patient, place.partition, was, desk.records.read(place.partition, list(was)))
    fold = fold_anew(place.partition, as_it_stood(records, was, place.partition, desk.partitions, desk.framing))
    due = {effect_id_of(each): each for item, each in fold.effects if item.entry.offset == place.offset}
    waiting = {}
    for entry_id, source_offset, each in _waiting(desk, place.partition):
        if source_offset == place.offset:
            due.setdefault(effect_id_of(each), each)
            waiting[effect_id_of(each)] = int(entry_id.partition(_PARTS_OF_ENTRY)[0])
    sent = _sent(desk, [name for name in due if name not in waiting], due, records[place.offset].timestamp)
    return tuple(_traced_effect(name, each, waiting.get(name), sent.get(name)) for name, each in due.items())


def _traced_effect(name: str, due: Effect, waits_since_ms: int | None, sent: tuple[str, int] | None) -> TracedEffect:
    state = "waiting" if waits_since_ms is not None else "sent" if sent is not None else "not found"
    at_ms = waits_since_ms if waits_since_ms is not None else sent[1] if sent is not None else None
    return TracedEffect(name, _what(due), topic_of(due), state, at_ms, sent[0] if sent is not None else None)


def _what(due: Effect) -> str:
    match due:
        case NoticeDue():
            return f"notice: {due.kind}"
        case OrderDue():
            return "dispense order"
        case _:
            return f"receipt: {due.outcome}"


def _waiting(desk: Desk, partition: int) -> Iterator[tuple[str, int, Effect]]:
    """Everything in a partition's outbox: entry id, source offset, effect."""
    after = FIRST
    while entries := desk.outbox.waiting({partition: after}, _AT_ONCE, 1).get(partition, ()):
        for entry in entries:
            effect = unpack_effect(entry.effect)
            yield entry.entry_id, effect.source_offset, effect.due
        after = entries[-1].entry_id


def _sent(desk: Desk, wanted: list[str], due: Mapping[str, Effect], since_ms: int) -> dict[str, tuple[str, int]]:
    """Where on its topic each of these effects is, and when it was taken; searched from the event's time on."""
    found: dict[str, tuple[str, int]] = {}
    if not wanted or desk.kafka is None:
        return found
    try:
        with closing(
            connect(
                KafkaConsumer,
                desk.kafka,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                allow_auto_create_topics=False,
                bootstrap_timeout_ms=_ANSWER_MS,
                request_timeout_ms=_ANSWER_MS,
            )
        ) as consumer:
            for topic in sorted({topic_of(due[name]) for name in wanted}):
                there = places(desk.kafka, topic, _ANSWER_MS)
                found |= _found_on(consumer, there, {name for name in wanted if topic_of(due[name]) == topic}, since_ms)
    except KafkaError as error:
        raise NotNowError(f"The topics of the effects cannot be read ({type(error).__name__}).") from None
    return found


def _found_on(
    consumer: Any, there: Sequence[TopicPartition], wanted: set[str], since_ms: int
) -> dict[str, tuple[str, int]]:
    found: dict[str, tuple[str, int]] = {}
    if not there:
        return found
    consumer.assign(there)
    ends, starts = consumer.end_offsets(there), consumer.offsets_for_times(dict.fromkeys(there, since_ms))
    for place in there:
        consumer.seek(place, starts[place].offset if starts.get(place) is not None else ends[place])
    deadline = time.monotonic() + _FOUND_WITHIN_S
    while is_behind(consumer, ends, _POLL_MS) and time.monotonic() < deadline:
        for records in consumer.poll(_POLL_MS).values():
            for record in records:
                name = header(record, "ce_id")
                if name in wanted:
                    found.setdefault(name, (position_of(record.partition, record.offset), record.timestamp))
        if len(found) == len(wanted):
            break
    return found
