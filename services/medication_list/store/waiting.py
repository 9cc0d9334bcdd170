"""The outbox as the relay sees it: entries that wait, a lease on each partition, and the deletion of what was acknowledged."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol


class WaitingEntry(NamedTuple):
    """One entry of a partition's outbox: its place in the stream, and the encoded effect."""

    entry_id: str
    effect: bytes


class Unsent(NamedTuple):
    """What is unsent in a partition at one moment: parked records, and released ones whose effects wait.

    `offset`: how far the live generation has come. `waits`: whether the entry that was asked for is in the outbox still.
    `notes`: of what is parked, or was, the packed note by offset. `withheld`: what it has yet to park while it is building,
    with the reason. `in_all`: how many are parked or released, in all.
    """

    offset: int
    waits: bool
    notes: Mapping[int, bytes]
    withheld: Mapping[int, str]
    in_all: int


FIRST = "0-0"
"""Before every entry."""


class Outbox(Protocol):
    """The outboxes of all partitions. Blocking; raises StoreUnavailableError."""

    def lease(self, partitions: Collection[int], owner: str, for_ms: int) -> Collection[int]:
        """Take or keep the lease of each partition for this long. Returns those that are this owner's now."""
        ...

    def waiting(self, after: Mapping[int, str], at_most: int, wait_ms: int) -> Mapping[int, Sequence[WaitingEntry]]:
        """The first entries after the given one, in order, for each partition that has any.

        Waits up to `wait_ms` (less than the socket timeout) for the first entry to come.
        """
        ...

    def relayed(self, partition: int, owner: str, entry_ids: Sequence[str]) -> bool:
        """Delete what was acknowledged; False, and nothing deleted, if the lease has gone to another."""
        ...

    def unsent(self, asked: Mapping[int, str | None], at_most: int) -> Mapping[int, Unsent]:
        """What is unsent of each partition; one that lost its view is left out.

        `asked`: the outbox entry to look for, None: any. Of more notes than `at_most` some, about so many, are brought.
        """
        ...
