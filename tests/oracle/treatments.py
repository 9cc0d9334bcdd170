"""A treatment's state: stops, pauses, the dosing in force and the end of a course, from its events alone."""

from dataclasses import dataclass
from datetime import date

from schemas import events as ev
from tests.oracle.history import Chart, Entry, day, first, last, of
from tests.oracle.prescriptions import chain_of, issue_of


@dataclass(frozen=True, slots=True)
class Stop:
    """A discontinuation or a withdrawal, counted from its own time."""

    at_ms: int
    reason: str
    source: ev.Source
    note: str | None
    withdrawn: bool


@dataclass(frozen=True, slots=True)
class Basis:
    """What a treatment says of itself at a time: its prescription in force, or what was recorded."""

    body: ev.PrescriptionIssued | ev.TreatmentRecorded
    source: ev.Source
    at_ms: int
    position: int


def recorded(chart: Chart, treatment: str) -> Entry[ev.TreatmentRecorded] | None:
    """What was recorded without a prescription."""
    return first(of(chart, ("t", treatment), ev.TreatmentRecorded))


def is_known(chart: Chart, treatment: str) -> bool:
    """Whether a prescription or a recording of it was seen."""
    return recorded(chart, treatment) is not None or bool(chain_of(chart, treatment))


# --- Stops ------------------------------------------------------------------------------------------------------------


def stops_in_force(chart: Chart, treatment: str) -> list[Stop]:
    """The stops since it was last reinstated that are later than the newest-signed prescription, in log order."""
    found: list[Stop] = []
    for entry in chart.about.get(("t", treatment), ()):
        match entry.event.body:
            case ev.TreatmentDiscontinued() as body:
                source = entry.event.source
                found.append(Stop(body.at_ms, body.reason, source, body.note, withdrawn=False))
            case ev.TreatmentWithdrawn() as body:
                at_ms, source = entry.occurred_at_ms, entry.event.source
                found.append(Stop(at_ms, body.reason, source, None, withdrawn=True))
            case ev.TreatmentReinstated():
                found = []
            case _:
                pass
    newest = last(chain_of(chart, treatment))
    if newest is not None:
        found = [stop for stop in found if stop.at_ms > newest.body.issued_at_ms]
    return found


def shown_stop(chart: Chart, treatment: str) -> Stop | None:
    """The stop that stands for all: a withdrawal if there is one, else the first in the log (a second moves nothing)."""
    stops = stops_in_force(chart, treatment)
    return first(stop for stop in stops if stop.withdrawn) or first(stops)


# --- Pauses -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Pause:
    """A pause that was told and moved something, and when it was resumed, if it was."""

    entry: Entry[ev.TreatmentPaused]
    resumed_at_ms: int | None = None

    def covers(self, on: date) -> bool:
        """Whether that day is one of it."""
        body = self.entry.body
        return body.start <= on and (body.until is None or on <= body.until)

    def stands(self, on: date) -> bool:
        """Whether it is in force or to come, that day."""
        until = self.entry.body.until
        return self.resumed_at_ms is None and (until is None or on <= until)


def pauses(chart: Chart, treatment: str) -> list[Pause]:
    """Every pause that was one of its own, in log order."""
    found: list[Pause] = []
    for entry in chart.about.get(("t", treatment), ()):
        today = day(entry.event.received_at_ms)
        if isinstance(entry.event.body, ev.TreatmentPaused):
            if not _is_second(found, entry.event.body, today):
                found.append(Pause(entry))
        elif isinstance(entry.event.body, ev.TreatmentResumed):
            now = [pause for pause in found if pause.stands(today) and pause.covers(today)]
            for pause in now or _next_ones(found, today):
                pause.resumed_at_ms = entry.occurred_at_ms
    return found


def _next_ones(found: list[Pause], today: date) -> list[Pause]:
    """The one that comes next, of those that stand; none where none does."""
    return sorted((pause for pause in found if pause.stands(today)), key=lambda pause: pause.entry.body.start)[:1]


def _is_second(found: list[Pause], body: ev.TreatmentPaused, today: date) -> bool:
    """Whether today is paused already, or the day on which it begins: from today on; where it is over, its last day."""
    begins = max(body.start, today)
    if body.until is not None:
        begins = min(begins, body.until)
    return any(pause.resumed_at_ms is None and (pause.covers(today) or pause.covers(begins)) for pause in found)


def is_second_pause(chart: Chart, body: ev.TreatmentPaused, at_ms: int) -> bool:
    """Whether a pause that comes now moves nothing."""
    return _is_second(pauses(chart, body.treatment), body, day(at_ms))


def pause_of(chart: Chart, treatment: str, at_ms: int) -> Entry[ev.TreatmentPaused] | None:
    """The pause that stands: in force, the one told first; else the one that comes next."""
    found, on = pauses(chart, treatment), day(at_ms)
    in_force = [pause for pause in found if pause.stands(on) and pause.covers(on)]
    shown = first(in_force or _next_ones(found, on))
    return None if shown is None else shown.entry


def is_paused(chart: Chart, treatment: str, at_ms: int) -> bool:
    """Whether a pause is in force on the day of that instant, and nobody has ended it."""
    return any(pause.resumed_at_ms is None and pause.covers(day(at_ms)) for pause in pauses(chart, treatment))


def was_paused(chart: Chart, treatment: str, at_ms: int) -> bool:
    """Whether it was paused in the world at that instant, be the pause over or resumed now."""
    return any(
        pause.covers(day(at_ms)) and (pause.resumed_at_ms is None or at_ms < pause.resumed_at_ms)
        for pause in pauses(chart, treatment)
    )


# --- What it says -----------------------------------------------------------------------------------------------------


def basis_of(chart: Chart, treatment: str, at_ms: int) -> Basis | None:
    """The newest-signed prescription whose earliest date has come, else the newest-signed, else what was recorded."""
    chain = chain_of(chart, treatment)
    begun = [issue for issue in chain if (issue.body.earliest_dispense or date.min) <= day(at_ms)]
    head = last(begun) or last(chain)
    if head is not None:
        return Basis(head.body, head.event.source, head.body.issued_at_ms, head.position)
    told = recorded(chart, treatment)
    return None if told is None else Basis(told.body, told.event.source, told.occurred_at_ms, told.position)


def basis_of_prescription(issue: Entry[ev.PrescriptionIssued]) -> Basis:
    """What one prescription says of itself."""
    return Basis(issue.body, issue.event.source, issue.body.issued_at_ms, issue.position)


def changes_since(chart: Chart, treatment: str, basis: Basis) -> list[Entry[ev.TreatmentChanged]]:
    """The changes that happened after the signing, as they happened; what was recorded is signed never."""
    changes = sorted(of(chart, ("t", treatment), ev.TreatmentChanged), key=lambda entry: entry.time_and_place)
    if isinstance(basis.body, ev.TreatmentRecorded):
        return changes
    return [entry for entry in changes if entry.occurred_at_ms > basis.at_ms]


def dosing_of(chart: Chart, treatment: str, basis: Basis) -> tuple[ev.Dosing, ev.Source, int]:
    """The dosing in force, who set it, and when: a later change wins over the prescription's own."""
    changed = last(e for e in changes_since(chart, treatment, basis) if e.body.dosing is not None)
    if changed is not None and changed.body.dosing is not None:
        return changed.body.dosing, changed.event.source, changed.occurred_at_ms
    return basis.body.dosing, basis.source, basis.at_ms


def is_dosed_after(chart: Chart, treatment: str, signed_at_ms: int) -> bool:
    """Whether the dosing was changed after a prescription was signed, be it to the same again."""
    changes = of(chart, ("t", treatment), ev.TreatmentChanged)
    return any(entry.body.dosing is not None and entry.occurred_at_ms > signed_at_ms for entry in changes)


def indication_of(chart: Chart, treatment: str, basis: Basis) -> str | None:
    """The indication in force."""
    changed = [entry.body.indication_text for entry in changes_since(chart, treatment, basis)]
    return last(text for text in changed if text is not None) or basis.body.indication_text


def is_substitution_reserved(chart: Chart, treatment: str, basis: Basis, at_ms: int | None = None) -> bool:
    """Whether another product may not be handed out; at a time, as far as it was said by then."""
    changes = changes_since(chart, treatment, basis)
    by_then = [entry for entry in changes if at_ms is None or entry.occurred_at_ms <= at_ms]
    changed = [entry.body.substitution_reserved for entry in by_then]
    reserved = last(value for value in changed if value is not None)
    if reserved is not None:
        return reserved
    return isinstance(basis.body, ev.PrescriptionIssued) and basis.body.substitution_reserved


def administration_of(chart: Chart, treatment: str) -> str | None:
    """Who gives it: the latest word on it."""
    changes = sorted(of(chart, ("t", treatment), ev.TreatmentChanged), key=lambda entry: entry.time_and_place)
    changed = [entry.body.administration for entry in changes]
    return last(value for value in changed if value is not None)


def course_end(chart: Chart, treatment: str, basis: Basis) -> date | None:
    """The last day of a course; None for other use, and for a course without an end."""
    dosing, _, _ = dosing_of(chart, treatment, basis)
    ends = [period.end for period in dosing.periods]
    known = [end for end in ends if end is not None]
    return max(known) if basis.body.use == "course" and known and len(known) == len(ends) else None


def treatment_of(chart: Chart, rx: str) -> str | None:
    """The treatment of a prescription that was seen."""
    issue = issue_of(chart, rx)
    return None if issue is None else issue.body.treatment
