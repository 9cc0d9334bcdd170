"""The outboxes in Redis: one stream a partition, with its lease."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from services.medication_list.store.keys import GenerationKeys, PartitionKeys
from services.medication_list.store.library import function
from services.medication_list.store.link import Link, command, hash_of
from services.medication_list.store.port import StoreUnavailableError
from services.medication_list.store.waiting import Unsent, WaitingEntry

_ATTEMPTS: Final = 4


class RedisOutbox:
    """See `waiting.Outbox` for what each method promises."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._believed: dict[int, str] = {}
        """By partition, the generation that was live last time."""

    def lease(self, partitions: Collection[int], owner: str, for_ms: int) -> Collection[int]:
        """See `Outbox.lease`."""
        replies = self._link.ask(
            command("FCALL", function("lease"), 1, PartitionKeys(each).lease, owner, for_ms) for each in partitions
        )
        return [partition for partition, reply in zip(partitions, replies, strict=True) if reply]

    def waiting(self, after: Mapping[int, str], at_most: int, wait_ms: int) -> Mapping[int, Sequence[WaitingEntry]]:
        """See `Outbox.waiting`."""
        if not after:
            return {}
        streams = {PartitionKeys(partition).outbox: partition for partition in after}
        how = ("COUNT", at_most, "BLOCK", max(1, wait_ms))
        reply = self._link.ask([command("XREAD", *how, "STREAMS", *streams, *after.values())])[0]
        return {
            streams[stream.decode()]: [WaitingEntry(entry_id.decode(), fields[1]) for entry_id, fields in entries]
            for stream, entries in reply or ()
        }

    def relayed(self, partition: int, owner: str, entry_ids: Sequence[str]) -> bool:
        """See `Outbox.relayed`."""
        at = PartitionKeys(partition)
        call = command("FCALL", function("relayed"), 3, at.lease, at.outbox, at.released, owner, *entry_ids)
        return bool(self._link.ask([call])[0] >= 0)

    def unsent(self, asked: Mapping[int, str | None], at_most: int) -> Mapping[int, Unsent]:
        """See `Outbox.unsent`."""
        found: dict[int, Unsent] = {}
        left = dict(asked)
        for _ in range(_ATTEMPTS):
            replies = self._link.ask(self._pack_unsent(each, left[each], at_most) for each in left)
            for partition, reply in zip(list(left), replies, strict=True):
                if reply[0] == b"believed":
                    self._believed[partition] = reply[1].decode()
                    continue
                del left[partition]
                if reply[0] == b"ok":
                    found[partition] = _unsent(*reply[1:])
            if not left:
                return found
        raise StoreUnavailableError(f"the role of partition {min(left)} does not come to rest")

    def _pack_unsent(self, partition: int, entry_id: str | None, at_most: int) -> bytes:
        believed = self._believed.get(partition, "")
        at, of = PartitionKeys(partition), GenerationKeys(believed, partition)
        keys = (at.role, at.outbox, at.released, of.offset, of.parked, of.withheld)
        return command("FCALL_RO", function("unsent"), len(keys), *keys, believed, at_most, entry_id or "")


def _unsent(
    offset: bytes,
    waits: int,
    in_all: int,
    parked: Sequence[bytes],
    released: Sequence[bytes],
    withheld: Sequence[bytes],
) -> Unsent:
    """The reply of the function, in its order."""
    notes = {each: note.split(b" ", 1)[1] for each, note in _by_offset(released).items()} | _by_offset(parked)
    to_come = {each: reason.decode() for each, reason in _by_offset(withheld).items() if each >= int(offset)}
    return Unsent(int(offset), waits > 0, notes, to_come, in_all)


def _by_offset(flat: Sequence[bytes]) -> dict[int, bytes]:
    return {int(offset): value for offset, value in hash_of(flat).items()}
