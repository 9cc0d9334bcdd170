"""The store in memory: the same promises as Redis, for simulations and tests."""

from collections.abc import Callable, Collection, Mapping, Sequence

from services.medication_list.store.epochs import by_chance
from services.medication_list.store.keys import GenerationKeys, PartitionKeys, disputed_name
from services.medication_list.store.memory_server import Content, MemoryServer, drop, put, role_at, source_offset
from services.medication_list.store.port import (
    PartitionWrite,
    PatientRewrite,
    Refused,
    RefusedWhy,
    Snapshot,
    Standing,
    ViewLostError,
    Wanted,
    WholePatient,
    Written,
    check_writes,
)
from services.medication_list.store.roles import Role, RoleState


class MemoryStore:
    """One generation in memory. See `port.Store` for what each method promises."""

    def __init__(self, server: MemoryServer, generation: str, epoch_rises_by: Callable[[], int] = by_chance) -> None:
        self._server = server
        self.generation = generation
        self._epoch_rises_by = epoch_rises_by

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
            if role_at(content, partition) is None:
                raise ViewLostError(partition)
            offset, epoch = self._stands(content, partition)
            keys = GenerationKeys(self.generation, partition)
            fields = content.hashes.get(keys.list_key(patient), {})
            index = content.hashes.get(keys.events_key(patient), {}) if with_index else {}
            return WholePatient(offset, epoch, {name.decode(): each for name, each in fields.items()}, dict(index))

    def parked(self, partition: int) -> Mapping[int, bytes]:
        """See `port.Store.parked`."""
        with self._server.call() as content:
            if role_at(content, partition) is None:
                raise ViewLostError(partition)
            self._stands(content, partition)
            held = content.hashes.get(GenerationKeys(self.generation, partition).parked, {})
            return {int(offset): note for offset, note in held.items()}

    def note_parked(self, partition: int, epoch: int, notes: Mapping[int, bytes]) -> Written | Refused:
        """See `port.Store.note_parked`."""
        with self._server.call() as content:
            role = role_at(content, partition)
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
            put(content, keys.parked, {name: note for name, note in named.items() if name in held})
            put(content, keys.offset, {b"epoch": str(stands + self._epoch_rises_by()).encode()})
            return Written(offset, {})

    def rewrite(self, rewrite: PatientRewrite) -> Written | Refused:
        """See `port.Store.rewrite`."""
        with self._server.call() as content:
            return self._rewrite(content, rewrite)

    def _rewrite(self, content: Content, rewrite: PatientRewrite) -> Written | Refused:
        role = role_at(content, rewrite.partition)
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
        put(content, keys.list_key(rewrite.patient), {name.encode(): each for name, each in rewrite.put.items()})
        drop(content, index, rewrite.forget)
        put(content, index, rewrite.remember)
        if own:
            for effect in rewrite.effects:
                content.last_entry += 1
                content.outboxes[PartitionKeys(rewrite.partition).outbox].append((content.last_entry, effect))
            if rewrite.effects:
                self._release(content, rewrite)
        taken = self._owners(content, keys.rx, rewrite)
        drop(content, keys.parked, [str(each).encode() for each in rewrite.unparked])
        put(content, keys.parked, {str(each).encode(): note for each, note in rewrite.parked.items()})
        put(content, keys.offset, {b"epoch": str(epoch + self._epoch_rises_by()).encode()})
        return Written(offset, taken, 0 if own else None)

    def _release(self, content: Content, rewrite: PatientRewrite) -> None:
        """Note what is about to be parked no more: until the entry that is the last for it was sent."""
        parked = content.hashes.get(GenerationKeys(self.generation, rewrite.partition).parked, {})
        named = [str(each).encode() for each in rewrite.unparked]
        last_entry = f"{content.last_entry}-0 ".encode()
        noted = {name: last_entry + parked[name] for name in named if name in parked}
        put(content, PartitionKeys(rewrite.partition).released, noted)

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
        role = role_at(content, partition)
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
        role = role_at(content, write.partition)
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
            put(content, keys.list_of + change.patient, {name.encode(): each for name, each in change.put.items()})
            drop(content, keys.list_of + change.patient, [name.encode() for name in change.drop])
            put(content, keys.events_of + change.patient, change.remember)
        if own:
            for effect in write.effects:
                if source_offset(effect) >= role.effects_from:
                    content.last_entry += 1
                    content.outboxes[common.outbox].append((content.last_entry, effect))
        taken = self._owners(content, keys.rx, write)
        put(content, keys.parked, {str(each).encode(): reason for each, reason in write.parked.items()})
        last = {b"last": write.last} if write.last else {}
        put(content, keys.offset, {b"offset": str(write.next_offset).encode(), **last})
        if own:
            self._server.announce(write.partition, write.next_offset)
        if own and role.state == RoleState.BUILDING and write.next_offset >= role.until:
            put(content, common.role, {b"state": RoleState.LIVE.encode()})
        return taken

    @staticmethod
    def _owners(content: Content, key: str, write: PartitionWrite | PatientRewrite) -> dict[str, bytes]:
        held = content.hashes.get(key, {})
        drop(content, key, [name.encode() for name, who in write.closed.items() if held.get(name.encode()) == who])
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
