"""The store in memory: the same promises as Redis, and faults on request, for simulations and tests."""

import asyncio
import copy
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from services.medication_list.store.effects import source_offset
from services.medication_list.store.keys import LIVE, GenerationKeys, PartitionKeys, disputed_name
from services.medication_list.store.port import (
    PartitionWrite,
    PatientRewrite,
    Refused,
    RefusedWhy,
    Snapshot,
    Standing,
    StoreUnavailableError,
    ViewLostError,
    Wanted,
    WholePatient,
    Written,
    check_writes,
)
from services.medication_list.store.reading import Asked, Look, Looked
from services.medication_list.store.roles import (
    ROLE_FIELDS,
    Attending,
    Beginning,
    Pointer,
    Role,
    RoleState,
    pointer_fields,
    pointer_of,
    role_of,
)
from services.medication_list.store.waiting import Unsent, WaitingEntry

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


def _put(content: Content, key: str, values: Mapping[bytes, bytes]) -> None:
    if values:
        content.hashes.setdefault(key, {}).update(values)


def _drop(content: Content, key: str, names: Sequence[bytes]) -> None:
    held = content.hashes.get(key, {})
    for name in names:
        held.pop(name, None)
    if not held:
        content.hashes.pop(key, None)


def _role(content: Content, partition: int) -> Role | None:
    held = content.hashes.get(PartitionKeys(partition).role, {})
    return role_of([held.get(name.encode()) for name in ROLE_FIELDS])


def _role_fields(role: Role) -> Hash:
    return {name.encode(): str(value).encode() for name, value in zip(ROLE_FIELDS, role, strict=True)}


class MemoryStore:
    """One generation in memory. See `port.Store` for what each method promises."""

    def __init__(self, server: MemoryServer, generation: str) -> None:
        self._server = server
        self.generation = generation

    def next_offsets(self, partitions: Collection[int]) -> Mapping[int, int]:
        """See `port.Store.next_offsets`."""
        with self._server.call() as content:
            return {partition: self._stands(content, partition)[0] for partition in partitions}

    def standing(self, partitions: Collection[int]) -> Mapping[int, Standing]:
        """See `port.Store.standing`."""
        with self._server.call() as content:
            found = {partition: self._stands(content, partition)[0] for partition in partitions}
            held = {each: content.hashes[GenerationKeys(self.generation, each).offset] for each in found}
            return {each: Standing(offset, held[each].get(b"last", b"")) for each, offset in found.items()}

    def read(self, requests: Mapping[int, Sequence[Wanted]]) -> Mapping[int, Snapshot]:
        """See `port.Store.read`."""
        with self._server.call() as content:
            return {partition: self._read(content, partition, wanted) for partition, wanted in requests.items()}

    def write(self, writes: Sequence[PartitionWrite]) -> Mapping[int, Written | Refused]:
        """See `port.Store.write`."""
        check_writes(writes)
        with self._server.call() as content:
            # All of them, as in a pipeline, even if one partition's view is lost.
            answers = {each.partition: self._write(content, each) for each in writes}
        lost = next((partition for partition, answer in answers.items() if answer is None), None)
        if lost is not None:
            raise ViewLostError(lost)
        return {partition: answer for partition, answer in answers.items() if answer is not None}

    def read_whole(self, partition: int, patient: str, *, with_index: bool = False) -> WholePatient:
        """See `port.Store.read_whole`."""
        with self._server.call() as content:
            if _role(content, partition) is None:
                raise ViewLostError(partition)
            offset, epoch = self._stands(content, partition)
            keys = GenerationKeys(self.generation, partition)
            fields = content.hashes.get(keys.list_key(patient), {})
            index = content.hashes.get(keys.events_key(patient), {}) if with_index else {}
            return WholePatient(offset, epoch, {name.decode(): each for name, each in fields.items()}, dict(index))

    def parked(self, partition: int) -> Mapping[int, bytes]:
        """See `port.Store.parked`."""
        with self._server.call() as content:
            if _role(content, partition) is None:
                raise ViewLostError(partition)
            self._stands(content, partition)
            held = content.hashes.get(GenerationKeys(self.generation, partition).parked, {})
            return {int(offset): note for offset, note in held.items()}

    def note_parked(self, partition: int, epoch: int, notes: Mapping[int, bytes]) -> Written | Refused:
        """See `port.Store.note_parked`."""
        with self._server.call() as content:
            role = _role(content, partition)
            if role is None:
                raise ViewLostError(partition)
            offset, stands = self._stands(content, partition)
            limit = self._limit(content, partition, role)
            why = RefusedWhy.ROLE if role.live == self.generation and limit is not None else None
            if why is None and stands != epoch:
                why = RefusedWhy.EPOCH
            if why is not None:
                return Refused(why, offset, stands, limit)
            keys = GenerationKeys(self.generation, partition)
            held = content.hashes.get(keys.parked, {})
            named = {str(each).encode(): note for each, note in notes.items()}
            _put(content, keys.parked, {name: note for name, note in named.items() if name in held})
            _put(content, keys.offset, {b"epoch": str(stands + 1).encode()})
            return Written(offset, {})

    def rewrite(self, rewrite: PatientRewrite) -> Written | Refused:
        """See `port.Store.rewrite`."""
        with self._server.call() as content:
            return self._rewrite(content, rewrite)

    def _rewrite(self, content: Content, rewrite: PatientRewrite) -> Written | Refused:
        role = _role(content, rewrite.partition)
        if role is None:
            raise ViewLostError(rewrite.partition)
        offset, epoch = self._stands(content, rewrite.partition)
        limit = self._limit(content, rewrite.partition, role)
        own = role.live == self.generation
        keys = GenerationKeys(self.generation, rewrite.partition)
        index = keys.events_key(rewrite.patient)
        held = content.hashes.get(keys.list_key(rewrite.patient), {})
        why = None
        if (own and (limit is not None or role.state == RoleState.BUILDING)) or role.state == RoleState.FROZEN:
            why = RefusedWhy.ROLE
        elif epoch != rewrite.epoch:
            why = RefusedWhy.EPOCH
        elif len(content.hashes.get(index, {})) != rewrite.index_size or any(
            held.get(name.encode()) != each for name, each in rewrite.unchanged.items()
        ):
            why = RefusedWhy.INDEX
        if why is not None:
            return Refused(why, offset, epoch, limit)
        content.hashes.pop(keys.list_key(rewrite.patient), None)
        _put(content, keys.list_key(rewrite.patient), {name.encode(): each for name, each in rewrite.put.items()})
        _drop(content, index, rewrite.forget)
        _put(content, index, rewrite.remember)
        if own:
            for effect in rewrite.effects:
                content.last_entry += 1
                content.outboxes[PartitionKeys(rewrite.partition).outbox].append((content.last_entry, effect))
            if rewrite.effects:
                self._release(content, rewrite)
        taken = self._owners(content, keys.rx, rewrite)
        _drop(content, keys.parked, [str(each).encode() for each in rewrite.unparked])
        _put(content, keys.parked, {str(each).encode(): note for each, note in rewrite.parked.items()})
        _put(content, keys.offset, {b"epoch": str(epoch + 1).encode()})
        return Written(offset, taken, 0 if own else None)

    def _release(self, content: Content, rewrite: PatientRewrite) -> None:
        """Note what is about to be parked no more: until the entry that is the last for it was sent."""
        parked = content.hashes.get(GenerationKeys(self.generation, rewrite.partition).parked, {})
        named = [str(each).encode() for each in rewrite.unparked]
        last_entry = f"{content.last_entry}-0 ".encode()
        noted = {name: last_entry + parked[name] for name in named if name in parked}
        _put(content, PartitionKeys(rewrite.partition).released, noted)

    def _stands(self, content: Content, partition: int) -> tuple[int, int]:
        held = content.hashes.get(GenerationKeys(self.generation, partition).offset)
        if held is None:
            raise ViewLostError(partition)
        return int(held[b"offset"]), int(held[b"epoch"])

    def _limit(self, content: Content, partition: int, role: Role) -> int | None:
        if role.live != self.generation:
            live = content.hashes.get(GenerationKeys(role.live, partition).offset, {})
            return int(live.get(b"offset", b"0"))
        return self._stands(content, partition)[0] if role.state == RoleState.FROZEN else None

    def _read(self, content: Content, partition: int, wanted: Sequence[Wanted]) -> Snapshot:
        role = _role(content, partition)
        if role is None:
            raise ViewLostError(partition)
        offset, epoch = self._stands(content, partition)
        keys = GenerationKeys(self.generation, partition)
        lists = [content.hashes.get(keys.list_of + each.patient, {}) for each in wanted]
        indexes = [content.hashes.get(keys.events_of + each.patient, {}) for each in wanted]
        return Snapshot(
            offset,
            epoch,
            self._limit(content, partition, role),
            [[held.get(name.encode()) for name in each.fields] for each, held in zip(wanted, lists, strict=True)],
            [[held.get(name) for name in each.remembered] for each, held in zip(wanted, indexes, strict=True)],
            self._withheld(content, partition, role),
        )

    def _withheld(self, content: Content, partition: int, role: Role) -> dict[int, str]:
        if role.live != self.generation or role.state != RoleState.BUILDING:
            return {}
        held = content.hashes.get(GenerationKeys(self.generation, partition).withheld, {})
        return {int(offset): reason.decode() for offset, reason in held.items()}

    def _write(self, content: Content, write: PartitionWrite) -> Written | Refused | None:
        role = _role(content, write.partition)
        if role is None or GenerationKeys(self.generation, write.partition).offset not in content.hashes:
            return None
        offset, epoch = self._stands(content, write.partition)
        limit = self._limit(content, write.partition, role)
        own = role.live == self.generation
        why = None
        if own and limit is not None:
            why = RefusedWhy.ROLE
        elif offset != write.expected_offset:
            why = RefusedWhy.OFFSET
        elif epoch != write.epoch:
            why = RefusedWhy.EPOCH
        elif limit is not None and write.next_offset > limit:
            why = RefusedWhy.CAPPED
        if why is not None:
            return Refused(why, offset, epoch, limit)
        taken = self._apply(content, write, role, own=own)
        return Written(write.next_offset, taken, role.effects_from if own else None)

    def _apply(self, content: Content, write: PartitionWrite, role: Role, *, own: bool) -> dict[str, bytes]:
        keys, common = GenerationKeys(self.generation, write.partition), PartitionKeys(write.partition)
        for change in write.changes:
            _put(content, keys.list_of + change.patient, {name.encode(): each for name, each in change.put.items()})
            _drop(content, keys.list_of + change.patient, [name.encode() for name in change.drop])
            _put(content, keys.events_of + change.patient, change.remember)
        if own:
            for effect in write.effects:
                if source_offset(effect) >= role.effects_from:
                    content.last_entry += 1
                    content.outboxes[common.outbox].append((content.last_entry, effect))
        taken = self._owners(content, keys.rx, write)
        _put(content, keys.parked, {str(each).encode(): reason for each, reason in write.parked.items()})
        last = {b"last": write.last} if write.last else {}
        _put(content, keys.offset, {b"offset": str(write.next_offset).encode(), **last})
        if own:
            self._server.announce(write.partition, write.next_offset)
        if own and role.state == RoleState.BUILDING and write.next_offset >= role.until:
            _put(content, common.role, {b"state": RoleState.LIVE.encode()})
        return taken

    @staticmethod
    def _owners(content: Content, key: str, write: PartitionWrite | PatientRewrite) -> dict[str, bytes]:
        held = content.hashes.get(key, {})
        _drop(content, key, [name.encode() for name, who in write.closed.items() if held.get(name.encode()) == who])
        taken: dict[str, bytes] = {}
        for name, who in write.opened.items() if isinstance(write, PatientRewrite) else write.opened:
            held = content.hashes.setdefault(key, {})
            owner = held.setdefault(name.encode(), who)
            if owner != who:
                taken[name] = owner
                disputed = held.get(disputed_name(name).encode(), b"")
                if who not in disputed:
                    held[disputed_name(name).encode()] = disputed + who
        return taken


class MemoryRoles:
    """Roles and pointer in memory. See `roles.Roles` for what each method promises."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    def roles(self, partitions: Collection[int]) -> Mapping[int, Role | None]:
        """See `Roles.roles`."""
        with self._server.call() as content:
            return {partition: _role(content, partition) for partition in partitions}

    def offsets(self, generation: str, partitions: Collection[int]) -> Mapping[int, int | None]:
        """See `Roles.offsets`."""
        with self._server.call() as content:
            held = {each: content.hashes.get(GenerationKeys(generation, each).offset) for each in partitions}
            return {each: None if fields is None else int(fields[b"offset"]) for each, fields in held.items()}

    def begin(self, beginnings: Mapping[int, Beginning]) -> Collection[int]:
        """See `Roles.begin`."""
        with self._server.call() as content:
            return [partition for partition, each in beginnings.items() if not self._begin(content, partition, each)]

    @staticmethod
    def _begin(content: Content, partition: int, beginning: Beginning) -> bool:
        keys = GenerationKeys(beginning.generation, partition)
        role = _role(content, partition)
        if role is not None and role.live == beginning.instead_of:
            role = None
        if role is None and beginning.beside:
            return False
        if keys.offset not in content.hashes:
            if role is not None and role.live == beginning.generation:
                return False
            _put(content, keys.offset, {b"offset": b"0", b"epoch": b"0"})
        if role is None:
            reached = int(content.hashes[keys.offset][b"offset"]) >= beginning.until
            state = RoleState.LIVE if reached else RoleState.BUILDING
            begun = Role(beginning.epoch, beginning.generation, state, "", beginning.until, beginning.effects_from)
            _put(content, PartitionKeys(partition).role, _role_fields(begun))
            content.hashes.pop(keys.withheld, None)
            withheld = {str(offset).encode(): reason.encode() for offset, reason in beginning.withheld.items()}
            _put(content, keys.withheld, withheld)
        return True

    def turn(self, partition: int, seen: Role, shall: Role) -> bool:
        """See `Roles.turn`."""
        with self._server.call() as content:
            stands = _role(content, partition)
            if stands is None or stands[:4] != seen[:4]:
                return False
            turned = Role(*shall[:4], stands.until, shall.effects_from)
            _put(content, PartitionKeys(partition).role, _role_fields(turned))
            return True

    def pointer(self) -> Pointer | None:
        """See `Roles.pointer`."""
        with self._server.call() as content:
            return pointer_of(content.hashes.get(LIVE, {}))

    def point(self, seen: Pointer | None, shall: Pointer) -> bool:
        """See `Roles.point`."""
        with self._server.call() as content:
            stands = pointer_of(content.hashes.get(LIVE, {}))
            if _commit(stands) != _commit(seen):
                return False
            _put(content, LIVE, {name.encode(): each for name, each in pointer_fields(shall).items()})
            return True

    def attend(self, generation: str, worker: Attending, for_ms: int) -> None:
        """See `Roles.attend`."""
        with self._server.call() as content:
            if for_ms > 0:
                content.workers[generation][worker] = self._server.now_ms() + for_ms
            else:
                content.workers[generation].pop(worker, None)

    def attending(self, generation: str) -> Collection[Attending]:
        """See `Roles.attending`."""
        with self._server.call() as content:
            now_ms = self._server.now_ms()
            return [each for each, until_ms in content.workers[generation].items() if until_ms > now_ms]

    def keeps_everything(self) -> bool:
        """See `Roles.keeps_everything`."""
        return True


def _commit(pointer: Pointer | None) -> tuple[int, str, str] | None:
    return None if pointer is None else (pointer.epoch, pointer.generation, pointer.token)


class MemoryOutbox:
    """The outboxes in memory; it never waits. See `waiting.Outbox` for what each method promises.

    Leases run out by the server's clock, and by `release`.
    """

    def __init__(self, server: MemoryServer) -> None:
        self._server = server
        self._leases: dict[int, tuple[str, int]] = {}

    def release(self) -> None:
        """Let every lease run out."""
        self._leases.clear()

    def lease(self, partitions: Collection[int], owner: str, for_ms: int) -> Collection[int]:
        """See `Outbox.lease`."""
        with self._server.call():
            owned = [each for each in partitions if self._owner(each) in (None, owner)]
            self._leases.update(dict.fromkeys(owned, (owner, self._server.now_ms() + for_ms)))
            return owned

    def _owner(self, partition: int) -> str | None:
        owner, until_ms = self._leases.get(partition, (None, 0))
        return owner if until_ms > self._server.now_ms() else None

    def waiting(
        self,
        after: Mapping[int, str],
        at_most: int,
        wait_ms: int,  # noqa: ARG002  see above
    ) -> Mapping[int, Sequence[WaitingEntry]]:
        """See `Outbox.waiting`."""
        with self._server.call() as content:
            found = {}
            for partition, last in after.items():
                entries = content.outboxes.get(PartitionKeys(partition).outbox, [])
                later = [WaitingEntry(f"{n}-0", each) for n, each in entries if n > int(last.split("-")[0])]
                if later:
                    found[partition] = later[:at_most]
            return found

    def relayed(self, partition: int, owner: str, entry_ids: Sequence[str]) -> bool:
        """See `Outbox.relayed`."""
        with self._server.call() as content:
            if self._owner(partition) != owner:
                return False
            gone = {int(each.split("-")[0]) for each in entry_ids}
            entries = content.outboxes[PartitionKeys(partition).outbox]
            entries[:] = [each for each in entries if each[0] not in gone]
            released = content.hashes.get(PartitionKeys(partition).released, {})
            sent = [each for each, held in released.items() if not entries or entries[0][0] > _last_entry(held)]
            _drop(content, PartitionKeys(partition).released, sent)
            return True

    def unsent(self, asked: Mapping[int, str | None], at_most: int) -> Mapping[int, Unsent]:
        """See `Outbox.unsent`."""
        with self._server.call() as content:
            found = {partition: self._unsent(content, partition, each, at_most) for partition, each in asked.items()}
            return {partition: each for partition, each in found.items() if each is not None}

    @staticmethod
    def _unsent(content: Content, partition: int, entry_id: str | None, at_most: int) -> Unsent | None:
        role, common = _role(content, partition), PartitionKeys(partition)
        if role is None:
            return None
        keys = GenerationKeys(role.live, partition)
        stands = content.hashes.get(keys.offset)
        if stands is None:
            return None
        offset, entries = int(stands[b"offset"]), content.outboxes.get(common.outbox, [])
        parked = content.hashes.get(keys.parked, {})
        released = {each: held.split(b" ", 1)[1] for each, held in content.hashes.get(common.released, {}).items()}
        withheld = content.hashes.get(keys.withheld, {}) if role.state == RoleState.BUILDING else {}
        return Unsent(
            offset,
            bool(entries) if entry_id is None else any(f"{number}-0" == entry_id for number, _ in entries),
            _first(released, at_most) | _first(parked, at_most),
            {each: reason.decode() for each, reason in _first(withheld, at_most).items() if each >= offset},
            len(parked) + len(released),
        )


def _last_entry(released: bytes) -> int:
    """The number of the last entry for a record that was released."""
    return int(released.split(b"-", 1)[0])


def _first(held: Hash, at_most: int) -> dict[int, bytes]:
    """The first fields of a hash whose fields are offsets."""
    return dict(sorted((int(offset), value) for offset, value in held.items())[:at_most])


class MemoryViews:
    """Where readers look, in memory. See `reading.Views` for what each method promises."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    async def look(self, asked: Sequence[Asked]) -> list[Looked]:
        """See `Views.look`."""
        return [self._look(*each) for each in asked]

    def _look(self, partition: int, generation: str, looks: Sequence[Look]) -> Looked:
        server = str(self._server.run)
        with self._server.call() as content:
            role = _role(content, partition)
            if role is None:
                return Looked(server, generation, 0, 0, None, 0, b"", ())
            if role.live != generation:
                return Looked(server, role.live, 0, 0, RoleState.LIVE, 0, b"", ())
            stands = content.hashes.get(GenerationKeys(generation, partition).offset)
            if stands is None:
                return Looked(server, generation, 0, 0, None, 0, b"", ())
            values = [_values(content.hashes.get(each.key, {}), each) for each in looks]
            offset, epoch, last = int(stands[b"offset"]), int(stands[b"epoch"]), stands.get(b"last", b"")
            return Looked(server, generation, offset, epoch, role.state, role.until, last, values)

    async def announcements(self, partitions: Collection[int]) -> AsyncGenerator[tuple[int, int] | None, None]:
        """See `Views.announcements`."""
        heard: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def hear(partition: int, offset: int) -> None:
            # The writer may be in another thread.
            loop.call_soon_threadsafe(heard.put_nowait, (partition, offset))

        self._server.listeners.append(hear)
        try:
            yield None
            while True:
                partition, offset = await heard.get()
                if partition in partitions:
                    yield partition, offset
        finally:
            self._server.listeners.remove(hear)

    async def close(self) -> None:
        """See `Views.close`."""


def _values(held: Hash, look: Look) -> Sequence[bytes | None]:
    if look.fields is None:
        return [each for pair in held.items() for each in pair]
    return [held.get(each.encode() if isinstance(each, str) else each) for each in look.fields]
