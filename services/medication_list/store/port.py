"""The store as the processor and the read API see it: bytes in, bytes out, one atomic step a partition; no fold in it.

Two implementations stand beside it, `redis_store` and `memory_store`, held to one contract suite.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol


class StoreUnavailableError(Exception):
    """The store did not answer, or cannot take writes now. What a write did before that is unknown: read again."""


class ViewLostError(StoreUnavailableError):
    """The store answers, but holds no role for a partition: the view was lost, and a new one must be begun."""

    def __init__(self, partition: int) -> None:
        super().__init__(f"the store holds no role for partition {partition}: the view was lost, or never begun")
        self.partition = partition


class WrongTypeError(StoreUnavailableError):
    """A key holds another type than is ever given to it: somebody else wrote it. Others of the same call were answered."""


class Standing(NamedTuple):
    """How far a partition has come. `last` is the mark of the record that was judged last, empty where none is known."""

    offset: int
    last: bytes = b""


class Wanted(NamedTuple):
    """What a fold needs of one patient: fields of its hash, entries of its event index."""

    patient: str
    fields: Sequence[str]
    remembered: Sequence[bytes]


class Snapshot(NamedTuple):
    """What one partition held at one moment.

    `fields` and `remembered` have one list per Wanted, in the order asked, None where nothing is stored.
    `limit` is the offset up to which this generation may write now: None for the live one (it has no limit), else the
    live one's offset. A batch that goes beyond it is cut there, or waits. `withheld` are the records that the live one
    parks while it is building, by offset with the reason; nothing for any other.
    """

    offset: int
    epoch: int
    limit: int | None
    fields: Sequence[Sequence[bytes | None]]
    remembered: Sequence[Sequence[bytes | None]]
    withheld: Mapping[int, str] = {}


class WholePatient(NamedTuple):
    """Everything of one patient at one moment; the event index only if it was asked for."""

    offset: int
    epoch: int
    fields: Mapping[str, bytes]
    remembered: Mapping[bytes, bytes]


class PatientChange(NamedTuple):
    """What changes in one patient's hash (put, drop) and event index (remember)."""

    patient: str
    put: Mapping[str, bytes]
    drop: Sequence[str] = ()
    remember: Mapping[bytes, bytes] = {}


@dataclass(frozen=True, slots=True)
class PartitionWrite:
    """All that one batch changes in its partition.

    `expected_offset` is the batch's own first offset, `epoch` the one that was read with the state; the write stands
    only if the store still holds both. `effects` are outbox entries (msgpack arrays that begin with the source offset) in log order.
    `opened` gives a prescription id or reference number its patient, in log order: the first one stays, and under which
    others it came is kept beside it (`keys.disputed_name`). `closed` takes ids back that belong to that patient; it
    happens before `opened`. `parked` maps an offset to why it was parked. `last` is the mark of the batch's last record
    (see `Standing`); without one, that of an earlier batch stays.
    """

    partition: int
    expected_offset: int
    epoch: int
    next_offset: int
    changes: Sequence[PatientChange] = ()
    effects: Sequence[bytes] = ()
    opened: Sequence[tuple[str, bytes]] = ()
    closed: Mapping[str, bytes] = field(default_factory=dict)
    parked: Mapping[int, bytes] = field(default_factory=dict)
    last: bytes = b""


@dataclass(frozen=True, slots=True)
class PatientRewrite:
    """One patient folded anew from its own records.

    `epoch`, `index_size` (entries of the event index) and `unchanged` (fields of the hash) are those that were read with
    them. `put` is the whole hash; `remember` and `forget` change entries of the index; the records at `unparked` are
    parked no more, and those in `parked` are, for the reason given.
    """

    partition: int
    patient: str
    epoch: int
    index_size: int
    put: Mapping[str, bytes]
    remember: Mapping[bytes, bytes] = field(default_factory=dict)
    effects: Sequence[bytes] = ()
    opened: Mapping[str, bytes] = field(default_factory=dict)
    closed: Mapping[str, bytes] = field(default_factory=dict)
    unparked: Sequence[int] = ()
    parked: Mapping[int, bytes] = field(default_factory=dict)
    forget: Sequence[bytes] = ()
    unchanged: Mapping[str, bytes] = field(default_factory=dict)


class RefusedWhy(StrEnum):
    """Why a write was refused."""

    OFFSET = "offset"
    """The stored offset differs: another worker was faster, or the store was rolled back."""
    EPOCH = "epoch"
    """The stored epoch differs: somebody else wrote a patient of the partition; what was read is stale."""
    ROLE = "role"
    """The partition is frozen, or another generation is live than this worker believed: read again."""
    CAPPED = "capped"
    """Not live, and the batch goes beyond the live generation's offset."""
    INDEX = "index"
    """The patient has had another event since it was read for a rewrite."""


class Written(NamedTuple):
    """The write stands. `taken` names opened ids that belong to another patient already, with that patient.

    `told_from`: the offset from which on the effects of records went out, and so whatever else is told of a record once;
    None: of none, since another generation is live.
    """

    next_offset: int
    taken: Mapping[str, bytes]
    told_from: int | None = None


class Refused(NamedTuple):
    """Nothing was written. `offset` and `epoch` are the stored ones; `limit` as in Snapshot."""

    why: RefusedWhy
    offset: int
    epoch: int
    limit: int | None


class Store(Protocol):
    """One generation's state, as its workers read and write it. Blocking, callable from several threads.

    Every method raises StoreUnavailableError when the store does not answer, ViewLostError when it has lost the view.
    """

    def next_offsets(self, partitions: Collection[int]) -> Mapping[int, int]:
        """The offset that the store expects next, for each partition; 0 where this generation holds nothing yet."""
        ...

    def standing(self, partitions: Collection[int]) -> Mapping[int, Standing]:
        """The same, with the mark of the record that was judged last, of one moment."""
        ...

    def read(self, requests: Mapping[int, Sequence[Wanted]]) -> Mapping[int, Snapshot]:
        """Offset, epoch and what is wanted, atomically per partition; one round trip for all partitions."""
        ...

    def read_whole(self, partition: int, patient: str, *, with_index: bool = False) -> WholePatient:
        """All of one patient, with offset and epoch, atomically."""
        ...

    def parked(self, partition: int) -> Mapping[int, bytes]:
        """Every record of the partition that is parked, by offset, with its note."""
        ...

    def rewrite(self, rewrite: PatientRewrite) -> Written | Refused:
        """Replace a patient by the result of a refold, and raise the epoch, in one step: by chance, so that none comes twice.

        Refused (role) while the live generation is frozen, also beside it; and of itself while it is building: what is judged
        later could owe effects to what this releases, and leave them out for a record from before the relay's progress.

        What is unparked by it and sends something counts as unsent until the last effect is deleted (see `Outbox.unsent`).
        """
        ...

    def note_parked(self, partition: int, epoch: int, notes: Mapping[int, bytes]) -> Written | Refused:
        """Put other notes to records that are parked already, and raise the epoch; those that are not are left out.

        Nothing is told of them.
        """
        ...

    def write(self, writes: Sequence[PartitionWrite]) -> Mapping[int, Written | Refused]:
        """Each partition's write whole or not at all; one round trip for all partitions.

        Raises ValueError when a write contradicts itself (two writes of one partition, an offset that goes back).
        """
        ...


def check_writes(writes: Sequence[PartitionWrite]) -> None:
    """Raise ValueError when writes contradict themselves: Redis would find it too, but only after other partitions' writes."""
    if len({each.partition for each in writes}) != len(writes):
        raise ValueError("two writes of one partition")
    for each in writes:
        if not 0 <= each.expected_offset < each.next_offset:
            raise ValueError(
                f"partition {each.partition}: from {each.expected_offset} to {each.next_offset} is not forwards"
            )
        if not each.closed.keys().isdisjoint(name for name, _ in each.opened):
            raise ValueError(f"partition {each.partition}: an id is both opened and closed")
        if len({change.patient for change in each.changes}) != len(each.changes):
            raise ValueError(f"partition {each.partition}: two changes of one patient")
