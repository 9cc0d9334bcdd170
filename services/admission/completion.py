"""Fills in what a sender may leave out, the same way each time: a repeated message becomes the same event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID, uuid5

from schemas import events
from schemas.events import Body
from services.admission.read_token import ReadToken
from services.admission.validity import valid_until

EVENTS: Final = UUID("6f0f3b5e-9d0c-5b0e-8a53-6d656463686e")
"""The namespace of event ids, and so of all ids that services make. Changing it would make every retry a new event."""

NAMED_BY_THE_SERVICE: Final[dict[type, str]] = {
    events.PrescriptionIssued: "prescription",
    events.TreatmentRecorded: "treatment",
    events.AllergyRecorded: "allergy",
    events.ClaimRequested: "claim",
    events.MedicationDispensed: "dispense",
    events.DispenseReversed: "reversal",
    events.DispatchRequested: "dispatch",
    events.RenewalRequested: "request",
}
"""The natural id that a sender may leave out, by what it names. It is derived from the event id and the patient."""


def event_id_of(system: str, key: str, index: int = 0) -> str:
    """The id of the `index`-th event of what a system sent under its own key (idempotency key or message id)."""
    return str(uuid5(EVENTS, f"{system}\n{key}\n{index}"))


def is_timed(struct: type[Body], given: Mapping[str, Any]) -> bool:
    """Whether the time of the event becomes content: the sender left a signing or a stop without its own."""
    return (struct is events.PrescriptionIssued and given["issued_at_ms"] is None) or (
        struct is events.TreatmentDiscontinued and given["at_ms"] is None
    )


def completed(
    struct: type[Body],
    given: Mapping[str, Any],
    *,
    event_id: str,
    patient: str,
    occurred_at_ms: int,
    token: ReadToken | None = None,
) -> Body:
    """The body of the event, with every field that the contract requires. `patient`: the pseudonym."""
    fields = dict(given)
    natural_id = NAMED_BY_THE_SERVICE.get(struct)
    if natural_id is not None and fields[natural_id] is None:
        fields[natural_id] = _natural_id(natural_id, event_id, patient)
    if struct is events.PrescriptionIssued:
        fields |= _of_a_prescription(fields, occurred_at_ms)
    if struct is events.TreatmentDiscontinued and fields["at_ms"] is None:
        fields["at_ms"] = occurred_at_ms
    if token is not None:
        fields |= {"version": token.confirmed_version, "read_at_ms": token.read_at_ms}
    return struct(**fields)


def _natural_id(name: str, event_id: str, patient: str) -> str:
    """What a sender left to us to name: the same for a repetition, and another for another patient.

    A key that is used again for another patient is turned away by the process that remembers it, and by no other copy of
    the service; the fold sees one patient at a time. Of the event id alone both patients would get one prescription, and
    the second one would be applied and hidden as a number conflict.
    """
    return str(uuid5(UUID(event_id), f"{name}\n{patient}"))


def _of_a_prescription(fields: Mapping[str, Any], occurred_at_ms: int) -> dict[str, Any]:
    """Its treatment is a new one unless named; it was signed when it happened; it is valid as the policy says."""
    issued_at_ms = fields["issued_at_ms"] or occurred_at_ms
    return {
        "treatment": fields["treatment"] or str(uuid5(UUID(fields["prescription"]), "treatment")),
        "issued_at_ms": issued_at_ms,
        "valid_until": fields["valid_until"] or valid_until(fields["medication"], issued_at_ms),
    }
