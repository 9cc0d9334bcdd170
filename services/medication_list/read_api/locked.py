"""What a pharmacy is not shown: locked prescriptions that it does not hold, was not sent and has not dispensed."""

from collections.abc import Collection, Iterable

from msgspec import Struct
from msgspec.structs import replace

from schemas.events import Body
from schemas.medication_list import MedicationList, ShownPrescription, ShownTreatment
from services.medication_list.fold.state import PrescriptionState
from services.medication_list.read_api.view import Fields, show_prescription

PHARMACISTS = frozenset({"pharmacist"})
"""The roles that find a locked prescription by its reference number alone."""


class Withheld(Struct, frozen=True):
    """What is not shown: prescriptions, treatments of which nothing is left to show, and single events."""

    prescriptions: frozenset[str] = frozenset()
    treatments: frozenset[str] = frozenset()
    offsets: frozenset[int] = frozenset()
    """In the history: where a prescription came whose number is another patient's."""

    def is_about(self, body: Body) -> bool:
        """Whether an event names any of it."""
        named = (getattr(body, name, None) for name in ("prescription", "renews"))
        return any(each in self.prescriptions for each in named) or getattr(body, "treatment", None) in self.treatments


def withheld_from(shown: MedicationList, pharmacy: str) -> Withheld:
    """What a pharmacy does not see of a list: what the patient locked, unless this pharmacy is involved.

    An entry stands for what is prescribed now: where that is locked, the older ones do not show it.
    """
    hidden: set[str] = set()
    without: set[str] = set()
    for entry in (*shown.treatments, *shown.other_prescriptions):
        locked = [each for each in entry.prescriptions if is_withheld(each, pharmacy)]
        hidden.update(each.prescription for each in locked)
        tells = {each.prescription for each in entry.prescriptions[:1]}
        tells |= {each.prescription for each in entry.prescriptions if each.status in "EU"}
        if not tells.isdisjoint(each.prescription for each in locked):
            without.add(entry.treatment)
    return Withheld(frozenset(hidden), frozenset(without))


def is_withheld(prescription: ShownPrescription, pharmacy: str) -> bool:
    """Whether the patient locked it, and this pharmacy is not involved."""
    return prescription.issued.locked and not _knows(pharmacy, prescription)


def _knows(pharmacy: str, prescription: ShownPrescription) -> bool:
    """Whether it was sent there, is held there, or was dispensed there."""
    parties = (prescription.holder, prescription.dispatched_to)
    return pharmacy in parties or any(each.pharmacy == pharmacy for each in prescription.hand_outs)


def withheld_of_all(fields: Fields, at_ms: int, pharmacy: str, offsets: frozenset[int] = frozenset()) -> Withheld:
    """The same for everything ever prescribed, for the history: a treatment is withheld with any of its prescriptions."""
    found: dict[str, str] = {}
    for name, state in fields.items():
        if not isinstance(state, PrescriptionState):
            continue
        prescription = name.removeprefix("rx:")
        shown = show_prescription(fields, prescription, at_ms)
        if shown is not None and is_withheld(shown, pharmacy):
            found[prescription] = state.treatment
    return Withheld(frozenset(found), frozenset(found.values()), offsets)


def without(shown: MedicationList, withheld: Withheld) -> MedicationList:
    """The list as far as it is shown; the rest of it is unchanged."""
    if not withheld.prescriptions:
        return shown
    return replace(
        shown,
        treatments=tuple(_left(shown.treatments, withheld)),
        other_prescriptions=tuple(_left(shown.other_prescriptions, withheld)),
    )


def _left(entries: Iterable[ShownTreatment], withheld: Withheld) -> Iterable[ShownTreatment]:
    for entry in entries:
        if entry.treatment not in withheld.treatments:
            yield _without_hidden(entry, withheld.prescriptions)


def _without_hidden(entry: ShownTreatment, hidden: Collection[str]) -> ShownTreatment:
    left = tuple(each for each in entry.prescriptions if each.prescription not in hidden)
    if left == entry.prescriptions:
        return entry
    standing = [each for shown in left for each in shown.hand_outs if not each.reversed]
    last = max(standing, key=lambda each: (each.handed_out_at_ms, each.dispense), default=None)
    return replace(entry, prescriptions=left, last_dispense=last)
