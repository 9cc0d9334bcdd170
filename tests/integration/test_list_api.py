"""The read API on a real log and a real Redis: lists, outcomes, searches, history, the past, and what is not shown."""

from __future__ import annotations

import base64
import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import redis
from kafka import KafkaAdminClient
from msgspec.structs import replace as with_fields
from openapi_spec_validator import validate

from deploy.local.waiting import wait_until
from services.admission.read_token import NO_WHOLE_LIST, ReadToken
from services.medication_list.log.positions import LogPlace
from services.medication_list.read_api.event_places import KEPT_S
from services.pharmacy.api import pharmacy_app
from services.pharmacy.search import asked_of
from tests.integration.list_stand import PARTITIONS, ListStand, Patient, a_list_stand, position
from tests.integration.services_stand import DOOR, OFFICE, PHARMACY, SEALER, a_caller, a_stand
from tests.unit.fold_world import (
    MINUTE_MS,
    aborted,
    allergic,
    at,
    changed,
    claimed,
    died,
    discontinued,
    dispatched,
    dispensed,
    id_of,
    issued,
    multidose,
    organisation,
    paused,
    recalled,
    reconciled,
    recorded,
    released,
    renewal_requested,
    reversed_,
    tablets,
)

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def stand(kafka: str, redis_url: str) -> Iterator[ListStand]:
    topic = f"test-{uuid.uuid4().hex}"
    with closing(KafkaAdminClient(bootstrap_servers=kafka)) as admin:
        # Kept for ever, as the log is: the tests' clock is long past, and the broker deletes what is old every five minutes.
        wanted = {"num_partitions": PARTITIONS, "replication_factor": 1, "configs": {"retention.ms": "-1"}}
        admin.create_topics({topic: wanted}, wait_for_metadata=True)
    with a_list_stand(kafka, redis_url, topic) as made:
        yield made


def pointers(answer: Any) -> list[tuple[str, str]]:
    assert answer.status_code == 422, answer.text
    return [(error["pointer"], error["reason"]) for error in answer.json()["errors"]]


# --- The list as it is --------------------------------------------------------------------------------------------


def test_a_patient_who_never_had_anything_has_an_empty_list(stand: ListStand) -> None:
    read = stand.read(stand.a_patient())
    assert (read["treatments"], read["allergy_status"], read["complete"], read["version"]) == (
        [],
        "not_asked",
        True,
        -1,
    )
    assert read["generation"] == stand.generation


def test_what_was_issued_claimed_and_handed_out_stands_in_the_list(stand: ListStand) -> None:
    patient = stand.a_patient()
    for said in (issued("R1"), claimed("R1"), dispensed("D1", "R1")):
        place = stand.say(patient, said)
    read = stand.read(patient)
    (treatment,) = read["treatments"]
    (prescription,) = treatment["prescriptions"]
    assert prescription["prescription"] == patient.id_of("R1")
    assert (prescription["status"], prescription["handed_out"], prescription["total"]) == ("E", 100, 400)
    assert prescription["issued"]["issued_at"].endswith("Z")
    assert "identity" not in prescription["issued"]
    assert read["position"] == position(place)


def test_the_list_is_shown_for_the_readers_clock(stand: ListStand) -> None:
    patient = stand.a_patient()
    stand.say(patient, issued("R1"))
    then_ms = stand.clock.now_ms()
    try:
        stand.clock.set(then_ms + 400 * 24 * 60 * MINUTE_MS)
        (treatment,) = stand.read(patient)["treatments"]
    finally:
        stand.clock.set(then_ms)
    assert treatment["prescriptions"][0]["status"] == "F"


def test_a_doctor_can_confirm_the_list_with_the_token_of_its_reading(stand: ListStand) -> None:
    patient = stand.a_patient()
    place = stand.say(patient, issued("R1"))
    read = stand.read(patient)
    token = stand.tokens.verify(patient.key, read["read_token"])
    assert token == ReadToken(place.offset, stand.clock.now_ms(), is_whole=True)
    confirming = stand.say(patient, reconciled(token.version, at_ms=stand.clock.now_ms(), read_ms=token.read_at_ms))
    told = stand.outcome(patient, confirming, stand.last_event_id).json()
    assert (told["outcome"], told["resource"]["version"]) == ("applied", token.version)


def test_a_list_with_a_record_that_cannot_be_read_says_since_when_it_is_incomplete(stand: ListStand) -> None:
    patient = stand.a_patient()
    stand.say(patient, issued("R1"))
    event_id = str(uuid.uuid4())
    place = stand.append(patient, b"\xc3\x01 no schema has this", event_id)
    read = stand.read(patient)
    assert read["complete"] is False
    assert read["incomplete_since"] is not None
    assert len(read["treatments"]) == 1
    token = stand.tokens.verify(patient.key, read["read_token"])
    assert (token.version, token.is_whole, token.confirmed_version) == (read["version"], False, NO_WHOLE_LIST)
    standing = {each: read[each] for each in ("position", "generation", "complete", "incomplete_since")}
    for other in (
        stand.ask("/v1/list/history", patient.body()),
        stand.http.post("/internal/prescriptions", json={"patient": patient.key}),
        stand.get(f"/v1/prescriptions/{patient.id_of('R1')}/status"),
    ):
        assert standing.items() <= other.json().items()
    told = stand.outcome(patient, place, event_id).json()
    assert (told["outcome"], told["reason"]) == ("parked", "unknown_schema")
    assert "resource" not in told


def test_everything_that_is_wrong_with_a_request_is_told_at_once(stand: ListStand) -> None:
    sent = {"patient": {"national_id": "12345678901"}, "as_of": "yesterday", "after_position": "", "more": 1}
    assert {at for at, _ in pointers(stand.ask("/v1/list/read", sent))} == {
        "/patient/national_id",
        "/as_of",
        "/after_position",
        "/more",
    }


def test_nobody_reads_without_saying_who_asks(stand: ListStand) -> None:
    patient = stand.a_patient()
    for path in ("/v1/list/read", "/v1/list/history"):
        assert stand.http.post(path, json=patient.body()).status_code == 401
    assert stand.http.get(f"/v1/events/{uuid.uuid4()}").status_code == 401
    assert stand.http.get(f"/v1/prescriptions/{uuid.uuid4()}/status").status_code == 401


# --- Reading what was written -------------------------------------------------------------------------------------


def test_a_read_after_a_position_waits_until_the_list_has_it(stand: ListStand) -> None:
    patient = stand.a_patient()
    place = stand.say(patient, issued("R1"), judge=False)
    assert stand.read(patient)["treatments"] == []
    answers: list[dict[str, Any]] = []
    reading = threading.Thread(target=lambda: answers.append(stand.read(patient, after_position=position(place))))
    reading.start()
    stand.judge()
    reading.join(20)
    assert [len(answer["treatments"]) for answer in answers] == [1]


def test_a_read_after_a_position_that_does_not_come_is_503_with_the_progress(stand: ListStand) -> None:
    patient = stand.a_patient()
    ends = stand.source_ends()[patient.partition]
    answer = stand.ask("/v1/list/read", patient.body(after_position=f"{patient.partition}-{ends + 5}"))
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert answer.json()["progress"] == {"partition": patient.partition, "offset": ends, "until": ends + 6}


@pytest.mark.parametrize("wrong", ["yesterday", "-1-0", "8-0", "1-", "01-1", "1-1 "])
def test_a_position_that_no_answer_told_is_at_fault(stand: ListStand, wrong: str) -> None:
    patient = stand.a_patient()
    assert pointers(stand.ask("/v1/list/read", patient.body(after_position=wrong))) == [
        ("/after_position", "wrong_format")
    ]
    assert pointers(stand.ask("/v1/list/history", patient.body(cursor=wrong))) == [("/cursor", "wrong_format")]


@pytest.mark.parametrize("path", ["/v1/list/read", "/v1/list/history"])
def test_what_json_cannot_hold_is_turned_away_with_all_else(stand: ListStand, path: str) -> None:
    national_id = json.dumps(stand.a_patient().body()["patient"])
    stated = {"Medchain-Caller": a_caller(), "Content-Type": "application/json"}
    for body, found in [
        (f'{{"patient": 1, "patient": {national_id}}}', [("/patient", "duplicate_field")]),
        (
            '{"patient": {"national_id": NaN, "pills": 1}}',
            [("/patient/national_id", "not_a_number"), ("/patient/pills", "unexpected_field")],
        ),
    ]:
        assert pointers(stand.http.post(path, content=body, headers=stated)) == found


def test_a_position_of_elsewhere_says_nothing_about_this_list(stand: ListStand) -> None:
    patient = stand.a_patient()
    elsewhere = f"{(patient.partition + 1) % PARTITIONS}-0"
    sent = patient.body(after_position=elsewhere)
    assert pointers(stand.ask("/v1/list/read", sent)) == [("/after_position", "contradicts")]


# --- Outcomes -----------------------------------------------------------------------------------------------------


def test_an_outcome_tells_the_prescription_as_it_is_now(stand: ListStand) -> None:
    patient = stand.a_patient()
    place, event_id = stand.say(patient, issued("R1")), stand.last_event_id
    told = stand.outcome(patient, place, event_id).json()
    assert (told["outcome"], told["position"]) == ("applied", position(place))
    assert told["resource"]["status"] == "E"
    stand.say(patient, claimed("R1"))
    assert stand.outcome(patient, place, event_id).json()["resource"]["status"] == "U"


def test_what_is_not_judged_in_time_is_told_so_and_then_its_outcome(stand: ListStand) -> None:
    patient = stand.a_patient()
    place = stand.say(patient, issued("R1"), judge=False)
    pending = stand.outcome(patient, place, stand.last_event_id, wait_ms=0)
    assert (pending.status_code, pending.json()) == (202, {})
    answers: list[Any] = []
    asking = threading.Thread(
        target=lambda: answers.append(stand.outcome(patient, place, stand.last_event_id, wait_ms=15_000))
    )
    asking.start()
    stand.judge()
    asking.join(20)
    assert [answer.json()["outcome"] for answer in answers] == ["applied"]


def test_a_refusal_names_what_the_ruling_names(stand: ListStand) -> None:
    patient = stand.a_patient()
    stand.say(patient, issued("R1"))
    stand.say(patient, claimed("R1", "C1", by="P"))
    place = stand.say(patient, claimed("R1", "C2", by="Q"))
    told = stand.outcome(patient, place, stand.last_event_id).json()
    assert (told["outcome"], told["reason"]) == ("refused", "held")
    assert told["named"] == {"holder": organisation("P")}


def test_the_same_event_again_is_a_duplicate_and_tells_its_first_outcome(stand: ListStand) -> None:
    patient, event_id = stand.a_patient(), str(uuid.uuid4())
    stand.say(patient, recorded("T1"))
    first = stand.say(patient, claimed("R9"), event_id=event_id)
    again = stand.say(patient, claimed("R9"), event_id=event_id)
    assert stand.outcome(patient, first, event_id).json()["outcome"] == "refused"
    told = stand.outcome(patient, again, event_id).json()
    assert (told["outcome"], told["position"]) == ("duplicate", position(again))
    assert told["first"] == {"outcome": "refused", "reason": "unknown", "flags": [], "named": None}


def test_a_service_is_told_when_an_event_happened_that_came_before(stand: ListStand) -> None:
    patient, event_id = stand.a_patient(), str(uuid.uuid4())
    asked = {"patient": patient.key, "event_id": event_id}
    assert stand.http.post("/internal/first-reports", json=asked).json() == {"occurred_at": None}
    stand.say(patient, issued("R1"), event_id=event_id)
    happened_at_ms = stand.clock.now_ms()
    stand.say(patient, issued("R1"), event_id=event_id)
    told = stand.http.post("/internal/first-reports", json=asked).json()
    assert datetime.fromisoformat(told["occurred_at"]).timestamp() * 1000 == happened_at_ms


def test_a_known_event_id_with_other_content_is_refused_and_tells_its_first_outcome(stand: ListStand) -> None:
    patient, event_id = stand.a_patient(), str(uuid.uuid4())
    stand.say(patient, issued("R1"), event_id=event_id)
    again = stand.say(patient, issued("R1", refills=1), event_id=event_id)
    told = stand.outcome(patient, again, event_id).json()
    assert (told["outcome"], told["reason"]) == ("refused", "conflicting_duplicate")
    assert told["first"]["outcome"] == "applied"


def test_the_same_prescription_under_a_new_event_id_is_a_duplicate_with_the_prescription(stand: ListStand) -> None:
    patient = stand.a_patient()
    stand.say(patient, issued("R1"))
    again = stand.say(patient, issued("R1"))
    told = stand.outcome(patient, again, stand.last_event_id).json()
    assert (told["outcome"], told["resource"]["prescription"]) == ("duplicate", patient.id_of("R1"))


def test_a_claim_is_answered_with_all_that_a_pharmacy_needs(stand: ListStand) -> None:
    patient = stand.a_patient()
    for said in (issued("R1"), allergic(), changed()):
        stand.say(patient, said)
    place = stand.say(patient, claimed("R1"))
    told = stand.outcome(patient, place, stand.last_event_id).json()
    resource = told["resource"]
    assert resource["flags"] == told["flags"] == ["dosing_changed"]
    assert (resource["prescription"]["status"], resource["prescription"]["holder"]) == ("U", organisation("P"))
    assert resource["dosing_in_force"]["dosing"]["periods"][0]["fixed"][0]["dose"]["low"] == 0.5
    assert resource["prescription"]["issued"]["dosing"]["periods"][0]["fixed"][0]["dose"]["low"] == 1
    assert resource["allergies"][0]["recorded"]["substance"] == "penicillin"
    identity = SEALER.open(base64.b64decode(resource["identity"]), patient.key)
    assert (identity.national_id, identity.name) == (patient.national_id, "Ola Nordmann")


@pytest.mark.parametrize("giving_back", [aborted(), released()], ids=["aborted", "released"])
def test_a_claim_that_was_given_back_leads_to_its_prescription(stand: ListStand, giving_back: Any) -> None:
    patient = stand.a_patient()
    stand.say(patient, issued("R1"))
    stand.say(patient, claimed("R1"))
    for number in range(30):
        stand.say(patient, allergic(f"A{number}"), judge=False)
    place = stand.say(patient, giving_back)
    resource = stand.outcome(patient, place, stand.last_event_id).json()["resource"]
    assert (resource["prescription"], resource["status"]) == (patient.id_of("R1"), "E")


def test_every_kind_of_event_is_answered_with_what_it_is_about(stand: ListStand) -> None:
    patient = stand.a_patient()
    about = [
        (issued("R1"), "prescription", patient.id_of("R1")),
        (changed(), "treatment", id_of("T1")),
        (paused(), "status", "paused"),
        (renewal_requested(), "prescription", patient.id_of("R1")),
        (allergic(), "allergy_status", "recorded"),
        (multidose(), "pharmacy", organisation("P")),
        (dispensed("D1", "R1"), "dispenses_done", 1),
        (reversed_("D1"), "dispenses_done", 0),
        (recalled("R1"), "status", "T"),
        (discontinued(at_ms=stand.clock.now_ms()), "status", "discontinued"),
        (died(), "deceased_on", "2026-03-02"),
    ]
    for said, name, value in about:
        place = stand.say(patient, said)
        told = stand.outcome(patient, place, stand.last_event_id).json()
        assert told["outcome"] == "applied", told
        assert told["resource"][name] == value, told


def test_an_outcome_is_told_of_this_patients_record_alone(stand: ListStand) -> None:
    patient, other = stand.a_patient(), stand.a_patient()
    place, event_id = stand.say(patient, issued("R1")), stand.last_event_id
    assert stand.outcome(other, place, event_id).status_code == 404
    assert stand.outcome(patient, place, str(uuid.uuid4())).status_code == 404
    assert (
        stand.outcome(patient, LogPlace(place.partition, place.offset + 1000), event_id, wait_ms=0).status_code == 404
    )


# --- One event, looked up later -----------------------------------------------------------------------------------


def test_a_position_leads_to_the_outcome_and_a_bare_id_only_once_a_service_asked(stand: ListStand) -> None:
    patient = stand.a_patient()
    place, event_id = stand.say(patient, claimed("R9")), stand.last_event_id
    by_position = stand.get(f"/v1/events/{event_id}", position=position(place))
    assert by_position.json() == {
        "event_id": event_id,
        "outcome": "refused",
        "position": position(place),
        "reason": "unknown",
    }
    assert stand.get(f"/v1/events/{event_id}").status_code == 404
    stand.outcome(patient, place, event_id)
    assert stand.get(f"/v1/events/{event_id}").json() == by_position.json()
    with redis.Redis.from_url(stand.settings.redis) as client:
        assert KEPT_S - 60 < client.ttl(f"event:{event_id}") <= KEPT_S


def test_an_event_that_is_not_judged_yet_is_pending(stand: ListStand) -> None:
    patient = stand.a_patient()
    place = stand.say(patient, issued("R1"), judge=False)
    answer = stand.get(f"/v1/events/{stand.last_event_id}", position=position(place))
    assert (answer.status_code, answer.json()["outcome"]) == (202, "pending")
    assert answer.headers["Retry-After"]
    stand.judge()
    answer = stand.get(f"/v1/events/{stand.last_event_id}", position=position(place))
    assert (answer.status_code, answer.json()["outcome"]) == (200, "applied")


def test_a_guessed_position_leads_nowhere(stand: ListStand) -> None:
    patient = stand.a_patient()
    place, event_id = stand.say(patient, issued("R1")), stand.last_event_id
    stand.say(patient, recorded("T2"))
    beyond = f"{place.partition}-{place.offset + 10_000}"
    for guessed in (f"{place.partition}-{place.offset + 1}", beyond):
        assert stand.get(f"/v1/events/{event_id}", position=guessed).status_code == 404
    assert stand.get(f"/v1/events/{uuid.uuid4()}", position=position(place)).status_code == 404
    assert stand.get("/v1/events/12345678901").status_code == 404
    wrong = stand.get(f"/v1/events/{event_id}", position="here")
    assert pointers(wrong) == [("/position", "wrong_format")]


# --- The history and the past -------------------------------------------------------------------------------------


def test_the_history_tells_every_event_in_log_order_page_by_page(stand: ListStand) -> None:
    patient = stand.a_patient()
    said = [issued("R1"), claimed("R1"), claimed("R1", "C2", by="Q"), dispensed("D1", "R1"), recalled("R1")]
    places = [stand.say(patient, each) for each in said]
    places.append(stand.append(patient, b"nothing", "0b7cbf7e-4c5f-5d0f-9f0d-0a3f5c9e7f11"))
    pages: list[list[dict[str, Any]]] = []
    cursor: dict[str, str] = {}
    while cursor.get("cursor") is not None or not pages:
        answer = stand.ask("/v1/list/history", patient.body(limit=2, **cursor)).json()
        pages.append(answer["events"])
        cursor = {"cursor": answer["cursor"]}
    assert [len(page) for page in pages] == [2, 2, 2]
    events = [event for page in pages for event in page]
    assert [event["position"] for event in events] == [position(place) for place in places]
    assert [event["outcome"] for event in events] == ["applied", "applied", "refused", "applied", "applied", "parked"]
    first, refused, last = events[0], events[2], events[-1]
    assert (first["type"], first["by"]["organisation"], first["system"]) == (
        "PrescriptionIssued",
        organisation("A"),
        "ehr-a",
    )
    assert first["content"]["quantity"] == {"value": 100, "unit": "tablet"}
    assert "identity" not in first["content"]
    assert (refused["reason"], refused["named"]) == ("held", {"holder": organisation("P")})
    assert (last["reason"], last["event_id"]) == ("unreadable", "0b7cbf7e-4c5f-5d0f-9f0d-0a3f5c9e7f11")
    assert "content" not in last


@pytest.mark.parametrize("limit", [0, 201])
def test_a_page_of_the_history_has_a_size(stand: ListStand, limit: int) -> None:
    answer = stand.ask("/v1/list/history", stand.a_patient().body(limit=limit))
    assert pointers(answer) == [("/limit", "out_of_range")]


def test_the_list_as_of_a_time_is_the_list_that_was_read_then(stand: ListStand) -> None:
    patient, other, event_id = stand.a_patient(), stand.a_patient(), str(uuid.uuid4())
    history = [
        (issued("R1"), None),
        (claimed("R1"), None),
        (dispensed("D1", "R1"), event_id),
        (dispensed("D1", "R1", quantity=tablets(50)), event_id),  # a conflict, of which the index keeps nothing
        (claimed("R1", "C2", by="Q"), None),
        (dispensed("D2", "R2", by="Q"), None),
        (issued("R2", "T2"), None),
        (changed(), None),
        (allergic(), None),
        (aborted("C2", by="Q"), None),
        (paused(), None),
        (recalled("R1"), None),
        (died(), None),
    ]
    read: list[dict[str, Any]] = [stand.read(patient)]
    for number, (said, known_id) in enumerate(history):
        stand.say(other, recorded(f"between {number}"))
        stand.say(patient, said, event_id=known_id)
        read.append(stand.read(patient))
        if number == 7:
            stand.clock.advance(MINUTE_MS)
            stand.append(patient, b"\xc3\x01 no schema has this", str(uuid.uuid4()))
            read.append(stand.read(patient))
    assert read[4]["treatments"][0]["conflicting_reports"]
    assert not read[-1]["complete"]
    for then in read:
        past = stand.read(patient, as_of=then["as_of"])
        assert past["read_token"] is None
        for each in (then, past):
            for moved in ("read_token", "position", "position_recorded_at", "generation"):
                each.pop(moved)
        assert past == then


def test_what_will_be_known_is_not_told(stand: ListStand) -> None:
    answer = stand.ask("/v1/list/read", stand.a_patient().body(as_of="2031-01-01T00:00:00Z"))
    assert pointers(answer) == [("/as_of", "out_of_range")]


def test_before_the_first_event_the_list_was_empty(stand: ListStand) -> None:
    patient = stand.a_patient()
    stand.say(patient, issued("R1"))
    past = stand.read(patient, as_of="2020-01-01T00:00:00+01:00")
    assert (past["treatments"], past["position"], past["as_of"]) == ([], None, "2019-12-31T23:00:00.000Z")


# --- A pharmacy's search ------------------------------------------------------------------------------------------


def found(stand: ListStand, **asked: Any) -> list[str]:
    answer = stand.http.post("/internal/prescriptions", json=asked)
    assert answer.status_code == 200, answer.text
    return [each["prescription"] for each in answer.json()["prescriptions"]]


def test_a_search_finds_what_can_be_dispensed_and_all_if_asked(stand: ListStand) -> None:
    patient, day_ms = stand.a_patient(), 24 * 60 * MINUTE_MS
    now_ms = stand.clock.now_ms()
    for number in range(1, 5):
        stand.say(patient, issued(f"R{number}", f"T{number}", signed_ms=now_ms - day_ms * number))
    stand.say(patient, claimed("R2"))
    stand.say(patient, recalled("R3", by="B"))
    stand.say(patient, dispensed("D4", "R4", completed=True))
    assert found(stand, patient=patient.key) == [patient.id_of("R1"), patient.id_of("R2")]
    everything = stand.http.post("/internal/prescriptions", json={"patient": patient.key, "all": True}).json()
    states = [(each["prescription"], each["status"]) for each in everything["prescriptions"]]
    assert states == [
        (patient.id_of("R1"), "E"),
        (patient.id_of("R2"), "U"),
        (patient.id_of("R3"), "T"),
        (patient.id_of("R4"), "R"),
    ]
    assert everything["prescriptions"][1]["holder"] == organisation("P")
    assert everything["prescriptions"][2]["recalls"][0]["reason"] == "other"


def test_a_search_goes_on_after_its_cursor(stand: ListStand) -> None:
    patient = stand.a_patient()
    for number in range(5):
        stand.say(patient, issued(f"R{number}", f"T{number}", signed_ms=stand.clock.now_ms()))
    pages: list[list[str]] = []
    cursor = None
    while cursor is not None or not pages:
        more: dict[str, str] = {} if cursor is None else {"cursor": cursor}
        answer = stand.http.post("/internal/prescriptions", json={"patient": patient.key, "limit": 2, **more}).json()
        pages.append([each["prescription"] for each in answer["prescriptions"]])
        cursor = answer.get("cursor")
        # The pharmacy service hands it back unread, and takes it in the form in which the list makes it.
        assert cursor is None or asked_of(DOOR, {"reference_number": "X", "cursor": cursor}, 0)["cursor"] == cursor
    assert pages == [
        [patient.id_of("R4"), patient.id_of("R3")],
        [patient.id_of("R2"), patient.id_of("R1")],
        [patient.id_of("R0")],
    ]
    wrong = stand.http.post("/internal/prescriptions", json={"patient": patient.key, "cursor": "???"})
    assert pointers(wrong) == [("/cursor", "wrong_format")]


def test_a_locked_prescription_is_found_through_its_reference_number_alone(stand: ListStand) -> None:
    patient, number, open_number = stand.a_patient(), uuid.uuid4().hex, uuid.uuid4().hex
    locked, unlocked = f"locked {number}", f"open {number}"
    stand.say(patient, issued(locked, "T1", locked=True, reference_number=number))
    stand.say(patient, issued(unlocked, "T2", reference_number=open_number))
    assert found(stand, patient=patient.key) == found(stand, patient=patient.key, all=True) == [patient.id_of(unlocked)]
    assert found(stand, reference_number=number) == [patient.id_of(locked)]
    assert found(stand, reference_number=open_number) == [patient.id_of(unlocked)]
    assert found(stand, patient=patient.key, reference_number=number) == [patient.id_of(locked)]
    assert found(stand, patient=patient.key, reference_number="nobody's") == []
    assert found(stand, reference_number="never given") == []
    shown = [each["prescriptions"][0] for each in stand.read(patient)["treatments"]]
    assert [each["issued"]["locked"] for each in shown if each["prescription"] == patient.id_of(locked)] == [True]


@pytest.mark.parametrize(("role", "sees"), [("pharmacist", 1), ("doctor", 2), ("nurse", 2), ("citizen", 2)])
def test_no_list_or_history_shows_a_locked_prescription_to_a_pharmacy(stand: ListStand, role: str, sees: int) -> None:
    patient, caller = stand.a_patient(), a_caller(role=role)
    locked = uuid.uuid4().hex
    stand.say(patient, issued(locked, f"T {locked}", locked=True))
    as_of = stand.clock.now_ms()
    stand.say(patient, issued(f"open {locked}", f"T open {locked}"))
    stand.say(patient, changed(f"T {locked}"))
    shown = stand.ask("/v1/list/read", patient.body(), caller=caller).json()
    assert len(shown["treatments"]) == sees
    history = stand.ask("/v1/list/history", patient.body(), caller=caller).json()
    assert len(history["events"]) == {1: 1, 2: 3}[sees]
    then = datetime.fromtimestamp(as_of / 1000, UTC).isoformat()
    past = stand.ask("/v1/list/read", patient.body(as_of=then), caller=caller).json()
    assert len(past["treatments"]) == sees - 1


def test_owners_are_told_of_what_is_known(stand: ListStand) -> None:
    patient, name, number = stand.a_patient(), uuid.uuid4().hex, uuid.uuid4().hex
    stand.say(patient, issued(name, reference_number=number))
    asked = {"prescriptions": [patient.id_of(name), id_of("nobody's")], "reference_numbers": [number, "nobody's"]}
    told = stand.http.post("/internal/owners", json=asked).json()
    assert told == {patient.id_of(name): patient.key, number: patient.key}
    assert stand.http.post("/internal/owners", json={}).json() == {}


def test_a_status_is_told_of_a_known_prescription_as_it_is_now(stand: ListStand) -> None:
    patient, name = stand.a_patient(), uuid.uuid4().hex
    stand.say(patient, issued(name))
    path = f"/v1/prescriptions/{patient.id_of(name)}/status"
    assert stand.get(path).json()["status"] == "E"
    stand.say(patient, claimed(name))
    assert stand.get(path).json()["status"] == "U"
    assert stand.get(f"/v1/prescriptions/{uuid.uuid4()}/status").status_code == 404
    assert stand.get("/v1/prescriptions/none/status").status_code == 404


def test_head_tells_what_get_would_and_sends_no_body(stand: ListStand) -> None:
    patient, name = stand.a_patient(), uuid.uuid4().hex
    place = stand.say(patient, issued(name))
    for path in (
        f"/v1/prescriptions/{patient.id_of(name)}/status",
        f"/v1/prescriptions/{uuid.uuid4()}/status",
        f"/v1/events/{uuid.uuid4()}?position={position(place)}",
        "/health/live",
    ):
        headers = {"Medchain-Caller": a_caller()}
        head, get = stand.http.head(path, headers=headers), stand.http.get(path, headers=headers)
        assert head.status_code == get.status_code, path
        assert (head.headers["content-length"], head.content) == (str(len(get.content)), b""), path


@pytest.mark.parametrize(("role", "status"), [("pharmacist", 404), ("doctor", 200), ("nurse", 200), ("citizen", 200)])
def test_a_status_by_id_does_not_tell_a_pharmacy_of_a_locked_prescription(
    stand: ListStand, role: str, status: int
) -> None:
    patient, name = stand.a_patient(), uuid.uuid4().hex
    stand.say(patient, issued(name, locked=True))
    path = f"/v1/prescriptions/{patient.id_of(name)}/status"
    answer = stand.get(path, caller=a_caller(role=role))
    assert answer.status_code == status
    if status == 404:
        nowhere = stand.get(f"/v1/prescriptions/{uuid.uuid4()}/status", caller=a_caller(role=role))
        assert answer.content == nowhere.content, "as if it had never been"


def test_the_pharmacy_that_a_locked_prescription_was_sent_to_is_told_its_status_and_others_are_not(
    stand: ListStand,
) -> None:
    patient, name = stand.a_patient(), uuid.uuid4().hex
    stand.say(patient, issued(name, locked=True))
    sent = dispatched(name)
    stand.say(patient, replace(sent, body=with_fields(sent.body, pharmacy=PHARMACY)))
    path = f"/v1/prescriptions/{patient.id_of(name)}/status"
    callers = (a_caller(role="pharmacist", organisation=each) for each in (PHARMACY, OFFICE))
    assert [stand.get(path, caller=each).status_code for each in callers] == [200, 404]


# --- One number, two patients -------------------------------------------------------------------------------------


def of_other_partition(stand: ListStand, patient: Patient, *, same: bool = False) -> Patient:
    """Another patient, of another partition unless told otherwise."""
    others = (stand.a_patient() for _ in range(1_000))
    return next(each for each in others if (each.partition == patient.partition) is same)


@pytest.mark.parametrize("same_partition", [False, True])
def test_a_prescription_under_two_patients_stays_with_the_first_flagged_and_is_shown_to_nobody_else(
    stand: ListStand, *, same_partition: bool
) -> None:
    first = stand.a_patient()
    second = of_other_partition(stand, first, same=same_partition)
    stand.say(second, allergic())
    before = stand.read(second)
    said = issued("R1", "T1")
    stand.say(first, said)
    place = stand.say_anothers(second, replace(said, body=with_fields(said.body, prescription=first.id_of("R1"))))
    (treatment,) = stand.read(first)["treatments"]
    assert "prescription_number_conflict" in treatment["flags"]
    assert treatment["prescriptions"][0]["flags"] == ["prescription_number_conflict"]
    after = stand.read(second)
    assert after["treatments"] == []
    assert after["version"] == place.offset
    assert {name for name in after if after[name] != before[name]} == {
        "as_of",
        "position",
        "position_recorded_at",
        "read_token",
        "version",
    }
    assert found(stand, patient=second.key, all=True) == []
    assert found(stand, patient=first.key) == [first.id_of("R1")]
    assert stand.get(f"/v1/prescriptions/{first.id_of('R1')}/status").json()["issued"]["treatment"] == id_of("T1")
    asked = {"prescriptions": [first.id_of("R1")], "reference_numbers": []}
    assert stand.http.post("/internal/owners", json=asked).json() == {first.id_of("R1"): first.key}


def test_the_first_is_the_one_that_the_broker_took_first_whatever_its_partition(stand: ListStand) -> None:
    one = stand.a_patient()
    other = of_other_partition(stand, one)
    number = uuid.uuid4().hex
    for patient in (other, one) if one.partition < other.partition else (one, other):
        stand.say(patient, issued(f"R {patient.key}", "T1", reference_number=number))
    early, late = (other, one) if one.partition < other.partition else (one, other)
    assert found(stand, reference_number=number) == [early.id_of(f"R {early.key}")]
    assert stand.read(late)["treatments"] == []
    assert [each["flags"] for each in stand.read(early)["treatments"]] == [["prescription_number_conflict"]]


def test_what_came_second_is_shown_in_no_past_and_no_history_either(stand: ListStand) -> None:
    first = stand.a_patient()
    second = of_other_partition(stand, first)
    number = uuid.uuid4().hex
    for patient in (first, second):
        stand.say(patient, issued(f"R {patient.key}", "T1", reference_number=number))
    then = {"as_of": stand.read(second)["as_of"]}
    assert stand.ask("/v1/list/read", second.body(**then)).json()["treatments"] == []
    (entry,) = stand.ask("/v1/list/read", first.body(**then)).json()["treatments"]
    assert entry["flags"] == ["prescription_number_conflict"]
    for patient, is_shown in ((first, True), (second, False)):
        (event,) = stand.ask("/v1/list/history", patient.body()).json()["events"]
        assert (event["outcome"], "content" in event) == ("applied", is_shown)


def test_what_came_second_still_replaces_where_a_claim_is_judged_and_where_one_status_is_asked_for(
    stand: ListStand,
) -> None:
    """What that costs, and what an operator does: docs/decisions/number-conflicts.md and its runbook."""
    first = stand.a_patient()
    second = of_other_partition(stand, first)
    number = uuid.uuid4().hex
    stand.say(first, issued("R1", "T1", reference_number=number))
    stand.say(second, issued("R1", "T1"))
    stand.say(second, issued("R2", "T1", signed_ms=at(0, 9), reference_number=number))
    (treatment,) = stand.read(second)["treatments"]
    assert [(each["prescription"], each["status"]) for each in treatment["prescriptions"]] == [
        (second.id_of("R1"), "E")
    ]
    assert stand.get(f"/v1/prescriptions/{second.id_of('R1')}/status").json()["status"] == "T"
    told = stand.outcome(second, stand.say(second, claimed("R1")), stand.last_event_id).json()
    assert (told["outcome"], told["reason"]) == ("refused", "recalled")


def test_two_prescriptions_of_one_patient_with_one_number_are_no_conflict(stand: ListStand) -> None:
    patient, number = stand.a_patient(), uuid.uuid4().hex
    for name in ("R1", "R2"):
        stand.say(patient, issued(name, f"T {name}", reference_number=number))
    assert ["flags" in each for each in stand.read(patient)["treatments"]] == [False, False]


# --- The whole of it ----------------------------------------------------------------------------------------------


def test_the_openapi_document_is_valid_and_its_examples_are_taken(stand: ListStand) -> None:
    document = stand.http.get("/openapi.json").json()
    validate(document)
    assert document["openapi"].startswith("3.1")
    for path in ("/v1/list/read", "/v1/list/history"):
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        for name, example in content["examples"].items():
            answer = stand.ask(path, example["value"])
            assert answer.status_code == 200, (name, answer.text)


def test_a_view_that_was_lost_is_503_with_its_progress_and_never_an_empty_list(stand: ListStand) -> None:
    patient = stand.a_patient()
    stand.say(patient, issued("R1"))
    before = stand.read(patient)
    assert stand.http.get("/health/ready").status_code == 200
    with redis.Redis.from_url(stand.settings.redis) as client:
        client.flushall()
    answer = stand.ask("/v1/list/read", patient.body())
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/list_unavailable")
    assert answer.headers["Retry-After"]
    assert answer.json()["progress"] == {"partition": patient.partition, "offset": None, "until": None}
    assert stand.http.get("/health/live").status_code == 200
    stand.begin()
    end = stand.source_ends()[patient.partition]
    behind = {"partition": patient.partition, "offset": 0, "until": end}
    for path in ("/v1/list/read", "/v1/list/history"):
        assert stand.ask(path, patient.body()).json()["progress"] == behind
    ready = stand.http.get("/health/ready")
    assert ready.status_code == 503
    assert behind in ready.json()["partitions"]
    stand.judge()
    after = stand.read(patient)
    assert after["generation"] != before["generation"]
    assert after["treatments"] == before["treatments"]
    assert stand.http.get("/health/ready").json()["status"] == "ready"


def test_while_the_view_is_lost_no_number_is_told_to_be_nobodys(stand: ListStand) -> None:
    patient, name, number = stand.a_patient(), uuid.uuid4().hex, uuid.uuid4().hex
    stand.say(patient, issued(name, reference_number=number))
    status = f"/v1/prescriptions/{patient.id_of(name)}/status"
    with a_stand(pharmacy_app, str(stand.http.base_url)) as pharmacy:

        def searched() -> httpx.Response:
            return pharmacy.post("/v1/prescriptions/search", {"reference_number": number}, key=None)

        before = searched().json()
        assert [each["prescription"] for each in before["prescriptions"]] == [patient.id_of(name)]
        assert before["complete"] is True
        with redis.Redis.from_url(stand.settings.redis) as client:
            client.flushall()
        lost = [searched(), stand.get(status)]
        stand.begin()
        building = [searched(), stand.get(status)]
        for answer in (*lost, *building):
            assert (answer.status_code, answer.json()["type"]) == (503, "/problems/list_unavailable")
            assert answer.headers["Retry-After"]
        stand.judge()
        after = searched().json()
        assert after["prescriptions"] == before["prescriptions"]
        assert (after["position"], after["generation"]) == (before["position"], stand.generation)
        assert stand.get(status).json()["status"] == "E"


def test_a_redis_that_does_not_answer_is_503(stand: ListStand) -> None:
    patient = stand.a_patient()
    with redis.Redis.from_url(stand.settings.redis) as client:
        client.client_pause(4_000)
    answer = stand.ask("/v1/list/read", patient.body())
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    wait_until(lambda: stand.ask("/v1/list/read", patient.body()).is_success, within_s=30, what="Redis answers again")
