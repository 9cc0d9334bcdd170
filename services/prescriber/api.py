"""The resources of the prescriber service: a table of resources with the event that each records."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI

from schemas import events
from schemas.medication_list import (
    RegisteredDeath,
    ShownAllergies,
    ShownMultidose,
    ShownPrescription,
    ShownReconciliation,
    ShownRenewalRequest,
    ShownTreatment,
)
from services.recording.app import OpenParts, create_app
from services.recording.routes import Write
from services.telemetry.traces import Traces

# fmt: off
WRITES: Final = (
    # Prescriptions: one, or an order of several that is checked whole and judged one by one.
    Write(path="/v1/prescriptions", records=events.PrescriptionIssued, lines="prescriptions", about=ShownPrescription),
    Write(path="/v1/prescriptions/{id}/recall", id_of="prescription", records=events.PrescriptionRecalled, about=ShownPrescription),
    Write(path="/v1/prescriptions/{id}/dispatch", id_of="prescription", records=events.DispatchRequested, about=ShownPrescription),
    Write(path="/v1/prescriptions/{id}/dispatch/withdraw", id_of="prescription", records=events.DispatchWithdrawn, about=ShownPrescription),
    # Treatments: what the patient takes, whether it was prescribed here or not.
    Write(path="/v1/treatments", records=events.TreatmentRecorded, about=ShownTreatment),
    Write(path="/v1/treatments/{id}/change", id_of="treatment", records=events.TreatmentChanged, about=ShownTreatment),
    Write(path="/v1/treatments/{id}/pause", id_of="treatment", records=events.TreatmentPaused, about=ShownTreatment),
    Write(path="/v1/treatments/{id}/resume", id_of="treatment", records=events.TreatmentResumed, about=ShownTreatment),
    Write(path="/v1/treatments/{id}/discontinue", id_of="treatment", records=events.TreatmentDiscontinued, about=ShownTreatment),
    Write(path="/v1/treatments/{id}/reinstate", id_of="treatment", records=events.TreatmentReinstated, about=ShownTreatment),
    Write(path="/v1/treatments/{id}/withdraw", id_of="treatment", records=events.TreatmentWithdrawn, about=ShownTreatment),
    Write(path="/v1/treatments/{id}/use", id_of="treatment", records=events.UseReported, about=ShownTreatment),
    # The list as a whole.
    Write(path="/v1/reconciliations", records=events.ListReconciled, about=ShownReconciliation),
    Write(path="/v1/allergies", records=events.AllergyRecorded, about=ShownAllergies),
    Write(path="/v1/allergies/{id}/refute", id_of="allergy", records=events.AllergyRefuted, about=ShownAllergies),
    Write(path="/v1/multidose", records=events.MultidoseAssigned, about=ShownMultidose),
    Write(path="/v1/multidose/end", records=events.MultidoseEnded, about=ShownMultidose),
    Write(path="/v1/renewal-requests", records=events.RenewalRequested, about=ShownRenewalRequest),
    Write(path="/v1/renewal-requests/{id}/decline", id_of="request", records=events.RenewalDeclined, about=ShownRenewalRequest),
    Write(path="/v1/deaths", records=events.PatientDied, about=RegisteredDeath),
    Write(path="/v1/deaths/retract", records=events.DeathRetracted, about=RegisteredDeath),
)
# fmt: on


def prescriber_app(open_parts: OpenParts, traces: Traces | None = None) -> FastAPI:
    """The application of the prescriber service."""
    return create_app(title="Prescriber service", about=__doc__, writes=WRITES, open_parts=open_parts, traces=traces)
