"""The outboxes in memory."""

from collections.abc import Collection, Mapping, Sequence

from services.medication_list.store.keys import GenerationKeys, PartitionKeys
from services.medication_list.store.memory_server import Content, Hash, MemoryServer, drop, role_at
from services.medication_list.store.roles import RoleState
from services.medication_list.store.waiting import Unsent, WaitingEntry


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
            drop(content, PartitionKeys(partition).released, sent)
            return True

    def unsent(self, asked: Mapping[int, str | None], at_most: int) -> Mapping[int, Unsent]:
        """See `Outbox.unsent`."""
        with self._server.call() as content:
            found = {partition: self._unsent(content, partition, each, at_most) for partition, each in asked.items()}
            return {partition: each for partition, each in found.items() if each is not None}

    @staticmethod
    def _unsent(content: Content, partition: int, entry_id: str | None, at_most: int) -> Unsent | None:
        role, common = role_at(content, partition), PartitionKeys(partition)
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
