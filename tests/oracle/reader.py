"""Reads the whole log of the patients, and parts it by patient, as the rulings and the log's own promises demand."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from kafka import KafkaConsumer, TopicPartition

from schemas.codec import UndecodableError, decode
from schemas.events import Event, PrescriptionIssued
from schemas.framing import PLAIN, Framing
from schemas.reasons import ParkReason
from services.publishing.kafka_access import KafkaAccess
from services.publishing.kafka_clients import connect
from services.publishing.partitioning import partition_of
from tests.oracle.history import LogRecord, Unreadable
from tests.oracle.naive import Ownership

TOPIC: Final = "medication-events"
PSEUDONYM: Final = re.compile(rb"[0-9a-f]{32}")
POLL_MS: Final = 1_000
SILENT_POLLS: Final = 30
"""After so many polls without a record, before the end is reached, reading is given up."""


class LogEndedEarlyError(RuntimeError):
    """The broker stopped answering before the end that it had named."""


class RawRecord(NamedTuple):
    """One record as it lies in the log."""

    partition: int
    offset: int
    broker_time_ms: int
    key: bytes | None
    value: bytes | None


@dataclass(slots=True)
class Log:
    """The log, parted. `ends`: partition -> next offset. `unowned`: parked in their partition, on nobody's list."""

    patients: dict[str, list[LogRecord]] = field(default_factory=lambda: defaultdict(list))
    unowned: list[LogRecord] = field(default_factory=list)
    ends: dict[int, int] = field(default_factory=dict)

    def before(self, offsets: Mapping[int, int]) -> "Log":
        """The part of the log that lies before these offsets."""

        def kept(records: Iterable[LogRecord]) -> list[LogRecord]:
            return [record for record in records if record.offset < offsets.get(record.partition, 0)]

        patients = {patient: kept(records) for patient, records in self.patients.items()}
        ends = {partition: min(end, offsets.get(partition, 0)) for partition, end in self.ends.items()}
        return Log({patient: records for patient, records in patients.items() if records}, kept(self.unowned), ends)

    def __len__(self) -> int:
        """How many records there are."""
        return sum(map(len, self.patients.values())) + len(self.unowned)


def part(records: Iterable[RawRecord], partitions: int, decoding: Callable[[bytes | None], Any] = decode) -> Log:
    """Decode each record and lay it with its patient, in log order. `partitions`: how many keys are hashed over."""
    log = Log()
    for raw in records:
        patient, record = _judged_by_its_form(raw, partitions, decoding)
        (log.unowned if patient is None else log.patients[patient]).append(record)
        log.ends[raw.partition] = max(log.ends.get(raw.partition, 0), raw.offset + 1)
    return log


def _judged_by_its_form(  # noqa: PLR0911  # one line for each reason to park
    raw: RawRecord, partitions: int, decoding: Callable[[bytes | None], Any]
) -> tuple[str | None, LogRecord]:
    def parked(reason: ParkReason) -> LogRecord:
        return LogRecord(raw.partition, raw.offset, raw.broker_time_ms, Unreadable(reason))

    if not raw.key:
        return None, parked(ParkReason.NO_KEY)
    if PSEUDONYM.fullmatch(raw.key) is None:
        return None, parked(ParkReason.WRONG_KEY)
    if partition_of(raw.key, partitions) != raw.partition:
        return None, parked(ParkReason.WRONG_PARTITION)
    patient = raw.key.decode()
    try:
        event = decoding(raw.value)
    except UndecodableError as error:
        return patient, parked(error.reason)
    if not isinstance(event, Event):
        return patient, parked(ParkReason.INVALID_CONTENT)
    if event.patient != patient:
        return patient, parked(ParkReason.WRONG_KEY)
    return patient, LogRecord(raw.partition, raw.offset, raw.broker_time_ms, event)


# --- One prescription, two patients -----------------------------------------------------------------------------------


def ownership(log: Log) -> dict[str, Ownership]:
    """Per patient, the prescriptions whose id or reference number another patient has too: the first one stays."""
    found: dict[tuple[str, str], list[tuple[tuple[int, int, int], str, str]]] = defaultdict(list)
    for patient, records in log.patients.items():
        for place, issued in _issues(records):
            found["id", issued.prescription].append((place, patient, issued.prescription))
            if issued.reference_number is not None:
                found["reference", issued.reference_number].append((place, patient, issued.prescription))
    hidden: dict[str, set[str]] = defaultdict(set)
    flagged: dict[str, set[str]] = defaultdict(set)
    for owners in found.values():
        _, owner, prescription = min(owners)
        others = [(patient, rx) for _, patient, rx in owners if patient != owner]
        for patient, rx in others:
            hidden[patient].add(rx)
        if others:
            flagged[owner].add(prescription)
    return {
        patient: Ownership(frozenset(hidden[patient]), frozenset(flagged[patient])) for patient in {*hidden, *flagged}
    }


def _issues(records: Iterable[LogRecord]) -> Iterator[tuple[tuple[int, int, int], PrescriptionIssued]]:
    for record in records:
        if isinstance(record.event, Event) and isinstance(record.event.body, PrescriptionIssued):
            yield (record.broker_time_ms, record.partition, record.offset), record.event.body


# --- From the broker --------------------------------------------------------------------------------------------------


def read_log(kafka: KafkaAccess, partitions: int, topic: str = TOPIC, framing: Framing = PLAIN) -> Log:
    """Everything from the log's start to the end that it has now.

    Raises LogEndedEarlyError, and RegistryUnavailableError where a record needs a registry that is away.
    """
    consumer = connect(
        KafkaConsumer,
        kafka,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        client_id="medchain-check",
    )
    with closing(consumer):
        every = [TopicPartition(topic, partition) for partition in range(partitions)]
        ends = consumer.end_offsets(every)
        log = part(_records(consumer, every, ends), partitions, lambda value: decode(framing.from_topic(value)))
        log.ends = {where.partition: end for where, end in ends.items()}
        return log


def _records(consumer: Any, every: list[Any], ends: Mapping[Any, int]) -> Iterator[RawRecord]:
    """Partition by partition, up to the end that was noted."""
    for where in every:
        consumer.assign([where])
        consumer.seek_to_beginning(where)
        silent = 0
        while (position := consumer.position(where, timeout_ms=POLL_MS) or 0) < ends[where]:
            fetched = consumer.poll(timeout_ms=POLL_MS).get(where, [])
            silent = 0 if fetched else silent + 1
            if silent > SILENT_POLLS:
                raise LogEndedEarlyError(f"partition {where.partition} answers no more at {position}")
            for record in fetched:
                if record.offset < ends[where]:
                    yield RawRecord(where.partition, record.offset, record.timestamp, record.key, record.value)
