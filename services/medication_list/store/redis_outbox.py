"""The outboxes in Redis: one stream a partition, one lease beside it."""

from collections.abc import Collection, Mapping, Sequence

from services.medication_list.store.keys import PartitionKeys
from services.medication_list.store.library import function
from services.medication_list.store.link import Link, command
from services.medication_list.store.waiting import WaitingEntry


class RedisOutbox:
    """See `waiting.Outbox` for what each method promises."""

    def __init__(self, link: Link) -> None:
        self._link = link

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
        call = command("FCALL", function("relayed"), 2, at.lease, at.outbox, owner, *entry_ids)
        return bool(self._link.ask([call])[0] >= 0)
