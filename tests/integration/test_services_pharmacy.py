"""The pharmacy service over HTTP: claims that open an identity for their holder alone, hand-outs, and the search."""

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from schemas.events import ClaimReleased, ClaimRequested, MedicationDispensed
from services.admission.search_cursor import SearchPlace, cursor_of
from services.clock import SystemClock
from services.identity.national_id import NationalId
from services.identity.sealing import SealedIdentityContent
from services.pharmacy.api import WRITES, pharmacy_app
from tests.integration.services_stand import (
    DOOR,
    NOW_MS,
    PATIENT,
    PHARMACY,
    PRESCRIPTION,
    SEALER,
    Stand,
    a_caller,
    a_stand,
)

pytestmark = pytest.mark.integration

CLAIM = "0d8f7f0a-1111-4c34-9c0a-6f3e8d1f2a11"
CLERK = a_caller(system="pharmacy-desk", organisation=PHARMACY, role="pharmacist")
OPERATOR = a_caller(system="operations", organisation="974760673", role="operator")
PSEUDONYM = DOOR.patient_key(NationalId.parse(PATIENT["national_id"]))
SEALED = base64.b64encode(
    SEALER.seal(SealedIdentityContent(NationalId.parse(PATIENT["national_id"]), PATIENT["name"]), PSEUDONYM)
).decode()


@pytest.fixture(scope="module")
def service() -> Iterator[Stand]:
    with a_stand(pharmacy_app) as running:
        yield running


@pytest.fixture
def stand(service: Stand) -> Stand:
    service.begin_anew()
    return service


def claimed(holder: str | None, outcome: str = "applied", sealed: str = SEALED) -> dict[str, Any]:
    resource = {
        "prescription": {"prescription": PRESCRIPTION, "holder": holder, "total": 100.0},
        "dosing_in_force": {"text": "1 tablet in the morning"},
        "allergies": [],
        "flags": ["dosing_changed"],
        "identity": sealed,
    }
    return {"outcome": outcome, "flags": ["dosing_changed"], "position": "p", "resource": resource}


def claim(stand: Stand, **changed: Any) -> Any:
    return stand.post("/v1/claims", {"patient": PATIENT, "prescription": PRESCRIPTION, **changed}, caller=CLERK)


def test_a_claim_is_answered_with_everything_and_the_identity_opened(stand: Stand) -> None:
    stand.list.outcome = lambda _: (200, claimed(PHARMACY))
    answer = claim(stand)
    assert answer.status_code == 201
    resource = answer.json()["resource"]
    assert resource["patient"] == PATIENT
    assert "identity" not in resource
    assert resource["dosing_in_force"] == {"text": "1 tablet in the morning"}
    (event,) = stand.events()
    assert isinstance(event.body, ClaimRequested)
    assert event.body.claim


@pytest.mark.parametrize("holder", [None, "313000036"])
def test_no_identity_is_opened_for_a_pharmacy_that_does_not_hold(stand: Stand, holder: str | None) -> None:
    stand.list.outcome = lambda _: (200, claimed(holder, "duplicate"))
    answer = claim(stand)
    assert answer.status_code == 200
    assert "patient" not in answer.json()["resource"]
    assert PATIENT["name"] not in answer.text
    assert SEALED not in answer.text


def test_an_identity_that_cannot_be_opened_is_shown_as_unknown(stand: Stand) -> None:
    stand.list.outcome = lambda _: (200, claimed(PHARMACY, sealed=base64.b64encode(b"broken").decode()))
    assert claim(stand).json()["resource"]["patient"] is None


def test_a_refused_claim_names_the_holder(stand: Stand) -> None:
    named = {"holder": "313000036"}
    stand.list.outcome = lambda _: (200, {"outcome": "refused", "reason": "held", "flags": [], "named": named})
    answer = claim(stand)
    assert answer.status_code == 409
    assert (answer.json()["type"], answer.json()["holder"]) == ("/problems/held", "313000036")


def test_a_refused_claim_that_is_repeated_names_the_holder_still(stand: Stand) -> None:
    first = {"outcome": "refused", "reason": "held", "flags": [], "named": {"holder": "313000036"}}
    stand.list.outcome = lambda _: (200, {"outcome": "duplicate", "flags": [], "first": first})
    answer = claim(stand)
    assert answer.status_code == 200
    assert answer.json()["first"] == first
    assert "resource" not in answer.json()


def test_a_claim_of_another_patient_s_prescription_is_turned_away(stand: Stand) -> None:
    stand.list.owners = {PRESCRIPTION: "f" * 32}
    answer = claim(stand)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["reason"] == "other_patient"
    assert stand.events() == []


def test_whose_a_prescription_is_is_asked_again_only_while_it_is_not_known_to_be_the_patients(stand: Stand) -> None:
    prescription = str(uuid4())
    for number, (owners, is_asked, status) in enumerate(
        [
            ({}, True, 201),
            ({prescription: "f" * 32}, True, 422),
            ({prescription: PSEUDONYM}, True, 201),
            ({}, False, 201),
        ]
    ):
        stand.list.forget()
        stand.list.owners = owners
        sent = {"patient": PATIENT, "prescription": prescription}
        answer = stand.post("/v1/claims", sent, key=f"known-{number}", caller=CLERK)
        assert answer.status_code == status
        assert ("owners" in [resource for resource, _ in stand.list.asked]) == is_asked


def test_an_old_claim_is_turned_away(stand: Stand) -> None:
    answer = claim(stand, occurred_at="2026-03-02T08:44:59Z")
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {"pointer": "/occurred_at", "reason": "claim_too_old", "text": "The claim was received too long after it was made."}
    ]  # fmt: skip
    assert stand.events() == []


def test_an_old_claim_that_came_in_time_is_the_same_event_when_it_is_sent_again(stand: Stand) -> None:
    made_at = datetime.fromtimestamp(NOW_MS / 1000, UTC).isoformat()
    assert claim(stand, occurred_at=made_at).status_code == 201
    (first,) = stand.events()
    stand.clock.advance(16 * 60_000)
    stand.restart()
    assert claim(stand, occurred_at=made_at).status_code == 422
    stand.list.happened_at[first.event_id] = made_at
    assert claim(stand, occurred_at=made_at).status_code == 201
    assert [each.event_id for each in stand.events()] == [first.event_id] * 2


def test_an_old_claim_is_not_answered_while_nobody_can_tell_whether_it_came_in_time(stand: Stand) -> None:
    stand.list.status = 503
    answer = claim(stand, occurred_at="2026-03-02T08:44:59Z")
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/list_unavailable")
    assert stand.events() == []


def test_a_claim_is_aborted_by_the_id_in_the_url(stand: Stand) -> None:
    answer = stand.post(f"/v1/claims/{CLAIM}/abort", {"patient": PATIENT, "reason": "sold out"}, caller=CLERK)
    assert answer.status_code == 201
    assert stand.events()[0].body.claim == CLAIM  # type: ignore[union-attr]  # it is an abort


def test_only_an_operator_finds_the_release_of_a_claim(stand: Stand) -> None:
    sent = {"patient": PATIENT, "reason": "the pharmacy burned down"}
    assert stand.post(f"/v1/claims/{CLAIM}/release", sent, caller=CLERK).status_code == 404
    assert stand.events() == []
    assert stand.post(f"/v1/claims/{CLAIM}/release", sent, caller=OPERATOR).status_code == 201
    assert isinstance(stand.events()[0].body, ClaimReleased)


def test_a_hand_out_is_recorded_and_reversed(stand: Stand) -> None:
    sent = {
        "patient": PATIENT,
        "prescription": PRESCRIPTION,
        "claim": CLAIM,
        "lines": [{"quantity": {"value": 1, "unit": "package"}, "content": {"value": 100, "unit": "tablet"}}],
        "period_completed": True,
        "completed": False,
    }
    assert stand.post("/v1/dispenses", sent, caller=CLERK).status_code == 201
    (event,) = stand.events()
    assert isinstance(event.body, MedicationDispensed)
    path = f"/v1/dispenses/{event.body.dispense}/reverse"
    back = {"patient": PATIENT, "reason": "wrong patient"}
    assert stand.post(path, back, key="key-2", caller=CLERK).status_code == 201


def test_every_event_of_a_pharmacy_has_a_resource() -> None:
    events = {"ClaimRequested", "ClaimAborted", "ClaimReleased", "MedicationDispensed", "DispenseReversed"}
    assert {write.records.__name__ for write in WRITES} == events


def test_every_example_of_every_resource_is_taken_today(stand: Stand) -> None:
    stand.clock.set(SystemClock().now_ms())
    for path, operations in stand.http.get("/openapi.json").json()["paths"].items():
        body = operations.get("post", {}).get("requestBody", {"content": {"application/json": {}}})
        for title, example in body["content"]["application/json"].get("examples", {}).items():
            sent, key = example["value"], f"example {path} {title}"
            answer = stand.post(path.replace("{id}", CLAIM), sent, key=key, caller=OPERATOR)
            assert answer.status_code in (200, 201), (path, title, answer.text)


# --- The search --------------------------------------------------------------------------------------------------


def search(stand: Stand, sent: object) -> Any:
    return stand.post("/v1/prescriptions/search", sent, key=None, caller=CLERK)


def test_a_search_asks_for_the_pseudonym_and_answers_what_is_found(stand: Stand) -> None:
    stand.list.found = {"prescriptions": [{"status": "E"}], "cursor": "next", "complete": False}
    here = cursor_of(SearchPlace(NOW_MS, PRESCRIPTION))
    answer = search(stand, {"patient": PATIENT, "all": True, "limit": 200, "cursor": here})
    assert answer.json() == stand.list.found
    assert stand.list.asked == [("prescriptions", {"patient": PSEUDONYM, "all": True, "limit": 200, "cursor": here})]
    assert search(stand, {"reference_number": "RX-1"}).status_code == 200
    assert stand.list.asked[1] == ("prescriptions", {"reference_number": "RX-1", "all": False, "limit": 50})


@pytest.mark.parametrize(
    ("sent", "pointer", "reason"),
    [
        ({}, "/patient", "missing"),
        ({"patient": {"national_id": "02013299987"}}, "/patient/national_id", "wrong_checksum"),
        ({"reference_number": "RX-1", "limit": 201}, "/limit", "out_of_range"),
        ({"reference_number": "RX-1", "limit": 0}, "/limit", "out_of_range"),
        ({"reference_number": "RX-1", "all": "yes"}, "/all", "wrong_type"),
        ({"reference_number": "RX-1", "name": "Ola"}, "/name", "unexpected_field"),
        ([], "", "wrong_type"),
    ],
)
def test_a_search_that_makes_no_sense_is_turned_away(stand: Stand, sent: object, pointer: str, reason: str) -> None:
    answer = search(stand, sent)
    assert answer.status_code == 422
    assert [(error["pointer"], error["reason"]) for error in answer.json()["errors"]] == [(pointer, reason)]
    assert stand.list.asked == []


def test_a_search_that_says_something_twice_is_turned_away(stand: Stand) -> None:
    twice = b'{"reference_number": "RX-1", "all": true, "all": false}'
    stated = {"Medchain-Caller": CLERK, "Content-Type": "application/json"}
    answer = stand.http.post("/v1/prescriptions/search", content=twice, headers=stated)
    assert [(error["pointer"], error["reason"]) for error in answer.json()["errors"]] == [("/all", "duplicate_field")]
    assert stand.list.asked == []


def test_a_search_by_keys_of_two_patients_is_turned_away(stand: Stand) -> None:
    stand.list.owners = {"RX-1": "f" * 32}
    answer = search(stand, {"patient": PATIENT, "reference_number": "RX-1"})
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert (error["pointer"], error["reason"]) == ("/reference_number", "contradicts")
    assert [resource for resource, _ in stand.list.asked] == ["owners"]


@pytest.mark.parametrize("owners", [{"RX-1": PSEUDONYM}, {}])
def test_a_search_by_two_keys_that_agree_asks_for_what_has_both(stand: Stand, owners: dict[str, str]) -> None:
    stand.list.owners, stand.list.found = owners, {"prescriptions": []}
    assert search(stand, {"patient": PATIENT, "reference_number": "RX-1"}).status_code == 200
    both = {"patient": PSEUDONYM, "reference_number": "RX-1", "all": False, "limit": 50}
    assert stand.list.asked[-1] == ("prescriptions", both)


def test_a_search_without_the_list_is_unavailable(stand: Stand) -> None:
    stand.list.status = 503
    answer = search(stand, {"patient": PATIENT})
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/list_unavailable")
    assert answer.headers["retry-after"]


def test_a_cursor_that_the_list_never_made_is_turned_away(stand: Stand) -> None:
    answer = search(stand, {"patient": PATIENT, "cursor": "nowhere", "limit": 0})
    assert answer.status_code == 422
    assert {error["pointer"] for error in answer.json()["errors"]} == {"/cursor", "/limit"}
    assert stand.list.asked == []
