"""The resources of the pharmacy service: a table of resources with the event that each records; and the search."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI

from schemas import events
from schemas.medication_list import ShownPrescription
from services.pharmacy.search import router as search
from services.recording.answers import ClaimAnswer
from services.recording.app import OpenParts, create_app
from services.recording.routes import Write
from services.telemetry.traces import Traces

# fmt: off
WRITES: Final = (
    Write(path="/v1/claims", records=events.ClaimRequested, about=ClaimAnswer),
    Write(path="/v1/claims/{id}/abort", id_of="claim", records=events.ClaimAborted, about=ShownPrescription),
    Write(path="/v1/claims/{id}/release", id_of="claim", records=events.ClaimReleased, roles=frozenset({"operator"}), about=ShownPrescription),
    Write(path="/v1/dispenses", records=events.MedicationDispensed, about=ShownPrescription),
    Write(path="/v1/dispenses/{id}/reverse", id_of="dispense", records=events.DispenseReversed, about=ShownPrescription),
)
# fmt: on


def pharmacy_app(open_parts: OpenParts, traces: Traces | None = None) -> FastAPI:
    """The application of the pharmacy service."""
    return create_app(
        title="Pharmacy service", about=__doc__, writes=WRITES, open_parts=open_parts, more=(search,), traces=traces
    )
