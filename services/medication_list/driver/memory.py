"""A log in memory behind the same port as Kafka's, so that the processing loop runs under a simulation."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from math import inf

from services.medication_list.driver.batches import Fetch, LogReader, PartitionBatch, Positions
from services.medication_list.driver.cursors import Cursors, StopReason, rolled_back
from services.medication_list.log.record import Record

ReadRecords = Callable[[int, int, int], Sequence[Record]]
"""Takes partition, offset and a limit; returns the records at and after the offset, in order."""


class MemoryLogReader(LogReader):
    """Reads any log that can be asked for records, with the cursors of the real driver.

    `assign` stands for a rebalance and may be called at any time; the caller decides when the store is looked at
    (`check_store`), where the real driver has a timer. `yielding` is awaited before every step: a simulation can
    delay or kill there.
    """

    def __init__(
        self,
        read: ReadRecords,
        positions: Positions,
        *,
        max_records: int = 1000,
        now_s: Callable[[], float] = lambda: 0.0,
        yielding: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(0),
    ) -> None:
        self._read = read
        self._positions = positions
        self._max_records = max_records
        self._now_s = now_s
        self._yielding = yielding
        self._cursors = Cursors()
        self._assigned: tuple[int, ...] = ()
        self._sought: dict[int, int] = {}
        self._closed = False

    def assign(self, partitions: Iterable[int]) -> None:
        """Hold these partitions from now on, each from the store's offset."""
        self._assigned = tuple(partitions)
        self._cursors.assign(self._assigned, self._now_s())

    def close(self) -> None:
        """End `fetches` once nothing is left to read."""
        self._closed = True

    def check_store(self) -> None:
        """Rewind what the store has gone back on."""
        believed = self._cursors.believed()
        stored = self._positions.standing(tuple(believed))
        rolled_back(self._cursors, believed, {partition: each.offset for partition, each in stored.items()})

    async def fetches(self) -> AsyncIterator[Fetch]:
        """Yield what there is to read; wait while there is nothing, until closed."""
        while True:
            await self._yielding()
            self._place()
            batches = self._take()
            if batches:
                await self._yielding()
                yield Fetch(batches)
            elif self._closed and not self._cursors.resting(self._now_s()):
                return

    def is_current(self, batch: PartitionBatch) -> bool:
        """Whether no rewind and no new assignment came after the batch was read."""
        return self._cursors.is_current(batch)

    def applied(self, batch: PartitionBatch) -> None:
        """Note that the store has taken the batch."""
        self._cursors.applied(batch, self._now_s())

    def rewind(self, partition: int, offset: int, rest_s: float = 0.0) -> None:
        """Read the partition again from `offset`, after a rest."""
        self._cursors.rewind(partition, offset, rest_s)

    def _place(self) -> None:
        unplaced = self._cursors.unplaced(self._assigned)
        if unplaced:
            stored = self._positions.standing(tuple(unplaced))
            for partition, turn in unplaced.items():
                self._cursors.place(partition, turn, stored[partition])
        for partition, offset in self._cursors.take_seeks(self._assigned).items():
            self._sought[partition] = offset

    def _take(self) -> tuple[PartitionBatch, ...]:
        batches = []
        awake = set(self._assigned) - self._cursors.resting(self._now_s())
        for partition, turn in sorted(self._cursors.readable(awake).items()):
            # What was judged last is read once more, and not handed on.
            at_most = self._max_records + self._cursors.is_unproved(partition, turn)
            records = self._read(partition, self._sought[partition], at_most)
            if not records:
                continue
            end = records[-1].offset + 1
            self._sought[partition] = end
            if self._cursors.is_another(partition, turn, records, end):
                self._cursors.stop(partition, turn, StopReason.LOG_REWRITTEN, retry_at_s=inf)
                continue
            batch = self._cursors.take(partition, turn, records, end, end)
            if batch is not None:
                batches.append(batch)
        return tuple(batches)
