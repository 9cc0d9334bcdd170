"""Reads single records of the log by their places: from Kafka, and from memory for tests."""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final, Protocol

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, OffsetOutOfRangeError

from services.canonical_log import get_logger
from services.medication_list.log.record import Record
from services.publishing.kafka_access import KafkaAccess
from services.publishing.kafka_clients import connect
from services.publishing.kept_admin import listens
from services.topics.registry import EVENTS_TOPIC

_NEAR: Final = 100
"""Records that are skipped over rather than sought past: they come with the same fetch."""
_FETCH_BYTES: Final = 128 * 1024
_FETCH_WAIT_MS: Final = 5
_POLL_MS: Final = 200
_ANSWER_MS: Final = 3_000
_WITHIN_S: Final = 8.0
_log = get_logger()


class LogLookupError(Exception):
    """The log does not answer in time."""


class AnotherLogError(LogLookupError):
    """The log does not hold what the view was made from: it lost records, and others may have taken their places."""


class RecordLog(Protocol):
    """Single records of the log of medication events. Blocking, callable from several threads."""

    def read(self, partition: int, offsets: Collection[int]) -> Mapping[int, Record]:
        """The records at these offsets, unchanged; one that does not exist is left out. Raises LogLookupError."""
        ...

    def close(self) -> None:
        """Let go of every connection."""
        ...


def all_of(patient: str, partition: int, offsets: Iterable[int], found: Mapping[int, Record]) -> Mapping[int, Record]:
    """What was found at the offsets that the view has for a patient, if each of them is there and is this patient's.

    Raises AnotherLogError, with an alarm: an offset may lead to somebody else's record where the log lost its newest ones.
    """
    key = patient.encode()
    for offset in offsets:
        record = found.get(offset)
        if record is None or record.key != key:
            _log.error("record_not_as_judged", partition=partition, offset=offset)
            raise AnotherLogError(
                f"The log does not hold at offset {offset} of partition {partition} what the view was made of: it lost "
                "records, or is another one."
            )
    return found


class MemoryRecordLog:
    """One in memory: `records` by partition and offset, to be set as a test wants them."""

    def __init__(self, records: Mapping[tuple[int, int], Record]) -> None:
        self.records = records

    def read(self, partition: int, offsets: Collection[int]) -> Mapping[int, Record]:
        """See `RecordLog.read`."""
        return {each: self.records[partition, each] for each in sorted(offsets) if (partition, each) in self.records}

    def close(self) -> None:
        """See `RecordLog.close`."""


class KafkaRecordLog:
    """The real one: consumers that are kept, each used by one read at a time."""

    def __init__(self, kafka: KafkaAccess, topic: str = EVENTS_TOPIC) -> None:
        self._kafka = kafka
        self._topic = topic
        self._idle: SimpleQueue[Any] = SimpleQueue()

    def read(self, partition: int, offsets: Collection[int]) -> Mapping[int, Record]:
        """See `RecordLog.read`."""
        wanted = sorted(set(offsets))
        if not wanted:
            return {}
        try:
            consumer = self._consumer()
        except KafkaError as error:
            raise LogLookupError(f"the log does not answer ({type(error).__name__})") from error
        try:
            found: dict[int, Record] = _collected(consumer, TopicPartition(self._topic, partition), wanted)
        except (KafkaError, LogLookupError) as error:
            consumer.close(autocommit=False)
            raise LogLookupError(f"the log does not bring the records ({type(error).__name__})") from error
        self._idle.put(consumer)
        return found

    def close(self) -> None:
        """See `RecordLog.close`."""
        with suppress(Empty):
            while True:
                self._idle.get_nowait().close()

    def _consumer(self) -> Any:
        with suppress(Empty):
            return self._idle.get_nowait()
        if not any(listens(address, _ANSWER_MS / 1000) for address in self._kafka.addresses):
            # The library would go on trying, and leave every refused socket open behind it.
            raise LogLookupError("no broker answers")
        return connect(
            KafkaConsumer,
            self._kafka,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            allow_auto_create_topics=False,
            isolation_level="read_committed",
            max_partition_fetch_bytes=_FETCH_BYTES,
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            bootstrap_timeout_ms=_ANSWER_MS,
            request_timeout_ms=_ANSWER_MS,
        )


def _collected(consumer: Any, place: Any, wanted: list[int]) -> dict[int, Any]:
    """Seek to what is far, read through what is near. `wanted` is in order."""
    deadline_s = time.monotonic() + _WITHIN_S
    looked_for = frozenset(wanted)
    found: dict[int, Any] = {}
    consumer.assign([place])
    at, standing = 0, None
    while at < len(wanted):
        if standing is None or not standing <= wanted[at] <= standing + _NEAR:
            consumer.seek(place, wanted[at])
        polled = _polled(consumer, place)
        if polled:
            found.update((record.offset, record) for record in polled if record.offset in looked_for)
            passed = standing = consumer.position(place, timeout_ms=_ANSWER_MS)
        else:
            # A slow answer, or nothing there: only the log's two ends can tell, and an error about the place cannot.
            standing = None
            passed, end = consumer.beginning_offsets([place])[place], consumer.end_offsets([place])[place]
            if wanted[at] >= end:
                return found
        while at < len(wanted) and wanted[at] < passed:
            at += 1
        if at < len(wanted) and time.monotonic() > deadline_s:
            raise LogLookupError("the log did not bring the records in time")
    return found


def _polled(consumer: Any, place: Any) -> Sequence[Any]:
    try:
        records: Sequence[Any] = consumer.poll(timeout_ms=_POLL_MS).get(place, ())
    except OffsetOutOfRangeError:
        return ()
    return records
