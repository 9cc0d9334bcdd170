"""Bad input over Kafka, against the running chain: a receipt for every submission, with every fault, and none stops the next."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any, Final
from uuid import uuid4

import msgspec
import pytest
from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]  # it has no types

from deploy.local.waiting import wait_until
from schemas import codec
from schemas import events as ev
from services.identity.national_id import synthetic
from tests.acceptance.translate import ACTORS, MEDICATION
from tests.acceptance.values import instant
from tests.chain import WITHIN_S, Chain, Topics

pytestmark = pytest.mark.integration

NOW_MS: Final = instant("d0 12:00")
SYSTEM: Final = "journal"
TOPIC: Final = f"prescription-submissions.{SYSTEM}"
PRESCRIBER: Final = ACTORS["prescriber A"]
PERIOD: Final = ev.DosingPeriod(
    fixed=(ev.FixedDose(dose=ev.Dose(low=Decimal(1), unit="tablet"), times_of_day=("morning",)),)
)


@dataclass(slots=True)
class Sender:
    """An outside system with its two topics: it writes to the one and reads the other."""

    chain: Chain
    topics: Topics
    receipts: list[ev.SubmissionReceipt] = field(default_factory=list)

    def send(self, value: bytes | None, key: bytes | None = b"any") -> str:
        """Put a record on the topic; its place, as receipts tell it."""
        with self.chain.producer() as producer:
            sent = producer.send(TOPIC, key=key, value=value).get(30)
        return f"{sent.partition}/{sent.offset}"

    def receipt_at(self, place: str) -> ev.SubmissionReceipt:
        """The receipt of the record at this place."""
        return self._await(lambda each: f"{each.partition}/{each.offset}" == place, place)

    def receipt_of(self, message_id: str) -> ev.SubmissionReceipt:
        """The receipt of this message."""
        return self._await(lambda each: each.message_id == message_id, message_id)

    def _await(self, is_meant: Any, what: str) -> ev.SubmissionReceipt:
        found: list[ev.SubmissionReceipt] = []

        def has_come() -> bool:
            self.receipts += [each.message for each in self.topics.read()]
            found[:] = [each for each in self.receipts if is_meant(each)]
            return bool(found)

        wait_until(has_come, within_s=WITHIN_S, what=f"the receipt of {what}")
        return found[0]


@pytest.fixture(scope="module")
def sender(chain: Chain) -> Iterator[Sender]:
    chain.set_clock(NOW_MS)
    topics = chain.topics([f"submission-receipts.{SYSTEM}"])
    yield Sender(chain, topics)
    topics.close()


def a_prescription(**changed: Any) -> ev.PrescriptionIssued:
    said: dict[str, Any] = {
        "prescription": str(uuid4()),
        "treatment": str(uuid4()),
        "issued_at_ms": NOW_MS,
        "valid_until": date(2027, 3, 2),
        "medication": MEDICATION,
        "quantity": ev.Quantity(value=Decimal(100), unit="tablet"),
        "refills": 3,
        "dosing": ev.Dosing(periods=(PERIOD,)),
    }
    return ev.PrescriptionIssued(**{**said, **changed})


def a_submission(*bodies: ev.Body, number: int = 32_000, **changed: Any) -> ev.Submission[Any]:
    said: dict[str, Any] = {
        "message_id": str(uuid4()),
        "patient": ev.PatientIdentity(national_id=synthetic(number).digits, kind="fødselsnummer", name="Kari"),
        "occurred_at_ms": NOW_MS,
        "organisation": PRESCRIBER.organisation,
        "role": "doctor",
        "person": PRESCRIBER.person,
        "bodies": bodies or (a_prescription(),),
    }
    return ev.Submission(**{**said, **changed})


def periods(*spans: tuple[date | None, date | None]) -> ev.Dosing:
    made = tuple(msgspec.structs.replace(PERIOD, start=start, end=end) for start, end in spans)
    return ev.Dosing(periods=made)


TENTH: Final = date(2026, 3, 10)
FAULTS: Final[list[tuple[str, dict[str, Any], str, str]]] = [
    ("unknown code", {"use": "sometimes"}, "/bodies/0/use", "unknown_code"),
    ("negative quantity", {"quantity": ev.Quantity(value=Decimal(-1), unit="tablet")}, "/bodies/0/quantity/value", "not_positive"),
    ("zero quantity", {"quantity": ev.Quantity(value=Decimal(0), unit="tablet")}, "/bodies/0/quantity/value", "not_positive"),
    ("absurd quantity", {"quantity": ev.Quantity(value=Decimal(100_001), unit="tablet")}, "/bodies/0/quantity/value", "out_of_range"),
    ("a unit that does not fit", {"quantity": ev.Quantity(value=Decimal(1), unit="ml")}, "/bodies/0/quantity/unit", "unit_does_not_fit"),
    ("end before start", {"dosing": periods((TENTH, date(2026, 3, 9)))}, "/bodies/0/dosing/periods/0/end", "end_before_start"),
    ("overlapping periods", {"dosing": periods((None, TENTH), (TENTH, None))}, "/bodies/0/dosing/periods/1", "overlapping_periods"),
    ("a date out of range", {"valid_until": date(9999, 3, 2)}, "/bodies/0/valid_until", "date_out_of_range"),
    ("a note of nearly 1 MB", {"note": "x" * 900_000}, "/bodies/0/note", "too_long"),
    ("a control character", {"note": "bell\u0007"}, "/bodies/0/note", "control_character"),
    ("refills in group A", {"group": "A"}, "/bodies/0/refills", "refills_not_allowed"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "pointer", "reason"), [each[1:] for each in FAULTS], ids=[each[0] for each in FAULTS]
)
def test_a_fault_is_on_the_receipt_with_its_field_and_reason(
    sender: Sender, changed: dict[str, Any], pointer: str, reason: str
) -> None:
    message = a_submission(a_prescription(**changed))
    place = sender.send(codec.encode(message))
    receipt = sender.receipt_at(place)
    assert (receipt.outcome, receipt.reason, receipt.message_id) == ("rejected", "invalid", message.message_id)
    assert [(each.pointer, each.reason) for each in receipt.errors] == [(pointer, reason)]
    assert sender.chain.history(message.patient.national_id, PRESCRIBER) == []


def test_every_fault_of_every_line_is_on_one_receipt(sender: Sender) -> None:
    identity = ev.PatientIdentity(national_id="02813299986", kind="fødselsnummer")
    good, bad = a_prescription(), a_prescription(use="sometimes", refills=-1)
    message = a_submission(good, bad, patient=identity)
    receipt = sender.receipt_at(sender.send(codec.encode(message)))
    assert {each.pointer: each.reason for each in receipt.errors} == {
        "/patient/national_id": "wrong_checksum",
        "/bodies/1/use": "unknown_code",
        "/bodies/1/refills": "out_of_range",
    }


GOOD: Final = codec.encode(a_submission())
UNREADABLE: Final[dict[str, tuple[bytes | None, str]]] = {
    "truncated": (GOOD[:-7], "unreadable"),
    "unknown fingerprint": (GOOD[:2] + b"\xff" * 8 + GOOD[10:], "unknown_schema"),
    "wrong magic byte": (b"\xc3\x02" + GOOD[2:], "unreadable"),
    "empty value": (b"", "unreadable"),
    "null value": (None, "unreadable"),
    "not Avro": (b'{"patient": {}}', "unreadable"),
}


@pytest.mark.parametrize(("value", "reason"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_gets_a_receipt_that_names_its_place(
    sender: Sender, value: bytes | None, reason: str
) -> None:
    receipt = sender.receipt_at(sender.send(value))
    assert (receipt.outcome, receipt.reason, receipt.message_id) == ("rejected", reason, None)
    assert receipt.topic == TOPIC


def test_a_submission_without_a_key_is_taken_like_any_other(sender: Sender) -> None:
    message = a_submission(number=32_001)
    sender.send(codec.encode(message), key=None)
    assert sender.receipt_of(message.message_id).outcome == "applied"


def test_a_prescription_of_another_patient_is_on_the_receipt(sender: Sender) -> None:
    known = a_submission(number=32_002)
    sender.send(codec.encode(known))
    assert sender.receipt_of(known.message_id).outcome == "applied"
    recall = a_submission(ev.PrescriptionRecalled(prescription=known.bodies[0].prescription, reason="other"))
    receipt = sender.receipt_at(sender.send(codec.encode(recall)))
    assert [(each.pointer, each.reason) for each in receipt.errors] == [("/bodies/0/prescription", "other_patient")]


def test_a_change_of_an_unknown_treatment_is_refused_on_the_receipt(sender: Sender) -> None:
    change = ev.TreatmentChanged(treatment=str(uuid4()), reason="kidneys", dosing=ev.Dosing(periods=(PERIOD,)))
    message = a_submission(change, number=32_003)
    sender.send(codec.encode(message))
    receipt = sender.receipt_of(message.message_id)
    assert (receipt.outcome, receipt.reason) == ("refused", "unknown")


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
async def test_a_batch_in_every_compression_is_received(sender: Sender, compression: str) -> None:
    number = 32_010 + len(compression) + ord(compression[0])
    messages = [a_submission(number=number) for _ in range(5)]
    producer = AIOKafkaProducer(bootstrap_servers=sender.chain.kafka, compression_type=compression, linger_ms=50)
    async with producer:
        sent = [await producer.send(TOPIC, codec.encode(each), key=b"one", partition=1) for each in messages]
        for each in sent:
            await each
    for message in messages:
        assert sender.receipt_of(message.message_id).outcome == "applied"
    shown = sender.chain.read_list(synthetic(number).digits, PRESCRIBER)
    assert len(shown["treatments"]) == 5


def test_after_all_of_it_the_next_good_submission_is_applied(sender: Sender) -> None:
    message = a_submission(number=32_004)
    sender.send(codec.encode(message))
    receipt = sender.receipt_of(message.message_id)
    assert (receipt.outcome, receipt.errors) == ("applied", ())
    (shown,) = sender.chain.read_list(message.patient.national_id, PRESCRIBER)["treatments"]
    assert shown["prescriptions"][0]["prescription"] == message.bodies[0].prescription
