"""A pharmacy looks for prescriptions: a patient's, or the one with a reference number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from msgspec import Struct
from pydantic import ValidationError

from schemas.fields import Line, Word
from schemas.medication_list import PrescriptionsPage
from schemas.reasons import DoorReason
from services.admission.door import Door, Person
from services.admission.errors import Finding, TurnedAway, findings_of
from services.admission.fields import AT_ONCE_UNLESS_SAID, PageSize
from services.admission.models import model_of, struct_of
from services.admission.rules import broken_rules, door_rule
from services.admission.search_cursor import InvalidCursor, place_after
from services.identity.national_id import NationalId, synthetic
from services.problems import PROBLEM_RESPONSES
from services.recording.caller import Caller, caller
from services.recording.outcomes import MedicationListClient
from services.recording.recorder import Recorder
from services.recording.routes import message_of
from services.serving.documents import asked_as, json_content, shown_as

router = APIRouter()


class Search(Struct, frozen=True, kw_only=True):
    """By patient, by reference number, or by both. `all`: what is recalled, completed or expired too."""

    patient: Person | None = None
    reference_number: Word | None = None
    all: bool = False
    limit: PageSize = AT_ONCE_UNLESS_SAID
    cursor: Line | None = None


@door_rule(Search)
def something_is_searched_by(patient: Person | None, reference_number: str | None) -> Iterator[Finding]:
    """A patient or a reference number: without both it would find nothing."""
    if patient is None and reference_number is None:
        yield Finding(("patient",), DoorReason.MISSING)


@door_rule(Search)
def a_page_follows_on_another(cursor: str | None) -> Iterator[Finding]:
    """A cursor is one that a page held."""
    try:
        if cursor is not None:
            place_after(cursor)
    except InvalidCursor:
        yield Finding(("cursor",), DoorReason.WRONG_FORMAT)


@router.post(
    "/v1/prescriptions/search",
    summary="Find prescriptions of a patient, or the one with a reference number.",
    description="Dispensable ones and those being dispensed, unless `all` is true. A locked one is found by its "
    "reference number alone. A reference number of another patient than the one named is turned away. `complete` is false "
    "while an event of the patient could not be read, since `incomplete_since`; `position` and `generation` say which state of "
    "the list this is, `position_recorded_at` when the log took the last record in it. All five are null where nobody has the reference number.",
    operation_id="search_prescriptions",
    response_class=Response,
    responses={
        200: {
            "description": "what is found, newest-signed first",
            "content": json_content(
                shown_as(PrescriptionsPage),
                example={
                    "prescriptions": [],
                    "cursor": None,
                    "position": "3-1207",
                    "position_recorded_at": "2026-03-01T08:30:00.000Z",
                    "generation": "g1-5fa1c0",
                    "complete": False,
                    "incomplete_since": "2026-03-01T08:30:00.000Z",
                },
            ),
        },
        **PROBLEM_RESPONSES,
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": json_content(
                asked_as(model_of(Search)),
                examples={
                    "by patient": {"value": {"patient": {"national_id": synthetic(0).digits}, "all": False}},
                    "by reference number": {"value": {"reference_number": "1234-5678"}},
                },
            ),
        }
    },
)
async def search_prescriptions(request: Request, _: Annotated[Caller, Depends(caller)]) -> Response:
    """Asks the medication list, which alone knows. Raises Problem (what is wrong with the search), ListUnreachable."""
    recorder: Recorder = request.app.state.recorder
    given = await message_of(request)
    try:
        asked = asked_of(recorder.door, given.value, recorder.clock.now_ms())
        if given.faults:
            raise given.turned_away()
        await _check_that_keys_agree(recorder.medication_list, asked)
    except TurnedAway as error:
        raise given.turned_away(error.errors()) from None
    return Response(await recorder.medication_list.prescriptions(asked), media_type="application/json")


async def _check_that_keys_agree(medication_list: MedicationListClient, asked: Mapping[str, Any]) -> None:
    """A reference number of another patient contradicts the patient. Raises TurnedAway, ListUnreachable.

    One that nobody knows, or that is this patient's, does not: then both must fit what is found.
    """
    patient, number = asked.get("patient"), asked.get("reference_number")
    if patient is None or number is None:
        return
    owner = (await medication_list.owners([], [number])).get(number)
    if owner is not None and owner != patient:
        raise TurnedAway([Finding(("reference_number",), DoorReason.CONTRADICTS)])


def asked_of(door: Door, given: object, now_ms: int) -> dict[str, Any]:
    """What the medication list is asked: the pseudonym in the place of the national id. Raises TurnedAway."""
    findings: list[Finding] = []
    found = None
    try:
        found = model_of(Search).model_validate(given)
    except ValidationError as error:
        findings += findings_of(error)
    findings += broken_rules(Search, given, {"received_at_ms": now_ms})
    if findings or found is None:
        raise TurnedAway(findings)
    search: Search = struct_of(found, Search)
    asked: dict[str, Any] = {"all": search.all, "limit": search.limit}
    if search.patient is not None:
        asked["patient"] = door.patient_key(NationalId.parse(search.patient.national_id))
    if search.reference_number is not None:
        asked["reference_number"] = search.reference_number
    if search.cursor is not None:
        asked["cursor"] = search.cursor
    return asked
