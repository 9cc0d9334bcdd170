"""The door: everything that is wrong with a message is told at once, in the field's words; what is right passes."""

import base64
import copy
import hmac
import struct
import sys
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from schemas import codec, golden
from schemas.codes import CODES
from schemas.events import (
    BODIES,
    AllergyRecorded,
    Body,
    ClaimAborted,
    ClaimRequested,
    DispenseReversed,
    Event,
    ListReconciled,
    MedicationDispensed,
    MultidoseAssigned,
    PatientDied,
    PrescriptionIssued,
    PrescriptionRecalled,
    Source,
    TreatmentChanged,
    TreatmentDiscontinued,
    TreatmentPaused,
)
from services.admission.completion import NAMED_BY_THE_SERVICE, event_id_of
from services.admission.door import Admitted, Door
from services.admission.errors import TurnedAway
from services.admission.plain import plain_of
from services.admission.read_token import NO_WHOLE_LIST, ReadToken, ReadTokens
from services.identity.national_id import NationalIdKind, synthetic
from services.identity.pseudonym import Pseudonymiser
from services.problems import parse_json

TOKENS = ReadTokens(b"r" * 32)
DOOR = Door(Pseudonymiser(b"p" * 32), TOKENS)
NOW_MS = 1_772_442_000_000  # 2 March 2026, 10:00 in Oslo
HOUR_MS = 3_600_000
PATIENT = {"national_id": synthetic(1).digits, "name": "Ola Nordmann"}
PRESCRIPTION = "5b0f6a52-3d6e-4c34-9c0a-6f3e8d1f2a11"
EVENT_ID = event_id_of("journal", "a-key")


def a_prescription(**changed: Any) -> dict[str, Any]:
    issued: dict[str, Any] = {
        "patient": PATIENT,
        "medication": {
            "product": {"kind": "substance", "name": "Metformin"},
            "form": "tablet",
            "atc": "A10BA02",
            "strength": "500 mg",
        },
        "quantity": {"value": 100, "unit": "tablet"},
        "refills": 3,
        "dosing": {"periods": [{"fixed": [{"dose": {"low": 1, "unit": "tablet"}, "times_of_day": ["morning"]}]}]},
    }
    return {**copy.deepcopy(issued), **changed}


def admitted(struct: type[Body], given: object, received_at_ms: int = NOW_MS, **more: Any) -> Admitted:
    return DOOR.admit_request(struct, given, received_at_ms=received_at_ms, **more)


def body_of(struct: type[Body], given: object, occurred_at_ms: int = NOW_MS) -> Any:
    passed = admitted(struct, given)
    return passed.parts[0].body(EVENT_ID, passed.patient, occurred_at_ms)


def errors_of(struct: type[Body], given: object, received_at_ms: int = NOW_MS, **more: Any) -> dict[str, str]:
    with pytest.raises(TurnedAway) as caught:
        admitted(struct, given, received_at_ms, **more)
    return {error.pointer: error.reason.value for error in caught.value.errors()}


def with_dosing(*periods: dict[str, Any]) -> dict[str, Any]:
    return a_prescription(dosing={"periods": list(periods)})


def a_period(**changed: Any) -> dict[str, Any]:
    return {"fixed": [{"dose": {"low": 1, "unit": "tablet"}, "times_of_day": ["morning"]}], **changed}


def as_needed(**changed: Any) -> dict[str, Any]:
    part = {"dose": {"low": 1, "unit": "tablet"}, "indication": "pain", **changed}
    return with_dosing({"as_needed": part})


# --- What passes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("struct", BODIES, ids=lambda struct: struct.__name__)
def test_every_example_of_a_submission_passes(struct: type[Body]) -> None:
    for message in golden.newest_of(f"Submission{struct.__name__}").values():
        given = plain_of(message)
        late_ms = HOUR_MS // 5 if struct is ClaimRequested else 2 * HOUR_MS
        if struct is ListReconciled:
            patient = DOOR.admit_request(PatientDied, {"patient": PATIENT, "on": "2020-01-01"}, received_at_ms=NOW_MS)
            given["patient"] |= {"national_id": PATIENT["national_id"], "kind": "fødselsnummer"}
            given["bodies"][0] = {"read_token": TOKENS.make(patient.patient, 7, NOW_MS, is_whole=True)}
        passed = DOOR.admit_submission(struct, given, received_at_ms=message.occurred_at_ms + late_ms)
        assert len(passed.parts) == len(message.bodies)


def test_what_passes_is_what_the_log_gives_back() -> None:
    body = body_of(PrescriptionIssued, a_prescription(quantity={"value": Decimal("0.5000"), "unit": "tablet"}))
    source = Source(system="journal", organisation="974760673", role="doctor")
    event = Event(
        event_id=EVENT_ID,
        patient="0" * 32,
        occurred_at_ms=NOW_MS,
        received_at_ms=NOW_MS,
        source=source,
        body=body,
    )
    read = codec.decode(codec.encode(event))
    assert read == event
    assert codec.encode(read) == codec.encode(event)


def test_a_number_may_be_sent_as_digits_in_a_text() -> None:
    assert body_of(PrescriptionIssued, a_prescription(quantity={"value": "2.5", "unit": "tablet"})).quantity.value == (
        Decimal("2.5")
    )


@pytest.mark.parametrize(
    "name", ["Łucja Ørjasæter", "李小龍", "محمد بن سلمان", "Ångström, à Nǫrðfjǫrð", "Ჯ 🧬", "नरेन्द्र"]
)
def test_names_in_any_script_pass(name: str) -> None:
    assert admitted(PrescriptionIssued, a_prescription(patient={**PATIENT, "name": name})).name is not None


def test_text_is_kept_in_nfc_with_plain_line_ends() -> None:
    assert body_of(PrescriptionIssued, a_prescription(note="A\u030angst\r\nto")).note == "Ångst\nto"


@pytest.mark.parametrize("pile", ["\u0301\u0323", "\u0f73"])
def test_marks_without_end_are_turned_away_for_putting_them_in_order_takes_the_square_of_their_number(
    pile: str,
) -> None:
    """16,000 of them took a third of a second, and a message holds many such texts."""
    marked = f"e{pile * (30 // len(pile))} "
    assert body_of(PrescriptionIssued, a_prescription(note=marked * 3)).note
    piled = a_prescription(note=marked.strip() + pile)
    assert errors_of(PrescriptionIssued, piled) == {"/note": "wrong_format"}


@pytest.mark.parametrize("refills", [b"3", b"3.0", b"3e0", b"0.3e1"])
def test_a_whole_number_may_be_written_with_a_point(refills: bytes) -> None:
    read = parse_json(b'{"refills": %b}' % refills)
    assert isinstance(read, dict)
    body = body_of(PrescriptionIssued, a_prescription(**read))
    assert (body.refills, type(body.refills)) == (3, int)


def test_a_uuid_in_capitals_is_the_same_id() -> None:
    sent = a_prescription(prescription=PRESCRIPTION.upper())
    assert body_of(PrescriptionIssued, sent).prescription == PRESCRIPTION


def test_a_time_with_an_offset_is_an_instant() -> None:
    sent = a_prescription(issued_at="2026-03-02T10:00:00.123456+01:00")
    assert body_of(PrescriptionIssued, sent).issued_at_ms == NOW_MS + 123


# --- What is filled in -------------------------------------------------------------------------------------------


def test_what_a_sender_leaves_out_is_filled_in_the_same_way_each_time() -> None:
    first, again = (body_of(PrescriptionIssued, a_prescription()) for _ in range(2))
    assert first == again
    assert first.issued_at_ms == NOW_MS
    assert len({first.prescription, first.treatment, EVENT_ID}) == 3


@pytest.mark.parametrize(("struct", "natural_id"), NAMED_BY_THE_SERVICE.items(), ids=NAMED_BY_THE_SERVICE.values())
def test_what_the_service_names_is_one_patients_also_under_one_key(struct: type[Body], natural_id: str) -> None:
    message = next(iter(golden.newest_of(f"Submission{struct.__name__}").values()))
    sent = plain_of(message)
    sent["bodies"][0][natural_id] = None
    (part, *_) = DOOR.admit_submission(struct, sent, received_at_ms=message.occurred_at_ms).parts
    bodies = [part.body(EVENT_ID, patient, NOW_MS) for patient in ("a" * 32, "b" * 32, "a" * 32)]
    first, anothers, again = (getattr(body, natural_id) for body in bodies)
    assert first == again != anothers


def test_a_treatment_that_the_service_names_is_one_patients_too() -> None:
    (part,) = admitted(PrescriptionIssued, a_prescription()).parts
    bodies: list[Any] = [part.body(EVENT_ID, patient, NOW_MS) for patient in ("a" * 32, "b" * 32)]
    assert len({body.treatment for body in bodies}) == 2


@pytest.mark.parametrize(
    ("atc", "issued_at", "last_day"),
    [
        ("A10BA02", "2026-03-02T08:00:00Z", date(2027, 3, 2)),
        ("J01CE02", "2026-03-02T08:00:00Z", date(2026, 3, 12)),
        ("G03AA07", "2025-03-02T10:00:00Z", date(2028, 3, 2)),
        ("G02BB01", "2025-03-02T10:00:00Z", date(2028, 3, 2)),
        ("G02BA02", "2025-03-02T10:00:00Z", date(2026, 3, 2)),
        ("A10BA02", "2024-02-29T10:00:00Z", date(2025, 2, 28)),
        # Half past midnight in Oslo is the day before in Greenwich.
        ("A10BA02", "2026-01-31T23:30:00Z", date(2027, 2, 1)),
    ],
)
def test_a_missing_validity_comes_from_the_policy(atc: str, issued_at: str, last_day: date) -> None:
    sent = a_prescription(issued_at=issued_at)
    sent["medication"]["atc"] = atc
    assert body_of(PrescriptionIssued, sent).valid_until == last_day


def test_a_discontinuation_counts_from_when_it_happened_unless_said() -> None:
    sent = {"patient": PATIENT, "reason": "no_effect"}
    passed = admitted(TreatmentDiscontinued, sent, known={"treatment": PRESCRIPTION})
    stop = passed.parts[0].body(EVENT_ID, passed.patient, 5)
    assert isinstance(stop, TreatmentDiscontinued)
    assert stop.at_ms == 5


def test_version_and_time_of_a_reconciliation_come_from_the_token() -> None:
    patient = admitted(PrescriptionIssued, a_prescription()).patient
    sent = {"patient": PATIENT, "read_token": TOKENS.make(patient, 42, NOW_MS - HOUR_MS, is_whole=True)}
    body = body_of(ListReconciled, sent)
    assert (body.version, body.read_at_ms) == (42, NOW_MS - HOUR_MS)


def test_a_list_that_was_not_whole_is_confirmed_by_a_version_that_no_list_has() -> None:
    """Also where the sender says the version that it read: that is the token's."""
    patient = admitted(PrescriptionIssued, a_prescription()).patient
    sent = {"patient": PATIENT, "read_token": TOKENS.make(patient, 42, NOW_MS, is_whole=False), "version": 42}
    assert body_of(ListReconciled, sent).version == NO_WHOLE_LIST


def test_a_token_that_an_earlier_release_made_is_read_as_it_was_then() -> None:
    """Its form is that of a whole list: it lives four hours, and does not say whether the list was one."""
    patient, content = "a" * 32, struct.pack(">Bqq", 1, 42, NOW_MS)
    mac = hmac.digest(b"r" * 32, b"medchain-read-token" + patient.encode() + content, "sha256")[:24]
    token = base64.urlsafe_b64encode(content + mac).rstrip(b"=").decode()
    assert TOKENS.verify(patient, token) == ReadToken(42, NOW_MS, is_whole=True)


# --- Bad input, line by line -------------------------------------------------------------------------------------


def changed(path: str, value: Any) -> Callable[[], dict[str, Any]]:
    def make() -> dict[str, Any]:
        sent = a_prescription()
        *way, last = path.split(".")
        inner: Any = sent
        for name in way:
            inner = inner[int(name) if name.isdigit() else name]
        inner[last] = value
        return sent

    return make


ABSURD = Decimal("1e300")

BAD_FIELDS: list[tuple[str, str, Any, str]] = [
    ("patient.national_id", "/patient/national_id", "02013299987", "wrong_checksum"),
    ("patient.national_id", "/patient/national_id", "1", "wrong_format"),
    ("patient.national_id", "/patient/national_id", 2013299997, "wrong_type"),
    ("patient.name", "/patient/name", "a" * 301, "too_long"),
    ("medication.atc", "/medication/atc", "a10ba02", "wrong_format"),
    ("medication.form", "/medication/form", "pill", "unknown_code"),
    ("medication.product.kind", "/medication/product/kind", "herb", "unknown_code"),
    ("medication.product.kind", "/medication/product/kind", None, "null_not_allowed"),
    ("medication.product.kind", "/medication/product/kind", ["substance"], "wrong_type"),
    ("medication.product", "/medication/product", {"name": "Metformin"}, "not_exactly_one"),
    ("medication.product", "/medication/product/brand_id", {"kind": "substance", "name": "x", "brand_id": "y"}, "unexpected_field"),
    ("medication.product", "/medication/product/ingredients", {"kind": "mixture", "name": "x", "ingredients": [], "directions": "y"}, "too_few"),
    ("medication.product", "/medication/product/item_number", {"kind": "package", "name": "x", "item_number": "12345"}, "wrong_format"),
    ("quantity", "/quantity", None, "null_not_allowed"),
    ("quantity", "/quantity", 100, "wrong_type"),
    ("quantity.value", "/quantity/value", 0, "not_positive"),
    ("quantity.value", "/quantity/value", -1, "not_positive"),
    ("quantity.value", "/quantity/value", ABSURD, "out_of_range"),
    ("quantity.value", "/quantity/value", 100_001, "out_of_range"),
    ("quantity.value", "/quantity/value", Decimal("NaN"), "not_a_number"),
    ("quantity.value", "/quantity/value", Decimal("sNaN"), "not_a_number"),
    ("quantity.value", "/quantity/value", Decimal("Infinity"), "not_a_number"),
    ("quantity.value", "/quantity/value", "many", "not_a_number"),
    ("quantity.value", "/quantity/value", "\u0661\u0660", "not_a_number"),
    ("quantity.value", "/quantity/value", Decimal("0.00001"), "too_precise"),
    ("quantity.value", "/quantity/value", True, "wrong_type"),
    ("quantity.unit", "/quantity/unit", "ml", "unit_does_not_fit"),
    ("quantity.unit", "/quantity/unit", "patch", "unit_does_not_fit"),
    ("quantity.unit", "/quantity/unit", "bucket", "unknown_code"),
    ("refills", "/refills", "3", "wrong_type"),
    ("refills", "/refills", True, "wrong_type"),
    ("refills", "/refills", Decimal("2.5"), "wrong_type"),
    ("refills", "/refills", Decimal("NaN"), "wrong_type"),
    ("refills", "/refills", Decimal("-1.0"), "out_of_range"),
    ("refills", "/refills", ABSURD, "out_of_range"),
    ("refills", "/refills", -1, "out_of_range"),
    ("refills", "/refills", 100, "out_of_range"),
    ("locked", "/locked", "false", "wrong_type"),
    ("locked", "/locked", None, "null_not_allowed"),
    ("issued_at", "/issued_at", "2026-03-02T10:00:00", "wrong_format"),
    ("issued_at", "/issued_at", NOW_MS, "wrong_type"),
    ("issued_at", "/issued_at", "2026-02-30T10:00:00Z", "wrong_format"),
    ("issued_at", "/issued_at", "20260-03-02T10:00:00Z", "date_out_of_range"),
    ("issued_at", "/issued_at", "2026-03-02T11:00:00Z", "occurred_in_future"),
    ("occurred_at", "/occurred_at", "2026-03-02T09:06:00Z", "occurred_in_future"),
    ("occurred_at", "/occurred_at", "yesterday", "wrong_format"),
    ("valid_until", "/valid_until", "20260-03-02", "date_out_of_range"),
    ("valid_until", "/valid_until", "1899-12-31", "date_out_of_range"),
    ("valid_until", "/valid_until", "2026-13-01", "wrong_format"),
    ("valid_until", "/valid_until", "2026-03-01", "end_before_start"),
    ("earliest_dispense", "/earliest_dispense", "2027-03-03", "contradicts"),
    ("note", "/note", "x" * 1_000_000, "too_long"),
    ("note", "/note", "bell\u0007", "control_character"),
    ("note", "/note", "half \ud83d", "unpaired_surrogate"),
    ("note", "/note", " \n", "too_short"),
    ("renews", "/treatment", PRESCRIPTION, "missing"),
    ("substitution_reason", "/substitution_reserved", "allergy to lactose", "contradicts"),
    ("weight", "/weight/kg", {"kg": 651, "on": "2026-03-01"}, "out_of_range"),
    ("weight", "/weight/on", {"kg": 65, "on": "2026-03-04"}, "occurred_in_future"),
    ("group", "/refills", "A", "refills_not_allowed"),
    ("group", "/refills", "B", "refills_not_allowed"),
    ("identity", "/identity", "c2VhbGVk", "unexpected_field"),
    ("pills", "/pills", 3, "unexpected_field"),
    ("dosing.periods", "/dosing/periods", [a_period()] * 101, "too_many"),
    ("dosing.periods", "/dosing/periods", {}, "wrong_type"),
    ("dosing", "/dosing", [{"periods": [{}]}], "wrong_type"),
    ("dosing.per_scheme", "/dosing/per_scheme", True, "contradicts"),
    ("dosing.periods.0.fixed.0.dose.unit", "/dosing/periods/0/fixed/0/dose/unit", "ml", "unit_does_not_fit"),
    ("dosing.periods.0.fixed.0.dose.high", "/dosing/periods/0/fixed/0/dose/high", Decimal("0.5"), "contradicts"),
    ("dosing.periods.0.fixed.0.interval_hours", "/dosing/periods/0/fixed/0/interval_hours", 8, "contradicts"),
    ("dosing.periods.0.fixed.0.days_on", "/dosing/periods/0/fixed/0/days_off", 21, "missing"),
    ("dosing.periods.0.fixed", "/dosing/periods/0/fixed", [], "too_few"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "pointer", "value", "reason"), BAD_FIELDS)
def test_a_bad_field_is_named_with_its_reason_and_nothing_else(
    path: str, pointer: str, value: Any, reason: str
) -> None:
    assert errors_of(PrescriptionIssued, changed(path, value)()) == {pointer: reason}


@pytest.mark.parametrize("field", ["patient", "medication", "quantity", "refills", "dosing"])
def test_a_missing_field_is_named(field: str) -> None:
    sent = a_prescription()
    del sent[field]
    assert errors_of(PrescriptionIssued, sent) == {f"/{field}": "missing"}


@pytest.mark.parametrize("given", [None, [], "text", 3, True])
def test_what_is_no_object_is_turned_away(given: object) -> None:
    assert errors_of(PrescriptionIssued, given) == {"": "wrong_type"}


@pytest.mark.parametrize(
    ("periods", "expected"),
    [
        (
            [a_period(start="2026-03-01", end="2026-03-10"), a_period(start="2026-03-10")],
            {"/dosing/periods/1": "overlapping_periods"},
        ),
        ([a_period(), a_period(start="2026-03-10")], {"/dosing/periods/1": "overlapping_periods"}),
        (
            [a_period(start="2026-05-01"), a_period(start="2026-03-01", end="2026-06-01")],
            {"/dosing/periods/0": "overlapping_periods"},
        ),
        ([a_period(start="2026-03-10", end="2026-03-01")], {"/dosing/periods/0/end": "end_before_start"}),
    ],
)
def test_periods_neither_overlap_nor_end_before_they_start(
    periods: list[dict[str, Any]], expected: dict[str, str]
) -> None:
    assert errors_of(PrescriptionIssued, with_dosing(*periods)) == expected


def test_periods_may_have_gaps_and_meet() -> None:
    periods = [
        a_period(start="2026-03-11", end="2026-03-20"),
        a_period(end="2026-03-10"),
        a_period(start="2026-04-01"),
    ]
    assert len(body_of(PrescriptionIssued, with_dosing(*periods)).dosing.periods) == 3


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"max_per_day": Decimal("0.5")}, {"max_per_day": "contradicts"}),
        ({"max_per_period": 10}, {"period_days": "missing"}),
        ({"period_days": 7}, {"max_per_period": "missing"}),
        ({"max_per_period": 10, "period_days": 0}, {"period_days": "not_positive"}),
        ({"max_per_day": 4, "max_per_period": 3, "period_days": 7}, {"max_per_period": "contradicts"}),
        ({"indication": None}, {"indication": "null_not_allowed"}),
    ],
)
def test_a_dose_as_needed_has_a_maximum_that_makes_sense(part: dict[str, Any], expected: dict[str, str]) -> None:
    where = "/dosing/periods/0/as_needed"
    assert errors_of(PrescriptionIssued, as_needed(**part)) == {
        f"{where}/{name}": why for name, why in expected.items()
    }


def test_group_a_with_reimbursement_may_have_refills() -> None:
    sent = a_prescription(group="A", reimbursement={"basis": "200"})
    assert body_of(PrescriptionIssued, sent).refills == 3


def test_all_errors_are_told_at_once_fields_and_rules_alike() -> None:
    sent = a_prescription(group="A", refills=2, valid_until="2026-03-01", pills=1)
    sent["patient"] = {"national_id": "02013299987"}
    del sent["quantity"]
    sent["dosing"]["periods"].append(a_period(start="2026-03-10", end="2026-03-01"))
    assert errors_of(PrescriptionIssued, sent) == {
        "/patient/national_id": "wrong_checksum",
        "/quantity": "missing",
        "/pills": "unexpected_field",
        "/refills": "refills_not_allowed",
        "/valid_until": "end_before_start",
        "/dosing/periods/1/end": "end_before_start",
    }


def test_an_order_tells_the_errors_of_every_line() -> None:
    line = {name: value for name, value in a_prescription().items() if name != "patient"}
    without_quantity = {name: value for name, value in line.items() if name != "quantity"}
    order = {"patient": PATIENT, "prescriptions": [line, without_quantity, {**line, "refills": -1}, 4]}
    assert errors_of(PrescriptionIssued, order, lines="prescriptions") == {
        "/prescriptions/1/quantity": "missing",
        "/prescriptions/2/refills": "out_of_range",
        "/prescriptions/3": "wrong_type",
    }


def calls_to_turn_away(lines: int) -> int:
    """How many functions are called until an order with so many lines is turned away, 200 errors in each."""
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    order = {"patient": PATIENT, "prescriptions": [a_prescription(dosing={"periods": [{}] * 100})] * lines}
    sys.setprofile(count)
    try:
        with pytest.raises(TurnedAway) as found:
            admitted(PrescriptionIssued, order, lines="prescriptions")
    finally:
        sys.setprofile(None)
    assert len(found.value.findings) == 200
    return calls


def test_what_no_answer_has_room_for_is_not_even_looked_for() -> None:
    """One message of 41 KB kept a service from answering anybody for a second."""
    calls_to_turn_away(1)  # the models are made once
    assert calls_to_turn_away(100) < 2 * calls_to_turn_away(1)


@pytest.mark.parametrize(
    ("lines", "reason"), [([], "too_few"), (None, "null_not_allowed"), ({}, "wrong_type"), ([{}] * 101, "too_many")]
)
def test_an_order_has_some_lines_but_not_too_many(lines: object, reason: str) -> None:
    order = {"patient": PATIENT, "prescriptions": lines}
    assert errors_of(PrescriptionIssued, order, lines="prescriptions") == {"/prescriptions": reason}


def test_an_order_that_is_also_one_prescription_is_turned_away() -> None:
    line = {name: value for name, value in a_prescription().items() if name != "patient"}
    sent = a_prescription(prescriptions=[line])
    assert set(errors_of(PrescriptionIssued, sent, lines="prescriptions").values()) == {"unexpected_field"}


@pytest.mark.parametrize("reason", ["withdrawn", "death"])
def test_reasons_that_the_list_sets_alone_are_no_sender_s(reason: str) -> None:
    sent = {"patient": PATIENT, "reason": reason}
    known = {"prescription": PRESCRIPTION}
    assert errors_of(PrescriptionRecalled, sent, known=known) == {"/reason": "unknown_code"}


def test_a_claim_that_was_made_more_than_15_minutes_ago_is_late_and_that_is_told_with_all_else() -> None:
    sent = {"patient": PATIENT, "prescription": PRESCRIPTION, "occurred_at": "2026-03-02T10:00:00+01:00"}
    late_ms = NOW_MS + 15 * 60_000 + 1
    assert admitted(ClaimRequested, sent, late_ms).is_late
    assert errors_of(ClaimRequested, {**sent, "more": 1}, late_ms) == {
        "/more": "unexpected_field",
        "/occurred_at": "claim_too_old",
    }
    in_time = admitted(ClaimRequested, sent, NOW_MS + 15 * 60_000)
    assert (in_time.is_late, in_time.occurred_at_ms) == (False, NOW_MS)


def test_a_late_report_of_a_hand_out_passes() -> None:
    sent = {
        "patient": PATIENT,
        "occurred_at": "2025-12-24T15:00:00+01:00",
        "prescription": PRESCRIPTION,
        "lines": [{"quantity": {"value": 1, "unit": "package"}, "content": {"value": 100, "unit": "tablet"}}],
        "period_completed": True,
        "completed": False,
    }
    assert body_of(MedicationDispensed, sent).lines[0].quantity.value == 1


@pytest.mark.parametrize(
    ("line", "pointer", "reason"),
    [
        ({"quantity": {"value": 10, "unit": "ml"}, "content": {"value": 30, "unit": "tablet"}}, "/content/unit", "unit_does_not_fit"),
        ({"quantity": {"value": 1, "unit": "package"}, "content": {"value": 3, "unit": "package"}}, "/content/unit", "unit_does_not_fit"),
        ({"quantity": {"value": 0, "unit": "package"}}, "/quantity/value", "not_positive"),
        ({}, "/quantity", "missing"),
    ],
)  # fmt: skip
def test_a_hand_out_that_cannot_be_is_turned_away(line: dict[str, Any], pointer: str, reason: str) -> None:
    sent = {
        "patient": PATIENT,
        "prescription": PRESCRIPTION,
        "lines": [line],
        "period_completed": True,
        "completed": False,
    }
    assert errors_of(MedicationDispensed, sent) == {f"/lines/0{pointer}": reason}


def test_a_hand_out_of_nothing_is_turned_away() -> None:
    sent = {"patient": PATIENT, "prescription": PRESCRIPTION, "lines": [], "period_completed": True, "completed": True}
    assert errors_of(MedicationDispensed, sent) == {"/lines": "too_few"}


def test_a_patient_does_not_pay_more_than_the_price() -> None:
    sent = {
        "patient": PATIENT,
        "prescription": PRESCRIPTION,
        "lines": [{"quantity": {"value": 1, "unit": "package"}}],
        "period_completed": True,
        "completed": True,
        "price": {"total_nok": "99.90", "patient_nok": 100},
    }
    assert errors_of(MedicationDispensed, sent) == {"/price/patient_nok": "contradicts"}


@pytest.mark.parametrize("value", [0, -1])
def test_nothing_cannot_be_returned(value: int) -> None:
    sent = {"patient": PATIENT, "dispense": PRESCRIPTION, "reason": "returned", "quantity": {"value": value, "unit": "tablet"}}  # fmt: skip
    assert errors_of(DispenseReversed, sent) == {"/quantity/value": "not_positive"}


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"none_known": True, "substance": "penicillin"}, {"/none_known": "contradicts"}),
        ({"none_known": True, "atc": "J01CE"}, {"/none_known": "contradicts"}),
        ({"severity": "high"}, {"/substance": "missing"}),
        ({"substance": "penicillin", "onset": "2026-03-03"}, {"/onset": "occurred_in_future"}),
        ({"substance": "penicillin", "severity": "deadly"}, {"/severity": "unknown_code"}),
    ],
)
def test_an_allergy_is_to_something_or_there_is_none(sent: dict[str, Any], expected: dict[str, str]) -> None:
    assert errors_of(AllergyRecorded, {"patient": PATIENT, **sent}) == expected


def test_a_pause_ends_after_it_starts() -> None:
    sent = {"patient": PATIENT, "start": "2026-03-02", "until": "2026-03-01", "reason": "operation"}
    assert errors_of(TreatmentPaused, sent, known={"treatment": PRESCRIPTION}) == {"/until": "end_before_start"}


def test_a_change_that_changes_nothing_is_turned_away() -> None:
    sent = {"patient": PATIENT, "reason": "none"}
    assert errors_of(TreatmentChanged, sent, known={"treatment": PRESCRIPTION}) == {"": "too_few"}


def test_nobody_died_tomorrow() -> None:
    assert errors_of(PatientDied, {"patient": PATIENT, "on": "2026-03-03"}) == {"/on": "occurred_in_future"}


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("doctor", "0123456", "wrong_format"),
        ("pharmacy", "974760674", "wrong_checksum"),
        ("packing_days", 0, "not_positive"),
        ("next_pack", "2026-02-28", "end_before_start"),
    ],
)
def test_multi_dose_names_a_doctor_a_pharmacy_and_days(field: str, value: object, reason: str) -> None:
    sent = {"patient": PATIENT, "doctor": "9144900", "pharmacy": "974760673", "start": "2026-03-01", "packing_days": 14}
    assert errors_of(MultidoseAssigned, {**sent, field: value}) == {f"/{field}": reason}


def test_a_token_for_another_patient_or_changed_is_turned_away() -> None:
    patient = admitted(PrescriptionIssued, a_prescription()).patient
    tokens = {
        "another patient's": TOKENS.make("0" * 32, 1, NOW_MS, is_whole=True),
        "another key's": ReadTokens(b"x" * 32).make(patient, 1, NOW_MS, is_whole=True),
        "no token": "abc",
        "no base64": "æøå",
    }
    for token in tokens.values():
        sent = {"patient": PATIENT, "read_token": token}
        assert errors_of(ListReconciled, sent) == {"/read_token": "token_not_valid"}


def test_a_version_that_is_not_the_token_s_is_turned_away() -> None:
    patient = admitted(PrescriptionIssued, a_prescription()).patient
    sent = {"patient": PATIENT, "read_token": TOKENS.make(patient, 42, NOW_MS, is_whole=True), "version": 41}
    assert errors_of(ListReconciled, sent) == {"/version": "contradicts"}


def test_an_old_token_passes_for_the_fold_to_judge() -> None:
    patient = admitted(PrescriptionIssued, a_prescription()).patient
    sent = {"patient": PATIENT, "read_token": TOKENS.make(patient, 42, NOW_MS - 100 * HOUR_MS, is_whole=True)}
    assert body_of(ListReconciled, sent).version == 42


def test_the_kind_of_a_submitted_number_is_the_number_s() -> None:
    message = golden.newest_of("SubmissionClaimRequested")
    given = plain_of(next(iter(message.values())))
    given["patient"]["kind"] = "d_number"
    with pytest.raises(TurnedAway) as caught:
        DOOR.admit_submission(ClaimRequested, given, received_at_ms=NOW_MS - 365 * 24 * HOUR_MS)
    assert ("/patient/kind", "contradicts") in [(error.pointer, error.reason.value) for error in caught.value.errors()]


def test_the_kinds_of_number_stand_in_the_contract_and_another_is_an_unknown_code() -> None:
    """An outside program knows nothing but `schemas/`: it finds them in the code list, and in the schema's own text."""
    (example,) = golden.newest_of("SubmissionClaimAborted").values()
    given = plain_of(example)
    del given["occurred_at"]  # it lies in the future of these tests
    assert set(CODES["national_id_kind"]) == set(NationalIdKind)
    schema = (codec.AVRO_FOLDER / "SubmissionClaimAborted" / "1.avsc").read_text(encoding="utf-8")
    assert all(kind in schema for kind in NationalIdKind)
    for misspelt in ("fodselsnummer", "Fødselsnummer", "fnr"):
        given["patient"]["kind"] = misspelt
        with pytest.raises(TurnedAway) as turned_away:
            DOOR.admit_submission(ClaimAborted, given, received_at_ms=NOW_MS)
        found = {error.pointer: error.reason.value for error in turned_away.value.errors()}
        assert found == {"/patient/kind": "unknown_code", "/occurred_at": "missing"}


def test_an_instant_beyond_all_calendars_is_told_as_a_date_out_of_range() -> None:
    message = next(iter(golden.newest_of("SubmissionPrescriptionRecalled").values()))
    given = plain_of(message)
    given["occurred_at"] = plain_of(type(message)(**{**_fields(message), "occurred_at_ms": 577_000_000_000_000_0}))[
        "occurred_at"
    ]
    with pytest.raises(TurnedAway) as caught:
        DOOR.admit_submission(PrescriptionRecalled, given, received_at_ms=NOW_MS)
    assert [error.reason.value for error in caught.value.errors()] == ["date_out_of_range"]


def _fields(message: Any) -> dict[str, Any]:
    return {name: getattr(message, name) for name in message.__struct_fields__}


# --- What is never told ------------------------------------------------------------------------------------------


def test_no_error_repeats_what_was_sent() -> None:
    number = PATIENT["national_id"]
    sent = a_prescription(**{number: 1}, note="\u0000secret", group="secret", refills="secret")
    with pytest.raises(TurnedAway) as caught:
        admitted(PrescriptionIssued, sent)
    told = repr(caught.value) + "".join(error.pointer + error.text for error in caught.value.errors())
    assert number not in told
    assert "secret" not in told


def test_a_nan_in_json_is_named_before_it_reaches_a_model() -> None:
    with pytest.raises(ValueError, match="1 faults"):
        parse_json(b'{"quantity": {"value": NaN}}')


@pytest.mark.parametrize("name", ["<", "<script>", "13857300054", "", "a b"])
def test_a_field_of_any_name_is_turned_away_without_its_name(name: str) -> None:
    assert errors_of(PrescriptionIssued, a_prescription() | {name: 1}) == {"": "unexpected_field"}
