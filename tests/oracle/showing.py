"""The list as a reader's clock shows it, from the history alone."""

from datetime import timedelta
from decimal import Decimal

import msgspec

from schemas import events as ev
from schemas import medication_list as ml
from schemas.reasons import Flag
from tests.oracle import quantities, whole_list
from tests.oracle import treatments as tr
from tests.oracle.history import Chart, Entry, day, first, last, of
from tests.oracle.prescriptions import (
    Recall,
    chain_of,
    death_of,
    dispatch_of,
    hand_outs_of,
    holder_of,
    is_recalled,
    is_reversed,
    issue_of,
    recalls,
    returned_of,
    returns_of,
    standing,
    status,
    use_of,
)

VISIBLE_AFTER_END = timedelta(days=90)
OTHER_GROUPS = frozenset({"nutrition", "consumable"})
OF_THE_ENTRY = frozenset({Flag.SUBSTANCE_CHANGED, Flag.PRESCRIBED_AFTER_DISCONTINUATION})


def shown_list(chart: Chart, at_ms: int, flagged: frozenset[str], version: int) -> ml.MedicationList:
    """Everything that a reader sees."""
    entries = [_treatment(chart, treatment, at_ms, flagged) for treatment in _treatments(chart)]
    shown = sorted((entry for entry in entries if entry is not None), key=lambda pair: pair[0].treatment)
    packed, died, confirmed = whole_list.multidose(chart), death_of(chart), whole_list.reconciled(chart)
    return ml.MedicationList(
        version=version,
        treatments=tuple(entry for entry, other in shown if not other),
        other_prescriptions=tuple(entry for entry, other in shown if other),
        unseen_hand_outs=_unseen(chart),
        allergies=tuple(
            ml.ShownAllergy(recorded=entry.body, by=who(entry.event.source), at_ms=entry.occurred_at_ms)
            for entry in whole_list.allergies(chart)
        ),
        allergy_status=whole_list.allergy_status(chart),
        multidose=None if packed is None else _multidose(packed),
        deceased_on=None if died is None else died.body.on,
        reconciled=None if confirmed is None else _reconciled(confirmed),
        incomplete_since_ms=min((record.broker_time_ms for record in chart.parked), default=None),
    )


def who(source: ev.Source) -> ml.Who:
    """Who did it."""
    return ml.Who(organisation=source.organisation, role=source.role, person=source.person)


def names(flags: set[Flag]) -> tuple[str, ...]:
    """Flags by name, sorted."""
    return tuple(sorted(str(flag) for flag in flags))


def _treatments(chart: Chart) -> list[str]:
    return [treatment for kind, treatment in list(chart.about) if kind == "t" and tr.is_known(chart, treatment)]


def _unseen(chart: Chart) -> tuple[ml.ShownHandOut, ...]:
    rxs = [rx for kind, rx in list(chart.about) if kind == "rx" and issue_of(chart, rx) is None]
    waiting = [entry for rx in rxs for entry in hand_outs_of(chart, rx)]
    return tuple(_hand_out(chart, entry) for entry in sorted(waiting, key=lambda entry: entry.position))


def _multidose(packed: whole_list.Multidose) -> ml.ShownMultidose:
    body = packed.assigned.body
    return ml.ShownMultidose(
        doctor=body.doctor,
        pharmacy=packed.pharmacy,
        start=body.start,
        packing_days=body.packing_days,
        next_pack=body.next_pack,
    )


def _reconciled(entry: Entry[ev.ListReconciled]) -> ml.ShownReconciliation:
    by = who(entry.event.source)
    return ml.ShownReconciliation(at_ms=entry.occurred_at_ms, by=by, version=entry.body.version)


# --- One treatment ----------------------------------------------------------------------------------------------------


def _treatment(
    chart: Chart, treatment: str, at_ms: int, flagged: frozenset[str]
) -> tuple[ml.ShownTreatment, bool] | None:
    """The entry, and whether it stands under "other prescriptions"; None when it is not shown at that time."""
    chain = chain_of(chart, treatment)
    basis = tr.basis_of(chart, treatment, at_ms)
    if basis is None:
        return None
    state = _status(chart, treatment, basis, at_ms)
    if state is None:
        return None
    dosing, by, set_at_ms = tr.dosing_of(chart, treatment, basis)
    told, body = tr.recorded(chart, treatment), basis.body
    strength = body.medication.strength
    shown = ml.ShownTreatment(
        treatment=treatment,
        status=state,
        kind="prescribed" if chain else told.body.kind if told is not None else "prescribed",
        medication=body.medication,
        dosing=ml.ShownDosing(dosing=dosing, text="", by=who(by), at_ms=set_at_ms, strength=strength),
        use=body.use,
        prescriptions=tuple(_prescription(chart, issue, at_ms, flagged) for issue in reversed(chain)),
        flags=_flags(chart, treatment, chain, flagged),
        stopped=_stopped(chart, treatment),
        paused=_paused(chart, treatment, at_ms),
        reported_use=_use(chart, treatment),
        indication_text=tr.indication_of(chart, treatment, basis),
        substitution_reserved=tr.is_substitution_reserved(chart, treatment, basis),
        administration=tr.administration_of(chart, treatment),
        paper_prescription=None if told is None else told.body.paper_prescription,
        last_dispense=_last_dispense(chart, chain),
        conflicting_reports=_conflicting(chart, treatment),
    )
    group = body.item_group if isinstance(body, ev.PrescriptionIssued) else body.medication.form
    other = group in OTHER_GROUPS
    return shown, other or body.use == "vaccine"


def _status(chart: Chart, treatment: str, basis: tr.Basis, at_ms: int) -> str | None:
    """discontinued, completed, paused or active; None once it is not shown any more."""
    stop, end = tr.shown_stop(chart, treatment), tr.course_end(chart, treatment, basis)
    if stop is not None:
        hidden = stop.withdrawn and not _is_kept_visible(chart, treatment)
        return None if hidden or day(at_ms) > day(stop.at_ms) + VISIBLE_AFTER_END else "discontinued"
    if end is not None and day(at_ms) > end:
        return None if day(at_ms) > end + VISIBLE_AFTER_END else "completed"
    return "paused" if tr.is_paused(chart, treatment, at_ms) else "active"


def _is_kept_visible(chart: Chart, treatment: str) -> bool:
    """A withdrawn treatment stays visible while a hand-out stands or somebody holds a claim."""
    rxs = [issue.body.prescription for issue in chain_of(chart, treatment)]
    return any(standing(chart, rx) or holder_of(chart, rx) is not None for rx in rxs)


def _flags(
    chart: Chart, treatment: str, chain: list[Entry[ev.PrescriptionIssued]], flagged: frozenset[str]
) -> tuple[str, ...]:
    """Of the entry: withdrawn, what its newest-signed prescription changed, conflicting reports, changed outcomes."""
    found: set[Flag] = set()
    stop, newest = tr.shown_stop(chart, treatment), last(chain)
    if stop is not None and stop.withdrawn:
        found.add(Flag.WITHDRAWN)
    if newest is not None:
        found |= newest.shown_flags & OF_THE_ENTRY
    if _conflicting(chart, treatment):
        found.add(Flag.CONFLICTING_REPORT)
    changed = {chart.dispense_prescription[dispense] for dispense in chart.outcome_changed}
    if any(tr.treatment_of(chart, rx) == treatment for rx in changed):
        found.add(Flag.OUTCOME_CHANGED)
    if any(issue.body.prescription in flagged for issue in chain):
        found.add(Flag.PRESCRIPTION_NUMBER_CONFLICT)
    return names(found)


def _stopped(chart: Chart, treatment: str) -> ml.ShownStop | None:
    stop = tr.shown_stop(chart, treatment)
    if stop is None:
        return None
    return ml.ShownStop(at_ms=stop.at_ms, reason=stop.reason, by=who(stop.source), note=stop.note)


def _paused(chart: Chart, treatment: str, at_ms: int) -> ml.ShownPause | None:
    pause = tr.pause_of(chart, treatment, at_ms)
    if pause is None:
        return None
    body = pause.body
    return ml.ShownPause(start=body.start, reason=body.reason, by=who(pause.event.source), until=body.until)


def _use(chart: Chart, treatment: str) -> ml.ShownUse | None:
    reported = of(chart, ("t", treatment), ev.UseReported)
    if not reported:
        return None
    latest = max(reported, key=lambda entry: entry.time_and_place)
    body = latest.body
    return ml.ShownUse(use=body.use, by=body.by, at_ms=latest.occurred_at_ms, note=body.note)


def _conflicting(chart: Chart, treatment: str) -> tuple[ml.ConflictingReport, ...]:
    return tuple(
        ml.ConflictingReport(dispense=conflict.dispense, pharmacy=conflict.pharmacy, at_ms=conflict.at_ms)
        for conflict in chart.conflicts
        if tr.treatment_of(chart, conflict.prescription) == treatment
    )


def _last_dispense(chart: Chart, chain: list[Entry[ev.PrescriptionIssued]]) -> ml.ShownHandOut | None:
    handed = [entry for issue in chain for entry in standing(chart, issue.body.prescription)]
    latest = max(handed, key=lambda entry: (entry.occurred_at_ms, entry.body.dispense), default=None)
    return None if latest is None else _hand_out(chart, latest)


# --- One prescription -------------------------------------------------------------------------------------------------


def shown_prescription(chart: Chart, prescription: str, at_ms: int) -> ml.ShownPrescription | None:
    """One prescription, also where the list hides its entry; None when nobody has seen it."""
    issue = issue_of(chart, prescription)
    return None if issue is None else _prescription(chart, issue, at_ms, frozenset())


def _prescription(
    chart: Chart, issue: Entry[ev.PrescriptionIssued], at_ms: int, flagged: frozenset[str]
) -> ml.ShownPrescription:
    body, rx = issue.body, issue.body.prescription
    use, claim, tied = use_of(chart, issue), holder_of(chart, rx), dispatch_of(chart, rx, at_ms)
    left = quantities.periods_left(body, use)
    return ml.ShownPrescription(
        prescription=rx,
        status=status(chart, issue, at_ms),
        issued=msgspec.structs.replace(body, identity=None),
        issuer=who(issue.event.source),
        refills_left=min(body.refills, left),
        dispenses_left=left,
        dispenses_done=len(standing(chart, rx)),
        handed_out=quantities.measure(body).shown(use.handed_out),
        total=body.quantity.value * (body.refills + 1),
        returned=returned_of(chart, issue),
        holder=None if claim is None else claim.organisation,
        claim=None if claim is None else claim.body.claim,
        dispatched_to=None if tied is None else tied.body.pharmacy,
        flags=_prescription_flags(chart, issue, at_ms, flagged),
        recalls=tuple(_recall(recall) for recall in recalls(chart, rx)),
        hand_outs=tuple(_hand_out(chart, entry) for entry in hand_outs_of(chart, rx)),
    )


def _prescription_flags(
    chart: Chart, issue: Entry[ev.PrescriptionIssued], at_ms: int, flagged: frozenset[str]
) -> tuple[str, ...]:
    rx, found = issue.body.prescription, set(issue.shown_flags)
    now = status(chart, issue, at_ms)
    if is_recalled(chart, rx, at_ms):
        found.add(Flag.RECALLED)
    if now == "U" and day(at_ms) > issue.body.valid_until:
        found.add(Flag.EXPIRED)
    own = of(chart, ("rx", rx), ev.PrescriptionRecalled)
    if now == "R" and any(Flag.RECALLED_AFTER_COMPLETION in entry.shown_flags for entry in own):
        found.add(Flag.RECALLED_AFTER_COMPLETION)
    for handed in standing(chart, rx):
        found |= handed.shown_flags
    if any(chart.dispense_prescription[dispense] == rx for dispense in chart.outcome_changed):
        found.add(Flag.OUTCOME_CHANGED)
    if rx in flagged:
        found.add(Flag.PRESCRIPTION_NUMBER_CONFLICT)
    return names(found)


def _recall(recall: Recall) -> ml.ShownRecall:
    return ml.ShownRecall(
        reason=recall.reason,
        by=who(recall.source),
        at_ms=recall.at_ms,
        from_on=recall.from_on,
        replaced_by=recall.replaced_by,
    )


def _hand_out(chart: Chart, entry: Entry[ev.MedicationDispensed]) -> ml.ShownHandOut:
    body = entry.body
    return ml.ShownHandOut(
        dispense=body.dispense,
        prescription=body.prescription,
        pharmacy=entry.organisation,
        handed_out_at_ms=entry.occurred_at_ms,
        lines=body.lines,
        completed=body.completed,
        period_completed=body.period_completed,
        flags=names(entry.shown_flags),
        reversed=is_reversed(chart, body.dispense),
        returned=_returned(chart, entry),
    )


def _returned(chart: Chart, entry: Entry[ev.MedicationDispensed]) -> ev.Quantity | None:
    """The sum of what came back: in the unit of the first return; of packages and what they hold, in that."""
    returned = returns_of(chart, entry.body.dispense)
    earliest = first(returned)
    if earliest is None:
        return None
    issue = issue_of(chart, entry.body.prescription)
    holds = quantities.least_content(entry.body.lines, None if issue is None else issue.body)
    is_by_content = holds is not None and any(quantity.unit == holds.unit for quantity in returned)
    unit = holds.unit if holds is not None and is_by_content else earliest.unit
    amounts = [quantities.in_content(quantity, unit, holds) for quantity in returned]
    return ev.Quantity(value=sum(amounts, Decimal(0)), unit=unit)
