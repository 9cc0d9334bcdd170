"""The prescriber service over HTTP: every answer of the interface, and nothing in the log that was turned away."""

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import httpx
import pytest

from schemas.codec import digest_of
from schemas.events import BODIES, PrescriptionIssued, PrescriptionRecalled
from services.clock import SystemClock
from services.identity.national_id import synthetic
from services.prescriber.api import WRITES, prescriber_app
from services.publishing.log import Headers, Position
from services.publishing.memory_log import MemoryLog
from services.topics.registry import EVENTS_TOPIC, load
from tests.integration.services_stand import (
    DOOR,
    OFFICE,
    PATIENT,
    PRESCRIPTION,
    SEALER,
    Answer,
    Stand,
    a_caller,
    a_prescription,
    a_stand,
)

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def service() -> Iterator[Stand]:
    with a_stand(prescriber_app) as running:
        yield running


@pytest.fixture
def stand(service: Stand) -> Stand:
    service.begin_anew()
    return service


def reasons(answer: httpx.Response) -> dict[str, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return {error["pointer"]: error["reason"] for error in answer.json()["errors"]}


def kind_of(answer: httpx.Response) -> str:
    return str(answer.json()["type"]).removeprefix("/problems/")


# --- What is applied ---------------------------------------------------------------------------------------------


def test_an_applied_write_is_answered_with_outcome_position_and_resource(stand: Stand) -> None:
    stand.list.outcome = lambda _: (
        200,
        {"outcome": "applied", "flags": ["substance_changed"], "position": "p", "resource": {"status": "E"}},
    )
    answer = stand.post("/v1/prescriptions", a_prescription())
    assert answer.status_code == 201
    assert answer.json() == {
        "event_id": stand.events()[0].event_id,
        "outcome": "applied",
        "position": "p",
        "flags": ["substance_changed"],
        "resource": {"status": "E"},
    }


def test_the_event_says_who_and_seals_whom(stand: Stand) -> None:
    stand.post("/v1/prescriptions", a_prescription(occurred_at="2026-03-02T09:30:00+01:00"))
    (event,) = stand.events()
    assert isinstance(event.body, PrescriptionIssued)
    assert (
        event.patient
        == DOOR.admit_request(
            PrescriptionRecalled,
            {"patient": PATIENT, "reason": "other", "prescription": PRESCRIPTION},
            received_at_ms=stand.clock.now_ms(),
        ).patient
    )
    assert (event.source.system, event.source.organisation, event.source.person) == ("journal", OFFICE, "9144900")
    assert event.received_at_ms - event.occurred_at_ms == 30 * 60_000
    assert event.body.quantity.value == Decimal(100)
    assert event.body.identity is not None
    opened = SEALER.open(event.body.identity, event.patient)
    assert (opened.national_id.digits, opened.name) == (PATIENT["national_id"], PATIENT["name"])


def test_no_national_id_or_name_is_in_keys_and_headers_of_the_log(stand: Stand) -> None:
    stand.post("/v1/prescriptions", a_prescription(), traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01")
    (record,) = stand.log.records(EVENTS_TOPIC)
    outside = record.key + b"".join(name.encode() + value for name, value in record.headers)
    assert PATIENT["national_id"].encode() not in outside + record.value
    assert PATIENT["name"].encode() not in outside + record.value
    assert ("traceparent", b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01") in record.headers


def test_what_a_sender_puts_in_the_place_of_a_trace_does_not_reach_the_log(stand: Stand) -> None:
    stand.post("/v1/prescriptions", a_prescription(), traceparent=PATIENT["national_id"])
    (record,) = stand.log.records(EVENTS_TOPIC)
    assert "traceparent" not in dict(record.headers)


def test_every_example_of_every_resource_is_recorded_as_its_event_today(stand: Stand) -> None:
    stand.clock.set(SystemClock().now_ms())
    document = stand.http.get("/openapi.json").json()
    for number, write in enumerate(WRITES):
        operation = document["paths"][write.path]["post"]
        examples = operation["requestBody"]["content"]["application/json"]["examples"]
        for title, example in examples.items():
            sent = example["value"]
            if "read_token" in sent:
                continue  # an example's token is nobody's: test_a_token below
            answer = stand.post(write.path.replace("{id}", PRESCRIPTION), sent, key=f"key {number} {title}")
            assert answer.status_code == 201, (write.path, answer.json())
            recorded = stand.events()
            newest = next(event for event in recorded if event.event_id == answer.json()["event_id"])
            assert type(newest.body) is write.records
            if write.id_of is not None:
                assert getattr(newest.body, write.id_of) == PRESCRIPTION


def test_every_event_that_a_prescriber_may_send_has_a_resource() -> None:
    at_the_pharmacy = {"ClaimRequested", "ClaimAborted", "ClaimReleased", "MedicationDispensed", "DispenseReversed"}
    assert {write.records.__name__ for write in WRITES} == {body.__name__ for body in BODIES} - at_the_pharmacy


def test_an_order_is_judged_line_by_line(stand: Stand) -> None:
    line = {name: value for name, value in a_prescription().items() if name != "patient"}
    outcomes = iter(["applied", "duplicate", "applied"])
    stand.list.outcome = lambda _: (200, {"outcome": next(outcomes), "flags": []})
    answer = stand.post("/v1/prescriptions", {"patient": PATIENT, "prescriptions": [line, line, line]})
    assert answer.status_code == 201
    assert [each["outcome"] for each in answer.json()["outcomes"]] == ["applied", "duplicate", "applied"]
    assert len({event.body.prescription for event in stand.events()}) == 3  # type: ignore[union-attr]  # all are issued


def test_an_order_with_one_bad_line_is_turned_away_whole(stand: Stand) -> None:
    line = {name: value for name, value in a_prescription().items() if name != "patient"}
    bad = {name: value for name, value in line.items() if name != "quantity"}
    answer = stand.post("/v1/prescriptions", {"patient": PATIENT, "prescriptions": [line, bad]})
    assert answer.status_code == 422
    assert reasons(answer) == {"/prescriptions/1/quantity": "missing"}
    assert stand.events() == []


# --- Duplicates and keys -----------------------------------------------------------------------------------------


def test_a_repetition_is_the_same_event_even_where_time_was_filled_in(stand: Stand) -> None:
    stand.post("/v1/prescriptions", a_prescription())
    stand.clock.advance(60_000)
    stand.list.outcome = lambda _: (
        200,
        {"outcome": "duplicate", "flags": [], "first": {"outcome": "applied", "reason": None, "flags": []}},
    )
    answer = stand.post("/v1/prescriptions", a_prescription())
    assert answer.status_code == 200
    assert answer.json()["first"]["outcome"] == "applied"
    first, again = stand.events()
    assert (first.event_id, first.body, first.occurred_at_ms) == (again.event_id, again.body, again.occurred_at_ms)


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/v1/prescriptions", a_prescription()),
        (f"/v1/treatments/{uuid4()}/discontinue", {"patient": PATIENT, "reason": "treatment_finished"}),
    ],
    ids=["prescription", "discontinuation"],
)
def test_a_repetition_to_a_service_that_was_started_again_is_the_same_event_at_the_same_time(
    stand: Stand, path: str, sent: dict[str, Any]
) -> None:
    assert stand.post(path, sent).status_code == 201
    (first,) = stand.events()
    stand.list.happened_at[first.event_id] = datetime.fromtimestamp(first.occurred_at_ms / 1000, UTC).isoformat()
    stand.clock.advance(3_600_000)
    stand.restart()
    stand.post(path, sent)
    _, again = stand.events()
    assert (again.event_id, again.occurred_at_ms) == (first.event_id, first.occurred_at_ms)
    assert digest_of(again) == digest_of(first)


def test_a_key_used_again_with_another_body_is_turned_away(stand: Stand) -> None:
    stand.post("/v1/prescriptions", a_prescription())
    answer = stand.post("/v1/prescriptions", a_prescription(refills=0))
    assert (answer.status_code, kind_of(answer)) == (422, "idempotency_key_reused")
    assert len(stand.events()) == 1


def test_a_key_used_again_is_told_by_the_fold_where_the_service_has_forgotten_it(stand: Stand) -> None:
    first: dict[str, Any] = {"outcome": "applied", "reason": None, "flags": []}
    stand.list.outcome = lambda _: (200, {"outcome": "refused", "reason": "conflicting_duplicate", "first": first})
    answer = stand.post("/v1/prescriptions", a_prescription())
    assert (answer.status_code, kind_of(answer)) == (422, "idempotency_key_reused")


def test_a_key_used_again_for_another_patient_is_turned_away(stand: Stand) -> None:
    stand.post("/v1/prescriptions", a_prescription())
    answer = stand.post("/v1/prescriptions", a_prescription(patient={"national_id": synthetic(2).digits}))
    assert (answer.status_code, kind_of(answer)) == (422, "idempotency_key_reused")
    assert len(stand.events()) == 1


def test_another_copy_of_the_service_makes_of_it_a_sound_event_of_that_patient(stand: Stand) -> None:
    stand.post("/v1/prescriptions", a_prescription())
    stand.restart()  # a copy has a memory of keys of its own
    stand.post("/v1/prescriptions", a_prescription(patient={"national_id": synthetic(2).digits}))
    events = stand.events()
    assert len({event.event_id for event in events}) == 1
    for made in ("prescription", "treatment"):
        assert len({getattr(event.body, made) for event in events}) == 2, made


def test_a_key_belongs_to_a_system(stand: Stand) -> None:
    stand.post("/v1/prescriptions", a_prescription())
    answer = stand.post("/v1/prescriptions", a_prescription(refills=0), caller=a_caller(system="hospital"))
    assert answer.status_code == 201
    assert len({event.event_id for event in stand.events()}) == 2


def test_the_same_key_at_the_same_time_with_two_bodies_records_one(stand: Stand) -> None:
    def send(refills: int) -> int:
        return stand.post("/v1/prescriptions", a_prescription(refills=refills)).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(send, [1, 2] * 8))
    assert set(statuses) == {201, 422}
    assert len({(event.event_id, event.body.refills) for event in stand.events()}) == 1  # type: ignore[union-attr]  # all are issued


# --- Refused, pending, unavailable -------------------------------------------------------------------------------


def test_a_refusal_names_what_the_ruling_names(stand: Stand) -> None:
    named = {"moved": ["treatment"]}
    stand.list.outcome = lambda _: (200, {"outcome": "refused", "reason": "stale", "flags": [], "named": named})
    answer = stand.post(f"/v1/treatments/{PRESCRIPTION}/resume", {"patient": PATIENT, "reason": "well again"})
    assert (answer.status_code, kind_of(answer)) == (409, "stale")
    assert answer.json()["moved"] == ["treatment"]
    assert answer.json()["position"]


def test_another_natural_id_conflict_is_a_refusal(stand: Stand) -> None:
    stand.list.outcome = lambda _: (200, {"outcome": "refused", "reason": "conflicting_duplicate", "flags": []})
    answer = stand.post("/v1/prescriptions", a_prescription())
    assert (answer.status_code, kind_of(answer)) == (409, "conflicting_duplicate")


def test_what_is_not_judged_in_time_is_pending_with_a_place_to_ask(stand: Stand) -> None:
    stand.list.outcome = lambda _: (202, {})
    answer = stand.post("/v1/prescriptions", a_prescription())
    assert answer.status_code == 202
    assert (answer.json()["outcome"], answer.json()["flags"]) == ("pending", [])
    (record,) = stand.log.records(EVENTS_TOPIC)
    place = f"{record.position.partition}-{record.position.offset}"
    assert answer.json()["position"] == place
    assert answer.headers["location"] == f"{stand.list.url}/v1/events/{stand.events()[0].event_id}?position={place}"
    assert answer.headers["retry-after"] == "1"


def test_a_caller_is_led_to_the_list_where_he_reaches_it(stand: Stand) -> None:
    stand.list_public_url = "https://list.example.no/chain/"
    stand.restart()
    stand.list.outcome = lambda _: (202, {})
    location = stand.post("/v1/prescriptions", a_prescription()).headers["location"]
    assert location.startswith("https://list.example.no/chain/v1/events/")


PENDING: Answer = (202, {})
APPLIED: Answer = (200, {"outcome": "applied", "flags": []})
PARKED: Answer = (200, {"outcome": "parked", "reason": "unreadable", "flags": []})


@pytest.mark.parametrize(
    ("told", "asked_for"),
    [
        ([APPLIED, PENDING, PENDING], 2),
        ([PENDING, PENDING, APPLIED], 1),
        ([APPLIED, PENDING, PARKED], 1),
        ([APPLIED, PARKED, APPLIED], 1),
    ],
    ids=["the rest pending", "the first pending", "one parked", "only one parked"],
)
def test_an_order_that_is_not_judged_whole_leads_to_the_last_of_it_that_is_not(
    stand: Stand, told: list[Answer], asked_for: int
) -> None:
    outcomes = iter(told)
    stand.list.outcome = lambda _: next(outcomes)
    line = {name: value for name, value in a_prescription().items() if name != "patient"}
    answer = stand.post("/v1/prescriptions", {"patient": PATIENT, "prescriptions": [line, line, line]})
    assert answer.status_code == 202
    open_ = answer.json()["outcomes"][asked_for]
    asked = f"{open_['event_id']}?position={open_['position']}"
    assert answer.headers["location"] == f"{stand.list.url}/v1/events/{asked}"


@pytest.mark.parametrize("prefer", ["respond-async", "wait=10, Respond-Async", "respond-async; x=1, handling=lenient"])
def test_a_caller_who_does_not_wait_is_not_made_to(stand: Stand, prefer: str) -> None:
    answer = stand.post("/v1/prescriptions", a_prescription(), Prefer=prefer)
    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "respond-async"
    assert answer.json()["outcome"] == "pending"
    assert [asked["wait_ms"] for path, asked in stand.list.asked if path == "outcomes"] == [0]
    assert len(stand.events()) == 1


def test_the_outcome_is_asked_for_the_record_that_was_appended(stand: Stand) -> None:
    stand.post("/v1/prescriptions", a_prescription())
    (event,) = stand.events()
    (record,) = stand.log.records(EVENTS_TOPIC)
    (asked,) = [asked for path, asked in stand.list.asked if path == "outcomes"]
    assert asked == {
        "patient": event.patient,
        "event_id": event.event_id,
        "partition": record.position.partition,
        "offset": record.position.offset,
        "record": base64.b64encode(record.value).decode(),  # so that the list need not ask the log
        "wait_ms": 1700,  # so that the list's own answer comes within two seconds
    }


def test_a_write_goes_on_while_the_list_is_away(stand: Stand) -> None:
    stand.list.status = 503
    answer = stand.post(f"/v1/prescriptions/{PRESCRIPTION}/recall", {"patient": PATIENT, "reason": "other"})
    assert answer.status_code == 202
    assert len(stand.events()) == 1


def test_without_the_log_nothing_is_taken_and_the_same_key_works_later(stand: Stand) -> None:
    stand.log.is_available = False
    answer = stand.post("/v1/prescriptions", a_prescription())
    assert (answer.status_code, kind_of(answer)) == (503, "log_unavailable")
    assert answer.headers["retry-after"]
    stand.log.is_available = True
    assert stand.post("/v1/prescriptions", a_prescription()).status_code == 201
    assert len(stand.events()) == 1


class LogThatStops(MemoryLog):
    """Takes nothing more once it holds so many records."""

    holds_at_most = 1

    async def append(self, topic: str, key: bytes, value: bytes, headers: Headers = ()) -> Position:
        """See `Log.append`."""
        self.is_available = len(self.records(topic)) < self.holds_at_most
        return await super().append(topic, key, value, headers)


def test_an_order_that_the_log_confirmed_in_part_says_so_and_is_whole_once_it_is_repeated(stand: Stand) -> None:
    stand.log = log = LogThatStops(load().partitions, stand.clock)
    stand.restart()
    line = {name: value for name, value in a_prescription().items() if name != "patient"}
    order = {"patient": PATIENT, "prescriptions": [line, line]}
    answer = stand.post("/v1/prescriptions", order)
    assert (answer.status_code, kind_of(answer)) == (503, "log_unavailable")
    assert answer.json()["detail"] == "1 of 2 events are in the log, and the next one was not confirmed."
    assert "nothing" not in answer.json()["title"]
    assert "ingenting" not in stand.post("/v1/prescriptions", order, **{"Accept-Language": "nb"}).json()["title"]

    log.holds_at_most = 3
    assert stand.post("/v1/prescriptions", order).status_code == 201
    first, again, second = stand.events()
    assert first.event_id == again.event_id != second.event_id
    assert first.body == again.body


def test_a_prescription_of_another_patient_is_turned_away(stand: Stand) -> None:
    stand.list.owners = {PRESCRIPTION: "f" * 32, "RX-1": "f" * 32}
    recall = stand.post(f"/v1/prescriptions/{PRESCRIPTION}/recall", {"patient": PATIENT, "reason": "other"})
    assert (recall.status_code, reasons(recall)) == (422, {"/prescription": "other_patient"})
    line = {name: value for name, value in a_prescription().items() if name != "patient"}
    order = {"patient": PATIENT, "prescriptions": [line, {**line, "reference_number": "RX-1"}]}
    issue = stand.post("/v1/prescriptions", order)
    assert reasons(issue) == {"/prescriptions/1/reference_number": "other_patient"}
    assert stand.events() == []


# --- Bad input ---------------------------------------------------------------------------------------------------


def sent_raw(stand: Stand, content: bytes, **headers: str) -> httpx.Response:
    stated = {"Medchain-Caller": a_caller(), "Idempotency-Key": "k", "Content-Type": "application/json", **headers}
    return stand.http.post("/v1/prescriptions", content=content, headers=stated)


def nested(levels: int) -> bytes:
    return b'{"note":' + b"[" * levels + b"]" * levels + b"}"


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        (b"", 400, "not_parseable"),
        (b"{", 400, "not_parseable"),
        (b"\xff\xfe", 400, "not_parseable"),
        (nested(1000), 400, "nested_too_deep"),
        (nested(100_000), 400, "nested_too_deep"),
        (b'{"note": "' + b"x" * 1_000_000 + b'"}', 413, "too_large"),
        (b'{"quantity": NaN}', 422, "invalid"),
        (b'{"note": "\\ud83d"}', 422, "invalid"),
        (b'{"note": "\\u0000"}', 422, "invalid"),
        (b'{"refills": 1, "refills": 2}', 422, "invalid"),
        (b"null", 422, "invalid"),
        (b"[]", 422, "invalid"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_is_no_message_is_turned_away_clearly(stand: Stand, content: bytes, status: int, reason: str) -> None:
    answer = sent_raw(stand, content)
    assert (answer.status_code, kind_of(answer)) == (status, reason)
    assert stand.events() == []


def test_what_is_not_json_is_turned_away(stand: Stand) -> None:
    answer = sent_raw(stand, b"<xml/>", **{"Content-Type": "application/xml"})
    assert (answer.status_code, kind_of(answer)) == (415, "not_json")


def test_every_error_of_a_message_is_told_at_once_and_nothing_is_recorded(stand: Stand) -> None:
    sent = a_prescription(patient={"national_id": "02013299987"}, refills="3", quantity=None, pills=1)
    sent["valid_until"] = "20260-01-01"
    answer = stand.post("/v1/prescriptions", sent)
    assert answer.status_code == 422
    assert reasons(answer) == {
        "/patient/national_id": "wrong_checksum",
        "/refills": "wrong_type",
        "/quantity": "null_not_allowed",
        "/pills": "unexpected_field",
        "/valid_until": "date_out_of_range",
    }
    assert "02013299987" not in answer.text
    assert stand.events() == []


def test_numbers_are_kept_exactly(stand: Stand) -> None:
    content = json.dumps(a_prescription()).replace('"value": 100', '"value": 0.1000').encode()
    assert sent_raw(stand, content).status_code == 201
    (event,) = stand.events()
    assert event.body.quantity.value == Decimal("0.1")  # type: ignore[union-attr]  # it is issued


@pytest.mark.parametrize("key", [None, "", "x" * 256])
def test_a_write_without_a_usable_key_is_turned_away(stand: Stand, key: str | None) -> None:
    answer = stand.post("/v1/prescriptions", a_prescription(), key=key)
    assert (answer.status_code, kind_of(answer)) == (400, "no_idempotency_key")
    assert stand.events() == []


@pytest.mark.parametrize(
    "caller",
    [
        "nobody",
        "system=journal",
        a_caller(organisation="974760674"),
        a_caller(role="king"),
        a_caller(system="Journal_1"),
        a_caller(person="1"),
        a_caller() + "; name=Ola",
    ],
)
def test_a_caller_who_is_not_stated_is_unknown(stand: Stand, caller: str) -> None:
    answer = stand.post("/v1/prescriptions", a_prescription(), caller=caller)
    assert (answer.status_code, kind_of(answer)) == (401, "no_caller")
    assert stand.events() == []


def test_what_json_cannot_hold_is_told_together_with_all_else(stand: Stand) -> None:
    sent = json.loads(json.dumps(a_prescription(refills=-1, note="half \ud83d")))
    sent["quantity"]["value"] = float("nan")
    text = json.dumps(sent).replace('"refills"', '"locked": true, "locked": false, "valid_until": 1e999, "refills"')
    answer = sent_raw(stand, text.encode())
    assert reasons(answer) == {
        "/quantity/value": "not_a_number",
        "/note": "unpaired_surrogate",
        "/locked": "duplicate_field",
        "/valid_until": "not_a_number",
        "/refills": "out_of_range",
    }
    assert stand.events() == []


def test_what_json_cannot_hold_is_turned_away_where_nothing_else_is_wrong(stand: Stand) -> None:
    text = json.dumps(a_prescription()).replace('"refills"', '"locked": true, "locked": false, "refills"')
    assert reasons(sent_raw(stand, text.encode())) == {"/locked": "duplicate_field"}
    assert stand.events() == []


@pytest.mark.parametrize(
    "path",
    [
        "/v1/prescriptions/1/recall",
        f"/v1/prescriptions/{PATIENT['national_id']}/recall",
        "/v1/nothing",
        "/v1/prescriptions/",
    ],
)
def test_what_is_not_there_is_not_found(stand: Stand, path: str) -> None:
    answer = stand.post(path, {"patient": PATIENT, "reason": "other"})
    assert (answer.status_code, kind_of(answer)) == (404, "not_found")


# --- Around it ---------------------------------------------------------------------------------------------------


def test_the_service_is_ready_when_log_and_list_can_be_reached(stand: Stand) -> None:
    assert stand.http.get("/health/live").status_code == 200
    assert stand.http.get("/health/ready").status_code == 200
    stand.list.status = 503
    assert kind_of(stand.http.get("/health/ready")) == "list_unavailable"
    stand.log.is_available = False
    assert kind_of(stand.http.get("/health/ready")) == "log_unavailable"
    assert stand.http.get("/health/live").status_code == 200


def test_the_openapi_document_refers_only_to_what_it_holds(stand: Stand) -> None:
    document = stand.http.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert referred(document) <= known


def referred(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(referred(inner) for inner in value.values()))
    if isinstance(value, list):
        return set().union(*(referred(inner) for inner in value))
    return set()
