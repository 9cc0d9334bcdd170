"""Decides from the evidence alone what was lost, doubled, reordered, invented, or shown as it was not.

The entry is `violations`. It folds the log with the oracle and knows nothing of how the platform works, nor of which
faults there were: what it demands holds whatever fails.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Any, Final

from schemas import events as ev
from schemas.reasons import Flag
from tests.chaos.client import Read
from tests.chaos.evidence import Delivered, Evidence, Place
from tests.oracle.history import LogRecord, Unreadable
from tests.oracle.naive import Ownership, Told, show_told
from tests.oracle.reader import ownership

ACKNOWLEDGED: Final = frozenset({"in_log", "applied", "duplicate", "refused", "parked", "pending"})
"""Outcomes of a write (`simulator.history.Line`) after which the log must have it."""
JUDGED: Final = frozenset({"applied", "duplicate", "refused"})
_TOLD_AGAIN: Final = frozenset({"dispensed", "reversed"})


class Kind(StrEnum):
    """What was broken."""

    LOST = "lost"
    """A write that was acknowledged, an outcome, an effect or an answer is not there."""
    DOUBLED = "doubled"
    """Something took effect twice, or goes by two ids."""
    REORDERED = "reordered"
    """What came first stands second."""
    INVENTED = "invented"
    """Something was told that the log does not say."""
    DIFFERS = "differs"
    """The view, or an answer, is not what the log says."""
    WENT_BACK = "went_back"
    """A reader saw less than before and was not told."""
    EMPTY = "empty"
    """A reader saw nothing where there was something."""
    TOO_EARLY = "too_early"
    """The relay noted as sent what was not on its topic yet."""
    UNRECOVERED = "unrecovered"
    """The platform did not move again."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that was broken, and where."""

    kind: Kind
    where: str
    what: str


def violations(evidence: Evidence) -> list[Violation]:
    """Everything that is wrong."""
    story = tell(evidence)
    return [
        *_differences(evidence),
        *acknowledged_writes(evidence),
        *answers(evidence, story),
        *sending_order(evidence),
        *effects(evidence, story),
        *delivery_order(evidence, story),
        *relay_progress(evidence, story),
        *submissions(evidence),
        *reads(evidence),
    ]


# --- What the log says ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Story:
    """What the oracle makes of the log. `effects`: place -> what must be told because of that record.

    `outcomes`: place -> outcome when it was judged, and whether that was changed afterwards.
    """

    effects: dict[Place, set[tuple[str, ...]]] = field(default_factory=dict)
    outcomes: dict[Place, str] = field(default_factory=dict)
    changed: set[Place] = field(default_factory=set)
    treatments: dict[str, str] = field(default_factory=dict)
    reversals: dict[str, str] = field(default_factory=dict)


def tell(evidence: Evidence) -> Story:
    """Fold every patient, and note what each record brings about."""
    story = Story()
    for records in evidence.log.patients.values():
        told = Told()
        for record in records:
            verdict, place = told.go_on(record), Place(record.partition, record.offset)
            story.outcomes[place] = verdict.outcome
            _note_names(story, record)
            story.effects[place] = {
                *(("notice", notice.organisation, str(notice.kind), notice.subject) for notice in verdict.notices),
                *(("order", order.pharmacy, order.prescription, order.dispatch) for order in verdict.orders),
            }
            message_id = evidence.message_ids.get(place)
            if message_id is not None and not isinstance(record.event, Unreadable):
                event = record.event
                receipt = ("receipt", event.source.system, message_id, event.event_id, verdict.outcome)
                story.effects[place].add(receipt)
        story.changed |= {
            Place(each.record.partition, each.record.offset)
            for each in told.verdicts
            if Flag.OUTCOME_CHANGED in each.flags
        }
    return story


def _note_names(story: Story, record: LogRecord) -> None:
    if isinstance(record.event, Unreadable):
        return
    body: Any = record.event.body
    if isinstance(body, ev.PrescriptionIssued):
        story.treatments.setdefault(body.prescription, body.treatment)
    elif isinstance(body, ev.DispenseReversed):
        story.reversals.setdefault(record.event.event_id, body.reversal)


# --- The view ---------------------------------------------------------------------------------------------------------


def _differences(evidence: Evidence) -> Iterator[Violation]:
    """The view against the independent fold of the log: outcomes, lists, what is parked; and that it reached the end."""
    for each in evidence.report.differences:
        if each.found == "(nothing)" and (each.path.startswith(("event ", "record "))):
            kind = Kind.LOST
        elif each.expected.startswith("duplicate") or each.path == "events judged":
            kind = Kind.DOUBLED
        else:
            kind = Kind.DIFFERS
        yield Violation(kind, f"{each.patient} {each.path}", f"expected {each.expected}, found {each.found}")
    for partition, behind in evidence.report.behind.items():
        yield Violation(Kind.LOST, f"partition {partition}", f"{behind} records were never judged")


# --- What was answered ------------------------------------------------------------------------------------------------


def acknowledged_writes(evidence: Evidence) -> Iterator[Violation]:
    """Every write that was answered with success, or with a refusal by the list, is in the log, where it was said to be."""
    there = set(evidence.event_ids.values())
    for line in evidence.lines:
        if line.outcome not in ACKNOWLEDGED:
            continue
        place = _place(line.position)
        if place is not None and place.offset >= evidence.log.ends.get(place.partition, 0):
            yield Violation(Kind.LOST, f"write {line.event_id}", f"the log ends before {line.position}")
        elif line.damage or (line.channel == "submissions" and line.position is None and line.outcome == "in_log"):
            continue  # nobody can read it, or nobody was told: `submissions` looks for these
        elif line.event_id not in there:
            yield Violation(Kind.LOST, f"write {line.event_id}", f"answered {line.outcome}, not in the log")
        elif place is not None and evidence.event_ids.get(place) != line.event_id:
            yield Violation(Kind.LOST, f"write {line.event_id}", f"another record lies at {line.position}")


def answers(evidence: Evidence, story: Story) -> Iterator[Violation]:
    """What a writer was told of an event is what the log says of it."""
    for line in evidence.lines:
        place = _place(line.position)
        if line.outcome not in JUDGED or place is None or line.damage or place in story.changed:
            continue
        expected = story.outcomes.get(place)
        if expected is not None and expected != line.outcome:
            yield Violation(
                Kind.DIFFERS, f"write {line.event_id} at {line.position}", f"told {line.outcome}, is {expected}"
            )


def sending_order(evidence: Evidence) -> Iterator[Violation]:
    """What one sender sent of one patient, one after the other, lies in the log in that order."""
    sent: dict[tuple[str, int], list[Any]] = defaultdict(list)
    for line in evidence.lines:
        if line.position is not None and line.outcome in ACKNOWLEDGED:
            sent[line.channel, line.patient].append(line)
    for (channel, patient), lines in sent.items():
        ordered = sorted(lines, key=lambda line: line.sent_at_ms)
        for former, latter in pairwise(ordered):
            one, other = _place(former.position), _place(latter.position)
            assert one is not None
            assert other is not None
            # Of two requests under way at once, and of the same one sent again, none is the first.
            together = latter.sent_at_ms <= (former.sent_at_ms if channel == "log" else former.answered_at_ms)
            if not together and former.event_id != latter.event_id and not latter.irregularity and one > other:
                yield Violation(
                    Kind.REORDERED,
                    f"{channel}, patient {patient}",
                    f"{former.position} was sent before {latter.position}",
                )


def _place(position: str | None) -> Place | None:
    if position is None:
        return None
    partition, offset = position.split("-")
    return Place(int(partition), int(offset))


# --- What was told ----------------------------------------------------------------------------------------------------


def effects(evidence: Evidence, story: Story) -> Iterator[Violation]:
    """Every notice, order and receipt that is due is on its topic, under one id, and nothing else is."""
    due = {(place, effect) for place, every in story.effects.items() for effect in every}
    came: dict[tuple[Place, tuple[str, ...]], set[str]] = defaultdict(set)
    by_id: dict[str, tuple[str, ...]] = {}
    places = _receipts(story)
    for delivered in evidence.delivered:
        if isinstance(delivered.message, ev.SubmissionReceipt) and delivered.message.outcome == "rejected":
            continue
        effect = _named(delivered, story)
        for place in _places_of(delivered, effect, places):
            came[place, effect].add(delivered.message.effect_id)
            if (place, effect) not in due:
                yield Violation(Kind.INVENTED, delivered.topic, f"{_words(effect)} of {place.partition}-{place.offset}")
        if by_id.setdefault(delivered.message.effect_id, effect) != effect:
            yield Violation(Kind.DOUBLED, delivered.topic, f"two effects go by the id {delivered.message.effect_id}")
    for place, effect in sorted(due - came.keys()):
        yield Violation(Kind.LOST, _words(effect), f"due because of {place.partition}-{place.offset}, never delivered")
    for (place, effect), ids in came.items():
        if len(ids) > 1:
            yield Violation(
                Kind.DOUBLED, _words(effect), f"goes by {len(ids)} ids, of {place.partition}-{place.offset}"
            )


def delivery_order(evidence: Evidence, story: Story) -> Iterator[Violation]:
    """On each topic, what comes for the first time comes in the order of the log."""
    places, seen = _receipts(story), set[str]()
    last: dict[tuple[str, int, int], int] = {}
    for delivered in evidence.delivered:
        if delivered.message.effect_id in seen:
            continue
        seen.add(delivered.message.effect_id)
        for place in _places_of(delivered, _named(delivered, story), places)[:1]:
            where = (delivered.topic, delivered.partition, place.partition)
            if place.offset < last.get(where, -1):
                yield Violation(
                    Kind.REORDERED,
                    f"{delivered.topic}/{delivered.partition}/{delivered.offset}",
                    f"{place.partition}-{place.offset} after {last[where]}",
                )
            last[where] = max(place.offset, last.get(where, -1))


def relay_progress(evidence: Evidence, story: Story) -> Iterator[Violation]:
    """When the relay noted how far it has come, everything before that was on its topic."""
    first: dict[tuple[Place, tuple[str, ...]], int] = {}
    places = _receipts(story)
    for delivered in evidence.delivered:
        effect = _named(delivered, story)
        for place in _places_of(delivered, effect, places):
            key = place, effect
            first[key] = min(delivered.time_ms, first.get(key, delivered.time_ms))
    due = sorted((place, effect) for place, every in story.effects.items() for effect in every)
    latest: dict[int, list[tuple[int, int]]] = defaultdict(list)
    running: dict[int, int] = defaultdict(int)
    for place, effect in due:
        came = first.get((place, effect))
        running[place.partition] = max(running[place.partition], came if came is not None else 0)
        latest[place.partition].append((place.offset, running[place.partition]))
    for noted in evidence.progress:
        before = bisect_left(latest[noted.partition], (noted.source_offset, -1)) - 1
        by_ms = latest[noted.partition][before][1] if before >= 0 else 0
        if by_ms > noted.time_ms:
            yield Violation(
                Kind.TOO_EARLY,
                f"partition {noted.partition}",
                f"{noted.source_offset} was noted {by_ms - noted.time_ms} ms before all was delivered",
            )


def _receipts(story: Story) -> dict[tuple[str, ...], list[Place]]:
    """Where the records lie that a receipt speaks of: it does not say, and the same submission may have come twice."""
    found: dict[tuple[str, ...], list[Place]] = defaultdict(list)
    for place, every in story.effects.items():
        for effect in every:
            if effect[0] == "receipt":
                found[effect].append(place)
    return {effect: sorted(places) for effect, places in found.items()}


def _places_of(
    delivered: Delivered, effect: tuple[str, ...], receipts: dict[tuple[str, ...], list[Place]]
) -> list[Place]:
    message = delivered.message
    if isinstance(message, ev.SubmissionReceipt):
        return receipts.get(effect, [] if message.outcome == "rejected" else [Place(-1, -1)])
    return [Place(message.source_partition, message.source_offset)]


def _named(delivered: Delivered, story: Story) -> tuple[str, ...]:
    """A delivered effect in the words of the oracle."""
    recipient, message = delivered.topic.partition(".")[2], delivered.message
    match message:
        case ev.DispenseOrder():
            return ("order", recipient, message.prescription, message.dispatch)
        case ev.SubmissionReceipt():
            return ("receipt", recipient, message.message_id or "", message.event_id or "", message.outcome)
        case ev.Notice():
            return ("notice", recipient, message.kind, _subject(message, story))


def _subject(notice: ev.Notice, story: Story) -> str:
    """The oracle names the treatment that goes on, and the reversal that was refused."""
    if notice.kind in _TOLD_AGAIN:
        return notice.subject or ""
    if notice.kind == "outcome_changed":
        return story.reversals.get(notice.subject or "", notice.subject or "")
    if notice.kind == "prescribed_after_discontinuation":
        return story.treatments.get(notice.prescription or "", "")
    return notice.prescription or "multidose"


def _words(effect: tuple[str, ...]) -> str:
    return " ".join(effect)


def submissions(evidence: Evidence) -> Iterator[Violation]:
    """Every submission that is on its topic is answered: its events are in the log, or the receipt of its rejection is."""
    recorded = set(evidence.message_ids.values())
    rejected: set[tuple[str | None, int | None, int | None]] = set()
    for each in evidence.delivered:
        if isinstance(each.message, ev.SubmissionReceipt) and each.message.outcome == "rejected":
            rejected.add((each.message.topic, each.message.partition, each.message.offset))
    for submitted in evidence.submitted:
        place = (submitted.topic, submitted.partition, submitted.offset)
        if submitted.message_id not in recorded and place not in rejected:
            yield Violation(Kind.LOST, "/".join(map(str, place)), "a submission that nobody answered")


# --- What was read ----------------------------------------------------------------------------------------------------


def reads(evidence: Evidence) -> Iterator[Violation]:
    """No list went back without a word, none was empty that was not, and each was what the log says up to its position."""
    yield from _went_back(evidence.reads)
    owners = ownership(evidence.log)
    of_patient: dict[int, list[Read]] = defaultdict(list)
    for read in evidence.reads:
        if read.status == 200:
            of_patient[read.patient].append(read)
    for number, several in of_patient.items():
        patient = evidence.patients[number]
        shown = _Shown(evidence.log.patients.get(patient, []), owners.get(patient, Ownership()))
        for read in sorted(several, key=lambda each: each.position or 0):
            yield from shown.check(read)
        yield from _emptied(several)


def _went_back(every: Sequence[Read]) -> Iterator[Violation]:
    """By reader and patient: a lower position of the same generation, with no refusal in between."""
    last: dict[tuple[int, int], tuple[str | None, int]] = {}
    for read in every:
        who = (read.reader, read.patient)
        if read.status != 200 or read.position is None:
            last.pop(who, None)  # told: the reader knows that something is wrong
            continue
        after = _place(read.after)
        if after is not None and read.position < after.offset:
            yield Violation(Kind.WENT_BACK, _who(read), f"asked for {read.after}, was shown {read.position}")
        generation, position = last.get(who, (None, -1))
        if generation == read.generation and read.position < position:
            yield Violation(Kind.WENT_BACK, _who(read), f"from {position} to {read.position}")
        last[who] = (read.generation, read.position)


def _emptied(of_patient: Sequence[Read]) -> Iterator[Violation]:
    """Nobody is shown an empty list once somebody was shown more, at a later position: not of a new generation either."""
    full = sorted((read.answered_at_ms, read.position or 0) for read in of_patient if not read.empty)
    for read in of_patient:
        assert read.position is not None
        seen = max((position for answered_ms, position in full if answered_ms < read.asked_at_ms), default=-1)
        if read.empty and read.position < seen:
            yield Violation(Kind.EMPTY, _who(read), f"empty at {read.position}, after something was shown at {seen}")


class _Shown:
    """One patient's list as it must have been, position by position; positions are asked in rising order."""

    def __init__(self, records: Sequence[LogRecord], owned: Ownership) -> None:
        self._records = records
        self._owned = owned
        self._told = Told()
        self._next = 0

    def check(self, read: Read) -> Iterator[Violation]:
        """Version, emptiness and completeness of a list that shows everything up to its position."""
        assert read.position is not None
        assert read.as_of_ms is not None
        while self._next < len(self._records) and self._records[self._next].offset <= read.position:
            self._told.go_on(self._records[self._next])
            self._next += 1
        chart = self._told.chart
        if read.version != chart.version:
            yield Violation(Kind.DIFFERS, _who(read), f"at {read.position}: version {read.version}, is {chart.version}")
        if read.complete == bool(chart.parked):
            yield Violation(Kind.DIFFERS, _who(read), f"at {read.position}: said to be complete: {read.complete}")
        if read.empty and self._is_something(read.as_of_ms):
            yield Violation(Kind.EMPTY, _who(read), f"at {read.position}: shown empty, is not")

    def _is_something(self, at_ms: int) -> bool:
        known = self._records[: self._next]
        shown = show_told(self._told, known, at_ms, self._owned)
        return any((shown.treatments, shown.other_prescriptions, shown.unseen_hand_outs, shown.allergies))


def _who(read: Read) -> str:
    return f"reader {read.reader}, patient {read.patient}, {read.asked_at_ms}"


def counted(found: Sequence[Violation]) -> Counter[Kind]:
    """How many of each kind."""
    return Counter(each.kind for each in found)
