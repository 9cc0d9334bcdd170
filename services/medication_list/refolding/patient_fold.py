"""Folds all records of one patient in memory, from the first on, and keeps what became of each."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from schemas.framing import Framing
from schemas.reasons import ParkReason
from services.medication_list.fold import Judgement, Memory, Patient
from services.medication_list.fold.judgement import Effect
from services.medication_list.fold.remembering import remembered
from services.medication_list.fold.state import Remembered
from services.medication_list.judging.items import Item, Readable, Unreadable, closed_by, item_of, judged, opened_by
from services.medication_list.log.record import Record
from services.medication_list.stored.event_index import is_parked


@dataclass(slots=True)
class PatientFold:
    """One fold of the patient's records: how far it has come, and the outcome of each."""

    patient: Patient
    verdicts: dict[int, Remembered] = field(default_factory=dict)
    """By offset; a second record of a known event stands there with what became of the first."""
    effects: list[tuple[Readable, Effect]] = field(default_factory=list)
    opened: dict[str, bytes] = field(default_factory=dict)
    parked: dict[int, Unreadable] = field(default_factory=dict)
    closed: dict[int, bytes] = field(default_factory=dict)
    """Parked records that an operator closed, with their notes."""

    @classmethod
    def empty(cls) -> "PatientFold":
        """Before the first record."""
        memory = cast("dict[bytes, Memory | None]", defaultdict(lambda: None))
        return cls(Patient({}, memory, complete=True))


def fold_anew(partition: int, items: Sequence[Item]) -> PatientFold:
    """Fold one patient's records from the first on."""
    fold = PatientFold.empty()
    for fold, _ in folding(partition, items):  # noqa: B007 - the last one is what it comes to
        pass
    return fold


def folding(partition: int, items: Sequence[Item]) -> Iterator[tuple[PatientFold, Item]]:
    """Fold one patient's records from the first on, and stop after each: the same fold, further on, and the record."""
    fold = PatientFold.empty()
    for each in items:
        item, judgement = judged(partition, fold.patient, each, _nothing_is_missing)
        _take(fold, item, judgement)
        yield fold, item


def as_it_stood(
    records: Mapping[int, Record],
    was: Mapping[int, Remembered | None],
    partition: int,
    partitions: int,
    framing: Framing,
) -> list[Item]:
    """A patient's records in log order; what the view has parked stays so, also where it could be read by now."""
    return [
        Unreadable(records[offset], (records[offset].key or b"").decode(), reason_of(known))
        if is_parked(known)
        else item_of(records[offset], partition, partitions, framing)
        for offset, known in was.items()
    ]


def _nothing_is_missing(field_name: str) -> None:
    raise AssertionError(f"a whole patient lacks no field: {field_name}")


def _take(fold: PatientFold, item: Item, judgement: Judgement) -> None:
    if isinstance(item, Readable):
        fold.closed |= closed_by(fold.patient, item, judgement)
    fold.patient.fields.update(judgement.puts)
    fold.patient.memory.update(judgement.remember)
    if isinstance(item, Unreadable):
        fold.parked[item.record.offset] = item
        return
    for value in judgement.remember.values():
        if isinstance(value, Remembered):
            fold.verdicts[value.offset] = value
    if judgement.first is not None:
        again = remembered(judgement.verdict, item.entry.offset, item.entry.digest)
        is_same = judgement.verdict.outcome == "duplicate"
        fold.verdicts[item.entry.offset] = judgement.first if is_same else again
    for name in opened_by(item, judgement):
        fold.opened.setdefault(name, (item.patient or "").encode())
    fold.effects += [(item, due) for due in judgement.effects]


def reason_of(known: Remembered | None) -> ParkReason:
    """Why a record is parked."""
    assert known is not None, "a parked record is remembered"
    return ParkReason.from_code(known.reason)
