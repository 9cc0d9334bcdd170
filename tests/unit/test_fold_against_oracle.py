"""The production fold and view against the oracle, on histories made by chance: in everything they come to the same."""

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, cast

import pytest
from msgspec.structs import replace

from schemas.codec import digest_of, encode
from schemas.events import Body, DispenseReversed, Event, ParkedRecordClosed
from schemas.reasons import ParkReason
from services.medication_list.fold import Judgement, Memory, Patient, entry_of, evolve, park
from services.medication_list.fold.judgement import NoticeDue, OrderDue
from services.medication_list.fold.remembering import event_key, recollect
from services.medication_list.fold.state import (
    ALLERGIES,
    META,
    Allergies,
    HandOutPointer,
    Meta,
    PrescriptionState,
    Remembered,
    State,
    prescription_field,
)
from services.medication_list.read_api.view import show
from services.medication_list.stored.packing import pack_field, unpack_field
from tests.oracle.comparing import comparable, differences
from tests.oracle.histories import history, returns
from tests.oracle.history import LogRecord, Unreadable, Verdict
from tests.oracle.naive import Ownership, Told, show_told
from tests.oracle.story import WHO, named

DAY_MS: Final = 86_400_000
LATER_MS: Final = (0, 45 * DAY_MS, 400 * DAY_MS)
"""After the last record: at once, with what was dated ahead in effect, and when all that ended is gone."""
HISTORIES: Final = [(seed, 60) for seed in range(350)] + [(seed, 200) for seed in range(20)] + [(50668, 60)]
"""The last one: what is received by an earlier clock than the event before it opens nothing that it is not about."""
ABOUT_A_HAND_OUT: Final = frozenset({"dispensed", "reversed"})


class Folded:
    """One patient, folded by production code as the processor does, with every field packed and unpacked on the way."""

    def __init__(self) -> None:
        self.fields: dict[str, State | None] = {}
        self.memory: dict[bytes, Memory | None] = defaultdict(lambda: None)
        self.records: list[LogRecord] = []

    def take(self, record: LogRecord) -> Judgement:
        """Judge a record, and keep what it changes."""
        self.records.append(record)
        judgement = self._judge(record)
        for name, value in judgement.puts.items():
            self.fields[name] = None if value is None else unpack_field(name, pack_field(value))
        self.memory.update(judgement.remember)
        return judgement

    def _judge(self, record: LogRecord) -> Judgement:
        event = record.event
        if isinstance(event, Unreadable):
            return park(self.meta, record.offset, record.broker_time_ms, event.reason.code)
        digest = digest_of(event)
        entry = entry_of(event, record.offset, digest, encode(event))
        return evolve(Patient(dict(self.fields), self.memory, complete=True), entry)

    @property
    def meta(self) -> Meta | None:
        """What concerns the patient as a whole."""
        return cast("Meta | None", self.fields.get(META))

    def outcome_of(self, event_id: str) -> tuple[str, str | None, set[str]]:
        """What is remembered of an event."""
        known = self.memory[event_key(event_id)]
        assert isinstance(known, Remembered)
        verdict = recollect(known)
        return verdict.outcome, verdict.reason and str(verdict.reason), {str(flag) for flag in verdict.flags}

    def told(self, judgement: Judgement) -> set[tuple[str, ...]]:
        """Notices and orders, in the words of the oracle: of which kind, to whom, about what."""
        notices = [effect for effect in judgement.effects if isinstance(effect, NoticeDue)]
        orders = [effect for effect in judgement.effects if isinstance(effect, OrderDue)]
        found = {(str(notice.kind), notice.organisation, self._subject(notice)) for notice in notices}
        return found | {("order", order.pharmacy, order.prescription, order.dispatch) for order in orders}

    def _subject(self, notice: NoticeDue) -> str:
        """The oracle names the treatment that goes on, and the reversal that was refused."""
        if notice.kind in ABOUT_A_HAND_OUT:
            return str(notice.subject)
        if notice.kind == "outcome_changed":
            return next(reversal for event_id, reversal in _reversals(self.records) if event_id == notice.subject)
        if notice.kind == "prescribed_after_discontinuation":
            assert notice.prescription is not None
            return cast("PrescriptionState", self.fields[prescription_field(notice.prescription)]).treatment
        return notice.prescription or "multidose"


def _reversals(records: Sequence[LogRecord]) -> Iterator[tuple[str, str]]:
    """Event id and reversal of each that was reported."""
    for record in records:
        if not isinstance(record.event, Unreadable) and isinstance(record.event.body, DispenseReversed):
            yield record.event.event_id, record.event.body.reversal


def _expected(verdict: Verdict) -> tuple[str, str | None, set[str]]:
    reason = str(verdict.reason) if verdict.outcome == "refused" else None
    return verdict.outcome, reason, {str(flag) for flag in verdict.flags}


def _expected_told(verdict: Verdict) -> set[tuple[str, ...]]:
    notices = {(str(notice.kind), notice.organisation, notice.subject) for notice in verdict.notices}
    return notices | {("order", order.pharmacy, order.prescription, order.dispatch) for order in verdict.orders}


@pytest.mark.parametrize(("seed", "length"), HISTORIES)
def test_fold_and_oracle_come_to_the_same(seed: int, length: int) -> None:
    """Outcomes, flags, notices, orders and versions one by one; then what is remembered, and the list at three times."""
    _compare(history(seed, length))


@pytest.mark.parametrize("seed", range(300))
def test_fold_and_oracle_judge_what_comes_back_alike(seed: int) -> None:
    """One prescription, what is handed out of it and what comes back, in packages and by content, in any order."""
    _compare(returns(seed))


def _compare(records: Sequence[LogRecord]) -> None:
    folded, oracle = Folded(), Told()
    for record in records:
        judgement, verdict = folded.take(record), oracle.go_on(record)
        found = (judgement.verdict.outcome, judgement.verdict.reason, {str(flag) for flag in judgement.verdict.flags})
        assert found == _expected(verdict), record
        assert _unnamed(judgement.verdict.named, verdict, folded) == set(), record
        assert folded.told(judgement) == _expected_told(verdict), record
        assert folded.meta is not None
        assert folded.meta.version == oracle.chart.version, record
    _compare_memory(folded, oracle.verdicts)
    end_ms = max(record.broker_time_ms for record in folded.records)
    standing = {name: value for name, value in folded.fields.items() if value is not None}
    for at_ms in (end_ms + later_ms for later_ms in LATER_MS):
        expected = comparable(show_told(oracle, folded.records, at_ms, Ownership()))
        assert list(differences(expected, comparable(show(standing, at_ms)))) == []


@pytest.mark.parametrize("seed", range(60))
def test_fold_and_oracle_close_parked_records_alike(seed: int) -> None:
    """Each parked record once and some twice, others that are not parked, by operators and by others."""
    dice, records = random.Random(seed), history(seed, 40)
    folded, oracle = Folded(), Told()
    for record in _with_closings(records, dice):
        judgement, verdict = folded.take(record), oracle.go_on(record)
        assert (judgement.verdict.outcome, judgement.verdict.reason) == _expected(verdict)[:2], record
        assert folded.meta is not None
        assert folded.meta.version == oracle.chart.version, record
        assert folded.meta.incomplete_since_ms == min((each.broker_time_ms for each in oracle.chart.parked), default=0)


def _with_closings(records: Sequence[LogRecord], dice: random.Random) -> Iterator[LogRecord]:
    offset = 0
    for record in records:
        event = Unreadable(ParkReason.UNREADABLE) if dice.random() < 0.2 else record.event
        yield LogRecord(0, offset, record.broker_time_ms, event)
        offset += 1
        if dice.random() < 0.3 and isinstance(record.event, Event):
            closing: Event[Body] = replace(
                record.event,
                event_id=named(f"closing {offset}"),
                source=WHO[dice.choice(("operator", "operator", "operator", "A"))],
                body=ParkedRecordClosed(offset=dice.randrange(offset), reason="cut off"),
            )
            yield LogRecord(0, offset, record.broker_time_ms, closing)
            offset += 1


def _unnamed(named: tuple[str, str] | None, verdict: Verdict, folded: Folded) -> set[str]:
    """What a refusal must name and does not: the holder, the pharmacy, the date; or each thing that moved.

    Of what moved, the fold names a prescription for its treatment, and the allergies for each of them.
    """
    if verdict.outcome != "refused" or verdict.named is None:
        return set()
    assert named is not None
    found, fields = set(named[1].split(",")), folded.fields
    chains = {name[3:]: value for name, value in fields.items() if isinstance(value, PrescriptionState)}
    treatments = {value.treatment for rx, value in chains.items() if rx in found}
    allergies = fields.get(ALLERGIES)
    known: set[str] = set()
    if isinstance(allergies, Allergies):
        known = {each.recorded.allergy for each in allergies.entries} | {each.allergy for each in allergies.superseded}
    in_other_words = {"death", "multidose", "parked"} if "patient" in found else set()
    in_other_words |= known if "allergies" in found else set()
    return set(verdict.named.split(", ")) - found - treatments - in_other_words - _of_unseen(found, fields)


def _of_unseen(found: set[str], fields: Mapping[str, State | None]) -> set[str]:
    """The prescriptions of hand-outs that are named: the one that nobody has seen, or of the first report."""
    pointers = ((name.split(":")[1], value) for name, value in fields.items() if isinstance(value, HandOutPointer))
    return {value.prescription for dispense, value in pointers if dispense in found}


def _compare_memory(folded: Folded, verdicts: Sequence[Verdict]) -> None:
    """Of each event id its first outcome, or what that was changed to when what it waited for came."""
    seen: set[str] = set()
    for verdict in verdicts:
        event = verdict.record.event
        if not isinstance(event, Unreadable) and event.event_id not in seen:
            seen.add(event.event_id)
            assert folded.outcome_of(event.event_id) == _expected(verdict)
