"""Roles and pointer in Redis."""

from collections.abc import Collection, Mapping
from typing import Final

from services.medication_list.store.keys import LIVE, GenerationKeys, PartitionKeys, workers_key
from services.medication_list.store.library import function
from services.medication_list.store.link import Link, Word, command, hash_of
from services.medication_list.store.roles import (
    ROLE_FIELDS,
    Attending,
    Beginning,
    Pointer,
    Role,
    attending_of,
    pointer_fields,
    pointer_of,
    role_of,
)

_REFUSED: Final = (b"retired", b"alone")


class RedisRoles:
    """See `roles.Roles` for what each method promises."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def roles(self, partitions: Collection[int]) -> Mapping[int, Role | None]:
        """See `Roles.roles`."""
        replies = self._link.ask(command("HMGET", PartitionKeys(each).role, *ROLE_FIELDS) for each in partitions)
        return {partition: role_of(reply) for partition, reply in zip(partitions, replies, strict=True)}

    def offsets(self, generation: str, partitions: Collection[int]) -> Mapping[int, int | None]:
        """See `Roles.offsets`."""
        replies = self._link.ask(
            command("HGET", GenerationKeys(generation, each).offset, "offset") for each in partitions
        )
        return {p: None if reply is None else int(reply) for p, reply in zip(partitions, replies, strict=True)}

    def begin(self, beginnings: Mapping[int, Beginning]) -> Collection[int]:
        """See `Roles.begin`."""
        replies = self._link.ask(_pack_begin(partition, each) for partition, each in beginnings.items())
        return [partition for partition, reply in zip(beginnings, replies, strict=True) if reply[0] in _REFUSED]

    def turn(self, partition: int, seen: Role, shall: Role) -> bool:
        """See `Roles.turn`."""
        words = (*seen[:4], *shall[:4], shall.effects_from)
        return bool(self._link.ask([command("FCALL", function("turn"), 1, PartitionKeys(partition).role, *words)])[0])

    def pointer(self) -> Pointer | None:
        """See `Roles.pointer`."""
        flat = self._link.ask([command("HGETALL", LIVE)])[0]
        return pointer_of(hash_of(flat))

    def point(self, seen: Pointer | None, shall: Pointer) -> bool:
        """See `Roles.point`."""
        stood: tuple[Word, ...] = ("", "", "") if seen is None else (seen.epoch, seen.generation, seen.token)
        fields: list[Word] = []
        for name, value in pointer_fields(shall).items():
            fields += (name, value)
        return bool(self._link.ask([command("FCALL", function("point"), 1, LIVE, *stood, *fields)])[0])

    def attend(self, generation: str, worker: Attending, for_ms: int) -> None:
        """See `Roles.attend`."""
        self._attend(generation, "/".join(worker), for_ms)

    def attending(self, generation: str) -> Collection[Attending]:
        """See `Roles.attending`."""
        return [attending_of(member.decode()) for member in self._attend(generation, "", 0)]

    def _attend(self, generation: str, member: str, for_ms: int) -> list[bytes]:
        call = command("FCALL", function("attend"), 1, workers_key(generation), member, for_ms)
        members: list[bytes] = self._link.ask([call])[0]
        return members

    def keeps_everything(self) -> bool:
        """See `Roles.keeps_everything`."""
        info: bytes = self._link.ask([command("INFO", "memory")])[0]
        return b"maxmemory_policy:noeviction" in info or b"maxmemory:0\r" in info


def _pack_begin(partition: int, beginning: Beginning) -> bytes:
    at, own = PartitionKeys(partition), GenerationKeys(beginning.generation, partition)
    generation, epoch, until, effects_from, instead_of, beside, withheld, first_epoch = beginning
    words: list[Word] = [generation, epoch, until, effects_from, instead_of, beside, first_epoch]
    for offset, reason in withheld.items():
        words += (offset, reason)
    keys = (at.role, own.offset, own.withheld, at.outbox, at.released)
    return command("FCALL", function("begin"), len(keys), *keys, *words)
