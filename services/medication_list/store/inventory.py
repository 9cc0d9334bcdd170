"""What is in the store, generation by generation: for operators who count, compare and delete it."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

Flat = Mapping[bytes, bytes]


class Memory(NamedTuple):
    """What the store uses of what it may use, in bytes."""

    used: int
    limit: int


class PatientPlace(NamedTuple):
    """A patient of some generation, by pseudonym."""

    generation: str
    partition: int
    patient: str


class Sides(NamedTuple):
    """All of one patient in two generations, at one moment: hash and event index of either."""

    patient: str
    one: Flat
    one_index: Flat
    other: Flat
    other_index: Flat

    @property
    def are_equal(self) -> bool:
        """Whether nothing differs."""
        return (self.one, self.one_index) == (self.other, self.other_index)


class Compared(NamedTuple):
    """How far two generations were in a partition, and which of the patients asked for differ."""

    one_offset: int | None
    other_offset: int | None
    differing: Sequence[Sides]


class Inventory(Protocol):
    """Looks into generations beside those who work on them. Blocking; raises StoreUnavailableError."""

    def memory(self) -> Memory:
        """How much is used, and how much there is; without a limit of its own, the machine's."""
        ...

    def sizes(self, sample: int) -> Mapping[str, int]:
        """The bytes of each generation, estimated from that many random keys; exact for a smaller store."""
        ...

    def patients(self, cursor: int, at_most: int) -> tuple[int, Collection[PatientPlace]]:
        """About that many patients, of every generation; begin with cursor 0, continue until 0 comes back.

        A patient present throughout is found, perhaps twice; in an order unrelated to the patients.
        """
        ...

    def strangers(self, partition: int, generation: str, patients: Sequence[str]) -> Collection[str]:
        """Those of these patients of whom a generation knows no event."""
        ...

    def compare(self, partition: int, one: str, other: str, patients: Sequence[str]) -> Compared:
        """Compare patients of one partition in two generations, all at one moment."""
        ...

    def differing_notes(self, partition: int, one: str, other: str) -> Collection[tuple[str, str]]:
        """What differs between two generations beside the patients: `rx` or `parked`, and the number or offset."""
        ...

    def forget(self, partition: int, generation: str) -> bool:
        """Delete a generation's offset, so that nobody reads or writes it any more; False where it is the live one."""
        ...

    def sweep(self, generation: str, cursor: int, at_most: int) -> tuple[int, int]:
        """Delete about that many keys of a generation; the next cursor (0: all were seen) and how many were deleted."""
        ...
