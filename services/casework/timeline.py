"""A patient's events in log order: when, who, what, the outcome of each, and what it changed in the list."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import Struct

from schemas.medication_list import MedicationList, ShownPrescription, ShownTreatment
from services.casework.desk import Desk
from services.casework.shown_view import read_as_readers_do
from services.medication_list.fold.state import State
from services.medication_list.judging.items import Item
from services.medication_list.log.record import unframed
from services.medication_list.log.record_log import all_of
from services.medication_list.read_api.history import HistoryEntry, as_shown, entry_of
from services.medication_list.read_api.list_answer import ListAnswer
from services.medication_list.read_api.view import show
from services.medication_list.refolding.patient_fold import as_it_stood, folding
from services.medication_list.store.port import WholePatient
from services.medication_list.stored.answered import ANSWERED, Answered, ChangedAnswer
from services.medication_list.stored.event_index import places_of
from services.medication_list.stored.packing import unpack_field, unpack_fields

Facts = Mapping[str, Any]


class Change(Struct, frozen=True):
    """Something of the list that an event changed: the facts that differ, null where there was or is none of it."""

    entry: str
    before: Facts | None
    after: Facts | None


class TimelineEvent(Struct, frozen=True):
    """One event, and what it changed in the list, as the list was read when the log took the event.

    `hidden`: it came with a number that was another patient's already, so that it is in no list: what it says is left out here
    too, and what the others changed is told as if it had never come.
    """

    event: HistoryEntry
    changed: tuple[Change, ...]
    hidden: bool


class Timeline(Struct, frozen=True):
    """A patient's events. `incomplete_since_ms`: since when one could not be read, null when all were."""

    patient: str
    partition: int
    generation: str
    incomplete_since_ms: int | None
    events: tuple[TimelineEvent, ...]


def timeline_of(desk: Desk, patient: str) -> Timeline:
    """Every event of a patient.

    Raises NotCurrentError, NotReadyError, LogLookupError, StoreUnavailableError, RegistryUnavailableError.
    """
    partition = desk.partition_of(patient)
    desk.await_current(partition)
    hidden = read_as_readers_do(desk, lambda readers: readers.numbers.told_apart(patient, None)).hidden
    whole = desk.store.read_whole(partition, patient, with_index=True)
    was = places_of(whole.fields, whole.remembered)
    records = all_of(patient, partition, was, desk.records.read(partition, list(was)))
    first = {each.first.offset: each.first for each in changes_answered(whole)}
    items = as_it_stood(records, was, partition, desk.partitions, desk.framing)
    changed = dict(_steps(partition, [each for each in items if each.record.offset not in hidden]))
    entries = {
        offset: entry_of(partition, unframed(records[offset], desk.framing), known, first.get(offset))
        for offset, known in was.items()
    }
    events = tuple(
        TimelineEvent(as_shown(entry, offset, hidden), changed.get(offset, ()), offset in hidden)
        for offset, entry in entries.items()
    )
    shown = show(unpack_fields(whole.fields), desk.clock.now_ms())
    return Timeline(patient, partition, desk.generation, shown.incomplete_since_ms, events)


def _steps(partition: int, items: Sequence[Item]) -> Iterator[tuple[int, tuple[Change, ...]]]:
    """By offset, what each record changed; before and after are read at the time of the record, so that time alone moves nothing."""
    before: dict[str, State] = {}
    for fold, item in folding(partition, items):
        after = {name: value for name, value in fold.patient.fields.items() if value is not None}
        at_ms = item.record.timestamp
        yield item.record.offset, changes_between(show(before, at_ms), show(after, at_ms))
        before = after


def changes_answered(whole: WholePatient) -> tuple[ChangedAnswer, ...]:
    """What was answered and proved otherwise."""
    packed = whole.fields.get(ANSWERED)
    found: object = None if packed is None else unpack_field(ANSWERED, packed)
    return found.changes if isinstance(found, Answered) else ()


# --- Two lists compared ------------------------------------------------------------------------------------------


def changes_between(before: MedicationList, after: MedicationList) -> tuple[Change, ...]:
    """What differs, entry by entry."""
    old, new = facts_of(before), facts_of(after)
    return tuple(
        _change(entry, old.get(entry), new.get(entry))
        for entry in dict.fromkeys([*old, *new])
        if old.get(entry) != new.get(entry)
    )


def _change(entry: str, before: Facts | None, after: Facts | None) -> Change:
    if before is None or after is None:
        return Change(entry, before, after)
    differ = [name for name in dict.fromkeys([*before, *after]) if before.get(name) != after.get(name)]
    return Change(entry, {name: before.get(name) for name in differ}, {name: after.get(name) for name in differ})


def facts_of(shown: MedicationList | ListAnswer) -> dict[str, Facts]:
    """What a list says, by entry, short enough to be read side by side."""
    facts: dict[str, Facts] = {}
    for treatment in (*shown.treatments, *shown.other_prescriptions):
        facts[f"treatment {treatment.treatment}"] = _treatment(treatment)
        for prescription in treatment.prescriptions:
            facts[f"prescription {prescription.prescription}"] = _prescription(prescription)
    for hand_out in shown.unseen_hand_outs:
        facts[f"hand-out without prescription {hand_out.dispense}"] = _plain(
            {"prescription": hand_out.prescription, "pharmacy": hand_out.pharmacy, "reversed": hand_out.reversed}
        )
    for allergy in shown.allergies:
        facts[f"allergy {allergy.recorded.allergy}"] = _plain({"recorded": allergy.recorded})
    rest = {
        "allergies": shown.allergy_status,
        "multidose": shown.multidose,
        "deceased on": shown.deceased_on,
        "confirmed": shown.reconciled,
        "incomplete since": shown.incomplete_since_ms,
    }
    facts["list"] = _plain({name: value for name, value in rest.items() if value is not None})
    return facts


def _treatment(shown: ShownTreatment) -> Facts:
    medication = shown.medication
    facts = {
        "medication": " ".join(filter(None, (medication.product.name, medication.strength))),
        "status": shown.status,
        "kind": shown.kind,
        "dosing": shown.dosing.text,
        "flags": shown.flags,
        "stopped": shown.stopped,
        "paused": shown.paused,
        "use as reported": shown.reported_use,
        "indication": shown.indication_text,
        "administration": shown.administration,
        "conflicting reports": shown.conflicting_reports,
    }
    return _plain({name: value for name, value in facts.items() if value is not None and value != ()})


def _prescription(shown: ShownPrescription) -> Facts:
    facts = {
        "status": shown.status,
        "holder": shown.holder,
        "dispatched to": shown.dispatched_to,
        "handed out": shown.handed_out,
        "of": shown.total,
        "returned": shown.returned,
        "refills left": shown.refills_left,
        "flags": shown.flags,
        "recalled": tuple(recall.reason for recall in shown.recalls),
    }
    return _plain({name: value for name, value in facts.items() if value is not None and value != ()})


def _plain(facts: Mapping[str, Any]) -> Facts:
    plain: Facts = msgspec.to_builtins(facts, builtin_types=(Decimal, date), order="deterministic")
    return plain
