"""The store in Redis: one function call a partition, one round trip for all of them."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

import msgspec

from services.medication_list.store.keys import GenerationKeys, PartitionKeys
from services.medication_list.store.library import function
from services.medication_list.store.link import Link, Word, command, packed
from services.medication_list.store.port import (
    PartitionWrite,
    PatientRewrite,
    Refused,
    RefusedWhy,
    Snapshot,
    StoreUnavailableError,
    ViewLostError,
    Wanted,
    WholePatient,
    Written,
    check_writes,
)

_READ: Final = function("read")
_WRITE: Final = function("write")
_REWRITE: Final = function("rewrite")
_pack_counts = msgspec.msgpack.Encoder().encode
# A role can turn while we ask, but not again and again.
_ATTEMPTS: Final = 4


class _Places:
    """Every key of a partition that a call needs, made once."""

    __slots__ = ("common", "live", "live_offset", "own")

    def __init__(self, generation: str, partition: int) -> None:
        self.common = PartitionKeys(partition)
        self.own = GenerationKeys(generation, partition)
        self.live = ""
        self.live_offset = ""
        self.believe(generation)

    def believe(self, live: str) -> None:
        """Take that generation for the live one until Redis says otherwise."""
        self.live = live
        self.live_offset = GenerationKeys(live, self.common.partition).offset


class RedisStore:
    """One generation in Redis. See `port.Store` for what each method promises."""

    def __init__(self, link: Link, generation: str) -> None:
        self._link = link
        self.generation = generation
        self._places: dict[int, _Places] = {}

    def next_offsets(self, partitions: Collection[int]) -> Mapping[int, int]:
        """See `port.Store.next_offsets`."""
        asked = list(partitions)
        replies = self._link.ask([command("HGET", self._at(each).own.offset, "offset") for each in asked])
        for partition, reply in zip(asked, replies, strict=True):
            if reply is None:
                raise ViewLostError(partition)
        return {partition: int(reply) for partition, reply in zip(asked, replies, strict=True)}

    def read(self, requests: Mapping[int, Sequence[Wanted]]) -> Mapping[int, Snapshot]:
        """See `port.Store.read`."""
        replies = self._call(requests, lambda each: _pack_read(self._at(each), self.generation, requests[each]))
        return {
            partition: Snapshot(int(reply[1]), int(reply[2]), _limit(reply[3]), reply[4::2], reply[5::2])
            for partition, reply in replies.items()
        }

    def write(self, writes: Sequence[PartitionWrite]) -> Mapping[int, Written | Refused]:
        """See `port.Store.write`."""
        check_writes(writes)
        of = {each.partition: each for each in writes}
        replies = self._call(of, lambda each: _pack_write(self._at(each), self.generation, of[each]))
        return {each.partition: _answer(each.next_offset, replies[each.partition]) for each in writes}

    def read_whole(self, partition: int, patient: str, *, with_index: bool = False) -> WholePatient:
        """See `port.Store.read_whole`."""
        counts = (-1, -1 if with_index else 0)
        reply = self._call([partition], lambda each: _pack_whole(self._at(each), self.generation, patient, counts))[
            partition
        ]
        fields, index = reply[4], reply[5]
        return WholePatient(
            int(reply[1]),
            int(reply[2]),
            {name.decode(): value for name, value in zip(fields[::2], fields[1::2], strict=True)},
            dict(zip(index[::2], index[1::2], strict=True)),
        )

    def rewrite(self, rewrite: PatientRewrite) -> Written | Refused:
        """See `port.Store.rewrite`."""
        partition = rewrite.partition
        reply = self._call([partition], lambda each: _pack_rewrite(self._at(each), self.generation, rewrite))[partition]
        return _answer(int(reply[2]), reply)

    def _call(self, partitions: Iterable[int], pack: Callable[[int], bytes]) -> dict[int, Any]:
        """One reply a partition. Where another generation is live than was believed, nothing happened: ask again."""
        replies: dict[int, Any] = {}
        asked = list(partitions)
        for _ in range(_ATTEMPTS):
            replies |= zip(asked, self._link.ask(map(pack, asked)), strict=True)
            asked = [each for each in asked if not self._is_settled(each, replies[each])]
            if not asked:
                return replies
        raise StoreUnavailableError(f"the role of partition {asked[0]} does not come to rest")

    def _is_settled(self, partition: int, reply: Any) -> bool:
        if reply[0] == b"lost":
            raise ViewLostError(partition)
        if reply[0] == b"believed":
            self._at(partition).believe(reply[1].decode())
            return False
        return True

    def _at(self, partition: int) -> _Places:
        places = self._places.get(partition)
        if places is None:
            places = self._places[partition] = _Places(self.generation, partition)
        return places


def _pack_read(at: _Places, generation: str, wanted: Sequence[Wanted]) -> bytes:
    keys = [at.common.role, at.own.offset, at.live_offset]
    counts: list[int] = []
    names: list[Word] = []
    list_of, events_of = at.own.list_of, at.own.events_of
    for patient, fields, remembered in wanted:
        keys.append(list_of + patient)
        keys.append(events_of + patient)
        counts.append(len(fields))
        counts.append(len(remembered))
        names += fields
        names += remembered
    return packed(("FCALL_RO", _READ, len(keys), *keys, generation, at.live, _pack_counts(counts), *names))


def _pack_whole(at: _Places, generation: str, patient: str, counts: tuple[int, int]) -> bytes:
    keys = (at.common.role, at.own.offset, at.live_offset, at.own.list_key(patient), at.own.events_key(patient))
    return packed(("FCALL_RO", _READ, len(keys), *keys, generation, at.live, _pack_counts(counts)))


def _pack_rewrite(at: _Places, generation: str, rewrite: PatientRewrite) -> bytes:
    common, own = at.common, at.own
    keys = (
        *(common.role, own.offset, at.live_offset, common.outbox, own.rx, own.parked),
        *(own.list_key(rewrite.patient), own.events_key(rewrite.patient)),
    )
    parts = (rewrite.put, rewrite.remember, rewrite.effects, rewrite.opened, rewrite.closed, rewrite.unparked)
    values: list[Word] = []
    for part in parts:
        values += chain.from_iterable(part.items()) if isinstance(part, Mapping) else part
    head = (generation, at.live, rewrite.epoch, rewrite.index_size, _pack_counts([len(part) for part in parts]))
    return packed(("FCALL", _REWRITE, len(keys), *keys, *head, *values))


def _pack_write(at: _Places, generation: str, write: PartitionWrite) -> bytes:
    common, own = at.common, at.own
    keys = [common.role, own.offset, at.live_offset, common.outbox, own.rx, own.parked]
    shape = [len(write.changes), len(write.effects), len(write.opened), len(write.closed), len(write.parked)]
    values: list[Word] = []
    list_of, events_of = own.list_of, own.events_of
    for patient, put, drop, remember in write.changes:
        keys.append(list_of + patient)
        keys.append(events_of + patient)
        shape += (len(put), len(drop), len(remember))
        values += chain.from_iterable(put.items())
        values += drop
        values += chain.from_iterable(remember.items())
    values += write.effects
    for pairs in (write.opened, write.closed, write.parked):
        values += chain.from_iterable(pairs.items())
    head = (generation, at.live, write.expected_offset, write.epoch, write.next_offset, common.announcements)
    return packed(("FCALL", _WRITE, len(keys), *keys, *head, _pack_counts(shape), *values))


def _answer(next_offset: int, reply: Any) -> Written | Refused:
    if reply[0] == b"ok":
        taken = reply[1]
        return Written(next_offset, {key.decode(): owner for key, owner in zip(taken[::2], taken[1::2], strict=True)})
    return Refused(RefusedWhy(reply[0].decode()), int(reply[1]), int(reply[2]), _limit(reply[3]))


def _limit(reply: bytes | None) -> int | None:
    return None if reply is None else int(reply)
