"""What the log says: every patient folded again, plainly and one record after the other, for any prefix of the log."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from schemas.framing import PLAIN
from schemas.reasons import ParkReason
from services.medication_list.fold import Memory, Patient, evolve, park
from services.medication_list.fold.judgement import Effect, ReceiptDue
from services.medication_list.fold.state import META, Meta
from services.medication_list.judging.items import Item, Readable, Unreadable, item_of, opened_by, with_receipt
from services.medication_list.store.keys import disputed_name
from services.medication_list.stored.effects import effect_id_of, topic_of
from services.medication_list.stored.packing import pack_field, pack_memory
from services.topics.registry import EVENTS_TOPIC
from tests.simulation.broker import Broker

Hash = dict[bytes, bytes]
NOTHING: Hash = {}


class Due(NamedTuple):
    """An effect that must reach its topic. `place`: source offset, and its number among that record's effects."""

    effect_id: str
    topic: str
    partition: int
    place: tuple[int, int]
    patient: str
    is_receipt: bool


@dataclass(slots=True)
class Fold:
    """One patient, with some records left aside as unreadable; `after` tells the next offset of each state."""

    patient: Patient = field(
        default_factory=lambda: Patient(
            {}, cast("dict[bytes, Memory | None]", defaultdict(lambda: None)), complete=True
        )
    )
    taken: int = 0
    after: list[int] = field(default_factory=list)
    fields: list[Hash] = field(default_factory=list)
    index: list[Hash] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    opened: list[tuple[int, str]] = field(default_factory=list)
    due: list[Due] = field(default_factory=list)


class Expected:
    """Folds lazily, as the log grows."""

    def __init__(self, broker: Broker, partitions: int) -> None:
        self._broker = broker
        self._partitions = partitions
        self._read = dict.fromkeys(range(partitions), 0)
        self.items: dict[tuple[int, str | None], list[Item]] = defaultdict(list)
        self.unreadable: dict[int, set[int]] = {each: set() for each in range(partitions)}
        self._folds: dict[tuple[int, str, frozenset[int]], Fold] = {}
        self.due: dict[str, Due] = {}
        """Everything that was due at some time, by id."""

    def patients(self, partition: int) -> list[str]:
        """All that have a record there."""
        self._read_on(partition)
        return [patient for place, patient in self.items if place == partition and patient is not None]

    def parked(self, partition: int, before: int) -> set[int]:
        """Offsets of records that no release can read."""
        self._read_on(partition)
        return {each for each in self.unreadable[partition] if each < before}

    def hashes(self, partition: int, patient: str, before: int, aside: frozenset[int]) -> tuple[Hash, Hash]:
        """The patient's fields and index after all records below `before`, with those `aside` parked."""
        fold = self.fold(partition, patient, aside)
        at = bisect_right(fold.after, before) - 1
        return (fold.fields[at], fold.index[at]) if at >= 0 else (NOTHING, NOTHING)

    def numbers(self, partition: int, before: int, aside: frozenset[int]) -> Hash:
        """Whom each prescription number belongs to, and under whom else it came."""
        found = sorted(
            (offset, name, patient)
            for patient in self.patients(partition)
            for offset, name in self.fold(partition, patient, self.aside_of(partition, patient, aside)).opened
            if offset < before
        )
        owners: Hash = {}
        for _, name, patient in found:
            who = patient.encode()
            if owners.setdefault(name.encode(), who) != who:
                disputed = owners.setdefault(disputed_name(name).encode(), b"")
                if who not in disputed:
                    owners[disputed_name(name).encode()] = disputed + who
        return owners

    def aside_of(self, partition: int, patient: str, aside: frozenset[int]) -> frozenset[int]:
        """Those that are this patient's."""
        return (
            frozenset(i.record.offset for i in self.items[partition, patient] if i.record.offset in aside)
            if aside
            else aside
        )

    def fold(self, partition: int, patient: str, aside: frozenset[int]) -> Fold:
        """The patient's fold, as far as the log goes now."""
        self._read_on(partition)
        key = partition, patient, aside
        fold = self._folds.get(key)
        if fold is None:
            fold = self._folds[key] = Fold()
        items = self.items[partition, patient]
        while fold.taken < len(items):
            self._take(fold, partition, patient, items[fold.taken], aside)
            fold.taken += 1
        return fold

    def all_due(self, partition: int, aside: frozenset[int]) -> Iterator[Due]:
        """Every effect of the partition's records."""
        for patient in self.patients(partition):
            yield from self.fold(partition, patient, self.aside_of(partition, patient, aside)).due

    def _read_on(self, partition: int) -> None:
        records = self._broker.records[EVENTS_TOPIC, partition]
        for record in records[self._read[partition] :]:
            item = item_of(record, partition, self._partitions, PLAIN)
            self.items[partition, item.patient].append(item)
            if isinstance(item, Unreadable):
                self.unreadable[partition].add(record.offset)
        self._read[partition] = len(records)

    def _take(self, fold: Fold, partition: int, patient: str, item: Item, aside: frozenset[int]) -> None:
        before = fold.patient
        offset = item.record.offset
        if isinstance(item, Unreadable) or offset in aside:
            reason = item.reason if isinstance(item, Unreadable) else ParkReason.UNKNOWN_SCHEMA
            judgement = park(cast("Meta | None", before.fields.get(META)), offset, item.record.timestamp, reason.code)
        else:
            judgement = evolve(before, item.entry)
        before.fields.update(judgement.puts)
        before.memory.update(judgement.remember)
        fields = dict(fold.fields[-1]) if fold.fields else {}
        for name, value in judgement.puts.items():
            if value is None:
                fields.pop(name.encode(), None)
            else:
                fields[name.encode()] = pack_field(value)
        index = dict(fold.index[-1]) if fold.index else {}
        index.update((key, pack_memory(value)) for key, value in judgement.remember.items())
        fold.after.append(offset + 1)
        fold.fields.append(fields)
        fold.index.append(index)
        fold.outcomes.append(judgement.verdict.outcome)
        if isinstance(item, Readable) and offset not in aside:
            fold.opened += [(offset, name) for name in opened_by(item, judgement)]
            effects: tuple[Effect, ...] = with_receipt(item, judgement).effects
            for number, each in enumerate(effects):
                due = Due(
                    effect_id_of(each),
                    topic_of(each),
                    partition,
                    (offset, number),
                    patient,
                    isinstance(each, ReceiptDue),
                )
                fold.due.append(due)
                self.due.setdefault(due.effect_id, due)
