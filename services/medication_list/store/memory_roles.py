"""Roles and pointer in memory."""

from collections.abc import Collection, Mapping

from services.medication_list.store.keys import LIVE, GenerationKeys, PartitionKeys
from services.medication_list.store.memory_server import Content, Hash, MemoryServer, put, role_at, source_offset
from services.medication_list.store.roles import (
    ROLE_FIELDS,
    Attending,
    Beginning,
    Pointer,
    Role,
    RoleState,
    pointer_fields,
    pointer_of,
)


class MemoryRoles:
    """Roles and pointer in memory. See `roles.Roles` for what each method promises."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    def roles(self, partitions: Collection[int]) -> Mapping[int, Role | None]:
        """See `Roles.roles`."""
        with self._server.call() as content:
            return {partition: role_at(content, partition) for partition in partitions}

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
        keys, common = GenerationKeys(beginning.generation, partition), PartitionKeys(partition)
        role = role_at(content, partition)
        is_replaced = role is not None and role.live == beginning.instead_of
        if is_replaced:
            role = None
        if role is None and beginning.beside:
            return False
        if keys.offset not in content.hashes:
            if role is not None and role.live == beginning.generation:
                return False
            if role is not None and not beginning.beside:
                return True
            put(content, keys.offset, {b"offset": b"0", b"epoch": str(beginning.first_epoch).encode()})
        if role is None:
            stands = int(content.hashes[keys.offset][b"offset"])
            reached = stands >= beginning.until
            state = RoleState.LIVE if reached else RoleState.BUILDING
            begun = Role(beginning.epoch, beginning.generation, state, "", beginning.until, beginning.effects_from)
            put(content, common.role, _role_fields(begun))
            content.hashes.pop(keys.withheld, None)
            if is_replaced:
                waiting = content.outboxes.get(common.outbox, [])
                content.outboxes[common.outbox] = [each for each in waiting if source_offset(each[1]) < stands]
                if not stands:
                    content.hashes.pop(common.released, None)
            withheld = {str(offset).encode(): reason.encode() for offset, reason in beginning.withheld.items()}
            put(content, keys.withheld, withheld)
        return True

    def turn(self, partition: int, seen: Role, shall: Role) -> bool:
        """See `Roles.turn`."""
        with self._server.call() as content:
            stands = role_at(content, partition)
            if stands is None or stands[:4] != seen[:4]:
                return False
            turned = Role(*shall[:4], stands.until, shall.effects_from)
            put(content, PartitionKeys(partition).role, _role_fields(turned))
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
            put(content, LIVE, {name.encode(): each for name, each in pointer_fields(shall).items()})
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


def _role_fields(role: Role) -> Hash:
    return {name.encode(): str(value).encode() for name, value in zip(ROLE_FIELDS, role, strict=True)}
