"""The naive fold: one patient's records in log order, judged one after the other by looking through all that went before.

Written from the rulings alone and for the reader: nothing is kept but the events; every question goes through them
again. Where the rulings are silent, DECISIONS.md says what was decided.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from schemas import events as ev
from schemas.medication_list import MedicationList
from schemas.reasons import Flag, NoticeKind, Reason
from tests.oracle import flags, telling, whole_list
from tests.oracle import treatments as tr
from tests.oracle.history import Chart, Conflict, Entry, LogRecord, Unreadable, Verdict, content, natural_id, of
from tests.oracle.prescriptions import (
    chain_of,
    closed_by,
    completions,
    hand_outs_of,
    holder_of,
    issue_of,
    recalls,
    status,
)
from tests.oracle.refusals import of_waiting_reversal, refusal
from tests.oracle.showing import shown_list

MOVES_NOTHING = frozenset(
    {
        Flag.ALREADY_DISCONTINUED,
        Flag.ALREADY_PAUSED,
        Flag.ALREADY_WITHDRAWN,
        Flag.ALREADY_DECEASED,
        Flag.ALREADY_REFUTED,
        Flag.TREATMENT_UNKNOWN,
        Flag.ALLERGY_UNKNOWN,
    }
)


@dataclass(slots=True)
class Told:
    """One patient's whole story: the chart, and the verdict on each record."""

    chart: Chart = field(default_factory=Chart)
    verdicts: list[Verdict] = field(default_factory=list)

    def go_on(self, record: LogRecord) -> Verdict:
        """One record more, and what becomes of it."""
        self.verdicts.append(_judge(self.chart, record))
        return self.verdicts[-1]


def judge(records: Sequence[LogRecord]) -> list[Verdict]:
    """What becomes of each record of one patient, in log order."""
    return fold(records).verdicts


@dataclass(frozen=True, slots=True)
class Ownership:
    """Prescriptions reported for two patients: hidden where they came second, flagged where they came first."""

    hidden: frozenset[str] = frozenset()
    flagged: frozenset[str] = frozenset()


def show(records: Sequence[LogRecord], at_ms: int, ownership: Ownership | None = None) -> MedicationList:
    """The list that these records of one patient make, for a reader's clock."""
    return show_told(fold(records), records, at_ms, ownership or Ownership())


def show_told(told: Told, records: Sequence[LogRecord], at_ms: int, ownership: Ownership) -> MedicationList:
    """The same, of what was folded already: a hidden prescription is shown to nobody, as if it had never come."""
    chart = told.chart
    if ownership.hidden:
        chart = fold([record for record in records if _issued(record) not in ownership.hidden]).chart
    return shown_list(chart, at_ms, ownership.flagged, told.chart.version)


def _issued(record: LogRecord) -> str | None:
    body = None if isinstance(record.event, Unreadable) else record.event.body
    return body.prescription if isinstance(body, ev.PrescriptionIssued) else None


def fold(records: Sequence[LogRecord]) -> Told:
    """Chart and verdicts together, for whoever needs both."""
    told = Told()
    for record in records:
        told.go_on(record)
    return told


def _judge(chart: Chart, record: LogRecord) -> Verdict:
    event = record.event
    if isinstance(event, Unreadable):
        return _park(chart, record, event)
    repeated = _repeated(chart, record, event)
    if repeated is not None:
        return repeated
    why = refusal(chart, event)
    if why is not None:
        return Verdict(record, "refused", why[0], named=why[1])
    return _apply(chart, record, event)


def _park(chart: Chart, record: LogRecord, unreadable: Unreadable) -> Verdict:
    """The first one makes the list incomplete, which a reader sees."""
    if not chart.parked:
        chart.moves.append((record.offset, "parked"))
    chart.parked.append(record)
    return Verdict(record, "parked", unreadable.reason)


# --- The same event twice ---------------------------------------------------------------------------------------------


def _repeated(chart: Chart, record: LogRecord, event: ev.Event[ev.Body]) -> Verdict | None:
    """Duplicate, or conflicting_duplicate; None for what is new, which is remembered, whatever becomes of it."""
    said, natural = content(event), natural_id(event.body)
    if event.event_id in chart.event_ids:
        if chart.event_ids[event.event_id] == said:
            return Verdict(record, "duplicate")
        return _conflicting(chart, record, event)
    chart.event_ids[event.event_id] = said
    if natural is not None:
        if natural in chart.natural_ids:
            same = chart.natural_ids[natural] == said
            return Verdict(record, "duplicate") if same else _conflicting(chart, record, event)
        chart.natural_ids[natural] = said
    if isinstance(event.body, ev.MultidoseAssigned):
        present = whole_list.multidose(chart)
        if present is not None and present.pharmacy is not None and content(present.assigned.event) == said:
            return Verdict(record, "duplicate")
    return None


def _conflicting(chart: Chart, record: LogRecord, event: ev.Event[ev.Body]) -> Verdict:
    """Refused, with an alarm; a hand-out is shown in the treatment of the first report, or of what it names itself."""
    body = event.body
    if isinstance(body, ev.MedicationDispensed):
        rx = chart.reported_under.setdefault(body.dispense, body.prescription)
        conflict = Conflict(rx, body.dispense, event.source.organisation, event.occurred_at_ms)
        if conflict not in chart.conflicts:
            chart.conflicts.append(conflict)
            if issue_of(chart, rx) is not None:
                chart.moves.append((record.offset, rx))
    return Verdict(record, "refused", Reason.CONFLICTING_DUPLICATE)


# --- Applied ----------------------------------------------------------------------------------------------------------


def _apply(chart: Chart, record: LogRecord, event: ev.Event[ev.Body]) -> Verdict:
    verdict = Verdict(record, "applied")
    entry: Entry[ev.Body] = Entry(record.offset, event, verdict)
    before = telling.look(chart, event)
    if isinstance(event.body, ev.MedicationDispensed):
        chart.add(entry)
        _hand_out(chart, entry, event.body)
    else:
        verdict.flags = flags.on_arrival(chart, event)
        chart.add(entry)
    entry.shown_flags = set(verdict.flags)
    _note_what_is_open(chart, entry)
    if isinstance(event.body, ev.PrescriptionIssued):
        _join_what_waited(chart, entry, event.body)
    if isinstance(event.body, ev.TreatmentDiscontinued | ev.TreatmentWithdrawn):
        _flag_the_newer(chart, verdict, event.body)
    telling.tell(chart, before, entry)
    if isinstance(event.body, ev.ParkedRecordClosed):
        _close(chart, record.offset, event.body.offset)
    subject = _moves(chart, event.body, verdict.flags)
    if subject is not None:
        chart.moves.append((record.offset, subject))
    return verdict


def _close(chart: Chart, place: int, closed: int) -> None:
    """The list waits for it no longer; it moves if it says now that it is complete, or incomplete since later."""
    since_ms = min(record.broker_time_ms for record in chart.parked)
    chart.parked = [record for record in chart.parked if record.offset != closed]
    if min((record.broker_time_ms for record in chart.parked), default=None) != since_ms:
        chart.moves.append((place, "parked"))


def _hand_out(chart: Chart, entry: Entry[ev.Body], body: ev.MedicationDispensed) -> None:
    """A hand-out by the holder ends its claim, and counts from the claim's place; by another, only if it closes."""
    rx = body.prescription
    chart.dispense_prescription[body.dispense] = rx
    chart.reported_under.setdefault(body.dispense, rx)
    handed = of(chart, ("dispense", body.dispense), ev.MedicationDispensed)[0]
    for reversal in of(chart, ("dispense", body.dispense), ev.DispenseReversed):
        _settle_waiting_reversal(chart, reversal, entry.verdict)
    claim = holder_of(chart, rx)
    held = claim is not None and claim.organisation == entry.organisation
    if claim is not None and held:
        handed.ended_claim, handed.claim_position = claim.body.claim, claim.position
    elif claim is not None and any(done.hand_out is handed for done in completions(chart, rx)):
        handed.ended_claim = claim.body.claim
    entry.verdict.flags = flags.of_hand_out(chart, handed, held=held)


def _note_what_is_open(chart: Chart, entry: Entry[ev.Body]) -> None:
    """A dispatch that waited for the end of a claim binds, and its order goes out, once there is something to dispense.

    Only an event that is about it can bring that about: one with an earlier clock than the last says nothing of the rest.
    """
    at_ms = entry.event.received_at_ms
    for rx in telling.touched(chart, entry.body):
        issue = issue_of(chart, rx) if of(chart, ("rx", rx), ev.DispatchRequested) else None
        if issue is None or tr.shown_stop(chart, issue.body.treatment) is not None:
            continue
        if status(chart, issue, at_ms) == "E":
            chart.opened[rx].append(entry.position)


def _settle_waiting_reversal(chart: Chart, reversal: Entry[ev.DispenseReversed], verdict: Verdict) -> None:
    reason = of_waiting_reversal(chart, reversal)
    if reason is None:
        return
    chart.remove(reversal)
    chart.outcome_changed.add(reversal.body.dispense)
    reversal.verdict.outcome, reversal.verdict.reason = "refused", reason
    reversal.verdict.flags = {Flag.OUTCOME_CHANGED}
    verdict.tell(NoticeKind.OUTCOME_CHANGED, reversal.organisation, reversal.body.reversal)


def _join_what_waited(chart: Chart, issue: Entry[ev.Body], body: ev.PrescriptionIssued) -> None:
    """Hand-outs and recalls that waited are judged now, each in its own place; renewals that waited name it now."""
    handed_out = hand_outs_of(chart, body.prescription)
    for dispense in [handed.body.dispense for handed in handed_out]:
        for reversal in of(chart, ("dispense", dispense), ev.DispenseReversed):
            _settle_waiting_reversal(chart, reversal, issue.verdict)
    for handed in handed_out:
        handed.shown_flags = flags.of_hand_out(chart, handed, held=False)
    rx, now_ms = body.prescription, issue.event.received_at_ms
    for recall in of(chart, ("rx", rx), ev.PrescriptionRecalled):
        is_second = any(other.in_effect(now_ms) for other in recalls(chart, rx) if other.position < recall.position)
        if not is_second and closed_by(chart, rx, now_ms, before=recall.position) == "R":
            recall.shown_flags.add(Flag.RECALLED_AFTER_COMPLETION)
    for renewal in of(chart, ("renews", body.prescription), ev.PrescriptionIssued):
        if Flag.PRESCRIPTION_UNKNOWN in renewal.shown_flags:
            renewal.shown_flags.discard(Flag.PRESCRIPTION_UNKNOWN)
            if renewal.body.treatment != body.treatment:
                renewal.shown_flags.add(Flag.RENEWS_OTHER_TREATMENT)


def _flag_the_newer(chart: Chart, verdict: Verdict, body: ev.TreatmentDiscontinued | ev.TreatmentWithdrawn) -> None:
    if Flag.PRESCRIBED_AFTER_DISCONTINUATION in verdict.flags:
        chain_of(chart, body.treatment)[-1].shown_flags.add(Flag.PRESCRIBED_AFTER_DISCONTINUATION)


# --- The version ------------------------------------------------------------------------------------------------------


def _moves(chart: Chart, body: ev.Body, raised: set[Flag]) -> str | None:  # noqa: PLR0911  # a line for each type
    """What this applied event changed of what the list shows; None for nothing, and for what the ruling excepts."""
    if raised & MOVES_NOTHING:
        return None
    match body:
        case ev.PrescriptionIssued():
            return body.prescription
        case ev.PrescriptionRecalled():
            return body.prescription if issue_of(chart, body.prescription) is not None else None
        case ev.MedicationDispensed():
            return body.prescription if issue_of(chart, body.prescription) is None else None
        case ev.DispenseReversed():
            rx = chart.dispense_prescription.get(body.dispense)
            unseen = rx is not None and issue_of(chart, rx) is None and Flag.ALREADY_REVERSED not in raised
            return rx if unseen else None
        case ev.AllergyRecorded():
            return body.allergy
        case ev.AllergyRefuted():
            return body.allergy if whole_list.was_shown(chart, body.allergy) else None
        case ev.MultidoseAssigned() | ev.MultidoseEnded():
            return "multidose"
        case ev.PatientDied() | ev.DeathRetracted():
            return "death"
        case _:
            return _treatment_moved(chart, body)


def _treatment_moved(chart: Chart, body: ev.Body) -> str | None:
    treatment: str | None = getattr(body, "treatment", None)
    return treatment if treatment is not None and tr.is_known(chart, treatment) else None
