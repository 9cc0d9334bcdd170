"""The inventory of a store in memory."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from services.medication_list.store.inventory import Compared, Memory, PatientPlace, Sides
from services.medication_list.store.keys import GenerationKeys, PartitionKeys
from services.medication_list.store.memory_server import Content, MemoryServer

_INDEX: Final = re.compile(r"(g[0-9]+-[0-9a-f]+):\{([0-9]+)\}:e:(.+)")
LIMIT: Final = 1 << 30


class MemoryInventory:
    """See `inventory.Inventory` for what each method promises. `limit`: as if it had so many bytes."""

    def __init__(self, server: MemoryServer, limit: int = LIMIT) -> None:
        self._server = server
        self.limit = limit

    def memory(self) -> Memory:
        """See `Inventory.memory`."""
        with self._server.call() as content:
            return Memory(sum(_weight(content, key) for key in content.hashes), self.limit)

    def sizes(self, sample: int) -> Mapping[str, int]:  # noqa: ARG002  all of it is looked at
        """See `Inventory.sizes`."""
        found: Counter[str] = Counter()
        with self._server.call() as content:
            for key in content.hashes:
                if re.match(r"g[0-9]+-[0-9a-f]+:", key):
                    found[key.partition(":")[0]] += _weight(content, key)
        return found

    def patients(self, cursor: int, at_most: int) -> tuple[int, Collection[PatientPlace]]:
        """See `Inventory.patients`."""
        with self._server.call() as content:
            keys = sorted(content.hashes)[cursor : cursor + at_most]
            after = cursor + at_most if cursor + at_most < len(content.hashes) else 0
        found = [_INDEX.fullmatch(key) for key in keys]
        return after, [PatientPlace(each[1], int(each[2]), each[3]) for each in found if each is not None]

    def strangers(self, partition: int, generation: str, patients: Sequence[str]) -> Collection[str]:
        """See `Inventory.strangers`."""
        keys = GenerationKeys(generation, partition)
        with self._server.call() as content:
            return [each for each in patients if keys.events_key(each) not in content.hashes]

    def compare(self, partition: int, one: str, other: str, patients: Sequence[str]) -> Compared:
        """See `Inventory.compare`."""
        ours, theirs = GenerationKeys(one, partition), GenerationKeys(other, partition)
        with self._server.call() as content:
            sides = [
                Sides(
                    patient,
                    *(
                        dict(content.hashes.get(key, {}))
                        for side in (ours, theirs)
                        for key in (side.list_key(patient), side.events_key(patient))
                    ),
                )
                for patient in patients
            ]
            differing = [each for each in sides if not each.are_equal]
            return Compared(_offset(content, ours), _offset(content, theirs), differing)

    def differing_notes(self, partition: int, one: str, other: str) -> Collection[tuple[str, str]]:
        """See `Inventory.differing_notes`."""
        ours, theirs = GenerationKeys(one, partition), GenerationKeys(other, partition)
        with self._server.call() as content:
            found: set[tuple[str, str]] = set()
            for kind, mine, its in (("rx", ours.rx, theirs.rx), ("parked", ours.parked, theirs.parked)):
                held, there = content.hashes.get(mine, {}), content.hashes.get(its, {})
                found |= {(kind, name.decode()) for name in held.keys() | there if held.get(name) != there.get(name)}
            return found

    def forget(self, partition: int, generation: str) -> bool:
        """See `Inventory.forget`."""
        with self._server.call() as content:
            if content.hashes.get(PartitionKeys(partition).role, {}).get(b"live") == generation.encode():
                return False
            content.hashes.pop(GenerationKeys(generation, partition).offset, None)
            return True

    def sweep(self, generation: str, cursor: int, at_most: int) -> tuple[int, int]:  # noqa: ARG002  nothing moves here
        """See `Inventory.sweep`."""
        with self._server.call() as content:
            held = [key for key in content.hashes if key.startswith(f"{generation}:")]
            for key in held[:at_most]:
                del content.hashes[key]
            return (1 if len(held) > at_most else 0), len(held[:at_most])


def _offset(content: Content, keys: GenerationKeys) -> int | None:
    held = content.hashes.get(keys.offset)
    return None if held is None else int(held[b"offset"])


def _weight(content: Content, key: str) -> int:
    return len(key) + sum(len(name) + len(value) for name, value in content.hashes[key].items())
