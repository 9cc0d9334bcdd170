"""Folds one patient anew, in log order, and replaces the stored state with the result, while traffic runs.

The entry function is `Refolder.refold`. Once a schema or a fault is mended, what had been parked takes effect in its own
place. What comes of it is what a fold of the whole log gives, and nothing else, but for `stored/answered.py`: outcomes that had
been answered otherwise stay recorded, their senders get a correction, and the entry shows it.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from msgspec.structs import replace as with_fields

from schemas.codec import name_of
from schemas.events import (
    Body,
    ClaimAborted,
    ClaimReleased,
    ClaimRequested,
    DispenseReversed,
    PrescriptionIssued,
    RenewalDeclined,
)
from schemas.framing import PLAIN, Framing
from schemas.reasons import NoticeKind, Reason
from services.canonical_log import get_logger
from services.medication_list.fold import LogEntry, Verdict
from services.medication_list.fold.judgement import Effect, NoticeDue, ReceiptDue
from services.medication_list.fold.remembering import recollect
from services.medication_list.fold.state import (
    META,
    HandOutPointer,
    Meta,
    PrescriptionState,
    Remembered,
    RenewalState,
    State,
    hand_out_field,
    prescription_field,
    request_field,
)
from services.medication_list.judging.alarms import tell_conflicting, tell_number_conflict
from services.medication_list.judging.counting import Judged, nobody_counts
from services.medication_list.judging.event_spans import EventSpans, StoredEvent
from services.medication_list.judging.items import Item, Readable, Unreadable, ids_of, item_of, note_of
from services.medication_list.log.record import Record
from services.medication_list.log.record_log import AnotherLogError, RecordLog, all_of
from services.medication_list.refolding.patient_fold import PatientFold, fold_anew, reason_of
from services.medication_list.store.port import PatientRewrite, Refused, RefusedWhy, Store, WholePatient, Written
from services.medication_list.stored.answered import ANSWERED, Answered, ChangedAnswer
from services.medication_list.stored.effects import effect_id_of
from services.medication_list.stored.event_index import is_parked, places_of
from services.medication_list.stored.packing import pack_effect, pack_field, pack_memory, unpack_field
from services.publishing.partitioning import partition_of
from services.telemetry.traces import sampled

_ATTEMPTS: Final = 20
"""How often a patient may have another event between reading and writing before we give up."""
_log = get_logger()


class RefoldRefusedError(Exception):
    """This patient cannot be folded anew; the text is the one sentence that an operator needs."""


class RefoldNotNowError(RefoldRefusedError):
    """This patient cannot be folded anew at this moment; trying again may help."""


@dataclass(frozen=True, slots=True)
class AnswerChange:
    """An event whose answer a refold changes. `is_outcome`: more than its flags, so its sender gets a correction."""

    offset: int
    event_id: str
    event_type: str
    organisation: str
    answered: Verdict
    now: Verdict
    is_outcome: bool


@dataclass(frozen=True, slots=True)
class Refold:
    """The result of folding one patient anew, and what it changes. Offsets are of the patient's partition.

    `unparked` are judged now, `parked` still cannot be. `effects` go out, corrections among them.
    """

    patient: str
    partition: int
    records: int
    changes: Sequence[AnswerChange]
    unparked: Sequence[int]
    parked: Sequence[int]
    effects: Sequence[Effect]
    before: Mapping[str, bytes]
    rewrite: PatientRewrite
    is_needed: bool
    traced: Sequence[StoredEvent] = ()
    """Those of `unparked` whose records are sampled."""
    conflicting: Sequence[LogEntry] = ()
    """Events of which it was not known that they say otherwise what was said before."""


class Refolder:
    """Folds patients of one generation anew. Any number may work at once, beside the processor: the epoch rule decides."""

    def __init__(
        self,
        store: Store,
        records: RecordLog,
        partitions: int,
        now_ms: Callable[[], int],
        framing: Framing = PLAIN,
        spans: EventSpans | None = None,
        told: Callable[[Judged], None] = nobody_counts,
    ) -> None:
        """`now_ms`: the time that a correction bears. `spans`: makes those of sampled events; None: nothing is traced.

        `told`: called with the alarms that a refold raises.
        """
        self._told = told
        self._spans = spans
        self._store = store
        self._records = records
        self._partitions = partitions
        self._now_ms = now_ms
        self._framing = framing

    def preview(self, patient: str) -> Refold:
        """What a refold would do; nothing is written. Raises as `refold` does."""
        return self._planned(patient, {})

    def refold(self, patient: str, approve: Callable[[Refold], bool] = lambda _: True) -> Refold | None:
        """Fold a patient anew and put it in place; None when that was not approved.

        `approve` is asked before anything is written, and again when the answers that would change are others by then.
        Whatever the patient's own traffic or another writer puts between is read again.

        Raises:
            RefoldRefusedError: a record that was judged cannot be read by this release, or is not in the log any more.
            RefoldNotNowError: the view is being made anew, a switch is under way, or the patient's events keep coming.
            LogLookupError, StoreUnavailableError, RegistryUnavailableError: try again.
        """
        known: dict[int, Record] = {}
        began_ns = time.time_ns()
        approved: tuple[Sequence[AnswerChange], Sequence[int]] | None = None
        for _ in range(_ATTEMPTS):
            plan = self._planned(patient, known)
            if not plan.is_needed:
                return plan
            if approved != (plan.changes, plan.unparked):
                if not approve(plan):
                    return None
                approved = plan.changes, plan.unparked
            answer = self._store.rewrite(plan.rewrite)
            if not isinstance(answer, Refused):
                self._told(_tell(plan, answer))
                if self._spans is not None:
                    self._spans.refolded(plan.traced, began_ns)
                return plan
            if answer.why == RefusedWhy.ROLE:
                raise RefoldNotNowError(
                    "The view is being made anew, or a switch of generations is under way: refold when that is done."
                )
        raise RefoldNotNowError("The patient's events keep coming between reading and writing: try again.")

    def _planned(self, patient: str, known: dict[int, Record]) -> Refold:
        partition = partition_of(patient.encode(), self._partitions)
        whole = self._store.read_whole(partition, patient, with_index=True)
        was = places_of(whole.fields, whole.remembered)
        missing = [offset for offset in was if offset not in known]
        known.update(self._records.read(partition, missing))
        try:
            all_of(patient, partition, was, known)
        except AnotherLogError as error:
            raise RefoldRefusedError(str(error)) from None
        items = [item_of(known[offset], partition, self._partitions, self._framing) for offset in was]
        return _Anew(partition, patient, whole, was).plan(items, self._now_ms())


@dataclass(frozen=True, slots=True)
class _Anew:
    """One patient as it stands (`whole`), and what became of each of its records (`was`)."""

    partition: int
    patient: str
    whole: WholePatient
    was: Mapping[int, Remembered | None]

    def plan(self, items: Sequence[Item], now_ms: int) -> Refold:
        """Fold the patient's records anew, and compare."""
        fold = fold_anew(self.partition, items)
        self._refuse_unreadable(fold)
        events = {item.entry.offset: item for item in items if isinstance(item, Readable)}
        unparked = [offset for offset in self.was if is_parked(self.was[offset]) and offset not in fold.parked]
        changes = [each for offset, item in events.items() if (each := self._change_of(offset, item, fold)) is not None]
        answered = self._answered(changes, fold, events)
        effects = self._released(items, unparked, fold)
        by = max(unparked or self.was, default=0)
        effects += self._corrections(changes, by, [due for _, due in effects], events, now_ms)
        rewrite = self._rewrite(fold, events, unparked, answered, effects)
        return Refold(
            patient=self.patient,
            partition=self.partition,
            records=len(items),
            changes=changes,
            unparked=unparked,
            parked=[offset for offset in fold.parked if offset not in fold.closed],
            effects=[due for _, due in effects],
            before=self.whole.fields,
            rewrite=rewrite,
            is_needed=bool(
                rewrite.put != self.whole.fields or rewrite.remember or rewrite.forget or unparked or effects
            ),
            traced=list(self._traced(unparked, events, fold)),
            conflicting=[
                events[offset].entry
                for offset in (*unparked, *(each.offset for each in changes))
                if self._is_found_conflicting(offset, fold)
            ],
        )

    def _is_found_conflicting(self, offset: int, fold: PatientFold) -> bool:
        was = self.was[offset]
        known = was is not None and not is_parked(was) and recollect(was).reason is Reason.CONFLICTING_DUPLICATE
        return not known and recollect(fold.verdicts[offset]).reason is Reason.CONFLICTING_DUPLICATE

    def _traced(
        self, unparked: Iterable[int], events: Mapping[int, Readable], fold: PatientFold
    ) -> Iterator[StoredEvent]:
        for offset in unparked:
            traceparent = sampled(events[offset].record.headers)
            if traceparent is not None:
                event, outcome = events[offset].entry.event, recollect(fold.verdicts[offset]).outcome
                yield StoredEvent(traceparent, self.partition, offset, outcome, event.event_id, name_of(event))

    def _refuse_unreadable(self, fold: PatientFold) -> None:
        """What was judged stays judged: a release that can read less than the one before must not take anything back."""
        for offset in fold.parked:
            if not is_parked(self.was[offset]):
                raise RefoldRefusedError(
                    f"The record at offset {offset} of partition {self.partition} was judged, and this release cannot "
                    "judge it: use the release that can."
                )

    # --- What was answered ---------------------------------------------------------------------------------------

    def _change_of(self, offset: int, item: Readable, fold: PatientFold) -> AnswerChange | None:
        """Another answer than was given. What was parked, or refused for its known id, was answered nothing else."""
        was = self.was[offset]
        if was is None or is_parked(was):
            return None
        answered, now = recollect(was), recollect(fold.verdicts[offset])
        if answered == now:
            return None
        event = item.entry.event
        is_outcome = (answered.outcome, answered.reason) != (now.outcome, now.reason)
        return AnswerChange(
            offset, event.event_id, name_of(event), event.source.organisation, answered, now, is_outcome
        )

    def _answered(
        self, changes: Sequence[AnswerChange], fold: PatientFold, events: Mapping[int, Readable]
    ) -> dict[int, ChangedAnswer]:
        """Every event whose outcome is another than was answered first, this time or before."""
        packed = self.whole.fields.get(ANSWERED)
        stands = cast("Answered", unpack_field(ANSWERED, packed)).changes if packed is not None else ()
        answered = {each.first.offset: each for each in stands}
        claims = {
            item.entry.event.body.claim: item.entry.event.body.prescription
            for item in events.values()
            if isinstance(item.entry.event.body, ClaimRequested)
        }
        for change in changes:
            if not change.is_outcome:
                continue
            earlier = answered.get(change.offset)
            first = earlier.first if earlier is not None else cast("Remembered", self.was[change.offset])
            entry = _entry_of(events[change.offset].entry.event.body, fold.patient.fields, claims)
            times = earlier.times + 1 if earlier is not None else 1
            answered[change.offset] = ChangedAnswer(first, change.event_id, entry, times)
        return dict(sorted(answered.items()))

    # --- What goes out -------------------------------------------------------------------------------------------

    def _released(
        self, items: Sequence[Item], unparked: Collection[int], fold: PatientFold
    ) -> list[tuple[Readable, Effect]]:
        """The effects that follow from what was parked: those that a fold without it does not have, in log order.

        A later event may owe one to it: a recall tells the pharmacy that a parked dispatch was bound to.
        """
        if not unparked:
            return []
        aside = [
            Unreadable(item.record, self.patient, reason_of(self.was[item.record.offset]))
            if item.record.offset in unparked
            else item
            for item in items
        ]
        sent = {effect_id_of(due) for _, due in fold_anew(self.partition, aside).effects}
        return [
            (item, due)
            for item, due in fold.effects
            if (item.entry.offset in unparked if isinstance(due, ReceiptDue) else effect_id_of(due) not in sent)
        ]

    @staticmethod
    def _corrections(
        changes: Sequence[AnswerChange],
        by: int,
        released: Sequence[Effect],
        events: Mapping[int, Readable],
        now_ms: int,
    ) -> list[tuple[Readable, Effect]]:
        """One for each changed outcome, unless the fold itself has told its sender. `by`: the last record that changed it."""
        told = {
            due.source_event
            for due in released
            if isinstance(due, NoticeDue) and due.kind == NoticeKind.OUTCOME_CHANGED
        }
        return [
            (
                events[change.offset],
                NoticeDue(
                    NoticeKind.OUTCOME_CHANGED,
                    change.organisation,
                    change.event_id,
                    now_ms,
                    subject=change.event_id,
                    flags=change.now.flags,
                    reason=change.now.reason,
                    outcome=change.now.outcome,
                    change=1 + by,
                ),
            )
            for change in changes
            if change.is_outcome and change.event_id not in told
        ]

    # --- What is written -----------------------------------------------------------------------------------------

    def _rewrite(
        self,
        fold: PatientFold,
        events: Mapping[int, Readable],
        unparked: Sequence[int],
        answered: Mapping[int, ChangedAnswer],
        effects: Sequence[tuple[Readable, Effect]],
    ) -> PatientRewrite:
        put = {name: pack_field(value) for name, value in self._fields(fold).items()}
        if answered:
            put[ANSWERED] = pack_field(Answered(tuple(answered.values())))
        index = {key: pack_memory(each) for key, each in fold.patient.memory.items() if each is not None}
        stood = self.whole.remembered
        issued = (item.entry.event.body for item in events.values())
        ids = {name for body in issued if isinstance(body, PrescriptionIssued) for name in ids_of(body)}
        owner = self.patient.encode()
        return PatientRewrite(
            partition=self.partition,
            patient=self.patient,
            epoch=self.whole.epoch,
            index_size=len(stood),
            put=put,
            remember={key: each for key, each in index.items() if stood.get(key) != each},
            # As the processor packs them, with the trace of the record that each comes from.
            effects=[
                pack_effect(item.entry.offset, self.patient, due, sampled(item.record.headers)) for item, due in effects
            ],
            opened=fold.opened,
            closed=dict.fromkeys(sorted(ids - fold.opened.keys()), owner),
            unparked=unparked,
            parked={offset: note_of(item) for offset, item in fold.parked.items()} | fold.closed,
            forget=[key for key in stood if key not in index],
            unchanged={META: self.whole.fields[META]} if META in self.whole.fields else {},
        )

    def _fields(self, fold: PatientFold) -> dict[str, State]:
        """What stands after the last record, at the position of the last event: one that changed nothing counts too."""
        fields = {name: value for name, value in fold.patient.fields.items() if value is not None}
        packed = self.whole.fields.get(META)
        if packed is not None:
            stood, anew = cast("Meta", unpack_field(META, packed)), cast("Meta | None", fields.get(META)) or Meta()
            fields[META] = with_fields(anew, position=max(stood.position, anew.position))
        return fields


def _entry_of(body: Body, fields: Mapping[str, State | None], claims: Mapping[str, str]) -> str | None:
    """The treatment that an event is about, None where it is about none that is known."""
    prescription: str | None = getattr(body, "prescription", None)
    match body:
        case DispenseReversed(dispense=dispense):
            pointer = fields.get(hand_out_field(dispense))
            prescription = pointer.prescription if isinstance(pointer, HandOutPointer) else None
        case ClaimAborted(claim=claim) | ClaimReleased(claim=claim):
            prescription = claims.get(claim)
        case RenewalDeclined(request=request):
            renewal = fields.get(request_field(request))
            prescription = renewal.prescription if isinstance(renewal, RenewalState) else None
        case _:
            treatment: str | None = getattr(body, "treatment", None)
            if treatment is not None:
                return treatment
    state = fields.get(prescription_field(prescription)) if prescription is not None else None
    return state.treatment if isinstance(state, PrescriptionState) else None


def _tell(plan: Refold, answer: Written) -> Judged:
    """Say what was done; returns the alarms. A generation beside the live one raises none."""
    judged = Judged()
    if answer.told_from is not None:
        judged.conflicts, judged.conflicting = len(answer.taken), len(plan.conflicting)
        for name in answer.taken:
            tell_number_conflict(plan.partition, name)
        for entry in plan.conflicting:
            tell_conflicting(plan.partition, entry)
    _log.info(
        "patient_refolded",
        partition=plan.partition,
        records=plan.records,
        parked=len(plan.parked),
        applied=len(plan.unparked),
        effects=len(plan.effects),
        count=len(plan.changes),
    )
    return judged
