"""The OpenAPI document of the read API: what each resource is for, its answers, and examples that hold."""

from collections.abc import Mapping
from typing import Any, Final

from fastapi import Response

from schemas.medication_list import (
    PrescriptionsPage,
    RegisteredDeath,
    ShownAllergies,
    ShownMultidose,
    ShownPrescription,
    ShownReconciliation,
    ShownRenewalRequest,
    ShownTreatment,
)
from services.admission.models import model_of
from services.identity.national_id import synthetic
from services.medication_list.read_api.history import HistoryPage
from services.medication_list.read_api.list_answer import ListAnswer, PrescriptionAnswer
from services.medication_list.read_api.outcomes import FirstReport, Outcome
from services.medication_list.read_api.requests import (
    FirstReportAsked,
    HistoryRead,
    ListRead,
    OutcomeAsked,
    OwnersAsked,
    PrescriptionsAsked,
)
from services.medication_list.read_api.resources import SealedClaim
from services.problems import PROBLEM_RESPONSES
from services.problems.problem import RETRY_AFTER
from services.serving.documents import asked_as, json_content, shown_as, with_resource

_PATIENT: Final = {"national_id": synthetic(0).digits}
_EVENT_ID: Final = "0b7cbf7e-4c5f-5d0f-9f0d-0a3f5c9e7f11"
_PRESCRIPTION: Final = "5b0f6a52-3d6e-4c34-9c0a-6f3e8d1f2a11"
_STANDING: Final = {
    "position": "3-1207",
    "position_recorded_at": "2026-03-01T08:30:00.000Z",
    "generation": "g1-5fa1c0",
    "complete": False,
    "incomplete_since": "2026-03-01T08:30:00.000Z",
}
_RESOURCES: Final = (
    ShownPrescription,
    SealedClaim,
    ShownTreatment,
    ShownReconciliation,
    ShownAllergies,
    ShownMultidose,
    ShownRenewalRequest,
    RegisteredDeath,
)


def _operation(
    operation_id: str,
    description: str,
    answer: Mapping[str, Any],
    *,
    asked: Mapping[str, Any] | None = None,
    examples: dict[str, Any] | None = None,
    problems: tuple[int, ...] = (503,),
    more: dict[int | str, dict[str, Any]] | None = None,
    example: Any = None,
) -> dict[str, Any]:
    """FastAPI's keywords of a route: it answers by the schema `answer`, and is asked by the schema `asked` if it has a body.

    description: its first line is the summary.
    """
    summary = description.partition("\n")[0]
    content = json_content(answer) if example is None else json_content(answer, example=example)
    made: dict[str, Any] = {
        "operation_id": operation_id,
        "summary": summary,
        "description": description,
        "response_class": Response,
        "responses": {
            200: {"description": summary, "content": content},
            **{status: PROBLEM_RESPONSES[status] for status in problems},
            **(more or {}),
        },
    }
    if asked is not None:
        named = {name: {"value": value} for name, value in (examples or {}).items()}
        made["openapi_extra"] = {"requestBody": {"required": True, "content": json_content(asked, examples=named)}}
    return made


_BODY_PROBLEMS: Final = (400, 401, 413, 415, 422, 503)
_PENDING: Final[dict[int | str, dict[str, Any]]] = {
    202: {"description": "in the log and not judged yet; ask again after Retry-After seconds", "headers": RETRY_AFTER}
}

READ: Final = _operation(
    "read_list",
    "One citizen's medication list.\n\n"
    "Without `as_of`: as it is now. With it: as it was known at that time, by the rules of today. `after_position` (a "
    "position from an answer of this patient) makes the read wait, two seconds at most, until the list has it. A "
    "citizen of whom nothing is known has an empty list. What is left out of a part stands at its default.",
    shown_as(ListAnswer),
    asked=asked_as(model_of(ListRead)),
    examples={
        "now": {"patient": _PATIENT},
        "as it was known": {"patient": _PATIENT, "as_of": "2026-01-15T12:00:00+01:00"},
    },
    problems=_BODY_PROBLEMS,
    example={
        "version": -1,
        "treatments": [],
        "other_prescriptions": [],
        "unseen_hand_outs": [],
        "allergies": [],
        "allergy_status": "not_asked",
        "multidose": None,
        "deceased_on": None,
        "reconciled": None,
        "incomplete_since": None,
        "complete": True,
        "as_of": "2026-03-02T11:00:00.000Z",
        "position": "3-1207",
        "position_recorded_at": "2026-03-02T10:59:59.980Z",
        "generation": "g1-5fa1c0",
        "read_token": "AQAAAAAAAAS3AAABnL5m",
    },
)
HISTORY: Final = _operation(
    "read_history",
    "Every event of one citizen, in log order.\n\n"
    "At most 200 at once; `cursor` of one page asks for the next. `complete` is false while an event could not be read.",
    shown_as(HistoryPage),
    asked=asked_as(model_of(HistoryRead)),
    examples={"first page": {"patient": _PATIENT, "limit": 50}},
    problems=_BODY_PROBLEMS,
    example={
        "events": [
            {
                "position": "3-1206",
                "outcome": "parked",
                "recorded_at": "2026-03-01T08:30:00.000Z",
                "event_id": _EVENT_ID,
                "reason": "unknown_schema",
            }
        ],
        "cursor": None,
        **_STANDING,
    },
)
EVENT: Final = _operation(
    "read_event",
    "What became of one event.\n\n"
    "With `position`, as the answer to the write told it, for ever; by its id alone for 48 hours after it was written "
    "over HTTP.",
    shown_as(Outcome),
    problems=(401, 404, 422, 503),
    more=_PENDING,
    example={"event_id": _EVENT_ID, "outcome": "refused", "position": "3-1207", "reason": "completed"},
)
STATUS: Final = _operation(
    "read_prescription_status",
    "One prescription, as it is now, and whether the list in which it stands is complete.\n\n"
    "Also when it is recalled, completed or expired. A locked one is not there for a pharmacy that has nothing to do with it. "
    "503, and not 404, while a part of the view cannot be shown in which it may stand.",
    shown_as(PrescriptionAnswer),
    problems=(401, 404, 503),
)
OUTCOMES: Final = _operation(
    "wait_for_outcome",
    "The outcome of an event, and what it is about, as it is now.\n\n"
    "Waits at most `wait_ms` until the event is judged.",
    with_resource(shown_as(Outcome), {"anyOf": [shown_as(each) for each in _RESOURCES]}),
    asked=shown_as(OutcomeAsked),
    examples={"a write": {"patient": "0" * 32, "event_id": _EVENT_ID, "partition": 3, "offset": 1207, "wait_ms": 2000}},
    problems=(404, 422, 503),
    more=_PENDING,
)
PRESCRIPTIONS: Final = _operation(
    "find_prescriptions",
    "The prescriptions that a pharmacy's search finds, newest-signed first.\n\n"
    "Dispensable ones and those being dispensed, unless `all`. A locked one is found by its reference number alone. "
    "503 where nothing has the number and a part of the view that may know it cannot be shown now.",
    shown_as(PrescriptionsPage),
    asked=shown_as(PrescriptionsAsked),
    examples={"by patient": {"patient": "0" * 32, "all": False, "limit": 50}},
    problems=(422, 503),
    example={"prescriptions": [], "cursor": None, **_STANDING},
)
FIRST_REPORTS: Final = _operation(
    "find_first_report",
    "When an event happened, as it came for the first time.\n\nA repetition that leaves the time to us gets the same one.",
    shown_as(FirstReport),
    asked=shown_as(FirstReportAsked),
    examples={"a repetition": {"patient": "0" * 32, "event_id": _EVENT_ID}},
    problems=(422, 503),
)
OWNERS: Final = _operation(
    "find_owners",
    "The patient of each prescription id and reference number that is known.\n\n"
    "Pseudonyms; what is not known now is left out, and may yet be somebody's.",
    {"type": "object", "additionalProperties": {"type": "string"}},
    asked=shown_as(OwnersAsked),
    examples={"two": {"prescriptions": [_PRESCRIPTION], "reference_numbers": ["1234-5678"]}},
    problems=(422, 503),
)
