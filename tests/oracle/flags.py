"""What is irregular about an event that is applied, judged when it arrives (a hand-out: when it takes effect)."""

from schemas import events as ev
from schemas.reasons import Flag
from tests.oracle import quantities, whole_list
from tests.oracle import treatments as tr
from tests.oracle.history import Chart, Entry, day, last, of
from tests.oracle.prescriptions import (
    Recall,
    as_they_happened,
    chain_of,
    completions,
    death_of,
    hand_out,
    is_recalled,
    is_reversed,
    issue_of,
    recalls,
    standing,
    status,
    was_replaced,
)

ATC_LEVEL_5 = 7
AnyEvent = ev.Event[ev.Body]


def on_arrival(chart: Chart, event: AnyEvent) -> set[Flag]:  # noqa: PLR0911  # one line for each type of event
    """The flags of any event but a hand-out, seen before it takes effect."""
    match event.body:
        case ev.PrescriptionIssued() as body:
            return _of_issue(chart, body)
        case ev.PrescriptionRecalled() as body:
            return _of_recall(chart, event, body)
        case ev.ClaimRequested() as body:
            return _of_claim(chart, event, body)
        case ev.DispenseReversed() as body:
            if hand_out(chart, body.dispense) is None:
                return {Flag.DISPENSE_UNKNOWN}
            return {Flag.ALREADY_REVERSED} if is_reversed(chart, body.dispense) else set()
        case ev.AllergyRefuted() as body:
            if whole_list.allergy(chart, body.allergy) is None:
                return {Flag.ALLERGY_UNKNOWN}
            return {Flag.ALREADY_REFUTED} if whole_list.is_refuted(chart, body.allergy) else set()
        case ev.PatientDied():
            return set() if death_of(chart) is None else {Flag.ALREADY_DECEASED}
        case ev.TreatmentDiscontinued() | ev.TreatmentPaused() | ev.TreatmentWithdrawn() | ev.UseReported() as body:
            return _of_treatment_fact(chart, event) if tr.is_known(chart, body.treatment) else {Flag.TREATMENT_UNKNOWN}
        case _:
            return set()


def _of_issue(chart: Chart, body: ev.PrescriptionIssued) -> set[Flag]:
    flags: set[Flag] = set()
    newest, told = last(chain_of(chart, body.treatment)), tr.recorded(chart, body.treatment)
    earlier = newest.body.medication if newest is not None else told.body.medication if told is not None else None
    if earlier is not None and _another_substance(earlier.atc, body.medication.atc):
        flags.add(Flag.SUBSTANCE_CHANGED)
    if body.renews is not None:
        renewed = issue_of(chart, body.renews)
        if renewed is None and body.renews != body.prescription:
            flags.add(Flag.PRESCRIPTION_UNKNOWN)
        elif renewed is not None and renewed.body.treatment != body.treatment:
            flags.add(Flag.RENEWS_OTHER_TREATMENT)
    stops = tr.stops_in_force(chart, body.treatment)
    if stops and max(stop.at_ms for stop in stops) <= body.issued_at_ms:
        flags.add(Flag.PRESCRIBED_AFTER_DISCONTINUATION)
    return flags


def _another_substance(earlier: str | None, now: str | None) -> bool:
    return earlier is not None and now is not None and len(earlier) == len(now) == ATC_LEVEL_5 and earlier != now


def _of_recall(chart: Chart, event: AnyEvent, body: ev.PrescriptionRecalled) -> set[Flag]:
    issue, at_ms = issue_of(chart, body.prescription), event.received_at_ms
    if issue is None:
        return {Flag.PRESCRIPTION_UNKNOWN}
    if is_recalled(chart, body.prescription, at_ms):
        return {Flag.ALREADY_RECALLED}
    marked = {"U": {Flag.RECALLED}, "R": {Flag.RECALLED_AFTER_COMPLETION}}
    return set(marked.get(status(chart, issue, at_ms), set()))


def _of_treatment_fact(chart: Chart, event: AnyEvent) -> set[Flag]:
    match event.body:
        case ev.TreatmentDiscontinued() as body:
            if tr.stops_in_force(chart, body.treatment):
                return {Flag.ALREADY_DISCONTINUED}
            return _of_overtaken(chart, body.treatment, body.at_ms)
        case ev.TreatmentPaused() as body:
            return {Flag.ALREADY_PAUSED} if tr.is_second_pause(chart, body, event.received_at_ms) else set()
        case ev.TreatmentWithdrawn() as body:
            stops = tr.stops_in_force(chart, body.treatment)
            if any(stop.withdrawn for stop in stops):
                return {Flag.ALREADY_WITHDRAWN}
            return set() if stops else _of_overtaken(chart, body.treatment, event.occurred_at_ms)
        case _:
            return set()


def _of_overtaken(chart: Chart, treatment: str, stopped_at_ms: int) -> set[Flag]:
    """Of a stop or a withdrawal that comes when somebody has prescribed since."""
    newest = last(chain_of(chart, treatment))
    overtaken = newest is not None and newest.body.issued_at_ms >= stopped_at_ms
    return {Flag.PRESCRIBED_AFTER_DISCONTINUATION} if overtaken else set()


def _of_claim(chart: Chart, event: AnyEvent, body: ev.ClaimRequested) -> set[Flag]:
    issue, at_ms, flags = issue_of(chart, body.prescription), event.received_at_ms, set()
    assert issue is not None, "a claim on the unknown was refused"
    treatment, basis = issue.body.treatment, tr.basis_of_prescription(issue)
    if tr.is_paused(chart, treatment, at_ms):
        flags.add(Flag.TREATMENT_PAUSED)
    end = tr.course_end(chart, treatment, basis)
    if end is not None and day(at_ms) > end:
        flags.add(Flag.COURSE_ENDED)
    packed = whole_list.multidose(chart)
    packs = None if packed is None else packed.pharmacy
    is_packed = issue.body.multidose or tr.administration_of(chart, treatment) == "multidose"
    if is_packed and packs not in (None, event.source.organisation):
        flags.add(Flag.MULTIDOSE_ELSEWHERE)
    if chart.parked:
        flags.add(Flag.LIST_INCOMPLETE)
    if tr.is_dosed_after(chart, treatment, issue.body.issued_at_ms):
        flags.add(Flag.DOSING_CHANGED)
    return flags


# --- A hand-out -------------------------------------------------------------------------------------------------------


def of_hand_out(chart: Chart, entry: Entry[ev.MedicationDispensed], *, held: bool) -> set[Flag]:
    """The flags of a hand-out that takes effect now; it stands in the chart already. `held`: by its reporter."""
    flags = set() if held else {Flag.DISPENSED_WITHOUT_CLAIM}
    died = death_of(chart)
    if died is not None and died.position < entry.position:
        is_said, is_later_day = died.occurred_at_ms < entry.occurred_at_ms, day(entry.occurred_at_ms) > died.body.on
        if is_said or is_later_day:
            flags.add(Flag.DISPENSED_AFTER_DEATH)
    issue = issue_of(chart, entry.body.prescription)
    if issue is None:
        return flags | {Flag.PRESCRIPTION_UNKNOWN}
    return flags | _against_order(chart, entry, issue) | _against_quantity(chart, entry, issue)


def _against_order(
    chart: Chart, entry: Entry[ev.MedicationDispensed], issue: Entry[ev.PrescriptionIssued]
) -> set[Flag]:
    flags, at_ms, rx = set(), entry.occurred_at_ms, entry.body.prescription
    known = [recall for recall in recalls(chart, rx) if recall.position < entry.position]
    causes = {recall.caused_by for recall in known if _was_recalled(recall, at_ms)}
    signed, treatment = issue.body.issued_at_ms, ("t", issue.body.treatment)
    stops = [stop for stop in of(chart, treatment, ev.TreatmentDiscontinued) if stop.position < entry.position]
    withdrawals = [each for each in of(chart, treatment, ev.TreatmentWithdrawn) if each.position < entry.position]
    stopped, withdrawn = [stop.body.at_ms for stop in stops], [each.occurred_at_ms for each in withdrawals]
    is_replaced = was_replaced(chart, issue, at_ms, entry.position)
    if is_replaced or causes - {"withdrawal", "death"} or any(signed < stop_ms < at_ms for stop_ms in stopped):
        flags.add(Flag.DISPENSED_AFTER_RECALL)
    if any(signed < withdrawn_ms < at_ms for withdrawn_ms in withdrawn):
        flags.add(Flag.DISPENSED_AFTER_WITHDRAWAL)
    if day(at_ms) > issue.body.valid_until:
        flags.add(Flag.DISPENSED_AFTER_EXPIRY)
    earlier = completions(chart, rx, before=entry.position)
    if any(completion.hand_out.occurred_at_ms < at_ms for completion in earlier):
        flags.add(Flag.DISPENSED_AFTER_COMPLETION)
    if tr.was_paused(chart, issue.body.treatment, at_ms):
        flags.add(Flag.TREATMENT_PAUSED)
    basis = tr.basis_of_prescription(issue)
    reserved = tr.is_substitution_reserved(chart, issue.body.treatment, basis, at_ms)
    if reserved and any(line.substituted for line in entry.body.lines):
        flags.add(Flag.SUBSTITUTION_RESERVED)
    return flags


def _was_recalled(recall: Recall, at_ms: int) -> bool:
    return recall.at_ms < at_ms and recall.in_effect(at_ms)


def _against_quantity(
    chart: Chart, entry: Entry[ev.MedicationDispensed], issue: Entry[ev.PrescriptionIssued]
) -> set[Flag]:
    flags: set[Flag] = set()
    before = as_they_happened([e for e in standing(chart, issue.body.prescription) if e.position < entry.position])
    use, (amount, _) = quantities.use_after(issue.body, before), quantities.amount_of(issue.body, entry.body)
    if amount > 0 and quantities.is_over(issue.body, use.handed_out + amount):
        flags.add(Flag.OVER_QUANTITY)
    if amount > quantities.period_of(issue.body) and quantities.periods_left(issue.body, use) > 1:
        flags.add(Flag.AHEAD_OF_PERIOD)
    return flags
