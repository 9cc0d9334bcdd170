"""Finds prescriptions for a pharmacy: a patient's, or the one with a reference number."""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple, cast

from schemas.medication_list import PrescriptionsPage, ShownPrescription
from services.admission.search_cursor import SearchPlace, cursor_of, place_after
from services.medication_list.fold.standing import status
from services.medication_list.fold.state import META, Meta, PrescriptionState, State
from services.medication_list.read_api.list_answer import standing
from services.medication_list.read_api.number_conflicts import NumberConflicts, PatientView
from services.medication_list.read_api.view import show_prescription

DISPENSABLE: Final = frozenset({"E", "U"})
_PREFIX: Final = "rx:"


class Search(NamedTuple):
    """What to look for. `every`: recalled, completed and expired ones too."""

    patient: str | None
    reference_number: str | None
    every: bool
    limit: int
    cursor: str | None


async def search(numbers: NumberConflicts, asked: Search, at_ms: int) -> PrescriptionsPage:
    """The first page after the cursor. Raises InvalidCursor, NotReadyError, StoreUnavailableError.

    A locked prescription is found through its reference number alone. That nothing has a number is told only where every
    partition of the view was asked for it.
    """
    after = place_after(asked.cursor) if asked.cursor is not None else None
    patient = asked.patient or await _owner(numbers, asked.reference_number)
    if patient is None:
        return PrescriptionsPage(())
    page = _page_of(await numbers.shown(patient), asked, after, at_ms)
    if not page.prescriptions:
        # Another's number would contradict the patient that was named, and whose it is may not be known now.
        await _owner(numbers, asked.reference_number)
    return page


async def _owner(numbers: NumberConflicts, reference_number: str | None) -> str | None:
    """Whose a number is, None if nobody's. Raises NotReadyError where that cannot be known now."""
    if reference_number is None:
        return None
    owner = await numbers.owner_of(reference_number)
    if owner.patient is None and owner.not_asked is not None:
        raise owner.not_asked
    return owner.patient


def _page_of(view: PatientView, asked: Search, after: SearchPlace | None, at_ms: int) -> PrescriptionsPage:
    stands = standing(view.found, view.fields)
    page: list[ShownPrescription] = []
    for prescription in _newest_first(view.fields, after, at_ms, every=asked.every):
        shown = show_prescription(view.fields, prescription, at_ms, view.flagged)
        if shown is not None and _is_found(shown, asked.reference_number):
            page.append(shown)
        if len(page) > asked.limit:
            last = page[asked.limit - 1]
            cursor = cursor_of(SearchPlace(last.issued.issued_at_ms, last.prescription))
            return PrescriptionsPage(tuple(page[: asked.limit]), cursor, *stands)
    return PrescriptionsPage(tuple(page), None, *stands)


def _is_found(shown: ShownPrescription, reference_number: str | None) -> bool:
    if reference_number is None:
        return not shown.issued.locked
    return shown.issued.reference_number == reference_number


def _newest_first(fields: Mapping[str, State], after: SearchPlace | None, at_ms: int, *, every: bool) -> Iterator[str]:
    death = (cast("Meta | None", fields.get(META)) or Meta()).death
    candidates = sorted(
        (
            (state.issued_at_ms, field.removeprefix(_PREFIX))
            for field, state in fields.items()
            if isinstance(state, PrescriptionState) and (every or status(state, death, at_ms) in DISPENSABLE)
        ),
        reverse=True,
    )
    return (prescription for at, prescription in candidates if after is None or (at, prescription) < after)
