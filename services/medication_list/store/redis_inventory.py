"""The inventory of a Redis: read in slices, so that nobody waits for it."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from services.medication_list.store.inventory import Compared, Memory, PatientPlace, Sides
from services.medication_list.store.keys import GenerationKeys, PartitionKeys
from services.medication_list.store.library import function
from services.medication_list.store.link import Link, command, hash_of

_INDEX: Final = re.compile(rb"(g[0-9]+-[0-9a-f]+):\{([0-9]+)\}:e:(.+)")
_GENERATION: Final = re.compile(rb"(g[0-9]+-[0-9a-f]+):")
_SLICE: Final = 500


class RedisInventory:
    """See `inventory.Inventory` for what each method promises."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def memory(self) -> Memory:
        """See `Inventory.memory`."""
        told = dict(line.split(":", 1) for line in self._one("INFO", "memory").decode().splitlines() if ":" in line)
        return Memory(int(told["used_memory"]), int(told["maxmemory"]) or int(told["total_system_memory"]))

    def sizes(self, sample: int) -> Mapping[str, int]:
        """See `Inventory.sizes`."""
        count = int(self._one("DBSIZE"))
        if count <= sample:
            keys = self._all_keys()
        else:
            keys = [each for each in self._link.ask([command("RANDOMKEY")] * sample) if each is not None]
        weights = self._link.ask(command("MEMORY", "USAGE", key, "SAMPLES", 0) for key in keys)
        found: Counter[str] = Counter()
        for key, weight in zip(keys, weights, strict=True):
            generation = _GENERATION.match(key)
            if generation is not None and weight is not None:
                found[generation[1].decode()] += int(weight)
        return {name: weight * max(count, len(keys)) // max(len(keys), 1) for name, weight in found.items()}

    def patients(self, cursor: int, at_most: int) -> tuple[int, Collection[PatientPlace]]:
        """See `Inventory.patients`."""
        after, keys = self._one("SCAN", cursor, "MATCH", "g*:{*}:e:*", "COUNT", at_most)
        found = [_INDEX.fullmatch(key) for key in keys]
        return int(after), [
            PatientPlace(each[1].decode(), int(each[2]), each[3].decode()) for each in found if each is not None
        ]

    def strangers(self, partition: int, generation: str, patients: Sequence[str]) -> Collection[str]:
        """See `Inventory.strangers`."""
        keys = GenerationKeys(generation, partition)
        known = self._link.ask(command("EXISTS", keys.events_key(patient)) for patient in patients)
        return [patient for patient, there in zip(patients, known, strict=True) if not there]

    def compare(self, partition: int, one: str, other: str, patients: Sequence[str]) -> Compared:
        """See `Inventory.compare`."""
        ours, theirs = GenerationKeys(one, partition), GenerationKeys(other, partition)
        keys = [ours.offset, theirs.offset]
        for patient in patients:
            for side in (ours, theirs):
                keys += (side.list_key(patient), side.events_key(patient))
        reply = self._one("FCALL_RO", function("compare"), len(keys), *keys)
        differing = [
            Sides(patients[int(number) - 1], *(hash_of(flat) for flat in (mine, mine_index, its, its_index)))
            for number, mine, mine_index, its, its_index in zip(*[iter(reply[2:])] * 5, strict=True)
        ]
        return Compared(_offset(reply[0]), _offset(reply[1]), differing)

    def differing_notes(self, partition: int, one: str, other: str) -> Collection[tuple[str, str]]:
        """See `Inventory.differing_notes`."""
        ours, theirs = GenerationKeys(one, partition), GenerationKeys(other, partition)
        found: set[tuple[str, str]] = set()
        for kind, mine, its in (("rx", ours.rx, theirs.rx), ("parked", ours.parked, theirs.parked)):
            for here, there in ((mine, its), (its, mine)):
                found |= {(kind, name) for name in self._missing(here, there)}
        return found

    def forget(self, partition: int, generation: str) -> bool:
        """See `Inventory.forget`."""
        keys = PartitionKeys(partition).role, GenerationKeys(generation, partition).offset
        return bool(self._one("FCALL", function("forget"), 2, *keys, generation))

    def sweep(self, generation: str, cursor: int, at_most: int) -> tuple[int, int]:
        """See `Inventory.sweep`."""
        after, keys = self._one("SCAN", cursor, "MATCH", f"{generation}:*", "COUNT", at_most)
        if keys:
            # One by one: in a cluster they lie in different slots.
            self._link.ask(command("UNLINK", key) for key in keys)
        return int(after), len(keys)

    def _missing(self, here: str, there: str) -> set[str]:
        """The fields of a hash that another one has not, or has otherwise."""
        found: set[str] = set()
        cursor = 0
        while True:
            after, flat = self._one("HSCAN", here, cursor, "COUNT", _SLICE)
            fields = hash_of(flat)
            if fields:
                held = self._one("HMGET", there, *fields)
                pairs = zip(fields.items(), held, strict=True)
                found |= {name.decode() for (name, value), theirs in pairs if value != theirs}
            cursor = int(after)
            if cursor == 0:
                return found

    def _all_keys(self) -> list[bytes]:
        found: set[bytes] = set()
        cursor = 0
        while True:
            after, keys = self._one("SCAN", cursor, "COUNT", _SLICE)
            found.update(keys)
            cursor = int(after)
            if cursor == 0:
                return sorted(found)

    def _one(self, *words: Any) -> Any:
        return self._link.ask([command(*words)])[0]


def _offset(reply: bytes | None) -> int | None:
    return None if reply is None else int(reply)
