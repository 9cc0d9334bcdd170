"""One pass over a fetch: decode all, read what they touch, fold in memory, write each partition in one step.

The entry function is `Judge.process`. It uses neither Kafka nor Redis directly: a simulation runs the same code.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from schemas.codec import name_of
from schemas.events import ParkedRecordClosed
from schemas.framing import PLAIN, Framing, RegistryUnavailableError
from schemas.reasons import ParkReason, Reason
from services.canonical_log import get_logger
from services.medication_list.driver.batches import Applied, Fetch, PartitionBatch, Rewind, Verdict
from services.medication_list.fold import EVERYTHING, Judgement, LogEntry, Patient, named_by, pointed_at
from services.medication_list.fold.state import META, State
from services.medication_list.judging.alarms import tell_conflicting, tell_number_conflict
from services.medication_list.judging.counting import Judged, nobody_counts
from services.medication_list.judging.event_spans import EventSpans, StoredEvent, sampled_in
from services.medication_list.judging.items import (
    Item,
    Readable,
    Unreadable,
    closed_by,
    item_of,
    judged,
    note_of,
    opened_by,
)
from services.medication_list.log.last_record import mark_of
from services.medication_list.store.port import PartitionWrite, PatientChange, Refused, Store, Wanted, Written
from services.medication_list.stored.packing import pack_effect, pack_field, pack_memory, unpack_field, unpack_memory
from services.telemetry.traces import sampled

_PARK_REASONS = frozenset(ParkReason)
_log = get_logger()


@dataclass(slots=True)
class PartitionWork:
    """One partition's share of a fetch: its items, the patients that they touch, and what changes."""

    batch: PartitionBatch
    items: list[Item]
    next_offset: int
    epoch: int = -1
    patients: dict[str, Patient] = field(default_factory=dict)
    changed: dict[str, dict[str, State | None]] = field(default_factory=dict)
    remember: dict[str, dict[bytes, bytes]] = field(default_factory=dict)
    effects: list[bytes] = field(default_factory=list)
    opened: dict[tuple[str, bytes], int] = field(default_factory=dict)
    """Each id and the patient that it is opened for -> the offset that does."""
    conflicting: list[LogEntry] = field(default_factory=list)
    """What was said before otherwise."""
    parked: dict[int, bytes] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    sampled: Mapping[int, bytes] = field(default_factory=dict)
    """Offset -> traceparent of what is traced; always empty where nothing is."""
    traced: list[StoredEvent] = field(default_factory=list)


class StaleReadError(Exception):
    """The store changed between two reads of one pass: they do not belong together."""

    def __init__(self, partition: int, offset: int) -> None:
        super().__init__(f"partition {partition} moved to {offset} while it was read")
        self.partition = partition
        self.offset = offset


class Judge:
    """Folds fetches into the store. Raises what the store raises; the driver then delivers the fetch again."""

    def __init__(
        self,
        store: Store,
        partitions: int,
        framing: Framing = PLAIN,
        told: Callable[[Judged], None] = nobody_counts,
        spans: EventSpans | None = None,
    ) -> None:
        """`told`: called with the outcome of each fetch. `spans`: makes those of sampled events; None: nothing is traced."""
        self._spans = spans
        self._store = store
        self._framing = framing
        self._partitions = partitions
        self._told = told

    def process(self, fetch: Fetch) -> Mapping[int, Verdict]:
        """One verdict a partition: applied up to an offset, or to be read again from where the store stands."""
        verdicts: dict[int, Verdict] = {}
        judged, began = Judged(), time.perf_counter()
        works = [work for batch in fetch.batches if (work := self._opened(batch, verdicts))]
        if self._spans is not None:
            for work in works:
                work.sampled = sampled_in(work.batch.records)
        decoded = time.perf_counter()
        read = self._read_first(works, verdicts)
        fold_began = time.perf_counter()
        ready = [work for work in read if self._folded(work, verdicts)]
        folded = time.perf_counter()
        writes = self._store.write([_write_of(work) for work in ready]) if ready else {}
        for work in ready:
            verdicts[work.batch.partition] = self._verdict(work, writes[work.batch.partition], judged)
        judged.seconds = {
            "decode": decoded - began,
            "read": fold_began - decoded,
            "fold": folded - fold_began,
            "store": time.perf_counter() - folded,
        }
        self._told(judged)
        if self._spans is not None and (traced := _traced(ready, writes)):
            self._spans.stored(traced, fetch.fetched_ns or time.time_ns())
        return verdicts

    # --- Decode --------------------------------------------------------------------------------------------------

    def _opened(self, batch: PartitionBatch, verdicts: dict[int, Verdict]) -> PartitionWork | None:
        """The batch as far as it can be read now; None, and a verdict, where that is not even its first record."""
        items: list[Item] = []
        for record in batch.records:
            try:
                items.append(item_of(record, batch.partition, self._partitions, self._framing))
            except RegistryUnavailableError:
                # It may be a good record: it waits for the registry, and what comes after it in the partition too.
                _log.warning("record_waits_for_schema_registry", partition=batch.partition, offset=record.offset)
                if record.offset == batch.first_offset:
                    verdicts[batch.partition] = Rewind(record.offset)
                    return None
                return PartitionWork(batch, items, record.offset)
        return PartitionWork(batch, items, batch.next_offset)

    # --- Read ----------------------------------------------------------------------------------------------------

    def _read_first(self, works: Sequence[PartitionWork], verdicts: dict[int, Verdict]) -> list[PartitionWork]:
        """Offset, epoch, and what the events themselves name. A batch that does not begin there is not folded."""
        asked = {work.batch.partition: _named(work) for work in works}
        snapshots = self._store.read(asked) if asked else {}
        ready = []
        for work in works:
            partition = work.batch.partition
            snapshot = snapshots[partition]
            if snapshot.offset != work.batch.first_offset:
                verdicts[partition] = Rewind(snapshot.offset)
                continue
            if snapshot.limit is not None and snapshot.limit < work.next_offset:
                if snapshot.limit <= snapshot.offset:
                    verdicts[partition] = Rewind(snapshot.offset)
                    continue
                _cut(work, snapshot.limit)
            work.epoch = snapshot.epoch
            if snapshot.withheld:
                work.items = [_withheld(item, snapshot.withheld) for item in work.items]
            _keep(work, asked[partition], snapshot.fields, snapshot.remembered)
            ready.append(work)
        return ready

    def _folded(self, work: PartitionWork, verdicts: dict[int, Verdict]) -> bool:
        """Read what the first read points to, then fold; False if the store has changed since."""
        try:
            self._read_second(work)
            judge = self._judge_traced if work.sampled else self._judge
            for item in work.items:
                judge(work, item)
        except StaleReadError as error:
            verdicts[work.batch.partition] = Rewind(error.offset)
            return False
        return True

    def _read_second(self, work: PartitionWork) -> None:
        wanted: dict[str, dict[str, None]] = {}
        for item in work.items:
            if isinstance(item, Readable):
                fields = work.patients[item.patient].fields
                missing = [name for name in pointed_at(item.entry.event.body, fields) if name not in fields]
                if missing:
                    wanted.setdefault(item.patient, {}).update(dict.fromkeys(missing))
        if wanted:
            self._read_more(work, [Wanted(patient, tuple(names), ()) for patient, names in wanted.items()])

    def _read_more(self, work: PartitionWork, wanted: Sequence[Wanted]) -> None:
        partition = work.batch.partition
        snapshot = self._store.read({partition: wanted})[partition]
        if (snapshot.offset, snapshot.epoch) != (work.batch.first_offset, work.epoch):
            raise StaleReadError(partition, snapshot.offset)
        _keep(work, wanted, snapshot.fields, snapshot.remembered)

    def _load(self, work: PartitionWork, patient: str, missing: str) -> None:
        """What a judgement itself asked for: one field, or, for a death or a stale reconciliation, the whole patient."""
        if missing != EVERYTHING:
            self._read_more(work, [Wanted(patient, (missing,), ())])
            return
        whole = self._store.read_whole(work.batch.partition, patient)
        if (whole.offset, whole.epoch) != (work.batch.first_offset, work.epoch):
            raise StaleReadError(work.batch.partition, whole.offset)
        known = work.patients[patient]
        for name, packed in whole.fields.items():
            if name not in known.fields:
                known.fields[name] = unpack_field(name, packed)
        known.complete = True

    # --- Fold ----------------------------------------------------------------------------------------------------

    def _judge_traced(self, work: PartitionWork, item: Item) -> None:
        """Judge one item of a batch of which something is traced."""
        outcome = self._judge(work, item)
        offset = item.record.offset
        if (traceparent := work.sampled.get(offset)) is None:
            return
        event = item.entry.event if isinstance(item, Readable) else None
        work.traced.append(
            StoredEvent(
                traceparent,
                work.batch.partition,
                offset,
                outcome,
                None if event is None else event.event_id,
                None if event is None else name_of(event),
            )
        )

    def _judge(self, work: PartitionWork, item: Item) -> str:
        """Judge one item, and take what it changes into the work; returns its outcome."""
        if item.patient is None:
            self._note_parked(work, item)
            work.outcomes["parked"] = work.outcomes.get("parked", 0) + 1
            return "parked"
        whose = item.patient
        patient = work.patients[whose]
        item, judgement = judged(work.batch.partition, patient, item, lambda missing: self._load(work, whose, missing))
        if isinstance(item, Unreadable):
            _take(work, whose, patient, judgement)
            self._note_parked(work, item)
            return judgement.verdict.outcome
        if isinstance(item.entry.event.body, ParkedRecordClosed):
            work.parked |= closed_by(patient, item, judgement)
        _take(work, whose, patient, judgement)
        if judgement.verdict.reason is Reason.CONFLICTING_DUPLICATE:
            work.conflicting.append(item.entry)
        for name in opened_by(item, judgement):
            work.opened.setdefault((name, whose.encode()), item.record.offset)
        for effect in judgement.effects:
            # From the log, whether this process traces or not: every generation makes the same bytes.
            traceparent = sampled(item.record.headers)
            work.effects.append(pack_effect(item.entry.offset, whose, effect, traceparent))
        return judgement.verdict.outcome

    def _note_parked(self, work: PartitionWork, item: Unreadable) -> None:
        partition, offset = work.batch.partition, item.record.offset
        _log.error("record_parked", partition=partition, offset=offset, reason=str(item.reason))
        work.parked[offset] = note_of(item)
        reason = str(item.reason)
        work.reasons[reason] = work.reasons.get(reason, 0) + 1

    def _verdict(self, work: PartitionWork, answer: Written | Refused, judged: Judged) -> Verdict:
        if isinstance(answer, Refused):
            return Rewind(answer.offset)
        judged.outcomes.update(work.outcomes)
        judged.parked.update(work.reasons)
        _tell_alarms(work, answer, judged)
        return Applied(answer.next_offset)


def _tell_alarms(work: PartitionWork, answer: Written, judged: Judged) -> None:
    """What a person must see, once: not by a generation beside the live one, and not anew where one is made again."""
    if answer.told_from is None:
        return
    partition, told_from = work.batch.partition, answer.told_from
    for (name, whose), offset in work.opened.items() if answer.taken else ():
        if answer.taken.get(name, whose) != whose and offset >= told_from:
            judged.conflicts += 1
            tell_number_conflict(partition, name)
    for entry in work.conflicting:
        if entry.offset >= told_from:
            judged.conflicting += 1
            tell_conflicting(partition, entry)


def _traced(works: Sequence[PartitionWork], writes: Mapping[int, Written | Refused]) -> list[StoredEvent]:
    """What is traced of the works that the store took."""
    return [event for work in works if isinstance(writes[work.batch.partition], Written) for event in work.traced]


def _named(work: PartitionWork) -> list[Wanted]:
    """What the items of a partition name, one entry a patient."""
    fields: dict[str, dict[str, None]] = {}
    keys: dict[str, dict[bytes, None]] = {}
    for item in work.items:
        whose = item.patient
        if whose is None:
            continue
        names = fields.get(whose)
        if names is None:
            names = fields[whose] = {}
            keys[whose] = {}
        remembered = keys[whose]
        if isinstance(item, Unreadable):
            names[META] = None
            continue
        entry = item.entry
        for name in named_by(entry.event.body):
            names[name] = None
        remembered[entry.own_key] = None
        if entry.natural_key is not None:
            remembered[entry.natural_key] = None
    return [Wanted(patient, tuple(names), tuple(keys[patient])) for patient, names in fields.items()]


def _keep(
    work: PartitionWork,
    wanted: Sequence[Wanted],
    fields: Sequence[Sequence[bytes | None]],
    remembered: Sequence[Sequence[bytes | None]],
) -> None:
    """Unpack what was read into the patients."""
    for (patient_key, names, keys), values, memories in zip(wanted, fields, remembered, strict=True):
        patient = work.patients.get(patient_key)
        if patient is None:
            patient = work.patients[patient_key] = Patient({}, {})
        for name, packed in zip(names, values, strict=True):
            patient.fields[name] = None if packed is None else unpack_field(name, packed)
        for key, packed in zip(keys, memories, strict=True):
            patient.memory[key] = None if packed is None else unpack_memory(key, packed)


def _take(work: PartitionWork, whose: str, patient: Patient, judgement: Judgement) -> None:
    """What the next item of the batch will find."""
    patient.fields.update(judgement.puts)
    patient.memory.update(judgement.remember)
    changed = work.changed.get(whose)
    if changed is None:
        changed = work.changed[whose] = {}
        work.remember[whose] = {}
    changed.update(judgement.puts)
    memory = work.remember[whose]
    for key, value in judgement.remember.items():
        memory[key] = pack_memory(value)
    outcome = judgement.verdict.outcome
    work.outcomes[outcome] = work.outcomes.get(outcome, 0) + 1


def _cut(work: PartitionWork, limit: int) -> None:
    """A generation that is not live goes as far as the live one has come."""
    work.items = [item for item in work.items if item.record.offset < limit]
    work.next_offset = limit


def _withheld(item: Item, reasons: Mapping[int, str]) -> Item:
    """The record as it lay parked before the view was lost, whether or not this release can read it.

    For a reason that this release has no name for, it waits for an operator.
    """
    reason = reasons.get(item.record.offset)
    if reason is None or item.patient is None or (isinstance(item, Unreadable) and item.reason == reason):
        return item
    known = ParkReason(reason) if reason in _PARK_REASONS else ParkReason.NOT_JUDGED
    return Unreadable(item.record, item.patient, known)


def _write_of(work: PartitionWork) -> PartitionWrite:
    return PartitionWrite(
        partition=work.batch.partition,
        expected_offset=work.batch.first_offset,
        epoch=work.epoch,
        next_offset=work.next_offset,
        changes=[_change(work, patient, changed) for patient, changed in work.changed.items()],
        effects=work.effects,
        opened=tuple(work.opened),
        parked=work.parked,
        last=mark_of(work.items[-1].record) if work.items else b"",
    )


def _change(work: PartitionWork, patient: str, changed: Mapping[str, State | None]) -> PatientChange:
    put = {name: pack_field(value) for name, value in changed.items() if value is not None}
    # Also what was never read: the claim that a hand-out ends, for one.
    drop = [name for name, value in changed.items() if value is None]
    return PatientChange(patient, put, drop, work.remember.get(patient, {}))
