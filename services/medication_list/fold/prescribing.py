"""Prescriptions: issued, replacing earlier ones, and recalled."""

from collections.abc import Iterable, Mapping
from typing import cast

from msgspec.structs import replace

from schemas.events import (
    Body,
    Dosing,
    Event,
    PrescriptionIssued,
    PrescriptionRecalled,
    Source,
    TreatmentDiscontinued,
)
from schemas.reasons import Flag, NoticeKind
from services.medication_list.fold.calendar import ended_ms, starts_ms
from services.medication_list.fold.judgement import Draft, Verdict, applied
from services.medication_list.fold.standing import counting_unit, first_recall, status
from services.medication_list.fold.state import (
    By,
    Death,
    OpenPrescription,
    PrescriptionState,
    Recall,
    Stop,
    TreatmentState,
    WaitingFact,
    prescription_field,
    treatment_field,
    waiting_field,
)
from services.medication_list.fold.stopping import stop_in_force, stops_in_force

LEVEL_5 = 7
"""Characters of an ATC code that names one substance."""


def by(source: Source) -> By:
    """Who a source is, as the list keeps it."""
    return By(source.organisation, source.role, source.person)


def is_same_prescriber(one: By, other: By) -> bool:
    """The same person; where a person is not named on both sides, the same organisation."""
    if one.person and other.person:
        return one.person == other.person
    return one.organisation == other.organisation


def wait(draft: Draft, awaited: str, event: Event[Body], flag: Flag) -> Verdict:
    """A fact about something not seen yet waits for it, by its field: applied, and flagged until it arrives."""
    keep_waiting(draft, awaited, event)
    return applied(flag)


def keep_waiting(draft: Draft, awaited: str, event: Event[Body]) -> None:
    """In the order in which they came to wait there: a reversal that overtook its hand-out stays behind it."""
    waiting = draft.waiting(awaited)
    fact = WaitingFact(event, draft.place, draft.digest)
    draft.put(waiting_field(awaited), replace(waiting, facts=(*waiting.facts, fact)))


def stop_of(event: Event[TreatmentDiscontinued], place: int) -> Stop:
    """The stop that an event reports, as the treatment remembers it."""
    body = event.body
    return Stop(body.at_ms, place, body.reason, by(event.source), note=body.note)


def with_recall(prescription: PrescriptionState, recall: Recall) -> PrescriptionState:
    """The prescription with one more recall, in log order."""
    recalls = tuple(sorted((*prescription.recalls, recall), key=lambda each: each.place))
    return replace(prescription, recalls=recalls)


def tell_of_recall(
    draft: Draft, event: Event[Body], prescription_id: str, prescription: PrescriptionState, reason: str
) -> None:
    """Tell the issuer (when another recalled), the holder and the bound pharmacy."""
    about = {"prescription": prescription_id, "reason": reason, "by": event.source.organisation}
    if not is_same_prescriber(prescription.issuer, by(event.source)):
        draft.notify(NoticeKind.RECALLED_BY_OTHER, prescription.issuer.organisation, event, **about)
    holder = prescription.claim.pharmacy if prescription.claim else None
    if holder:
        draft.notify(NoticeKind.RECALLED_WHILE_HELD, holder, event, **about)
    dispatch = prescription.dispatch
    if dispatch and dispatch.bound and dispatch.pharmacy != holder and event.received_at_ms < dispatch.lapses_at_ms:
        draft.notify(NoticeKind.RECALLED_WHILE_DISPATCHED, dispatch.pharmacy, event, **about)


def close(draft: Draft, event: Event[Body], prescription_id: str, recall: Recall) -> None:
    """A replacement or stop closes a known prescription. What is closed already gets the closer without notice."""
    prescription = draft.prescription(prescription_id)
    assert prescription is not None, "only known prescriptions are open"
    is_decided = _is_decided_before(prescription.recalls, recall, event.received_at_ms)
    if is_decided and not _happened_first(recall, prescription.recalls):
        return
    is_in_effect, death = recall.from_ms <= event.received_at_ms, draft.meta().death
    # A death recalled it already, and whoever must know was told then: a second recall is no second notice.
    is_news = is_in_effect and not is_decided and death is None
    if is_news and status(prescription, death, event.received_at_ms) in "EU":
        tell_of_recall(draft, event, prescription_id, prescription, recall.reason)
    moved = draft.move_version()
    draft.put(prescription_field(prescription_id), replace(with_recall(prescription, recall), moved=moved))


def _is_decided_before(recalls: Iterable[Recall], recall: Recall, now_ms: int = 0) -> bool:
    """Whether one before it in the log is in effect already, or will be no later: then this one never comes to decide."""
    return any(each.from_ms <= max(recall.from_ms, now_ms) for each in recalls if each.place <= recall.place)


def _happened_first(recall: Recall, known: Iterable[Recall]) -> bool:
    """Whether a replacement, in the world, closed before all that the log knew before it: hand-outs are flagged by that.

    Of stops the treatment remembers each. A withdrawal is flagged by itself, and hides no replacement.
    """
    return recall.replaced_by is not None and all(
        _counts_from_ms(recall) < _counts_from_ms(each) for each in known if each.reason != "withdrawn"
    )


def _counts_from_ms(recall: Recall) -> int:
    """The first instant at which a hand-out is one after the recall."""
    return max(recall.at_ms + 1, recall.from_ms)


# --- Issued ------------------------------------------------------------------------------------------------------


def prescription_issued(draft: Draft, event: Event[PrescriptionIssued]) -> Verdict:
    """A new prescription: closed by what was signed or stopped after it, closing what was signed before it."""
    issued = event.body
    treatment = draft.treatment(issued.treatment) or _brought_by(draft, issued)
    flags: list[Flag] = []
    if _is_other_substance(treatment.atc, issued.medication.atc):
        flags.append(Flag.SUBSTANCE_CHANGED)
    stop = stop_in_force(treatment)
    if stop is not None and all(each.at_ms <= issued.issued_at_ms for each in stops_in_force(treatment)):
        flags.append(Flag.PRESCRIBED_AFTER_DISCONTINUATION)
        if not is_same_prescriber(stop.by, by(event.source)):
            about = {"prescription": issued.prescription, "by": event.source.organisation}
            draft.notify(NoticeKind.PRESCRIBED_AFTER_DISCONTINUATION, stop.by.organisation, event, **about)
    flags += _renew_named(draft, event)
    newer = _newer_signed(draft, event, treatment)
    still_open = _close_older(draft, event, treatment, is_late=newer is not None)
    recalls = _recalls_on_arrival(draft, event, treatment, newer or {})
    codes = tuple(sorted(flag.code for flag in flags))
    prescription = replace(_on_its_terms(draft, event), recalls=recalls, flags=codes, moved=draft.move_version())
    draft.put(prescription_field(issued.prescription), prescription)
    opened = OpenPrescription(issued.prescription, issued.issued_at_ms, issued.series_id)
    treatment = replace(treatment, open=(*still_open, opened), moved=draft.move_version())
    draft.put(treatment_field(issued.treatment), _with_newest(treatment, issued))
    return applied(*flags)


def tell_of_arriving_recalled(draft: Draft, event: Event[PrescriptionIssued]) -> None:
    """The issuer learns that what it signed was recalled before it came, by another or by the patient's death.

    Told once what waited has taken effect: what a hand-out had completed before, a stop or a death recalls no more.
    """
    prescription, death, now_ms = draft.prescription(event.body.prescription), draft.meta().death, event.received_at_ms
    assert prescription is not None, "it was put just now"
    if death is None and not prescription.recalls:
        return
    recalls = [each for each in prescription.recalls if each.from_ms <= now_ms]
    if death is not None:
        recalls.append(Recall(death.place, "death", death.at_ms, 0, death.by))
    first = min(recalls, key=lambda each: each.place, default=None)
    if first is None or is_same_prescriber(first.by, by(event.source)):
        return
    if first.is_own or status(prescription, death, now_ms) == "T":
        about = {"prescription": event.body.prescription, "reason": first.reason, "by": first.by.organisation}
        draft.notify(NoticeKind.RECALLED_BY_OTHER, event.source.organisation, event, **about)


def _is_other_substance(before: str | None, now: str | None) -> bool:
    return before is not None and now is not None and len(before) == len(now) == LEVEL_5 and before != now


def _brought_by(draft: Draft, issued: PrescriptionIssued) -> TreatmentState:
    """The treatment that a prescription makes known, with the stops that waited for it: they came before."""
    stops = [
        stop_of(cast("Event[TreatmentDiscontinued]", fact.event), fact.offset)
        for fact in draft.waiting(treatment_field(issued.treatment)).facts
        if isinstance(fact.event.body, TreatmentDiscontinued)
    ]
    return TreatmentState("prescribed", stops=tuple(stops))


def _signed_after(at_ms: int, prescription: str, other_at_ms: int, other: str) -> bool:
    """By the time of signing; equal: the greater id."""
    return (at_ms, prescription) > (other_at_ms, other)


def _same_series(one: str | None, other: str | None) -> bool:
    """Staged prescriptions of one series do not replace each other."""
    return one is not None and one == other


def earliest_ms(issued: PrescriptionIssued) -> int:
    """The instant from which it may be dispensed; 0: at once."""
    return starts_ms(issued.earliest_dispense) if issued.earliest_dispense else 0


def _replacement(draft: Draft, event: Event[PrescriptionIssued]) -> Recall:
    issued, from_ms = event.body, earliest_ms(event.body)
    return Recall(draft.place, "renew", issued.issued_at_ms, from_ms, by(event.source), issued.prescription)


def _of_treatment(draft: Draft, treatment: str) -> dict[str, PrescriptionState]:
    """Every known prescription of it, in the order of ids: fields come in any order, and notices go out in this one.

    Only what arrives late asks: it takes the whole patient to be read.
    """
    return {
        field.removeprefix("rx:"): value
        for field, value in sorted(draft.everything().items())
        if isinstance(value, PrescriptionState) and value.treatment == treatment
    }


def _newer_signed(
    draft: Draft, event: Event[PrescriptionIssued], treatment: TreatmentState
) -> dict[str, PrescriptionState] | None:
    """What was signed after it and is here already; None unless it arrives late."""
    issued = event.body
    mine = issued.issued_at_ms, issued.prescription
    if treatment.newest is None or _signed_after(*mine, treatment.newest_at_ms, treatment.newest):
        return None
    known = _of_treatment(draft, issued.treatment)
    return {rx: each for rx, each in known.items() if _signed_after(each.issued_at_ms, rx, *mine)}


def _close_older(
    draft: Draft, event: Event[PrescriptionIssued], treatment: TreatmentState, *, is_late: bool
) -> tuple[OpenPrescription, ...]:
    """Recalls what was signed before; returns what a later event may still have to close.

    What comes in order need not look at what is closed for good: whatever was signed later takes effect later in the
    world too. What comes late may have been the first to replace it, and looks at every older one.
    """
    issued, recall = event.body, _replacement(draft, event)
    older = treatment.open
    if is_late:
        known = _of_treatment(draft, issued.treatment).items()
        older = tuple(OpenPrescription(rx, each.issued_at_ms, each.series) for rx, each in known)
    newest_ms = max(treatment.newest_at_ms, issued.issued_at_ms)
    closed_for_good = set()
    for each in older:
        is_older = _signed_after(issued.issued_at_ms, issued.prescription, each.issued_at_ms, each.prescription)
        if not is_older or _same_series(issued.series_id, each.series):
            continue
        close(draft, event, each.prescription, recall)
        if _is_closed_for_good(draft, each.prescription, event.received_at_ms, newest_ms):
            closed_for_good.add(each.prescription)
    return tuple(each for each in treatment.open if each.prescription not in closed_for_good)


def _is_closed_for_good(draft: Draft, prescription_id: str, now_ms: int, newest_ms: int) -> bool:
    """Whether nothing that is signed after the newest one can decide about it, or close it earlier in the world."""
    prescription = draft.prescription(prescription_id)
    assert prescription is not None, "only known prescriptions are open"
    is_in_effect = any(each.from_ms <= now_ms for each in prescription.recalls)
    return is_in_effect and any(
        _counts_from_ms(each) <= newest_ms + 1 for each in prescription.recalls if each.reason != "withdrawn"
    )


def _renew_named(draft: Draft, event: Event[PrescriptionIssued]) -> list[Flag]:
    """`renews` recalls what it names in whichever treatment; flagged where that is another one, or not here yet."""
    issued = event.body
    if issued.renews is None or issued.renews == issued.prescription:
        return []
    renewed = draft.prescription(issued.renews)
    if renewed is None:
        awaited = prescription_field(issued.renews)
        waiting = draft.waiting(awaited)
        replacements = (*waiting.replacements, _replacement(draft, event))
        draft.put(waiting_field(awaited), replace(waiting, replacements=replacements))
        return [Flag.PRESCRIPTION_UNKNOWN]
    is_elsewhere = renewed.treatment != issued.treatment
    if (
        is_elsewhere
        or not _signed_after(issued.issued_at_ms, issued.prescription, renewed.issued_at_ms, issued.renews)
        or _same_series(issued.series_id, renewed.series)
    ):
        close(draft, event, issued.renews, _replacement(draft, event))
    return [Flag.RENEWS_OTHER_TREATMENT] if is_elsewhere else []


def _recalls_on_arrival(
    draft: Draft,
    event: Event[PrescriptionIssued],
    treatment: TreatmentState,
    newer_signed: Mapping[str, PrescriptionState],
) -> tuple[Recall, ...]:
    """What closes it as it arrives: newer ones already here, a stop after its signing, renewals that named it."""
    issued = event.body
    waited = draft.waiting(prescription_field(issued.prescription))
    recalls = list(waited.replacements)
    for renewing in recalls:
        _name_renewed(draft, renewing.replaced_by, issued.treatment)
    named = {recall.replaced_by for recall in recalls}
    recalls.extend(
        Recall(newer.place, "renew", newer.issued_at_ms, newer.earliest_ms, newer.issuer, rx)
        for rx, newer in newer_signed.items()
        if rx not in named and not _same_series(newer.series, issued.series_id)
    )
    recalls.extend(
        Recall(stop.place, "withdrawn" if stop.withdrawn else "discontinued", stop.at_ms, 0, stop.by)
        for stop in treatment.stops
        if issued.issued_at_ms < stop.at_ms
    )
    recalls.extend(
        Recall(fact.offset, "other", fact.event.occurred_at_ms, 0, by(fact.event.source), is_own=True)
        for fact in waited.facts
        if isinstance(fact.event.body, PrescriptionRecalled)
    )
    kept: list[Recall] = []
    for recall in sorted(recalls, key=lambda each: each.place):
        if recall.is_own or not _is_decided_before(kept, recall) or _happened_first(recall, kept):
            kept.append(recall)
    # Its own recalls waited for it, and take effect right after it.
    return tuple(each for each in kept if not each.is_own)


def _name_renewed(draft: Draft, renewing: str | None, treatment: str) -> None:
    """What a renewal named has come: it is not unknown any more, and may prove to be of another treatment."""
    prescription = draft.prescription(renewing) if renewing else None
    if renewing and prescription is not None:
        flags = set(prescription.flags) - {Flag.PRESCRIPTION_UNKNOWN.code}
        if prescription.treatment != treatment:
            flags.add(Flag.RENEWS_OTHER_TREATMENT.code)
        draft.put(prescription_field(renewing), replace(prescription, flags=tuple(sorted(flags))))


def _on_its_terms(draft: Draft, event: Event[PrescriptionIssued]) -> PrescriptionState:
    issued = event.body
    unit, amount, content = counting_unit(issued)
    product = issued.medication.product
    return PrescriptionState(
        treatment=issued.treatment,
        place=draft.place,
        issued_at_ms=issued.issued_at_ms,
        issuer=by(event.source),
        valid_until_ms=ended_ms(issued.valid_until),
        earliest_ms=earliest_ms(issued),
        unit=unit,
        amount=amount,
        refills=issued.refills,
        strength=issued.medication.strength,
        item_number=getattr(product, "item_number", None),
        package_content=content,
        series=issued.series_id,
        multidose=issued.multidose,
        substitution_reserved=issued.substitution_reserved,
        is_course=issued.use == "course",
        dosing_end_ms=dosing_end_ms(issued.dosing),
    )


def _with_newest(treatment: TreatmentState, issued: PrescriptionIssued) -> TreatmentState:
    """The entry shows its newest-signed prescription."""
    if treatment.newest is not None and not _signed_after(
        issued.issued_at_ms, issued.prescription, treatment.newest_at_ms, treatment.newest
    ):
        return treatment
    return replace(
        treatment,
        kind="prescribed",
        newest=issued.prescription,
        newest_at_ms=issued.issued_at_ms,
        atc=issued.medication.atc,
        use=issued.use,
    )


def dosing_end_ms(dosing: Dosing) -> int:
    """The first instant after the last period of a dosing: a course ends then. 0: no known end."""
    ends = [period.end for period in dosing.periods]
    if not ends or None in ends:
        return 0
    return max(ended_ms(end) for end in ends if end is not None)


# --- Recalled ----------------------------------------------------------------------------------------------------

MARKED = ("answer", "marked_with_dispenser")
ALREADY_DISPENSED = ("answer", "already_dispensed")
ALREADY_RECALLED = ("answer", "already_recalled")
EXPIRED = ("answer", "expired")
RECALLED = ("answer", "recalled")


def prescription_recalled(draft: Draft, event: Event[PrescriptionRecalled]) -> Verdict:
    """A recall closes; while held it is shown to the holder as a flag. The answer says which it was."""
    prescription_id, reason = event.body.prescription, event.body.reason
    prescription = draft.prescription(prescription_id)
    if prescription is None:
        return wait(draft, prescription_field(prescription_id), event, Flag.PRESCRIPTION_UNKNOWN)
    verdict = _verdict_on_recall(prescription, draft.meta().death, event.received_at_ms, draft.place)
    is_waiting = draft.place != draft.offset
    if Flag.ALREADY_RECALLED not in verdict.flags and not is_waiting:
        tell_of_recall(draft, event, prescription_id, prescription, reason)
    flags = prescription.flags
    if Flag.RECALLED_AFTER_COMPLETION in verdict.flags:
        flags = tuple(sorted({*flags, Flag.RECALLED_AFTER_COMPLETION.code}))
    recall = Recall(draft.place, reason, event.occurred_at_ms, 0, by(event.source), is_own=True)
    moved = draft.move_version()
    draft.put(prescription_field(prescription_id), replace(with_recall(prescription, recall), flags=flags, moved=moved))
    return verdict


def _verdict_on_recall(prescription: PrescriptionState, death: Death | None, now_ms: int, place: int) -> Verdict:
    """Of a recall at that place in the log: what came after it, while it waited, is nothing to it."""
    if first_recall(prescription, death, now_ms) < place:
        return applied(Flag.ALREADY_RECALLED, named=ALREADY_RECALLED)
    match status(prescription, death, now_ms):
        case "R":
            return applied(Flag.RECALLED_AFTER_COMPLETION, named=ALREADY_DISPENSED)
        case "U":
            return applied(Flag.RECALLED, named=MARKED)
        case "F":
            return applied(named=EXPIRED)
        case _:
            return applied(named=RECALLED)
