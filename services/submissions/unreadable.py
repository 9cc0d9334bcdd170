"""Reads past what the library cannot read: a header's name that is no text costs one record, a damaged batch its partition.

Left to itself the library gives up a whole batch for such a name, which any sender may write, and says nothing of where it
lies; and it keeps the spent reader of that batch, from which the next poll takes nothing, for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.record.default_records import DefaultRecord, DefaultRecordBatch
from kafka.record.util import decode_varint


def tolerate(consumer: Any) -> None:
    """Have this consumer hand on what it can read, and raise UnreadableBatch for what it cannot.

    It can be polled on afterwards: what it reads of other partitions comes, and that batch is fetched anew.
    """
    # The library offers no other place to step in; it makes one of these of each partition's share of a fetch.
    consumer._fetcher.PartitionRecords = _PartitionRecords  # noqa: SLF001


def read_anew(consumer: Any, place: TopicPartition) -> None:
    """Go on with a partition that was paused, from what the broker has now: the library has kept what it fetched before."""
    consumer._fetcher._paused_completed_fetches.pop(place, None)  # noqa: SLF001 - nothing public lets go of it
    consumer.resume(place)


class UnreadableBatch(Exception):  # noqa: N818 - named for what it is
    """A partition cannot be read on: what lies at this offset is damaged, or nothing that the library knows."""

    def __init__(self, place: TopicPartition, offset: int, cause: Exception) -> None:
        super().__init__(f"{place.topic}/{place.partition}/{offset}: {type(cause).__name__}")
        self.place = place
        self.offset = offset
        self.error_type = type(cause).__name__


class _PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]  # the library has no types
    """One partition's share of a fetch."""

    def take(self, n: int | None = None) -> Any:
        """What comes next, at most so many. What lies before an unreadable batch is handed on first."""
        try:
            return super().take(n)
        except Exception as error:
            # It has nothing more to give. Kept as it is, it would be asked for more without end.
            self.drain()
            raise UnreadableBatch(self.topic_partition, self.next_fetch_offset, error) from error

    def _unpack_records(self, tp: Any, records: Any, *deserializers: Any) -> Iterator[Any]:
        unpacked: Iterator[Any] = super()._unpack_records(tp, _Batches(records), *deserializers)
        return unpacked


class _Batches:
    """The batches of a fetch, as the library's reader asks for them."""

    def __init__(self, records: Any) -> None:
        self._records = records

    def next_batch(self) -> Any:
        """The next one, None after the last."""
        batch = self._records.next_batch()
        return _Batch(batch._buffer) if isinstance(batch, DefaultRecordBatch) else batch  # noqa: SLF001


class _Batch(DefaultRecordBatch):  # type: ignore[misc]  # the library has no types
    """One batch. Its records are read in turn, each from `_pos` on."""

    _pos: int

    def _read_msg(self) -> Any:
        try:
            return super()._read_msg()
        except UnicodeDecodeError:
            # The broker looks at a record's form and not at its names; nothing else in one is taken for text.
            return self._bare()

    def _bare(self) -> Any:
        """The record where it lies and in whose order, as one without a value, which is answered as unreadable."""
        buffer = self._buffer
        length, at = decode_varint(buffer, self._pos)
        end = at + length
        _attributes, at = decode_varint(buffer, at)
        later_ms, at = decode_varint(buffer, at)
        further, at = decode_varint(buffer, at)
        key_length, at = decode_varint(buffer, at)
        key = None if key_length < 0 else bytes(buffer[at : at + key_length])
        is_brokers_time = self.timestamp_type == self.LOG_APPEND_TIME
        sent_at_ms = self.max_timestamp if is_brokers_time else self.first_timestamp + later_ms
        self._pos = end
        return DefaultRecord(length, self.base_offset + further, sent_at_ms, self.timestamp_type, key, None, [])
