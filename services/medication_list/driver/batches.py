"""What the driver hands to the processor and what it gets back: fetches, verdicts, and the ports on either side."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from services.medication_list.log.record import Record
from services.medication_list.store.port import Standing


@dataclass(frozen=True, slots=True)
class PartitionBatch:
    """Consecutive records of one partition.

    `first_offset` is where the batch begins: where the partition was sought, or where the batch before it ended. It can
    be below the first record's offset, since transaction markers and aborted records take offsets but are not handed on.
    `next_offset` is where the batch after it begins: above the last record, and above the markers that follow it.
    So batches join without a gap, and a batch of markers alone has no records. `turn` tells which batches a rewind or
    a new assignment has made stale (`LogReader.is_current`).
    """

    partition: int
    first_offset: int
    next_offset: int
    records: Sequence[Record]
    turn: int


@dataclass(frozen=True, slots=True)
class Fetch:
    """Everything that one fetch brought, at most one batch a partition.

    `fetched_ns`: when, in nanoseconds since the epoch by the machine's clock, only for traces; None where unknown.
    """

    batches: tuple[PartitionBatch, ...]
    fetched_ns: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Applied:
    """The store took the batch and now expects `next_offset`."""

    next_offset: int


@dataclass(frozen=True, slots=True)
class Rewind:
    """The store refused the batch, since it expects `offset`."""

    offset: int


Verdict = Applied | Rewind

Process = Callable[[Fetch], Mapping[int, Verdict]]
"""Folds and stores one fetch and gives one verdict a partition. It may block on the store, and may raise: then every
batch of the fetch comes again, at once and alone or later, so it must rely on the store's compare-and-set."""


class Positions(Protocol):
    """The store's word on how far each partition has come: the only authority."""

    def standing(self, partitions: Collection[int]) -> Mapping[int, Standing]:
        """The offset that the store expects next, for each partition, and the mark of the record judged last.

        It is called in a worker thread, may block, and raises whatever the store's client raises.
        """
        ...


class LogReader(Protocol):
    """The log as the processing loop sees it: Kafka through Faust, or a log in memory under a simulation."""

    def fetches(self) -> AsyncIterator[Fetch]:
        """Yield fetches for as long as the worker lives."""
        ...

    def is_current(self, batch: PartitionBatch) -> bool:
        """Whether the batch is still wanted: no rewind and no new assignment came after it was read."""
        ...

    def applied(self, batch: PartitionBatch) -> None:
        """Note that the store has taken the batch."""
        ...

    def rewind(self, partition: int, offset: int, rest_s: float = 0.0) -> None:
        """Read the partition again from `offset`, after a rest; what is still queued of it is no longer current."""
        ...
