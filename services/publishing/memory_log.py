"""The log in memory: the same promises as the real one, for tests of its writers and for simulations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from services.clock import Clock
from services.publishing.log import (
    LARGEST_RECORD_BYTES,
    Headers,
    LogRecord,
    LogUnavailable,
    Position,
    RecordTooLarge,
    record_bytes,
)
from services.publishing.partitioning import partition_of


class StoredRecord(NamedTuple):
    """A record as it is in the log."""

    position: Position
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


class MemoryLog:
    """Keeps every record. While `is_available` is false it takes nothing, like a broker that is away."""

    def __init__(self, partitions: Callable[[str], int], clock: Clock) -> None:
        """`partitions`: the declared number for a topic; raises for one that is not declared."""
        self.is_available = True
        self._partitions = partitions
        self._clock = clock
        self._records: defaultdict[tuple[str, int], list[StoredRecord]] = defaultdict(list)

    async def append(self, topic: str, key: bytes, value: bytes, headers: Headers = ()) -> Position:
        """Append at once; see `Log.append`."""
        partition = partition_of(key, self._partitions(topic))
        if record_bytes(key, value, headers) > LARGEST_RECORD_BYTES:
            raise RecordTooLarge(f"a record for {topic} is larger than {LARGEST_RECORD_BYTES} bytes")
        if not self.is_available:
            raise LogUnavailable("the log is not available")
        records = self._records[topic, partition]
        position = Position(partition, len(records), self._clock.now_ms())
        records.append(StoredRecord(position, bytes(key), bytes(value), tuple(headers)))
        return position

    async def append_many(self, records: Sequence[LogRecord]) -> Sequence[Position | Exception]:
        """Append one after the other; see `Log.append_many`."""
        answers: list[Position | Exception] = []
        for record in records:
            try:
                answers.append(await self.append(*record))
            except Exception as error:  # noqa: BLE001 - whatever it was, it is this record's answer
                answers.append(error)
        return answers

    async def close(self) -> None:
        """Take nothing more; what it holds can still be read."""
        self.is_available = False

    def records(self, topic: str, partition: int | None = None) -> list[StoredRecord]:
        """The records of a topic, or of one of its partitions: by partition, then by offset."""
        wanted = range(self._partitions(topic)) if partition is None else (partition,)
        return [record for each in wanted for record in self._records[topic, each]]
