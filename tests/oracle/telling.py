"""Who must be told of what: found by looking at the patient before and after an event."""

from dataclasses import dataclass, field

from schemas import events as ev
from schemas.reasons import Flag, NoticeKind
from tests.oracle import treatments as tr
from tests.oracle import whole_list
from tests.oracle.history import Chart, Entry, Order, Verdict, first, is_same_person, last, of
from tests.oracle.prescriptions import (
    Recall,
    chain_of,
    desk_of,
    dispatch_of,
    hand_out,
    hand_outs_of,
    issue_of,
    recalls,
    status,
)

AnyEvent = ev.Event[ev.Body]


@dataclass(frozen=True, slots=True)
class Seen:
    """One prescription as it was before an event: its recalls, its status (None: unseen), its bound dispatch."""

    recalls: list[Recall]
    status: str | None
    order: Entry[ev.DispatchRequested] | None


@dataclass(frozen=True, slots=True)
class Before:
    """The patient before an event, as far as the event can change who must be told."""

    prescriptions: dict[str, Seen] = field(default_factory=dict)
    stop: tr.Stop | None = None
    multidose: whole_list.Multidose | None = None


def look(chart: Chart, event: AnyEvent) -> Before:
    """The state before the event."""
    rxs = touched(chart, event.body)
    treatment = getattr(event.body, "treatment", None)
    stop = tr.shown_stop(chart, treatment) if treatment is not None else None
    seen = {rx: _see(chart, rx, event.received_at_ms) for rx in rxs}
    return Before(seen, stop, whole_list.multidose(chart))


def _see(chart: Chart, rx: str, at_ms: int) -> Seen:
    issue = issue_of(chart, rx)
    now = None if issue is None else status(chart, issue, at_ms)
    return Seen(recalls(chart, rx), now, dispatch_of(chart, rx, at_ms))


def touched(chart: Chart, body: ev.Body) -> list[str]:  # noqa: PLR0911  # a line for each type
    """The prescriptions whose recalls, claim or dispatch this event can change."""
    match body:
        case ev.PrescriptionIssued():
            chain = [issue.body.prescription for issue in chain_of(chart, body.treatment)]
            return list(dict.fromkeys([*chain, body.prescription, *([body.renews] if body.renews else [])]))
        case ev.TreatmentDiscontinued() | ev.TreatmentWithdrawn():
            return [issue.body.prescription for issue in chain_of(chart, body.treatment)]
        case ev.PatientDied() | ev.DeathRetracted():
            return _all_prescriptions(chart)
        case ev.PrescriptionRecalled() | ev.MedicationDispensed() | ev.DispatchRequested() | ev.DispatchWithdrawn():
            return [body.prescription]
        case ev.ClaimAborted() | ev.ClaimReleased():
            return [claim.body.prescription for claim in of(chart, ("claim", body.claim), ev.ClaimRequested)]
        case ev.DispenseReversed():
            return [
                handed.body.prescription for handed in of(chart, ("dispense", body.dispense), ev.MedicationDispensed)
            ]
        case _:
            return []


def _all_prescriptions(chart: Chart) -> list[str]:
    return [rx for kind, rx in list(chart.about) if kind == "rx" and issue_of(chart, rx) is not None]


# --- After ------------------------------------------------------------------------------------------------------------


def tell(chart: Chart, before: Before, entry: Entry[ev.Body]) -> None:
    """Every notice and order that this event brings about."""
    _tell_of_body(chart, before, entry)
    for rx, seen in before.prescriptions.items():
        if not (isinstance(entry.body, ev.PrescriptionRecalled) and Flag.ALREADY_RECALLED in entry.verdict.flags):
            _tell_of_recall(chart, rx, seen, entry)
        _tell_of_dispatch(chart, rx, seen, entry)


def _tell_of_body(chart: Chart, before: Before, entry: Entry[ev.Body]) -> None:  # noqa: C901  # a line for each type
    verdict = entry.verdict
    match entry.body:
        case ev.PrescriptionIssued() as body:
            _tell_of_issue(chart, before, entry, body)
        case ev.MedicationDispensed() as body:
            _tell_of_hand_out(chart, before, entry, body)
        case ev.DispenseReversed() as body:
            handed = hand_out(chart, body.dispense)
            if handed is not None and Flag.ALREADY_REVERSED not in verdict.flags:
                _tell_issuer(chart, handed.body.prescription, NoticeKind.REVERSED, verdict, body.dispense)
        case ev.TreatmentDiscontinued() | ev.TreatmentWithdrawn() as body if (
            Flag.PRESCRIBED_AFTER_DISCONTINUATION in verdict.flags
        ):
            newest = chain_of(chart, body.treatment)[-1]
            _tell_stopper(verdict, entry.event.source, newest.event.source, body.treatment)
        case ev.ClaimReleased() as body:
            claim = first(of(chart, ("claim", body.claim), ev.ClaimRequested))
            if claim is not None:
                verdict.tell(NoticeKind.CLAIM_RELEASED, claim.organisation, claim.body.prescription)
        case ev.RenewalRequested() as body:
            verdict.tell(NoticeKind.RENEWAL_REQUESTED, body.to, body.prescription)
        case ev.RenewalDeclined() as body:
            asked = first(of(chart, ("request", body.request), ev.RenewalRequested))
            if asked is not None:
                verdict.tell(NoticeKind.RENEWAL_DECLINED, asked.organisation, asked.body.prescription)
        case ev.MultidoseAssigned() | ev.MultidoseEnded() as body:
            _tell_of_multidose(before, entry, body)
        case _:
            pass


def _tell_issuer(chart: Chart, rx: str, kind: NoticeKind, verdict: Verdict, subject: str) -> None:
    issue = issue_of(chart, rx)
    if issue is not None:
        verdict.tell(kind, issue.organisation, subject)


def _tell_of_issue(chart: Chart, before: Before, entry: Entry[ev.Body], body: ev.PrescriptionIssued) -> None:
    """Whoever stopped the treatment; and the issuer, of the hand-outs that waited."""
    stopped = before.stop
    if Flag.PRESCRIBED_AFTER_DISCONTINUATION in entry.verdict.flags and stopped is not None:
        _tell_stopper(entry.verdict, stopped.source, entry.event.source, body.treatment)
    for handed in hand_outs_of(chart, body.prescription):
        entry.verdict.tell(NoticeKind.DISPENSED, entry.organisation, handed.body.dispense)
        for reversal in of(chart, ("dispense", handed.body.dispense), ev.DispenseReversed):
            entry.verdict.tell(NoticeKind.REVERSED, entry.organisation, reversal.body.dispense)


def _tell_stopper(verdict: Verdict, stopper: ev.Source, prescriber: ev.Source, treatment: str) -> None:
    """Whoever stopped a treatment, that another prescribed it after that."""
    if not is_same_person(stopper, prescriber):
        verdict.tell(NoticeKind.PRESCRIBED_AFTER_DISCONTINUATION, stopper.organisation, treatment)


def _tell_of_hand_out(chart: Chart, before: Before, entry: Entry[ev.Body], body: ev.MedicationDispensed) -> None:
    rx, verdict = body.prescription, entry.verdict
    _tell_issuer(chart, rx, NoticeKind.DISPENSED, verdict, body.dispense)
    for _reversal in of(chart, ("dispense", body.dispense), ev.DispenseReversed):
        if issue_of(chart, rx) is not None:
            _tell_issuer(chart, rx, NoticeKind.REVERSED, verdict, body.dispense)
    ended = first(of(chart, ("claim", entry.ended_claim or ""), ev.ClaimRequested))
    if ended is not None and ended.organisation != entry.organisation:
        verdict.tell(NoticeKind.CLAIM_ENDED, ended.organisation, rx)
    tied = before.prescriptions[rx].order
    closes = entry.ended_claim is None or ended is None or ended.organisation != entry.organisation
    if (
        tied is not None
        and closes
        and tied.body.pharmacy != entry.organisation
        and _is_now_closed(chart, before, rx, entry)
    ):
        verdict.tell(NoticeKind.ORDER_VOID, tied.body.pharmacy, rx)
        entry.voids_order = True


def _is_now_closed(chart: Chart, before: Before, rx: str, entry: Entry[ev.Body]) -> bool:
    issue = issue_of(chart, rx)
    if issue is None or before.prescriptions[rx].status not in ("E", "U"):
        return False
    return status(chart, issue, entry.event.received_at_ms) == "R"


def _tell_of_multidose(before: Before, entry: Entry[ev.Body], body: ev.MultidoseAssigned | ev.MultidoseEnded) -> None:
    if before.multidose is None:
        return
    former = before.multidose.assigned
    if isinstance(body, ev.MultidoseAssigned):
        if body.doctor != former.body.doctor:
            entry.verdict.tell(NoticeKind.MULTIDOSE_TAKEN_OVER, former.organisation, "multidose")
    elif entry.event.source.person != former.body.doctor:
        entry.verdict.tell(NoticeKind.MULTIDOSE_PART_ENDED, former.organisation, "multidose")


def _tell_of_recall(chart: Chart, rx: str, seen: Seen, entry: Entry[ev.Body]) -> None:
    """Holder, bound pharmacy and issuer, of a recall in effect at once of what was not closed already."""
    at_ms, verdict, own = entry.event.received_at_ms, entry.verdict, isinstance(entry.body, ev.PrescriptionRecalled)
    issue = issue_of(chart, rx)
    if isinstance(entry.body, ev.DeathRetracted):
        deciding = first(recall for recall in seen.recalls if recall.in_effect(at_ms))
        if seen.status in ("T", "U") and deciding is not None and deciding.caused_by == "death":
            _tell_issuer(chart, rx, NoticeKind.DEATH_RETRACTED, verdict, rx)
        return
    new = [recall for recall in recalls(chart, rx) if seen.status is None or recall not in seen.recalls]
    recall = first(recall for recall in new if recall.in_effect(at_ms))
    if recall is None or issue is None:
        return
    if seen.status is None:
        own, closed = recall.caused_by == "recall", status(chart, issue, at_ms) != "T"
    else:
        recalled_before = any(other.in_effect(at_ms) for other in seen.recalls)
        closed = seen.status not in ("E", "U") or recalled_before
    if closed and not own:
        return
    told = {recall.source.organisation}
    holder = desk_of(chart, rx).claim
    if holder is not None:
        verdict.tell(NoticeKind.RECALLED_WHILE_HELD, holder.organisation, rx)
        told.add(holder.organisation)
    tied = dispatch_of(chart, rx, at_ms)
    if tied is not None and tied.body.pharmacy not in told:
        verdict.tell(NoticeKind.RECALLED_WHILE_DISPATCHED, tied.body.pharmacy, rx)
    if not is_same_person(issue.event.source, recall.source):
        verdict.tell(NoticeKind.RECALLED_BY_OTHER, issue.organisation, rx)


def _tell_of_dispatch(chart: Chart, rx: str, seen: Seen, entry: Entry[ev.Body]) -> None:
    """The pharmacy that lost its order, and the order to the pharmacy that it binds to now.

    Or is still bound to, when a death is retracted: nothing could be dispensed for as long as that stood.
    """
    desk, at_ms, issue = desk_of(chart, rx), entry.event.received_at_ms, issue_of(chart, rx)
    replaced = isinstance(entry.body, ev.DispatchRequested) or (
        isinstance(entry.body, ev.DispatchWithdrawn) and seen.order is not None
    )
    if replaced and seen.order is not None:
        lost, now = seen.order.body.pharmacy, desk.dispatch.body.pharmacy if desk.dispatch is not None else None
        if lost not in (now, entry.organisation):
            entry.verdict.tell(NoticeKind.ORDER_VOID, lost, rx)
    binds = dispatch_of(chart, rx, at_ms)
    is_opened_again = isinstance(entry.body, ev.DeathRetracted)
    if binds is None or issue is None or (binds is seen.order and not is_opened_again):
        return
    if status(chart, issue, at_ms) == "E" and last(tr.stops_in_force(chart, issue.body.treatment)) is None:
        entry.verdict.orders.append(Order(binds.body.pharmacy, rx, binds.body.dispatch))
