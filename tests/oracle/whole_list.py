"""What stands for the whole patient: allergies, multi-dose, and the last confirmation."""

from dataclasses import dataclass

from schemas import events as ev
from tests.oracle.history import PATIENT, Chart, Entry, first, last, of


def allergy(chart: Chart, allergy_id: str) -> Entry[ev.AllergyRecorded] | None:
    """An allergy by its id."""
    return first(of(chart, ("allergy", allergy_id), ev.AllergyRecorded))


def is_refuted(chart: Chart, allergy_id: str) -> bool:
    """Whether it proved not to be one."""
    return bool(of(chart, ("allergy", allergy_id), ev.AllergyRefuted))


def was_shown(chart: Chart, allergy_id: str) -> bool:
    """Whether the list showed it until it was refuted: a none_known that a later record replaced was not."""
    recorded = allergy(chart, allergy_id)
    return recorded is not None and (
        not recorded.body.none_known or recorded is last(of(chart, PATIENT, ev.AllergyRecorded))
    )


def allergies(chart: Chart) -> list[Entry[ev.AllergyRecorded]]:
    """The allergies that stand, by id."""
    recorded = [entry for entry in of(chart, PATIENT, ev.AllergyRecorded) if not entry.body.none_known]
    standing = [entry for entry in recorded if not is_refuted(chart, entry.body.allergy)]
    return sorted(standing, key=lambda entry: entry.body.allergy)


def is_none_known(chart: Chart) -> bool:
    """Whether somebody asked and there is none: the last word recorded is that, and it was not refuted."""
    latest = last(of(chart, PATIENT, ev.AllergyRecorded))
    return latest is not None and latest.body.none_known and not is_refuted(chart, latest.body.allergy)


def allergy_status(chart: Chart) -> str:
    """recorded, none_known or not_asked."""
    if allergies(chart):
        return "recorded"
    return "none_known" if is_none_known(chart) else "not_asked"


@dataclass(frozen=True, slots=True)
class Multidose:
    """A doctor's assignment that stands, and the pharmacy that packs: None once it ended its own part."""

    assigned: Entry[ev.MultidoseAssigned]
    pharmacy: str | None


def multidose(chart: Chart) -> Multidose | None:
    """Who is responsible for machine-packed doses now, None when nobody is."""
    present: Multidose | None = None
    for entry in chart.about.get(PATIENT, ()):
        if isinstance(entry.event.body, ev.MultidoseAssigned):
            present = Multidose(entry, entry.event.body.pharmacy)
        elif isinstance(entry.event.body, ev.MultidoseEnded) and present is not None:
            by_doctor = entry.event.source.person == present.assigned.body.doctor
            present = None if by_doctor else Multidose(present.assigned, None)
    return present


def reconciled(chart: Chart) -> Entry[ev.ListReconciled] | None:
    """The last confirmation of the list."""
    return last(of(chart, PATIENT, ev.ListReconciled))
