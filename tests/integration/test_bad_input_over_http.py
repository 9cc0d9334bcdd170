"""Bad input over HTTP, against the running chain: every field with its reason, nothing stored, and the next message passes."""

import copy
import json
import unicodedata
from collections.abc import Callable
from typing import Any, Final
from uuid import uuid4

import httpx
import pytest

from services.identity.national_id import synthetic
from tests.acceptance.translate import ACTORS
from tests.acceptance.values import instant
from tests.chain import Chain, caller_header

pytestmark = pytest.mark.integration

NOW_MS: Final = instant("d0 12:00")
PRESCRIBER: Final = ACTORS["prescriber A"]
PHARMACIST: Final = ACTORS["pharmacy P"]
NOBODY: Final = {"national_id": synthetic(31_000).digits, "name": "Kari Nordmann"}
"""Only ever sent with something bad: nothing may become known of her."""
WRONG_CHECKSUM: Final = NOBODY["national_id"][:10] + str((int(NOBODY["national_id"][10]) + 1) % 10)
PERIOD: Final[dict[str, Any]] = {"fixed": [{"dose": {"low": 1, "unit": "tablet"}, "times_of_day": ["morning"]}]}


@pytest.fixture(autouse=True)
def _now(chain: Chain) -> None:
    chain.set_clock(NOW_MS)


def a_prescription(patient: dict[str, str] = NOBODY) -> dict[str, Any]:
    return {
        "patient": dict(patient),
        "medication": {
            "product": {"kind": "substance", "name": "Metformin"},
            "form": "tablet",
            "atc": "A10BA02",
            "strength": "500 mg",
        },
        "quantity": {"value": 100, "unit": "tablet"},
        "refills": 3,
        "dosing": {"periods": [copy.deepcopy(PERIOD)]},
    }


def post(chain: Chain, path: str, content: bytes, content_type: str = "application/json") -> httpx.Response:
    """A write with a body of any bytes."""
    stated = {
        "Medchain-Caller": caller_header(PRESCRIBER),
        "Idempotency-Key": str(uuid4()),
        "Content-Type": content_type,
    }
    return chain.http.post(chain.platform.url("prescriber") + path, content=content, headers=stated)


def with_value(path: str, value: Any) -> dict[str, Any]:
    sent = a_prescription()
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    inner: Any = sent
    for step in way:
        inner = inner[step]
    inner[last] = value
    return sent


def without(field: str) -> dict[str, Any]:
    sent = a_prescription()
    del sent[field]
    return sent


NAN, INFINITE = float("nan"), float("inf")
FAULTS: Final[list[tuple[str, dict[str, Any], str, str]]] = [
    ("wrong checksum", with_value("patient.national_id", "02813299986"), "/patient/national_id", "wrong_checksum"),
    ("unknown code", with_value("medication.form", "pill"), "/medication/form", "unknown_code"),
    ("missing field", without("quantity"), "/quantity", "missing"),
    ("extra field", with_value("pills", 3), "/pills", "unexpected_field"),
    ("null field", with_value("quantity", None), "/quantity", "null_not_allowed"),
    ("wrong type", with_value("refills", "three"), "/refills", "wrong_type"),
    ("negative quantity", with_value("quantity.value", -1), "/quantity/value", "not_positive"),
    ("zero quantity", with_value("quantity.value", 0), "/quantity/value", "not_positive"),
    ("absurd quantity", with_value("quantity.value", 1e300), "/quantity/value", "out_of_range"),
    ("a quantity that is no number", with_value("quantity.value", NAN), "/quantity/value", "not_a_number"),
    ("an infinite quantity", with_value("quantity.value", INFINITE), "/quantity/value", "not_a_number"),
    ("a unit that does not fit", with_value("quantity.unit", "ml"), "/quantity/unit", "unit_does_not_fit"),
    (
        "end before start",
        with_value("dosing.periods", [{**PERIOD, "start": "2026-03-10", "end": "2026-03-09"}]),
        "/dosing/periods/0/end",
        "end_before_start",
    ),
    (
        "overlapping dosing periods",
        with_value("dosing.periods", [{**PERIOD, "end": "2026-03-10"}, {**PERIOD, "start": "2026-03-10"}]),
        "/dosing/periods/1",
        "overlapping_periods",
    ),
    ("a date in the year 20260", with_value("valid_until", "20260-03-02"), "/valid_until", "date_out_of_range"),
    ("a long note", with_value("note", "x" * 100_000), "/note", "too_long"),
    ("a control character", with_value("note", "bell\u0007"), "/note", "control_character"),
    ("an unpaired surrogate", with_value("note", "half \ud83d"), "/note", "unpaired_surrogate"),
]


def check_problem(answer: httpx.Response, status: int, reason: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    document: dict[str, Any] = answer.json()
    assert (document["type"], document["status"]) == (f"/problems/{reason}", status)
    assert document["title"]
    for sent in (NOBODY["name"], NOBODY["national_id"], "Metformin"):
        assert sent not in answer.text
    return document


def check_nothing_is_known(chain: Chain) -> None:
    assert chain.history(NOBODY["national_id"], PRESCRIBER) == []
    assert chain.search(NOBODY["national_id"], PHARMACIST) == []


@pytest.mark.parametrize(
    ("sent", "pointer", "reason"), [fault[1:] for fault in FAULTS], ids=[each[0] for each in FAULTS]
)
def test_a_fault_is_told_with_its_field_and_reason(
    chain: Chain, sent: dict[str, Any], pointer: str, reason: str
) -> None:
    answer = post(chain, "/v1/prescriptions", json.dumps(sent).encode())
    (error,) = check_problem(answer, 422, "invalid")["errors"]
    assert (error["pointer"], error["reason"]) == (pointer, reason)
    assert error["text"]
    check_nothing_is_known(chain)


def test_every_fault_of_a_message_is_told_at_once(chain: Chain) -> None:
    sent = a_prescription()
    sent["medication"]["form"] = "pill"
    sent["quantity"]["value"] = -1
    sent["valid_until"] = "20260-03-02"
    sent["pills"] = 3
    del sent["refills"]
    sent["dosing"]["periods"] = [{**PERIOD, "start": "2026-03-10", "end": "2026-03-09"}]
    answer = post(chain, "/v1/prescriptions", json.dumps(sent).encode())
    told = {each["pointer"]: each["reason"] for each in check_problem(answer, 422, "invalid")["errors"]}
    assert told == {
        "/medication/form": "unknown_code",
        "/quantity/value": "not_positive",
        "/valid_until": "date_out_of_range",
        "/pills": "unexpected_field",
        "/refills": "missing",
        "/dosing/periods/0/end": "end_before_start",
    }
    check_nothing_is_known(chain)


WHOLE: Final[list[tuple[str, bytes, str, int, str]]] = [
    ("nested a thousand deep", b'{"a":' * 1_000 + b"1" + b"}" * 1_000, "application/json", 400, "nested_too_deep"),
    ("no JSON", b'{"patient": ', "application/json", 400, "not_parseable"),
    ("no text in UTF-8", b'{"note": "\xff"}', "application/json", 400, "not_parseable"),
    ("a note of 1 MB", json.dumps(with_value("note", "x" * 1_000_000)).encode(), "application/json", 413, "too_large"),
    ("not said to be JSON", json.dumps(a_prescription()).encode(), "text/plain", 415, "not_json"),
]


@pytest.mark.parametrize(
    ("content", "content_type", "status", "reason"), [each[1:] for each in WHOLE], ids=[each[0] for each in WHOLE]
)
def test_what_is_no_message_is_refused_as_a_whole(
    chain: Chain, content: bytes, content_type: str, status: int, reason: str
) -> None:
    check_problem(post(chain, "/v1/prescriptions", content, content_type), status, reason)
    check_nothing_is_known(chain)


@pytest.fixture(scope="module")
def known(chain: Chain) -> tuple[dict[str, str], str]:
    """A citizen with a prescription."""
    chain.set_clock(NOW_MS)
    citizen = {"national_id": synthetic(31_001).digits, "name": "Ola Nordmann"}
    answer = post(chain, "/v1/prescriptions", json.dumps(a_prescription(citizen)).encode())
    assert answer.status_code == 201, answer.text
    return citizen, answer.json()["resource"]["prescription"]


def _recall(chain: Chain, prescription: str) -> httpx.Response:
    sent = {"patient": NOBODY, "reason": "other"}
    return chain.post("prescriber", f"/v1/prescriptions/{prescription}/recall", sent, PRESCRIBER)


def _claim(chain: Chain, prescription: str) -> httpx.Response:
    return chain.post("pharmacy", "/v1/claims", {"patient": NOBODY, "prescription": prescription}, PHARMACIST)


@pytest.mark.parametrize("write", [_recall, _claim])
def test_a_prescription_of_another_patient_is_turned_away(
    chain: Chain, known: tuple[dict[str, str], str], write: Callable[[Chain, str], httpx.Response]
) -> None:
    citizen, prescription = known
    (error,) = check_problem(write(chain, prescription), 422, "invalid")["errors"]
    assert (error["pointer"], error["reason"]) == ("/prescription", "other_patient")
    check_nothing_is_known(chain)
    (shown,) = chain.search(citizen["national_id"], PHARMACIST)
    assert shown["status"] == "E"


def test_an_unknown_prescription_cannot_be_claimed(chain: Chain) -> None:
    stranger = {"national_id": synthetic(31_002).digits}
    answer = chain.post("pharmacy", "/v1/claims", {"patient": stranger, "prescription": str(uuid4())}, PHARMACIST)
    check_problem(answer, 409, "unknown")


def test_a_recall_of_an_unknown_prescription_waits_for_it(chain: Chain) -> None:
    stranger = {"national_id": synthetic(31_003).digits}
    sent = {"patient": stranger, "reason": "other"}
    answer = chain.post("prescriber", f"/v1/prescriptions/{uuid4()}/recall", sent, PRESCRIBER)
    assert (answer.status_code, answer.json()["flags"]) == (201, ["prescription_unknown"])


@pytest.mark.parametrize(
    "name",
    ["Ærøy Ångström", "Nguyễn Thị", "Αδάμ", "Иван", "محمد", "אברהם", "李小龍", "ประยุทธ์", "அன்பு", "👩🏽⚕️"],
)
def test_a_name_in_any_script_comes_back_to_the_pharmacy_as_it_is(chain: Chain, name: str) -> None:
    citizen = {"national_id": synthetic(31_010 + len(name.encode())).digits, "name": name}
    issued = post(chain, "/v1/prescriptions", json.dumps(a_prescription(citizen)).encode())
    assert issued.status_code == 201, issued.text
    asked = {"patient": citizen, "prescription": issued.json()["resource"]["prescription"]}
    claimed = chain.post("pharmacy", "/v1/claims", asked, PHARMACIST)
    assert claimed.status_code == 201, claimed.text
    assert claimed.json()["resource"]["patient"] == {**citizen, "name": unicodedata.normalize("NFC", name)}


def test_after_all_of_it_the_next_good_message_passes(chain: Chain) -> None:
    citizen = {"national_id": synthetic(31_004).digits, "name": "Ola Nordmann"}
    answer = post(chain, "/v1/prescriptions", json.dumps(a_prescription(citizen)).encode())
    assert (answer.status_code, answer.json()["outcome"]) == (201, "applied")
