"""How a report can contradict an earlier one under the same natural id."""

from decimal import Decimal
from typing import Final

from msgspec.structs import replace

from schemas.events import (
    AllergyRecorded,
    Body,
    ClaimRequested,
    DispatchRequested,
    DispenseReversed,
    MedicationDispensed,
    PrescriptionIssued,
    Quantity,
    TreatmentRecorded,
)

_ELSEWHERE: Final = "00000000-0000-4000-a000-000000000000"


def contradict(body: Body) -> Body | None:  # noqa: PLR0911  one line for each kind of report
    """The same natural id with other content, None where the body has no natural id of its own."""
    match body:
        case PrescriptionIssued():
            return replace(body, quantity=Quantity(value=body.quantity.value + 1, unit=body.quantity.unit))
        case MedicationDispensed():
            line = body.lines[0]
            more = replace(line, quantity=Quantity(value=line.quantity.value + Decimal(1), unit=line.quantity.unit))
            return replace(body, lines=(more, *body.lines[1:]))
        case ClaimRequested():
            return replace(body, prescription=_ELSEWHERE)
        case DispenseReversed():
            return replace(body, reason="En annen grunn enn først meldt")
        case TreatmentRecorded():
            return replace(body, indication_text="Mot noe annet enn først meldt")
        case AllergyRecorded() if not body.none_known:
            return replace(body, reaction="En annen reaksjon enn først meldt")
        case DispatchRequested():
            return replace(body, every=not body.every)
        case _:
            return None
