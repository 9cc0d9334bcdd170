"""What the checker judges by: the log, the topics, the view and the clients' record, each read by itself and laid side by side."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from kafka import KafkaConsumer, TopicPartition

from schemas.codec import UndecodableError, decode
from schemas.events import DispenseOrder, Notice, RelayProgress, Submission, SubmissionReceipt
from services.publishing.log import SUBMISSION_HEADER
from services.simulator import history
from services.simulator.history import Line
from services.topics.registry import EVENTS_TOPIC, Parties, load
from tests.chaos.client import Read
from tests.oracle.comparing import Report
from tests.oracle.history import Unreadable
from tests.oracle.reader import Log, RawRecord, part

_POLL_MS: Final = 500
_SILENT_POLLS: Final = 40


class Place(NamedTuple):
    """Where a record of the log lies."""

    partition: int
    offset: int


class Delivered(NamedTuple):
    """One record on an outside party's topic. `place` there, `time_ms` by the broker."""

    topic: str
    partition: int
    offset: int
    time_ms: int
    message: Notice | DispenseOrder | SubmissionReceipt


class Progressed(NamedTuple):
    """One note of the relay's progress."""

    time_ms: int
    partition: int
    source_offset: int


class Submitted(NamedTuple):
    """One record on a submissions topic; its message id, None where nobody can read it."""

    topic: str
    partition: int
    offset: int
    message_id: str | None


@dataclass(slots=True)
class Evidence:
    """Everything that a round left behind. `patients`: a patient's number in the town -> pseudonym.

    `message_ids`: the submission that a record of the log came by. `event_ids`: of each record that can be read.
    """

    log: Log
    event_ids: dict[Place, str] = field(default_factory=dict)
    message_ids: dict[Place, str] = field(default_factory=dict)
    delivered: list[Delivered] = field(default_factory=list)
    progress: list[Progressed] = field(default_factory=list)
    submitted: list[Submitted] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    patients: Mapping[int, str] = field(default_factory=dict)
    report: Report = field(default_factory=Report)


def collect(kafka: str, partitions: int, parties: Parties, folder: Path, patients: Mapping[int, str]) -> Evidence:
    """Read everything but the view (`compare` gives its report) from its beginning to its present end."""
    raw: list[RawRecord] = []
    message_ids: dict[Place, str] = {}
    with closing(_consumer(kafka)) as consumer:
        for record in _whole(consumer, [EVENTS_TOPIC]):
            raw.append(RawRecord(record.partition, record.offset, record.timestamp, record.key, record.value))
            said = next((value for name, value in record.headers or () if name == SUBMISSION_HEADER), None)
            if said is not None:
                message_ids[Place(record.partition, record.offset)] = said.decode(errors="replace")
        evidence = of_log(part(raw, partitions), message_ids)
        _ends(evidence.log, consumer, partitions)
        topics = [topic.name for topic in load().wanted(load().parties | parties)]
        evidence.delivered = list(_delivered(_whole(consumer, _of_kinds(topics, *_EFFECTS))))
        evidence.submitted = list(_submitted(_whole(consumer, _of_kinds(topics, *_SUBMISSIONS))))
        evidence.progress = list(_progress(_whole(consumer, ["relay-progress"])))
    evidence.lines = history.read(folder / "history.jsonl")
    evidence.reads = read_lines(folder / "reads.jsonl")
    evidence.patients = patients
    return evidence


_EFFECTS: Final = ("notices", "dispense-orders", "submission-receipts")
_SUBMISSIONS: Final = ("prescription-submissions", "dispense-submissions")


def of_log(log: Log, message_ids: Mapping[Place, str]) -> Evidence:
    """Evidence of a log alone: what the rest is held against."""
    event_ids = {
        Place(record.partition, record.offset): record.event.event_id
        for records in log.patients.values()
        for record in records
        if not isinstance(record.event, Unreadable)
    }
    return Evidence(log, event_ids, dict(message_ids))


def read_lines(path: Path) -> list[Read]:
    """What the readers wrote down; the last line may be cut off."""
    return [msgspec.json.decode(line, type=Read) for line in path.read_bytes().splitlines()]


def _ends(log: Log, consumer: Any, partitions: int) -> None:
    every = [TopicPartition(EVENTS_TOPIC, each) for each in range(partitions)]
    log.ends = {place.partition: end for place, end in consumer.end_offsets(every).items()}


def _of_kinds(topics: Iterable[str], *kinds: str) -> list[str]:
    return [name for name in topics if name.partition(".")[0] in kinds]


def _consumer(kafka: str) -> Any:
    return KafkaConsumer(
        bootstrap_servers=kafka,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
    )


def _whole(consumer: Any, topics: Sequence[str]) -> Iterator[Any]:
    """Every record of these topics, each partition in its order. Raises RuntimeError where the broker stops answering."""
    places = [TopicPartition(name, each) for name in topics for each in range(load().partitions(name))]
    consumer.assign(places)
    consumer.seek_to_beginning(*places)
    ends, silent = consumer.end_offsets(places), 0
    while any(consumer.position(place) < ends[place] for place in places):
        fetched = consumer.poll(_POLL_MS)
        silent = 0 if fetched else silent + 1
        if silent > _SILENT_POLLS:
            raise RuntimeError("the broker answers no more")
        for records in fetched.values():
            yield from records


def _delivered(records: Iterable[Any]) -> Iterator[Delivered]:
    for record in records:
        message = decode(record.value)
        assert isinstance(message, Notice | DispenseOrder | SubmissionReceipt), record.topic
        yield Delivered(record.topic, record.partition, record.offset, record.timestamp, message)


def _submitted(records: Iterable[Any]) -> Iterator[Submitted]:
    for record in records:
        try:
            message = decode(record.value)
        except UndecodableError:
            message = None
        message_id = message.message_id.lower() if isinstance(message, Submission) else None
        yield Submitted(record.topic, record.partition, record.offset, message_id)


def _progress(records: Iterable[Any]) -> Iterator[Progressed]:
    for record in records:
        noted = decode(record.value)
        assert isinstance(noted, RelayProgress)
        yield Progressed(record.timestamp, noted.partition, noted.source_offset)
