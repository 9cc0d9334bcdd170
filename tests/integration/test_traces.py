"""One trace from a request, or a submission, to what the relay sends of it: every process tells its part, and no secret."""

from typing import Final
from uuid import uuid4

import pytest

from deploy.local.waiting import wait_until
from schemas.codec import encode
from schemas.events import PatientIdentity, PrescriptionRecalled, Submission
from services.identity.national_id import synthetic
from tests.acceptance.translate import ACTORS, ORGANISATIONS
from tests.chain import Chain
from tests.collector import Arrived, Collector
from tests.integration.test_metrics import NAME, prescription_message

pytestmark = pytest.mark.integration

WITHIN_S: Final = 20
DOCTOR: Final = ACTORS["prescriber A"]
PHARMACY: Final = ORGANISATIONS["P"]
EPOCH_MS: Final = 1_771_000_000_000
"""Before every time that a test sets the platform's clock to."""


def traceparent(trace_id: str, *, is_sampled: bool = True) -> str:
    return f"00-{trace_id}-{uuid4().hex[:16]}-{int(is_sampled):02}"


def arrived(collector: Collector, trace_id: str, *names: str) -> list[Arrived]:
    """The spans of this trace, once those of these names are among them."""
    wait_until(
        lambda: set(names) <= {span.name for span in collector.of_trace(trace_id)},
        within_s=WITHIN_S,
        what=f"spans {names}",
    )
    return collector.of_trace(trace_id)


def issue(chain: Chain, number: str, prescription: str, trace: str) -> str:
    """Write a prescription; returns its position."""
    sent = prescription_message(prescription, number)
    answer = chain.post("prescriber", "/v1/prescriptions", sent, DOCTOR, traceparent=trace)
    assert answer.status_code == 201, answer.text
    position: str = answer.json()["position"]
    return position


def dispatch(chain: Chain, number: str, prescription: str, trace: str) -> None:
    sent = {"patient": {"national_id": number}, "dispatch": str(uuid4()), "pharmacy": PHARMACY}
    path = f"/v1/prescriptions/{prescription}/dispatch"
    answer = chain.post("prescriber", path, sent, DOCTOR, traceparent=trace)
    assert answer.status_code == 201, answer.text


def test_one_trace_leads_from_the_request_through_log_and_view_to_what_the_relay_sends(
    chain: Chain, collector: Collector
) -> None:
    number, prescription, first, second, silent = (
        synthetic(77_001).digits,
        str(uuid4()),
        *(uuid4().hex for _ in range(3)),
    )
    position = issue(chain, number, prescription, traceparent(first))
    dispatch(chain, number, prescription, traceparent(second))
    issue(chain, number, str(uuid4()), traceparent(silent, is_sampled=False))

    ask = "POST /internal/outcomes"
    written = arrived(collector, first, "POST /v1/prescriptions", "append medication-events", "judge and store", ask)
    request, append, judged = (
        next(span for span in written if span.name == name)
        for name in ("POST /v1/prescriptions", "append medication-events", "judge and store")
    )
    assert (request.service, append.service, judged.service) == ("prescriber", "prescriber", "processor")
    assert append.parent_id == request.span_id
    assert judged.parent_id == append.span_id
    assert request.attributes == {"method": "POST", "route": "/v1/prescriptions", "status": 201}
    partition, offset = map(int, position.split("-"))
    assert (append.attributes["partition"], append.attributes["offset"]) == (partition, offset)
    assert (judged.attributes["partition"], judged.attributes["offset"]) == (partition, offset)
    assert (judged.attributes["outcome"], judged.attributes["event_type"]) == ("applied", "PrescriptionIssued")
    assert judged.attributes["event_id"] == append.attributes["event_id"]
    assert request.began_ns <= append.began_ns <= judged.began_ns < judged.ended_ns
    assert next(span.service for span in written if span.name == ask) == "medication_list"

    # Processes send their spans each in its own time: whatever is looked at below is waited for.
    asked = "POST /v1/prescriptions/{id}/dispatch"
    sent = arrived(collector, second, "append dispense-orders", "judge and store", "append medication-events", asked)
    order = next(span for span in sent if span.name == "append dispense-orders")
    appended = next(span for span in sent if span.name == "append medication-events")
    assert (order.service, order.parent_id) == ("relay", appended.span_id)
    assert (order.attributes["event_type"], order.attributes["topic"]) == (
        "DispenseOrder",
        f"dispense-orders.{PHARMACY}",
    )
    (route,) = {
        span.attributes["route"] for span in sent if span.service == "prescriber" and "route" in span.attributes
    }
    assert route == "/v1/prescriptions/{id}/dispatch"

    assert collector.of_trace(silent) == []
    for span in (*written, *sent):
        for secret in (number, NAME, "Kari", "Metformin", "A10BA02", "diabetes", "9144889", prescription):
            assert secret not in span.text, f"{span.name} tells {secret}"


def test_a_submissions_trace_goes_on_through_its_events_to_its_receipt(chain: Chain, collector: Collector) -> None:
    trace_id, number = uuid4().hex, synthetic(77_002)
    message = Submission(
        message_id=str(uuid4()),
        patient=PatientIdentity(national_id=number.digits, kind=number.kind.value, name=NAME),
        occurred_at_ms=EPOCH_MS,
        organisation=DOCTOR.organisation,
        role=DOCTOR.role,
        person=DOCTOR.person,
        bodies=(PrescriptionRecalled(prescription=str(uuid4()), reason="other"),),
    )
    topic = f"prescription-submissions.{DOCTOR.system}"
    with chain.producer() as producer:
        header = ("traceparent", traceparent(trace_id).encode())
        producer.send(topic, encode(message), key=b"an-order", headers=[header]).get(timeout=WITHIN_S)
    names = ("receive submission", "append medication-events", "judge and store", "append submission-receipts")
    spans = {span.name: span for span in arrived(collector, trace_id, *names)}
    assert [spans[name].service for name in names] == ["prescriber_inbox", "prescriber_inbox", "processor", "relay"]
    assert spans["receive submission"].attributes["topic"] == topic
    assert spans["append medication-events"].parent_id == spans["receive submission"].span_id
    assert spans["judge and store"].parent_id == spans["append medication-events"].span_id
    for span in spans.values():
        for secret in (number.digits, NAME, "Kari", "9144889"):
            assert secret not in span.text, f"{span.name} tells {secret}"
