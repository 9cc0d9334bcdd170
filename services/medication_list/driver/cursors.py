"""Where each partition is read, and which batches a rewind has made stale: the driver's whole memory, without Kafka."""

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import count

from services.medication_list.driver.batches import PartitionBatch
from services.medication_list.log.last_record import mark_of, offset_in
from services.medication_list.log.record import Record
from services.medication_list.store.port import Standing


class StopReason(StrEnum):
    """Why a partition is not being read. Each is an alarm and none is ever skipped over."""

    OFFSET_OUT_OF_RANGE = "offset_out_of_range"
    """The log no longer holds, or does not yet hold, the offset that the store expects, or the record before it."""
    LOG_REWRITTEN = "log_rewritten"
    """The log holds another record in the place of the one judged last: it lost its newest records, and others came."""
    CORRUPT_BATCH = "corrupt_batch"
    """The bytes at this offset are not a readable record batch."""
    NOT_READABLE = "not_readable"
    """The broker does not let this worker read the partition."""
    PARTITION_COUNT = "partition_count"
    """The topic has another number of partitions than was declared, so keys belong elsewhere."""


@dataclass(frozen=True, slots=True)
class Stop:
    """A partition that stands still, and the offset at which it does."""

    reason: StopReason
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """How far one assigned partition has come, for health, metrics and lag; None where not known yet."""

    partition: int
    applied: int | None
    end: int | None
    stop: Stop | None
    is_stuck: bool = False
    """It has records to read and has not advanced for so long that an alarm was raised."""


@dataclass(slots=True)
class _Cursor:
    turn: int
    next_offset: int | None = None  # None: the store must be asked
    last: bytes = b""  # the mark of the record that must be found before anything is read on
    must_seek: bool = False
    applied: int | None = None
    end: int | None = None
    stop: Stop | None = None
    retry_at_s: float = 0.0
    suspect_before: int = 0  # below this offset, read one record at a time
    advanced_at_s: float = 0.0
    alarmed: bool = False
    rest_s: float = 0.0  # a rest that has yet to begin
    rests_until_s: float = 0.0


class Cursors:
    """One cursor per assigned partition.

    The event loop (verdicts, timers, assignment) and the consumer's thread (seeking, reading) both use it, so each method
    is one locked step. A turn number guards every step that was begun before: it goes up whenever a partition is sent
    elsewhere, and what carries an older one is dropped.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turns = count(1)
        self._cursors: dict[int, _Cursor] = {}

    def assign(self, partitions: Iterable[int], now_s: float) -> None:
        """Forget everything and hold these partitions: the store says where each begins."""
        with self._lock:
            self._cursors = {p: _Cursor(next(self._turns), advanced_at_s=now_s) for p in partitions}

    def unplaced(self, partitions: Iterable[int]) -> dict[int, int]:
        """The turn of each of these partitions whose offset is not yet known from the store."""
        with self._lock:
            return {
                p: c.turn
                for p in partitions
                if (c := self._cursors.get(p)) is not None and c.next_offset is None and c.stop is None
            }

    def place(self, partition: int, turn: int, stands: Standing) -> None:
        """Begin the partition at the store's offset: with the record judged last, which is not handed on."""
        with self._lock:
            if (cursor := self._at(partition, turn)) is not None:
                cursor.next_offset = cursor.applied = stands.offset
                cursor.last = stands.last
                cursor.must_seek = True

    def begin_again(self, partition: int, turn: int) -> None:
        """Have the partition begin at the store's offset, as if it had just been assigned."""
        with self._lock:
            if (cursor := self._at(partition, turn)) is not None:
                self._begin_again(partition, cursor, cursor.advanced_at_s)

    def is_unproved(self, partition: int, turn: int) -> bool:
        """Whether the record judged last has yet to be found in the log."""
        with self._lock:
            cursor = self._at(partition, turn)
            return cursor is not None and bool(cursor.last) and not cursor.must_seek

    def is_another(self, partition: int, turn: int, records: Sequence[Record], position: int) -> bool:
        """Whether the first record read is another than the one judged last. Once that was found, this is no longer checked."""
        with self._lock:
            cursor = self._at(partition, turn)
            if cursor is None or not cursor.last or cursor.must_seek:
                return False
            if not records and position <= offset_in(cursor.last):
                return False
            if not records or mark_of(records[0]) != cursor.last:
                return True
            cursor.last = b""
            return False

    def readable(self, partitions: Iterable[int]) -> dict[int, int]:
        """The turn of each of these partitions that can be read."""
        with self._lock:
            return {
                p: c.turn
                for p in partitions
                if (c := self._cursors.get(p)) is not None and c.next_offset is not None and c.stop is None
            }

    def take_seeks(self, partitions: Iterable[int]) -> dict[int, int]:
        """The offset of each of these partitions that must be sought, once."""
        with self._lock:
            seeks = {}
            for partition in partitions:
                cursor = self._cursors.get(partition)
                if cursor is not None and cursor.must_seek and cursor.next_offset is not None:
                    seeks[partition] = offset_in(cursor.last) if cursor.last else cursor.next_offset
                    cursor.must_seek = False
            return seeks

    def take(
        self, partition: int, turn: int, records: Sequence[Record], position: int, end: int | None
    ) -> PartitionBatch | None:
        """Make a batch of what was read in that turn up to `position`; None if it is stale or brings nothing."""
        with self._lock:
            cursor = self._at(partition, turn)
            if cursor is None or cursor.next_offset is None:
                return None
            cursor.end = end
            if cursor.must_seek or position <= cursor.next_offset:
                return None
            if records and records[0].offset < cursor.next_offset:
                records = [record for record in records if record.offset >= cursor.next_offset]
            batch = PartitionBatch(partition, cursor.next_offset, position, records, turn)
            cursor.next_offset = position
            return batch

    def is_current(self, batch: PartitionBatch) -> bool:
        """Whether nothing has sent the partition elsewhere since the batch was read."""
        with self._lock:
            return self._at(batch.partition, batch.turn) is not None

    def applied(self, batch: PartitionBatch, now_s: float) -> None:
        """Note that the store holds everything up to the batch's end."""
        with self._lock:
            if (cursor := self._at(batch.partition, batch.turn)) is not None:
                cursor.applied = batch.next_offset
                cursor.advanced_at_s = now_s
                cursor.alarmed = False

    def rewind(self, partition: int, offset: int, rest_s: float = 0.0) -> None:
        """Read the partition again from `offset`, after a rest. A partition that is no longer assigned is left alone.

        So is one that has yet to begin at the store's offset, or is stopped: a batch from before that cannot move it.
        """
        with self._lock:
            cursor = self._cursors.get(partition)
            has_begun = cursor is not None and cursor.next_offset is not None and not cursor.last
            if cursor is not None and has_begun and cursor.stop is None:
                self._send_to(cursor, offset)
                cursor.rest_s = rest_s

    def resting(self, now_s: float) -> set[int]:
        """The partitions that are not to be read yet; a rest begins when this is asked first.

        So the clock is the reader's. No other partition's turn is affected, and the alarm for a partition that does not
        advance keeps counting.
        """
        with self._lock:
            for cursor in self._cursors.values():
                if cursor.rest_s:
                    cursor.rests_until_s, cursor.rest_s = now_s + cursor.rest_s, 0.0
            return {partition for partition, cursor in self._cursors.items() if now_s < cursor.rests_until_s}

    def believed(self) -> dict[int, tuple[int, int]]:
        """Turn and applied offset of each partition that has begun."""
        with self._lock:
            return {p: (c.turn, c.applied) for p, c in self._cursors.items() if c.applied is not None}

    def roll_back(self, partition: int, turn: int, believed: int, offset: int) -> bool:
        """Rewind to the store's offset if it is lower than what was believed when it was asked. Returns whether it was.

        What has been applied since does not count: the answer may be older than that.
        """
        with self._lock:
            cursor = self._at(partition, turn)
            if cursor is None or offset >= believed:
                return False
            self._send_to(cursor, offset)
            return True

    def room(self, partition: int, at_most: int) -> int:
        """How many records to read at once: one, while a corrupt batch is being located."""
        with self._lock:
            cursor = self._cursors.get(partition)
            suspect = (
                cursor is not None and cursor.next_offset is not None and cursor.next_offset < cursor.suspect_before
            )
            return 1 if suspect else at_most

    def suspect(self, partition: int, turn: int, within: int) -> bool:
        """Read the next `within` offsets one record at a time, to hand on what lies before a corrupt batch.

        Returns False if that was being done already: then the corrupt batch begins at the cursor.
        """
        with self._lock:
            cursor = self._at(partition, turn)
            if cursor is None or cursor.next_offset is None:
                return True
            cursor.must_seek = True
            if cursor.next_offset < cursor.suspect_before:
                return False
            cursor.suspect_before = cursor.next_offset + within
            return True

    def stop(self, partition: int, turn: int, reason: StopReason, retry_at_s: float) -> Stop | None:
        """Stop reading the partition until `retry_at_s`; None if it was sent elsewhere meanwhile."""
        with self._lock:
            cursor = self._at(partition, turn)
            if cursor is None:
                return None
            cursor.stop = Stop(reason, partition, cursor.next_offset or 0)
            cursor.retry_at_s = retry_at_s
            return cursor.stop

    def retry_stopped(self, now_s: float) -> None:
        """Let partitions whose time has come begin again at the store's offset; a cause that persists stops them again."""
        with self._lock:
            for partition, cursor in self._cursors.items():
                if cursor.stop is not None and cursor.retry_at_s <= now_s:
                    self._begin_again(partition, cursor, now_s)

    def stuck(self, now_s: float, after_s: float) -> list[PartitionStatus]:
        """The partitions that have records to read and have not advanced for so long; each once until it does."""
        with self._lock:
            found = []
            for partition, cursor in self._cursors.items():
                caught_up = cursor.end is None or cursor.applied is None or cursor.applied >= cursor.end
                if caught_up or cursor.stop is not None:
                    cursor.advanced_at_s = now_s
                elif now_s - cursor.advanced_at_s >= after_s and not cursor.alarmed:
                    cursor.alarmed = True
                    found.append(_status(partition, cursor))
            return found

    def status(self) -> tuple[PartitionStatus, ...]:
        """How far each assigned partition has come, in order of partition."""
        with self._lock:
            return tuple(_status(p, c) for p, c in sorted(self._cursors.items()))

    def _begin_again(self, partition: int, cursor: _Cursor, advanced_at_s: float) -> None:
        self._cursors[partition] = _Cursor(next(self._turns), end=cursor.end, advanced_at_s=advanced_at_s)

    def _at(self, partition: int, turn: int) -> _Cursor | None:
        cursor = self._cursors.get(partition)
        return cursor if cursor is not None and cursor.turn == turn else None

    def _send_to(self, cursor: _Cursor, offset: int) -> None:
        cursor.turn = next(self._turns)
        cursor.next_offset = cursor.applied = offset
        cursor.last = b""
        cursor.must_seek = True
        cursor.stop = None
        cursor.rest_s = cursor.rests_until_s = 0.0


def _status(partition: int, cursor: _Cursor) -> PartitionStatus:
    return PartitionStatus(partition, cursor.applied, cursor.end, cursor.stop, cursor.alarmed)


def rolled_back(
    cursors: Cursors, believed: Mapping[int, tuple[int, int]], stored: Mapping[int, int]
) -> Collection[int]:
    """Rewind every partition whose stored offset is below what was applied, and return those.

    A store that was restored or emptied while a partition was idle refuses nothing, since nothing is written: only
    reading its offsets shows it. `believed` must have been taken before `stored` was read; the other way round, an
    ordinary write between the two would look like a rollback.
    """
    return [
        partition
        for partition, (turn, applied) in believed.items()
        if partition in stored and cursors.roll_back(partition, turn, applied, stored[partition])
    ]
