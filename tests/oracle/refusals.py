"""Which registrations and requests contradict the list, and the two facts that can be refused."""

from datetime import timedelta
from decimal import Decimal

from schemas import events as ev
from schemas.reasons import Reason
from tests.oracle import quantities, whole_list
from tests.oracle import treatments as tr
from tests.oracle.history import Chart, Entry, day, first, of, refuse
from tests.oracle.prescriptions import (
    death_of,
    dispatch_of,
    hand_out,
    holder_of,
    is_reversed,
    issue_of,
    returns_of,
    status,
)

TOKEN_HOLDS_MS = timedelta(hours=4) // timedelta(milliseconds=1)
PRESCRIBERS = frozenset({"doctor", "dentist", "nurse"})
CITIZENS = frozenset({"citizen", "proxy"})

Refusal = tuple[Reason, str | None]
CLOSED = {"R": Reason.COMPLETED, "T": Reason.RECALLED, "F": Reason.EXPIRED}
AnyEvent = ev.Event[ev.Body]


def refusal(chart: Chart, event: AnyEvent) -> Refusal | None:  # noqa: PLR0911  # one line for each type of event
    """Why this event is refused, and what the refusal names; None when it is applied."""
    match event.body:
        case ev.ClaimRequested() as body:
            return _of_claim(chart, event, body)
        case ev.ClaimAborted() | ev.ClaimReleased() as body:
            return _of_claim_end(chart, event, body)
        case ev.DispatchRequested() as body:
            issue = issue_of(chart, body.prescription)
            return refuse(Reason.UNKNOWN) if issue is None else _of_closed(chart, issue, event)
        case ev.DispatchWithdrawn() as body:
            return _of_dispatch_withdrawn(chart, event, body)
        case ev.RenewalRequested() as body:
            return refuse(Reason.UNKNOWN) if issue_of(chart, body.prescription) is None else None
        case ev.RenewalDeclined() as body:
            return _of_declined(chart, event, body)
        case ev.DispenseReversed() as body:
            return _of_reversal(chart, event.source.organisation, body)
        case ev.TreatmentChanged() | ev.TreatmentResumed() | ev.TreatmentReinstated() | ev.TreatmentWithdrawn():
            return _of_registration(chart, event)
        case ev.TreatmentPaused() as body:
            return refuse(Reason.DISCONTINUED) if _is_stopped(chart, body.treatment) else None
        case _:
            return _of_whole_list(chart, event)


def _of_whole_list(chart: Chart, event: AnyEvent) -> Refusal | None:  # noqa: PLR0911  # as above
    match event.body:
        case ev.ListReconciled() as body:
            return _of_reconciled(chart, event, body)
        case ev.AllergyRecorded(none_known=True):
            return refuse(Reason.ALLERGIES_RECORDED) if whole_list.allergies(chart) else None
        case ev.MultidoseAssigned() as body:
            return _of_multidose(chart, event, body)
        case ev.MultidoseEnded():
            return _of_multidose_end(chart, event)
        case ev.ParkedRecordClosed() as body:
            return _of_closing(chart, event, body)
        case ev.DeathRetracted():
            return refuse(Reason.NOT_DECEASED) if death_of(chart) is None else None
        case _:
            return None


def _of_closing(chart: Chart, event: AnyEvent, body: ev.ParkedRecordClosed) -> Refusal | None:
    if event.source.role != "operator":
        return refuse(Reason.NOT_PERMITTED)
    return None if any(record.offset == body.offset for record in chart.parked) else refuse(Reason.UNKNOWN)


# --- At the pharmacy --------------------------------------------------------------------------------------------------


def _of_claim(chart: Chart, event: AnyEvent, body: ev.ClaimRequested) -> Refusal | None:
    """The first that fits, in the order of the ruling."""
    issue, asking, at_ms = issue_of(chart, body.prescription), event.source.organisation, event.received_at_ms
    if issue is None:
        return refuse(Reason.UNKNOWN)
    if death_of(chart) is not None:
        return refuse(Reason.DECEASED)
    holder = holder_of(chart, body.prescription)
    if holder is not None:
        mine = holder.organisation == asking
        return refuse(Reason.ALREADY_HELD) if mine else refuse(Reason.HELD, holder.organisation)
    closed = _of_closed(chart, issue, event)
    if closed is not None:
        return closed
    tied = dispatch_of(chart, body.prescription, at_ms)
    if tied is not None and tied.body.pharmacy != asking:
        return refuse(Reason.DISPATCHED_TO, tied.body.pharmacy)
    earliest = issue.body.earliest_dispense
    return refuse(Reason.TOO_EARLY, earliest.isoformat()) if earliest and day(at_ms) < earliest else None


def _of_closed(chart: Chart, issue: Entry[ev.PrescriptionIssued], event: AnyEvent) -> Refusal | None:
    """Why nothing more can be dispensed of it: deceased, withdrawn, discontinued, completed, recalled, expired."""
    if death_of(chart) is not None:
        return refuse(Reason.DECEASED)
    stop = tr.shown_stop(chart, issue.body.treatment)
    if stop is not None:
        return refuse(Reason.WITHDRAWN if stop.withdrawn else Reason.DISCONTINUED)
    reason = CLOSED.get(status(chart, issue, event.received_at_ms))
    return None if reason is None else refuse(reason)


def _of_claim_end(chart: Chart, event: AnyEvent, body: ev.ClaimAborted | ev.ClaimReleased) -> Refusal | None:
    claim = first(of(chart, ("claim", body.claim), ev.ClaimRequested))
    if claim is None or holder_of(chart, claim.body.prescription) is not claim:
        return refuse(Reason.NO_CLAIM)
    if isinstance(body, ev.ClaimReleased):
        return None if event.source.role == "operator" else refuse(Reason.NOT_PERMITTED)
    return None if claim.organisation == event.source.organisation else refuse(Reason.NOT_HOLDER)


def _of_dispatch_withdrawn(chart: Chart, event: AnyEvent, body: ev.DispatchWithdrawn) -> Refusal | None:
    if issue_of(chart, body.prescription) is None:
        return refuse(Reason.UNKNOWN)
    tied = dispatch_of(chart, body.prescription, event.received_at_ms, bound=False)
    if tied is None:
        return refuse(Reason.NO_DISPATCH)
    may = event.source.role in PRESCRIBERS | CITIZENS or event.source.organisation == tied.body.pharmacy
    return None if may else refuse(Reason.NOT_PERMITTED)


def _of_declined(chart: Chart, event: AnyEvent, body: ev.RenewalDeclined) -> Refusal | None:
    asked = first(of(chart, ("request", body.request), ev.RenewalRequested))
    if asked is None:
        return refuse(Reason.UNKNOWN)
    if of(chart, ("request", body.request), ev.RenewalDeclined):
        return refuse(Reason.NO_REQUEST)
    return None if event.source.organisation == asked.body.to else refuse(Reason.NOT_PERMITTED)


def _of_reversal(chart: Chart, organisation: str, body: ev.DispenseReversed) -> Refusal | None:
    handed = hand_out(chart, body.dispense)
    if handed is None:
        return None
    if handed.organisation != organisation:
        return refuse(Reason.NOT_DISPENSER)
    if body.quantity is None or is_reversed(chart, body.dispense):
        return None
    before = returns_of(chart, body.dispense)
    return refuse(Reason.OVER_RETURNED) if over_returned(chart, handed, [*before, body.quantity]) else None


def over_returned(chart: Chart, handed: Entry[ev.MedicationDispensed], returned: list[ev.Quantity]) -> bool:
    """Whether more came back than was handed out: of the unit that came back last, or of what its packages hold."""
    issue, lines = issue_of(chart, handed.body.prescription), handed.body.lines
    issued = None if issue is None else issue.body
    units = {returned[-1].unit}
    content = quantities.least_content(lines, issued)
    if content is not None:
        units.add(content.unit)
    for unit in units:
        most = quantities.handed_in(lines, unit, issued)
        amounts = [quantities.in_content(quantity, unit, content) for quantity in returned]
        if most is not None and sum(amounts, Decimal(0)) > most:
            return True
    return False


def of_waiting_reversal(chart: Chart, reversal: Entry[ev.DispenseReversed]) -> Reason | None:
    """Why a reversal that waited proves to be refused, now that its hand-out came, or the prescription of that."""
    handed = hand_out(chart, reversal.body.dispense)
    if handed is None:
        return None
    if handed.organisation != reversal.organisation:
        return Reason.NOT_DISPENSER
    if reversal.body.quantity is None:
        return None
    earlier = of(chart, ("dispense", reversal.body.dispense), ev.DispenseReversed)
    until = [entry for entry in earlier if entry.position <= reversal.position]
    returned = [entry.body.quantity for entry in until if entry.body.quantity is not None]
    whole = any(entry.body.quantity is None for entry in until)
    return Reason.OVER_RETURNED if not whole and over_returned(chart, handed, returned) else None


# --- Treatments -------------------------------------------------------------------------------------------------------


def _is_stopped(chart: Chart, treatment: str) -> bool:
    return tr.is_known(chart, treatment) and tr.shown_stop(chart, treatment) is not None


def _of_registration(chart: Chart, event: AnyEvent) -> Refusal | None:
    body = event.body
    assert isinstance(body, ev.TreatmentChanged | ev.TreatmentResumed | ev.TreatmentReinstated | ev.TreatmentWithdrawn)
    if not tr.is_known(chart, body.treatment):
        return refuse(Reason.UNKNOWN)
    stopped = _is_stopped(chart, body.treatment)
    if isinstance(body, ev.TreatmentReinstated):
        return None if stopped else refuse(Reason.NOT_DISCONTINUED)
    if isinstance(body, ev.TreatmentWithdrawn):
        return None
    if stopped:
        return refuse(Reason.DISCONTINUED)
    paused = tr.pause_of(chart, body.treatment, event.received_at_ms) is not None
    return refuse(Reason.NOT_PAUSED) if isinstance(body, ev.TreatmentResumed) and not paused else None


# --- The list as a whole ----------------------------------------------------------------------------------------------


def _of_reconciled(chart: Chart, event: AnyEvent, body: ev.ListReconciled) -> Refusal | None:
    if event.received_at_ms - body.read_at_ms > TOKEN_HOLDS_MS:
        return refuse(Reason.TOKEN_EXPIRED)
    if event.source.role != "doctor":
        return refuse(Reason.NOT_PERMITTED)
    if chart.parked:
        return refuse(Reason.LIST_INCOMPLETE)
    if body.version == chart.version:
        return None
    moved = dict.fromkeys(subject for position, subject in chart.moves if position > body.version)
    return refuse(Reason.STALE, ", ".join(moved) or None)


def _of_multidose(chart: Chart, event: AnyEvent, body: ev.MultidoseAssigned) -> Refusal | None:
    if event.source.role != "doctor":
        return refuse(Reason.NOT_PERMITTED)
    present = whole_list.multidose(chart)
    packs = None if present is None else present.pharmacy
    return None if packs in (None, body.pharmacy) else refuse(Reason.MULTIDOSE_ELSEWHERE, packs)


def _of_multidose_end(chart: Chart, event: AnyEvent) -> Refusal | None:
    present = whole_list.multidose(chart)
    if present is None:
        return refuse(Reason.NOT_RESPONSIBLE)
    doctor = event.source.person == present.assigned.body.doctor
    pharmacy = event.source.organisation == present.pharmacy
    return None if doctor or pharmacy else refuse(Reason.NOT_RESPONSIBLE)
