"""Treatments: recorded, changed, paused, stopped, resumed, and how they are really used."""

from msgspec.structs import replace

from schemas.events import (
    Body,
    Event,
    TreatmentChanged,
    TreatmentDiscontinued,
    TreatmentPaused,
    TreatmentRecorded,
    TreatmentReinstated,
    TreatmentResumed,
    TreatmentWithdrawn,
    UseReported,
)
from schemas.reasons import Flag, NoticeKind, Reason
from services.medication_list.fold.calendar import is_later, starts_ms
from services.medication_list.fold.judgement import APPLIED, Draft, Verdict, applied, refused
from services.medication_list.fold.prescribing import (
    by,
    close,
    dosing_end_ms,
    is_same_prescriber,
    stop_of,
    wait,
)
from services.medication_list.fold.state import (
    Pause,
    Recall,
    Reservation,
    Stop,
    TreatmentState,
    UseOfTreatment,
    prescription_field,
    treatment_field,
)
from services.medication_list.fold.stopping import covers, is_paused, is_stopped, is_withdrawn, standing_pause


def _put(draft: Draft, treatment_id: str, treatment: TreatmentState) -> Verdict:
    """Keep what moved on the list."""
    draft.put(treatment_field(treatment_id), replace(treatment, moved=draft.move_version()))
    return APPLIED


def treatment_recorded(draft: Draft, event: Event[TreatmentRecorded]) -> Verdict:
    """A treatment without a prescription of the chain. Where prescriptions have come already, they are what is shown."""
    recorded = event.body
    treatment = draft.treatment(recorded.treatment)
    if treatment is not None:
        return _put(draft, recorded.treatment, treatment)
    return _put(
        draft,
        recorded.treatment,
        TreatmentState(
            kind=recorded.kind,
            atc=recorded.medication.atc,
            use=recorded.use,
            dosing_end_ms=dosing_end_ms(recorded.dosing),
        ),
    )


def treatment_changed(draft: Draft, event: Event[TreatmentChanged]) -> Verdict:
    """Dosing, indication, substitution or administration: what is named changes, the rest stays.

    The latest in the world's order wins, as of prescriptions the newest-signed.
    """
    change = event.body
    treatment = draft.treatment(change.treatment)
    if treatment is None:
        return refused(Reason.UNKNOWN)
    if is_stopped(treatment):
        return refused(Reason.DISCONTINUED)
    at_ms = event.occurred_at_ms
    if change.dosing is not None and not is_later(treatment.dosed_at_ms, at_ms):
        treatment = replace(treatment, dosed_at_ms=at_ms, dosing_end_ms=dosing_end_ms(change.dosing))
    if change.indication_text is not None and not is_later(treatment.indicated_at_ms, at_ms):
        treatment = replace(treatment, indication_text=change.indication_text, indicated_at_ms=at_ms)
    if change.substitution_reserved is not None:
        known = (*treatment.reservations, Reservation(at_ms, change.substitution_reserved))
        treatment = replace(treatment, reservations=tuple(sorted(known, key=lambda each: each.at_ms)))
    if change.administration is not None and not is_later(treatment.administered_at_ms, at_ms):
        treatment = replace(treatment, administration=change.administration, administered_at_ms=at_ms)
    return _put(draft, change.treatment, treatment)


def treatment_paused(draft: Draft, event: Event[TreatmentPaused]) -> Verdict:
    """A second pause changes nothing: one reported while paused, or from a day already paused. Any other is separate."""
    body = event.body
    treatment = draft.treatment(body.treatment)
    if treatment is None:
        return wait(draft, treatment_field(body.treatment), event, Flag.TREATMENT_UNKNOWN)
    is_waiting = draft.place != draft.offset
    if is_stopped(treatment) and not is_waiting:
        return refused(Reason.DISCONTINUED)
    pause = Pause(body.start, body.until, body.reason, by(event.source))
    now_ms = event.received_at_ms
    if is_paused(treatment, now_ms) or is_paused(treatment, _begins_ms(pause, now_ms)):
        return applied(Flag.ALREADY_PAUSED)
    return _put(draft, body.treatment, replace(treatment, pauses=(*treatment.pauses, pause)))


def _begins_ms(pause: Pause, now_ms: int) -> int:
    """From when it adds something: its first day, or now if that has passed; of one that is over, its last day."""
    begins_ms = max(starts_ms(pause.start), now_ms)
    return begins_ms if pause.until is None else min(begins_ms, starts_ms(pause.until))


def treatment_resumed(draft: Draft, event: Event[TreatmentResumed]) -> Verdict:
    """Ends the pause in force; where there is none, the next one, before it begins."""
    treatment, now_ms = draft.treatment(event.body.treatment), event.received_at_ms
    if treatment is None:
        return refused(Reason.UNKNOWN)
    if is_stopped(treatment):
        return refused(Reason.DISCONTINUED)
    ended = standing_pause(treatment, now_ms)
    if ended is None:
        return refused(Reason.NOT_PAUSED)
    pauses = tuple(
        replace(each, resumed_at_ms=event.occurred_at_ms) if each is ended or covers(each, now_ms) else each
        for each in treatment.pauses
    )
    return _put(draft, event.body.treatment, replace(treatment, pauses=pauses))


def treatment_discontinued(draft: Draft, event: Event[TreatmentDiscontinued]) -> Verdict:
    """A stop counts from its own time: it recalls what was signed before it, and is remembered."""
    body = event.body
    treatment = draft.treatment(body.treatment)
    if treatment is None:
        return wait(draft, treatment_field(body.treatment), event, Flag.TREATMENT_UNKNOWN)
    if any(stop.place == draft.place for stop in treatment.stops):
        return APPLIED  # it waited, and the prescription that brought its treatment took it into account
    stop = stop_of(event, draft.place)
    if is_stopped(treatment):
        draft.put(treatment_field(body.treatment), replace(treatment, stops=(*treatment.stops, stop)))
        return applied(Flag.ALREADY_DISCONTINUED)
    return _stop(draft, event, body.treatment, treatment, stop)


def _stop(draft: Draft, event: Event[Body], treatment_id: str, treatment: TreatmentState, stop: Stop) -> Verdict:
    """The stop, or the withdrawal, takes effect; flagged if the treatment continues nevertheless."""
    treatment = _stopped_by(draft, event, treatment, stop)
    _put(draft, treatment_id, treatment)
    if is_stopped(treatment):
        return APPLIED
    _tell_that_it_goes_on(draft, event, treatment)
    return applied(Flag.PRESCRIBED_AFTER_DISCONTINUATION)


def _tell_that_it_goes_on(draft: Draft, event: Event[Body], treatment: TreatmentState) -> None:
    """Somebody prescribed after this stop, before it was reported: all see it. The stop has the flag."""
    newest = draft.prescription(treatment.newest) if treatment.newest else None
    if treatment.newest is None or newest is None:
        return
    flags = tuple(sorted({*newest.flags, Flag.PRESCRIBED_AFTER_DISCONTINUATION.code}))
    draft.put(prescription_field(treatment.newest), replace(newest, flags=flags))
    if not is_same_prescriber(newest.issuer, by(event.source)):
        about = {"prescription": treatment.newest, "by": newest.issuer.organisation}
        draft.notify(NoticeKind.PRESCRIBED_AFTER_DISCONTINUATION, event.source.organisation, event, **about)


def treatment_withdrawn(draft: Draft, event: Event[TreatmentWithdrawn]) -> Verdict:
    """Registered by mistake: recalls like a stop; whether it is hidden is for the reader to compute."""
    body = event.body
    treatment = draft.treatment(body.treatment)
    if treatment is None:
        return refused(Reason.UNKNOWN)
    stop = Stop(event.occurred_at_ms, draft.place, body.reason, by(event.source), withdrawn=True)
    if is_withdrawn(treatment):
        draft.put(treatment_field(body.treatment), replace(treatment, stops=(*treatment.stops, stop)))
        return applied(Flag.ALREADY_WITHDRAWN)
    return _stop(draft, event, body.treatment, treatment, stop)


def _stopped_by(draft: Draft, event: Event[Body], treatment: TreatmentState, stop: Stop) -> TreatmentState:
    """Recalls what was signed before the stop; returns the treatment with the stop remembered."""
    reason = "withdrawn" if stop.withdrawn else "discontinued"
    recall = Recall(draft.place, reason, stop.at_ms, 0, stop.by)
    for each in treatment.open:
        # It stays open: what was signed between it and the stop may still come, and have replaced it first.
        if each.issued_at_ms < stop.at_ms:
            close(draft, event, each.prescription, recall)
    return replace(treatment, stops=(*treatment.stops, stop))


def treatment_reinstated(draft: Draft, event: Event[TreatmentReinstated]) -> Verdict:
    """Takes the stop back. The prescriptions that it recalled stay recalled."""
    treatment = draft.treatment(event.body.treatment)
    if treatment is None:
        return refused(Reason.UNKNOWN)
    if not is_stopped(treatment):
        return refused(Reason.NOT_DISCONTINUED)
    return _put(draft, event.body.treatment, replace(treatment, reinstated_place=draft.place))


def use_reported(draft: Draft, event: Event[UseReported]) -> Verdict:
    """Stands beside the dosing, never in it; the latest by its own time is shown."""
    body = event.body
    treatment = draft.treatment(body.treatment)
    if treatment is None:
        return wait(draft, treatment_field(body.treatment), event, Flag.TREATMENT_UNKNOWN)
    if treatment.reported_use is not None and treatment.reported_use.at_ms > event.occurred_at_ms:
        return _put(draft, body.treatment, treatment)
    use = UseOfTreatment(body.use, body.by, event.occurred_at_ms, body.note)
    return _put(draft, body.treatment, replace(treatment, reported_use=use))
