"""Whether a pharmacy may hand out, and what it must know first."""

from schemas.reasons import Flag, Reason
from services.medication_list.fold.calendar import is_later
from services.medication_list.fold.standing import status_unheld
from services.medication_list.fold.state import Meta, PrescriptionState, TreatmentState
from services.medication_list.fold.stopping import is_paused, stop_in_force

MULTIDOSE = "multidose"
"""The administration by which a doctor has what is taken already multi-dose packed."""


def refusal_of_closed(
    prescription: PrescriptionState, treatment: TreatmentState, meta: Meta, now_ms: int, *, is_held: bool = False
) -> Reason | None:
    """Why nothing more is handed out: the treatment stopped, or the prescription is R, T or F. None while it is open.

    is_held: its holder may still hand out, whatever was recalled since; only a stopped treatment closes it.
    """
    stop = stop_in_force(treatment)
    if stop is not None:
        return Reason.WITHDRAWN if stop.withdrawn else Reason.DISCONTINUED
    if is_held:
        return None
    match status_unheld(prescription, meta.death, now_ms):
        case "R":
            return Reason.COMPLETED
        case "T":
            return Reason.RECALLED
        case "F":
            return Reason.EXPIRED
        case _:
            return None


def flags_for_pharmacy(
    prescription: PrescriptionState, treatment: TreatmentState, meta: Meta, pharmacy: str, now_ms: int
) -> list[Flag]:
    """What a pharmacy must know before it hands out."""
    flags = []
    if is_paused(treatment, now_ms):
        flags.append(Flag.TREATMENT_PAUSED)
    is_dosed_later = is_later(treatment.dosed_at_ms, prescription.issued_at_ms)
    dosing_end_ms = treatment.dosing_end_ms if is_dosed_later else prescription.dosing_end_ms
    if prescription.is_course and 0 < dosing_end_ms <= now_ms:
        flags.append(Flag.COURSE_ENDED)
    is_packed = prescription.multidose or treatment.administration == MULTIDOSE
    if is_packed and meta.multidose is not None and meta.multidose.pharmacy not in (None, pharmacy):
        flags.append(Flag.MULTIDOSE_ELSEWHERE)
    if meta.incomplete_since_ms:
        flags.append(Flag.LIST_INCOMPLETE)
    if is_dosed_later:
        flags.append(Flag.DOSING_CHANGED)
    return flags


def is_substitution_reserved(
    treatment: TreatmentState, signed_at_ms: int | None, at_ms: int, *, by_itself: bool
) -> bool:
    """Whether no other product might be handed out at that time: a change made after the signing wins.

    by_itself: whether the prescription says so. signed_at_ms: None where there is none.
    """
    changes = [
        each.reserved for each in treatment.reservations if is_later(each.at_ms, signed_at_ms) and each.at_ms <= at_ms
    ]
    return changes[-1] if changes else by_itself
