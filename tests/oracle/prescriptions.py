"""A prescription's status, computed each time from its hand-outs, its closers and its claim."""

from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

from schemas import events as ev
from tests.oracle import quantities
from tests.oracle.history import PATIENT, Chart, Entry, day, first, of, starts

DISPATCH_LAPSES = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Recall:
    """One closer of kind recall, at its place in the log."""

    position: int
    reason: str
    source: ev.Source
    at_ms: int
    from_on: date | None = None
    replaced_by: str | None = None
    caused_by: str = "recall"
    """recall, replacement, stop, withdrawal or death."""
    received_at_ms: int = 0

    def in_effect(self, at_ms: int) -> bool:
        """Whether it closes at that time."""
        return self.from_on is None or day(at_ms) >= self.from_on


@dataclass(frozen=True, slots=True)
class Completion:
    """One closer of kind completion: a holder's counts from its claim's place in the log."""

    position: int
    hand_out: Entry[ev.MedicationDispensed]


@dataclass(slots=True)
class Desk:
    """Who holds a prescription, and whom its next dispense is tied to, once bound."""

    claim: Entry[ev.ClaimRequested] | None = None
    dispatch: Entry[ev.DispatchRequested] | None = None
    bound_from: int | None = None
    """The place in the log from which it binds; None while it waits."""


# --- What was issued and handed out ---------------------------------------------------------------------------------


def issue_of(chart: Chart, rx: str) -> Entry[ev.PrescriptionIssued] | None:
    """The prescription itself, None while nobody has seen it."""
    return first(of(chart, ("rx", rx), ev.PrescriptionIssued))


def signed_order(issue: Entry[ev.PrescriptionIssued]) -> tuple[int, str]:
    """Newer-signed is greater: by the time of signing, then by id."""
    return (issue.body.issued_at_ms, issue.body.prescription)


def chain_of(chart: Chart, treatment: str) -> list[Entry[ev.PrescriptionIssued]]:
    """The prescriptions of a treatment, the oldest-signed first."""
    return sorted(of(chart, ("t", treatment), ev.PrescriptionIssued), key=signed_order)


def hand_outs_of(chart: Chart, rx: str) -> list[Entry[ev.MedicationDispensed]]:
    """Every hand-out of a prescription, in log order."""
    return of(chart, ("rx", rx), ev.MedicationDispensed)


def hand_out(chart: Chart, dispense: str) -> Entry[ev.MedicationDispensed] | None:
    """One hand-out, None while nobody has seen it."""
    return first(of(chart, ("dispense", dispense), ev.MedicationDispensed))


def is_reversed(chart: Chart, dispense: str) -> bool:
    """Whether all of a hand-out was taken back."""
    return any(reversal.body.quantity is None for reversal in of(chart, ("dispense", dispense), ev.DispenseReversed))


def returns_of(chart: Chart, dispense: str) -> list[ev.Quantity]:
    """The goods that came back of a hand-out, before all of it was taken back."""
    found: list[ev.Quantity] = []
    for reversal in of(chart, ("dispense", dispense), ev.DispenseReversed):
        if reversal.body.quantity is None:
            break
        found.append(reversal.body.quantity)
    return found


def standing(chart: Chart, rx: str) -> list[Entry[ev.MedicationDispensed]]:
    """The hand-outs that were not taken back."""
    return [entry for entry in hand_outs_of(chart, rx) if not is_reversed(chart, entry.body.dispense)]


def use_of(chart: Chart, issue: Entry[ev.PrescriptionIssued]) -> quantities.Use:
    """What the standing hand-outs of a prescription add up to."""
    return quantities.use_after(issue.body, as_they_happened(standing(chart, issue.body.prescription)))


def as_they_happened(entries: list[Entry[ev.MedicationDispensed]]) -> list[ev.MedicationDispensed]:
    """Hand-outs in the world's order: what they use up must not hang on the order in which they were reported."""
    return [e.body for e in sorted(entries, key=lambda each: (each.occurred_at_ms, each.body.dispense))]


# --- Closers --------------------------------------------------------------------------------------------------------


def completions(chart: Chart, rx: str, *, before: int | None = None) -> list[Completion]:
    """The standing completions, first of all those before a place in the log: said to be, or with nothing left."""
    issue = issue_of(chart, rx)
    entries = [entry for entry in standing(chart, rx) if before is None or entry.position < before]
    used_up_by = None
    if issue is not None:
        reported = (
            (entry, quantities.use_after(issue.body, as_they_happened(entries[:count])))
            for count, entry in enumerate(entries, start=1)
        )
        used_up_by = first(entry for entry, use in reported if quantities.periods_left(issue.body, use) == 0)
    return [
        Completion(entry.position if entry.claim_position is None else entry.claim_position, entry)
        for entry in entries
        if entry.body.completed or entry is used_up_by
    ]


def recalls(chart: Chart, rx: str) -> list[Recall]:
    """Every recall of a prescription, by whatever caused it, in log order."""
    found = [
        Recall(entry.position, entry.body.reason, entry.event.source, entry.occurred_at_ms)
        for entry in of(chart, ("rx", rx), ev.PrescriptionRecalled)
    ]
    issue = issue_of(chart, rx)
    if issue is not None:
        found += _replacements(chart, issue) + _stops(chart, issue) + _by_death(chart)
    kept: list[Recall] = []
    for recall in sorted(found, key=lambda recall: recall.position):
        came_first = issue is not None and recall.position < issue.position
        stands = recall.caused_by in ("recall", "death") or not _adds_nothing(recall, kept, came_first=came_first)
        if stands or _happened_first(recall, kept):
            kept.append(recall)
    return kept


def _happened_first(recall: Recall, before: list[Recall]) -> bool:
    """Whether a replacement of what is closed already closed it, in the world, before all that the log knew before."""
    known = [other for other in before if other.caused_by not in ("death", "withdrawal")]
    return recall.caused_by == "replacement" and all(_counts_from(other) > _counts_from(recall) for other in known)


def was_replaced(chart: Chart, issue: Entry[ev.PrescriptionIssued], at_ms: int, before: int) -> bool:
    """Whether anything that the log knew before that place had replaced it in the world by then, listed or not."""
    known = [recall for recall in _replacements(chart, issue) if recall.position < before]
    return any(_counts_from(recall) <= at_ms for recall in known)


def _counts_from(recall: Recall) -> int:
    """The first instant at which a hand-out is one after the recall."""
    return recall.at_ms + 1 if recall.from_on is None else max(recall.at_ms + 1, starts(recall.from_on))


def _adds_nothing(recall: Recall, before: list[Recall], *, came_first: bool) -> bool:
    """Whether a recall before it in the log, other than by a death, was in effect when it came, or will be no later.

    came_first: before the prescription itself, so that there was nothing yet for the other to be in effect on.
    """
    latest = recall.from_on or date.min
    if not came_first:
        latest = max(latest, day(recall.received_at_ms))
    return any((other.from_on or date.min) <= latest for other in before if other.caused_by != "death")


def _replacements(chart: Chart, issue: Entry[ev.PrescriptionIssued]) -> list[Recall]:
    """By newer-signed prescriptions of the treatment, and by what renews it by name, each from its own earliest date."""
    return [
        Recall(
            newer.position,
            "renew",
            newer.event.source,
            newer.body.issued_at_ms,
            newer.body.earliest_dispense,
            newer.body.prescription,
            "replacement",
            newer.event.received_at_ms,
        )
        for newer in _replacing(chart, issue)
    ]


def _replacing(chart: Chart, issue: Entry[ev.PrescriptionIssued]) -> list[Entry[ev.PrescriptionIssued]]:
    newer = _newer_signed(chart, issue)
    naming = of(chart, ("renews", issue.body.prescription), ev.PrescriptionIssued)
    return newer + [other for other in naming if other not in newer and other is not issue]


def _newer_signed(chart: Chart, issue: Entry[ev.PrescriptionIssued]) -> list[Entry[ev.PrescriptionIssued]]:
    """Those of its treatment, outside its series."""
    mine, series = signed_order(issue), issue.body.series_id
    return [
        other
        for other in of(chart, ("t", issue.body.treatment), ev.PrescriptionIssued)
        if signed_order(other) > mine and (series is None or other.body.series_id != series)
    ]


def _stops(chart: Chart, issue: Entry[ev.PrescriptionIssued]) -> list[Recall]:
    """By the first stop, and by the first withdrawal, that is later than its signing."""
    treatment, signed = ("t", issue.body.treatment), issue.body.issued_at_ms
    stopped = first(e for e in of(chart, treatment, ev.TreatmentDiscontinued) if e.body.at_ms > signed)
    withdrawn = first(e for e in of(chart, treatment, ev.TreatmentWithdrawn) if e.occurred_at_ms > signed)
    found: list[Recall] = []
    if stopped is not None:
        found.append(
            Recall(
                stopped.position,
                "discontinued",
                stopped.event.source,
                stopped.body.at_ms,
                caused_by="stop",
                received_at_ms=stopped.event.received_at_ms,
            )
        )
    if withdrawn is not None:
        at_ms = withdrawn.occurred_at_ms
        now_ms = withdrawn.event.received_at_ms
        found.append(
            Recall(
                withdrawn.position,
                "withdrawn",
                withdrawn.event.source,
                at_ms,
                caused_by="withdrawal",
                received_at_ms=now_ms,
            )
        )
    return found


def death_of(chart: Chart) -> Entry[ev.PatientDied] | None:
    """The report of the patient's death that stands."""
    died: Entry[ev.PatientDied] | None = None
    for entry in chart.about.get(PATIENT, ()):
        if isinstance(entry.event.body, ev.PatientDied) and died is None:
            died = entry
        elif isinstance(entry.event.body, ev.DeathRetracted):
            died = None
    return died


def _by_death(chart: Chart) -> list[Recall]:
    died = death_of(chart)
    if died is None:
        return []
    return [Recall(died.position, "death", died.event.source, died.occurred_at_ms, caused_by="death")]


# --- Claims, dispatches, status ---------------------------------------------------------------------------------------


def desk_of(chart: Chart, rx: str) -> Desk:
    """Who holds it and whom it is tied to, gone through from the start."""
    desk = Desk()
    for entry in chart.about.get(("rx", rx), ()):
        match entry.event.body:
            case ev.ClaimRequested():
                desk.claim = entry
            case ev.ClaimAborted(claim=claim) | ev.ClaimReleased(claim=claim):
                if desk.claim is not None and desk.claim.body.claim == claim:
                    desk.claim = None
            case ev.DispatchRequested():
                desk.dispatch = entry
                desk.bound_from = entry.position if desk.claim is None else _opened_after(chart, rx, entry.position)
            case ev.DispatchWithdrawn():
                desk.dispatch = None
            case ev.MedicationDispensed():
                _handed_out(desk, entry)
                if entry.voids_order:
                    desk.bound_from = _opened_after(chart, rx, entry.position)
            case _:
                pass
    return desk


def _opened_after(chart: Chart, rx: str, place: int) -> int | None:
    """Where, after that place, it could be dispensed by anybody for the first time; None while it could not."""
    return first(opened for opened in chart.opened[rx] if opened > place)


def _handed_out(desk: Desk, entry: Entry[ev.MedicationDispensed]) -> None:
    """A hand-out by the bound pharmacy uses up a dispatch of the next dispense; then its claim ends, and another binds."""
    tied, bound_from = desk.dispatch, desk.bound_from
    is_bound = bound_from is not None and bound_from < entry.position
    if tied is not None and is_bound and not tied.body.every and tied.body.pharmacy == entry.organisation:
        desk.dispatch = None
    if desk.claim is not None and entry.ended_claim == desk.claim.body.claim:
        desk.claim = None


def holder_of(chart: Chart, rx: str) -> Entry[ev.ClaimRequested] | None:
    """The claim that holds a prescription now."""
    return desk_of(chart, rx).claim


def dispatch_of(chart: Chart, rx: str, at_ms: int, *, bound: bool = True) -> Entry[ev.DispatchRequested] | None:
    """The dispatch that holds at that time: bound, unless the pending one is asked for too."""
    desk, issue = desk_of(chart, rx), issue_of(chart, rx)
    if desk.dispatch is None or issue is None or (bound and desk.bound_from is None):
        return None
    begins = max(day(desk.dispatch.occurred_at_ms), issue.body.earliest_dispense or date.min)
    return desk.dispatch if day(at_ms) <= begins + DISPATCH_LAPSES else None


def closed_by(chart: Chart, rx: str, at_ms: int, *, before: int | None = None) -> str | None:
    """What the first standing closer in effect makes of it: R or T; None when none stands. before: a place in the log."""
    closers = [(completion.position, "R") for completion in completions(chart, rx, before=before)]
    closers += [(recall.position, "T") for recall in recalls(chart, rx) if recall.in_effect(at_ms)]
    known = [closer for closer in closers if before is None or closer[0] < before]
    return min(known)[1] if known else None


def status(chart: Chart, issue: Entry[ev.PrescriptionIssued], at_ms: int) -> str:
    """E, U, R, T or F at that time."""
    rx = issue.body.prescription
    if holder_of(chart, rx) is not None:
        return "U"
    return closed_by(chart, rx, at_ms) or ("F" if day(at_ms) > issue.body.valid_until else "E")


def is_recalled(chart: Chart, rx: str, at_ms: int) -> bool:
    """Whether a recall of it is in effect at that time, whatever its status."""
    return any(recall.in_effect(at_ms) for recall in recalls(chart, rx))


def returned_of(chart: Chart, issue: Entry[ev.PrescriptionIssued]) -> Decimal:
    """Goods that came back of standing hand-outs, in the prescription's unit, as far as comparable."""
    total, measured = Decimal(0), quantities.measure(issue.body)
    for entry in standing(chart, issue.body.prescription):
        holds = quantities.least_content(entry.body.lines, issue.body)
        for quantity in returns_of(chart, entry.body.dispense):
            amount = quantities.in_unit(quantity, measured.unit, holds)
            total += amount or Decimal(0)
    return measured.shown(total).quantize(Decimal("0.0001")) if measured.unit == "package" else measured.shown(total)
