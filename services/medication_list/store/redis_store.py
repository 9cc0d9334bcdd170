"""The store in Redis: one atomic step a partition, one round trip for all of them."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

import msgspec

from services.medication_list.store.epochs import by_chance
from services.medication_list.store.keys import GenerationKeys, PartitionKeys
from services.medication_list.store.library import function
from services.medication_list.store.link import Link, Word, command, hash_of, packed
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

_WRITE: Final = function("write")
_REWRITE: Final = function("rewrite")
_NOTE_PARKED: Final = function("note_parked")
_pack_counts = msgspec.msgpack.Encoder().encode
# A role can turn while we ask, but not again and again.
_ATTEMPTS: Final = 4


class _Places:
    """Every key of a partition that a call needs, and what every read begins with, made once."""

    __slots__ = ("_standing", "common", "is_building", "live", "live_offset", "own", "standing")

    def __init__(self, generation: str, partition: int) -> None:
        self.common = PartitionKeys(partition)
        self.own = GenerationKeys(generation, partition)
        self._standing = (
            command("HMGET", self.common.role, "live", "state"),
            command("HMGET", self.own.offset, "offset", "epoch"),
        )
        self.is_building = False
        """Whether it was the live one, and building, when it was read last."""
        self.believe(generation)

    def believe(self, live: str) -> None:
        """Take that generation for the live one until Redis says otherwise."""
        self.live = live
        self.live_offset = GenerationKeys(live, self.common.partition).offset
        self.standing = (*self._standing, command("HGET", self.live_offset, "offset"))


class RedisStore:
    """One generation in Redis. See `port.Store` for what each method promises."""

    def __init__(self, link: Link, generation: str, epoch_rises_by: Callable[[], int] = by_chance) -> None:
        self._link = link
        self.generation = generation
        self._epoch_rises_by = epoch_rises_by
        self._places: dict[int, _Places] = {}

    def next_offsets(self, partitions: Collection[int]) -> Mapping[int, int]:
        """See `port.Store.next_offsets`."""
        return {partition: stands.offset for partition, stands in self.standing(partitions).items()}

    def standing(self, partitions: Collection[int]) -> Mapping[int, Standing]:
        """See `port.Store.standing`."""
        asked = list(partitions)
        replies = self._link.ask([command("HMGET", self._at(each).own.offset, "offset", "last") for each in asked])
        for partition, (offset, _) in zip(asked, replies, strict=True):
            if offset is None:
                raise ViewLostError(partition)
        return {
            partition: Standing(int(offset), last or b"")
            for partition, (offset, last) in zip(asked, replies, strict=True)
        }

    def read(self, requests: Mapping[int, Sequence[Wanted]]) -> Mapping[int, Snapshot]:
        """See `port.Store.read`."""
        found: dict[int, Snapshot] = {}
        for _ in range(_ATTEMPTS):
            asked = {partition: wanted for partition, wanted in requests.items() if partition not in found}
            building = {partition for partition in asked if self._at(partition).is_building}
            replies = self._link.transact(
                _pack_read(self._at(each), wanted, is_building=each in building) for each, wanted in asked.items()
            )
            for (partition, wanted), reply in zip(asked.items(), replies, strict=True):
                stands = self._standing(partition, reply)
                if stands is None:
                    continue
                is_building = self._is_building(partition, reply)
                if is_building and partition not in building:
                    continue  # once more, with what it withholds
                withheld = _withheld(reply[-1]) if is_building else {}
                found[partition] = Snapshot(*stands, *_lists(wanted, reply), withheld)
            if len(found) == len(requests):
                return found
        raise _restless(min(requests.keys() - found))

    def write(self, writes: Sequence[PartitionWrite]) -> Mapping[int, Written | Refused]:
        """See `port.Store.write`."""
        check_writes(writes)
        of = {each.partition: each for each in writes}
        replies = self._call(of, lambda each: _pack_write(self._at(each), self.generation, of[each]))
        return {each.partition: _answer(replies[each.partition], each.next_offset) for each in writes}

    def read_whole(self, partition: int, patient: str, *, with_index: bool = False) -> WholePatient:
        """See `port.Store.read_whole`."""
        at = self._at(partition)
        keys = [at.own.list_key(patient), *([at.own.events_key(patient)] if with_index else [])]
        for _ in range(_ATTEMPTS):
            reply = self._link.transact([[*at.standing, *(command("HGETALL", key) for key in keys)]])[0]
            stands = self._standing(partition, reply)
            if stands is not None:
                fields, index = hash_of(reply[3]), hash_of(reply[4]) if with_index else {}
                return WholePatient(stands[0], stands[1], {name.decode(): each for name, each in fields.items()}, index)
        raise _restless(partition)

    def parked(self, partition: int) -> Mapping[int, bytes]:
        """See `port.Store.parked`."""
        at = self._at(partition)
        for _ in range(_ATTEMPTS):
            reply = self._link.transact([[*at.standing, command("HGETALL", at.own.parked)]])[0]
            if self._standing(partition, reply) is not None:
                return {int(offset): note for offset, note in hash_of(reply[3]).items()}
        raise _restless(partition)

    def note_parked(self, partition: int, epoch: int, notes: Mapping[int, bytes]) -> Written | Refused:
        """See `port.Store.note_parked`."""

        def pack(each: int) -> bytes:
            at = self._at(each)
            keys = (at.common.role, at.own.offset, at.live_offset, at.own.parked)
            values: list[Word] = []
            for offset, note in notes.items():
                values += (offset, note)
            head = (self.generation, at.live, epoch, rises_by)
            return packed(("FCALL", _NOTE_PARKED, len(keys), *keys, *head, *values))

        rises_by = self._epoch_rises_by()
        reply = self._call([partition], pack)[partition]
        return _answer(reply)

    def rewrite(self, rewrite: PatientRewrite) -> Written | Refused:
        """See `port.Store.rewrite`."""
        rises_by = self._epoch_rises_by()
        reply = self._call(
            [rewrite.partition], lambda each: _pack_rewrite(self._at(each), self.generation, rewrite, rises_by)
        )[rewrite.partition]
        return _answer(reply)

    def _call(self, partitions: Iterable[int], pack: Callable[[int], bytes]) -> dict[int, Any]:
        """One reply a partition. Where another generation is live than was believed, nothing happened: ask again.

        Raises ViewLostError only once all others are settled: what becomes of them is not for one partition to decide.
        """
        replies: dict[int, Any] = {}
        asked = list(partitions)
        for _ in range(_ATTEMPTS):
            replies |= zip(asked, self._link.ask(map(pack, asked)), strict=True)
            asked = [each for each in asked if not self._is_settled(each, replies[each])]
            if not asked:
                break
        else:
            raise _restless(asked[0])
        for partition, reply in replies.items():
            if reply[0] == b"lost":
                raise ViewLostError(partition)
        return replies

    def _standing(self, partition: int, reply: Any) -> tuple[int, int, int | None] | None:
        """Offset, epoch and limit; None where another generation is live than was believed: then ask again."""
        (live, state), (offset, epoch), live_offset = reply[:3]
        if live is None or offset is None:
            raise ViewLostError(partition)
        at = self._at(partition)
        if live.decode() != at.live:
            at.believe(live.decode())
            return None
        if at.live != self.generation:
            return int(offset), int(epoch), int(live_offset or 0)
        return int(offset), int(epoch), int(offset) if state == b"frozen" else None

    def _is_building(self, partition: int, reply: Any) -> bool:
        """Whether it is the live one, and building: then what it withholds must have been read with the rest."""
        at = self._at(partition)
        at.is_building = at.live == self.generation and reply[0][1] == b"building"
        return at.is_building

    def _is_settled(self, partition: int, reply: Any) -> bool:
        if reply[0] == b"believed":
            self._at(partition).believe(reply[1].decode())
            return False
        return True

    def _at(self, partition: int) -> _Places:
        places = self._places.get(partition)
        if places is None:
            places = self._places[partition] = _Places(self.generation, partition)
        return places


def _pack_read(at: _Places, wanted: Sequence[Wanted], *, is_building: bool) -> list[bytes]:
    """A transaction of plain commands: as atomic as a function, and Lua would copy every value twice."""
    commands = list(at.standing)
    list_of, events_of = at.own.list_of, at.own.events_of
    for patient, fields, remembered in wanted:
        if fields:
            commands.append(packed(("HMGET", list_of + patient, *fields)))
        if remembered:
            commands.append(packed(("HMGET", events_of + patient, *remembered)))
    if is_building:
        commands.append(command("HGETALL", at.own.withheld))
    return commands


def _withheld(flat: Sequence[bytes]) -> dict[int, str]:
    return {int(offset): reason.decode() for offset, reason in hash_of(flat).items()}


def _lists(wanted: Sequence[Wanted], reply: Any) -> tuple[list[Any], list[Any]]:
    """What was found of each patient's fields, and of each one's index: in the order of `_pack_read`."""
    values = iter(reply[3:])
    fields, remembered = [], []
    for each in wanted:
        fields.append(next(values) if each.fields else [])
        remembered.append(next(values) if each.remembered else [])
    return fields, remembered


def _pack_rewrite(at: _Places, generation: str, rewrite: PatientRewrite, rises_by: int) -> bytes:
    common, own = at.common, at.own
    keys = (
        *(common.role, own.offset, at.live_offset, common.outbox, own.rx, own.parked),
        *(own.list_key(rewrite.patient), own.events_key(rewrite.patient), common.released),
    )
    parts = (
        *(rewrite.put, rewrite.remember, rewrite.effects, rewrite.opened, rewrite.closed, rewrite.unparked),
        *(rewrite.parked, rewrite.forget, rewrite.unchanged),
    )
    values: list[Word] = []
    for part in parts:
        values += chain.from_iterable(part.items()) if isinstance(part, Mapping) else part
    counts = _pack_counts([len(part) for part in parts])
    head = (generation, at.live, rewrite.epoch, rises_by, rewrite.index_size, counts)
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
    values += chain.from_iterable(write.opened)
    for pairs in (write.closed, write.parked):
        values += chain.from_iterable(pairs.items())
    head = (generation, at.live, write.expected_offset, write.epoch, write.next_offset, common.announcements)
    return packed(("FCALL", _WRITE, len(keys), *keys, *head, _pack_counts(shape), write.last, *values))


def _answer(reply: Any, next_offset: int | None = None) -> Written | Refused:
    """`next_offset`: where a write leads; one that leads nowhere is answered with the partition's offset."""
    if reply[0] == b"ok":
        taken = {key.decode(): owner for key, owner in hash_of(reply[1]).items()}
        return Written(int(reply[3]) if next_offset is None else next_offset, taken, reply[2])
    return Refused(RefusedWhy(reply[0].decode()), int(reply[1]), int(reply[2]), _limit(reply[3]))


def _limit(reply: bytes | None) -> int | None:
    return None if reply is None else int(reply)


def _restless(partition: int) -> StoreUnavailableError:
    return StoreUnavailableError(f"the role of partition {partition} does not come to rest")
