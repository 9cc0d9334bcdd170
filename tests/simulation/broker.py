"""The broker in memory: topics with partitions, offsets with holes, a consumer group with sessions, and acks that get lost."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from services.medication_list.log.source_log import LogIdentity
from services.publishing.partitioning import partition_of

IDENTITY: Final = LogIdentity("simulated", "medication-events")
SESSION_S: Final = 6.0
HEARTBEAT_S: Final = 1.5


class Stored(NamedTuple):
    """A record as it lies there. `topic` and `partition` make it a record of whatever consumer reads it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: tuple[tuple[str, bytes], ...]


class Broker:
    """Everything that was appended, for ever; `starts` is where a partition begins, if something deleted its beginning."""

    def __init__(self, partitions: Callable[[str], int], now_ms: Callable[[], int]) -> None:
        self.partitions = partitions
        self.is_available = True
        self.connection = object()
        """What every consumer is connected by; another one once it came back."""
        self.records: defaultdict[tuple[str, int], list[Stored]] = defaultdict(list)
        self.ends: defaultdict[tuple[str, int], int] = defaultdict(int)
        self.starts: dict[tuple[str, int], int] = {}
        self.committed: dict[tuple[str, str, int], int] = {}
        self.on_append: list[Callable[[Stored], None]] = []
        self._now_ms = now_ms

    def append(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        at: int | None = None,
    ) -> Stored:
        """Lay a record where its key belongs, or into partition `at`, as an outside program may."""
        partition = partition_of(key or b"", self.partitions(topic)) if at is None else at
        place = topic, partition
        stored = Stored(topic, partition, self.ends[place], key, value, self._now_ms(), tuple(headers))
        self.records[place].append(stored)
        self.ends[place] += 1
        for each in self.on_append:
            each(stored)
        return stored

    def mark(self, topic: str, partition: int, offsets: int = 1) -> None:
        """Transaction markers and aborted records: they take offsets and are never seen."""
        self.ends[topic, partition] += offsets

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Stored]:
        """Records at and after the offset."""
        records = self.records[topic, partition]
        low, high = 0, len(records)
        while low < high:
            middle = (low + high) // 2
            if records[middle].offset < offset:
                low = middle + 1
            else:
                high = middle
        return records[low : low + limit]


class Group:
    """A consumer group: who is a member, and which partitions each has; a member that falls silent loses them."""

    def __init__(self, partitions: int, now_s: Callable[[], float]) -> None:
        self._partitions = partitions
        self._now_s = now_s
        self._heard_s: dict[str, float] = {}
        self._shift = 0
        self.generation = 0
        self.assigned: dict[str, frozenset[int]] = {}

    def heartbeat(self, member: str) -> int:
        """A member is there (or joins); returns which assignment counts now."""
        known = member in self._heard_s
        self._heard_s[member] = self._now_s()
        self.expire()
        if not known:
            self.rebalance()
        return self.generation

    def leave(self, member: str) -> None:
        """A member goes."""
        if self._heard_s.pop(member, None) is not None:
            self.rebalance()

    def expire(self) -> None:
        """Give away what belongs to members that were not heard of for a session."""
        late = [each for each, heard_s in self._heard_s.items() if self._now_s() - heard_s > SESSION_S]
        for member in late:
            del self._heard_s[member]
        if late:
            self.rebalance()

    def rebalance(self) -> None:
        """Assign all anew, each time to others."""
        self.generation += 1
        self._shift += 1
        members = sorted(self._heard_s)
        self.assigned = {
            member: frozenset(each for each in range(self._partitions) if (each + self._shift) % len(members) == index)
            for index, member in enumerate(members)
        }

    def share(self) -> None:
        """Let every member believe that it has all of them."""
        self.generation += 1
        self.assigned = {member: frozenset(range(self._partitions)) for member in self._heard_s}
