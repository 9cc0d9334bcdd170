"""Who may write a partition, and which generation is live: the few values that a bootstrap and a switch change."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol


class RoleState(StrEnum):
    """What a partition's role permits the live generation to do."""

    BUILDING = "building"
    """It writes, and nobody reads yet: it holds less than what was lost."""
    LIVE = "live"
    FROZEN = "frozen"
    """It is read and not written: a switch is under way."""


class Role(NamedTuple):
    """The role of one partition.

    `epoch` counts switches. `token` is the switch that froze it. A building generation turns live when its offset
    reaches `until`; it leaves out effects of records below `effects_from`.
    """

    epoch: int
    live: str
    state: RoleState
    token: str
    until: int
    effects_from: int


@dataclass(frozen=True, slots=True)
class Pointer:
    """The commit point: which generation is live, whose log it was made from, and what is known of each generation.

    `records` maps a generation's name to its encoded record (`generations.GenerationRecord`).
    """

    epoch: int
    generation: str
    token: str
    cluster: str
    topic: str
    records: Mapping[str, bytes]


class Beginning(NamedTuple):
    """How a generation begins in a partition without a role: see Role for `until` and `effects_from`.

    A role of the generation `instead_of`, which is gone, counts as none; of its effects that wait those are dropped that are
    made again. With `beside`, which is 0 or 1, the generation begins only where there is a role: beside the live one, and
    never in its place. Without it nothing begins where another one has the role. `withheld` maps the offset of each record
    that it parks while it is building, whether or not it can be read, to the reason. `first_epoch`: of its data; another
    one each time that a partition is begun again, so that what was read before that is stale.
    """

    generation: str
    epoch: int
    until: int
    effects_from: int
    instead_of: str = ""
    beside: int = 0
    withheld: Mapping[int, str] = {}
    first_epoch: int = 0


class WorkerKind(StrEnum):
    """What a worker feeds, and so what it will feed after a switch."""

    PROCESSOR = "processor"
    """The generation of its release: the live one as soon as its fold made that."""
    PINNED = "pinned"
    """The one that it was told to, whatever is live."""
    REPLAY = "replay"
    """What a replay makes, and afterwards what nobody else feeds."""


class Attending(NamedTuple):
    """A worker that works on a generation. `name` is its process, never a person."""

    kind: WorkerKind
    name: str


class Roles(Protocol):
    """Roles and pointer, each changed by compare-and-set; and who works on what. Blocking; raises StoreUnavailableError."""

    def roles(self, partitions: Collection[int]) -> Mapping[int, Role | None]:
        """The role of each partition, None where there is none."""
        ...

    def offsets(self, generation: str, partitions: Collection[int]) -> Mapping[int, int | None]:
        """How far a generation has come; None where it has not begun."""
        ...

    def begin(self, beginnings: Mapping[int, Beginning]) -> Collection[int]:
        """Begin a generation in these partitions; repeating is harmless. Without a role there it becomes the live one.

        Where another one has the role, and it is not to begin beside that, nothing happens: look again who has it.
        Returns the partitions where it could not begin: it is live there by its role, and its data is gone; or there is
        no role to begin beside.
        """
        ...

    def turn(self, partition: int, seen: Role, shall: Role) -> bool:
        """Put `shall` in the place of the role that was seen (epoch, live, state, token); tell whether it was put."""
        ...

    def pointer(self) -> Pointer | None:
        """The commit point, None in an empty store."""
        ...

    def point(self, seen: Pointer | None, shall: Pointer) -> bool:
        """Put `shall` in the place of the pointer that was seen (epoch, generation, token); tell whether it was put."""
        ...

    def attend(self, generation: str, worker: Attending, for_ms: int) -> None:
        """Note that a worker works on a generation, for this long; 0: that it no longer does."""
        ...

    def attending(self, generation: str) -> Collection[Attending]:
        """The workers of a generation whose time has not run out, by the store's clock."""
        ...

    def keeps_everything(self) -> bool:
        """Whether the store refuses writes rather than evict keys when it is full."""
        ...


def attending_of(member: str) -> Attending:
    """A worker from the text that it is kept as."""
    kind, _, name = member.partition("/")
    return Attending(WorkerKind(kind), name)


def pointer_fields(pointer: Pointer) -> dict[str, bytes]:
    """A pointer as the fields of its hash."""
    fixed = {
        "epoch": str(pointer.epoch).encode(),
        "generation": pointer.generation.encode(),
        "token": pointer.token.encode(),
        "cluster": pointer.cluster.encode(),
        "topic": pointer.topic.encode(),
    }
    return fixed | {f"g:{name}": record for name, record in pointer.records.items()}


def pointer_of(fields: Mapping[bytes, bytes]) -> Pointer | None:
    """The pointer that a hash holds; None for an empty hash."""
    if not fields:
        return None
    return Pointer(
        epoch=int(fields[b"epoch"]),
        generation=fields[b"generation"].decode(),
        token=fields[b"token"].decode(),
        cluster=fields[b"cluster"].decode(),
        topic=fields[b"topic"].decode(),
        records={name[2:].decode(): record for name, record in fields.items() if name.startswith(b"g:")},
    )


ROLE_FIELDS = ("epoch", "live", "state", "token", "until", "effects_from")


def role_of(values: Collection[bytes | None]) -> Role | None:
    """The role in the values of ROLE_FIELDS; None when there is none."""
    epoch, live, state, token, until, effects_from = (None if each is None else each.decode() for each in values)
    if epoch is None or live is None or state is None or token is None or until is None or effects_from is None:
        return None
    return Role(int(epoch), live, RoleState(state), token, int(until), int(effects_from))
