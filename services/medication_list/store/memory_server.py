"""The server behind the stores in memory: its content, as Redis would hold it, and faults on request."""

import copy
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec

from services.medication_list.store.keys import PartitionKeys
from services.medication_list.store.port import StoreUnavailableError
from services.medication_list.store.roles import ROLE_FIELDS, Attending, Role, role_of

Hash = dict[bytes, bytes]


@dataclass
class Content:
    """Everything that the server holds: hashes and streams by key, as Redis would."""

    hashes: dict[str, Hash] = field(default_factory=dict)
    outboxes: dict[str, list[tuple[int, bytes]]] = field(default_factory=lambda: defaultdict(list))
    workers: dict[str, dict[Attending, int]] = field(default_factory=lambda: defaultdict(dict))
    last_entry: int = 0


class MemoryServer:
    """What several stores share, as several workers share one Redis; with every fault that a test may want.

    While `is_available` is false every call fails. `lose_replies` calls are carried out and then fail all the same.
    `now_ms` is its clock; it only goes forward.
    """

    def __init__(self, now_ms: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000) -> None:
        self.now_ms = now_ms
        self.is_available = True
        self.lose_replies = 0
        self.run = 1
        self.listeners: list[Callable[[int, int], None]] = []
        self._content = Content()

    def save(self) -> Content:
        """An image of everything, to `roll_back` to."""
        return copy.deepcopy(self._content)

    def roll_back(self, image: Content) -> None:
        """Become what was saved, as a server restored from an older file."""
        self._restart(copy.deepcopy(image))

    def flush(self) -> None:
        """Lose everything."""
        self._restart(Content())

    def _restart(self, content: Content) -> None:
        # Redis numbers entries by its clock: what it adds after a restart stands after all that it ever had.
        content.last_entry = max(content.last_entry, self._content.last_entry)
        self._content = content
        self.run += 1

    def content(self) -> dict[str, dict[bytes, bytes] | list[bytes]]:
        """Everything by key, as a Redis would show it: hashes, and streams as lists of effects."""
        streams = {key: [each for _, each in entries] for key, entries in self._content.outboxes.items() if entries}
        return {key: dict(each) for key, each in self._content.hashes.items()} | streams

    def announce(self, partition: int, offset: int) -> None:
        """Tell every listener; those that come later never hear of it."""
        for listener in self.listeners:
            listener(partition, offset)

    @contextmanager
    def call(self) -> Iterator[Content]:
        """One call of a client: fails before it, or after it, or not."""
        if not self.is_available:
            raise StoreUnavailableError("the store is away")
        yield self._content
        if self.lose_replies > 0:
            self.lose_replies -= 1
            raise StoreUnavailableError("the reply was lost")


def put(content: Content, key: str, values: Mapping[bytes, bytes]) -> None:
    """Set fields of a hash; none creates no hash."""
    if values:
        content.hashes.setdefault(key, {}).update(values)


def drop(content: Content, key: str, names: Sequence[bytes]) -> None:
    """Delete fields of a hash, and the hash with its last one."""
    held = content.hashes.get(key, {})
    for name in names:
        held.pop(name, None)
    if not held:
        content.hashes.pop(key, None)


def role_at(content: Content, partition: int) -> Role | None:
    """The role of a partition; None if it was lost or never begun."""
    held = content.hashes.get(PartitionKeys(partition).role, {})
    return role_of([held.get(name.encode()) for name in ROLE_FIELDS])


class _Entry(msgspec.Struct, frozen=True, array_like=True):
    """The first element of an outbox entry, all that the store knows of it; the rest concerns the fold and the relay."""

    source_offset: int


_decoder = msgspec.msgpack.Decoder(_Entry)


def source_offset(entry: bytes) -> int:
    """The offset of the record that an outbox entry comes from. Raises msgspec.DecodeError."""
    return _decoder.decode(entry).source_offset
