"""What every process tells on its port while the platform works: numbers that move, and nothing of a patient."""

from collections.abc import Mapping
from typing import Final
from uuid import uuid4

import pytest
from prometheus_client.parser import text_string_to_metric_families

from deploy.local.waiting import wait_until
from deploy.services import SERVICES
from schemas.events import Source
from tests.chain import Chain

pytestmark = pytest.mark.integration

DOCTOR: Final = Source(system="journal", organisation="313000044", role="doctor", person="9144900")
PATIENT: Final = "13857300054"
NAME: Final = "Kari Testnes"
OF_EVERY_PROCESS: Final = {"medchain_trouble", "process_cpu_seconds"}
OF: Final[Mapping[str, set[str]]] = {
    "prescriber": {"medchain_http_requests", "medchain_append_seconds", "medchain_writes_under_way"},
    "pharmacy": {"medchain_http_requests", "medchain_append_seconds", "medchain_writes_under_way"},
    "medication-list": {"medchain_http_requests", "medchain_read_wait_seconds"},
    "processor": {"medchain_processor_events", "medchain_processor_stage_seconds", "medchain_processor_lag_seconds"},
    "relay": {"medchain_relay_effects", "medchain_outbox_age_seconds", "medchain_partitions_without_owner"},
    "prescriber-inbox": {"medchain_inbox_records", "medchain_inbox_behind_seconds"},
    "pharmacy-inbox": {"medchain_inbox_records", "medchain_inbox_behind_seconds"},
}


def scraped(chain: Chain, service: str) -> str:
    answer = chain.http.get(chain.platform.url(service) + "/metrics")
    assert answer.status_code == 200, answer.text
    return answer.text


def value(text: str, name: str, **labels: str) -> float:
    """The sum of what a metric says for these labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def program(service: str) -> str:
    return "processor-1" if service == "processor" else service


def prescription_message(prescription: str, national_id: str = PATIENT) -> dict[str, object]:
    return {
        "patient": {"national_id": national_id, "name": NAME},
        "prescription": prescription,
        "medication": {
            "product": {"kind": "substance", "name": "Metformin"},
            "form": "tablet",
            "atc": "A10BA02",
            "strength": "500 mg",
        },
        "quantity": {"value": 100, "unit": "tablet"},
        "refills": 0,
        "dosing": {"text": "one each morning"},
        "indication_text": "diabetes type 2",
    }


def write(chain: Chain) -> str:
    prescription = str(uuid4())
    sent = prescription_message(prescription)
    answer = chain.post("prescriber", "/v1/prescriptions", sent, DOCTOR)
    assert answer.status_code == 201, answer.text
    return prescription


def test_every_process_tells_what_is_its_own_and_a_write_moves_the_numbers(chain: Chain) -> None:
    wait_until(
        lambda: "medchain_partitions_without_owner" in scraped(chain, "relay"), within_s=20, what="the relay has looked"
    )
    before = {each.name: scraped(chain, program(each.name)) for each in SERVICES}
    prescription = write(chain)
    after = {each.name: scraped(chain, program(each.name)) for each in SERVICES}
    for service, text in after.items():
        names = {family.name for family in text_string_to_metric_families(text)}
        assert OF[service] | OF_EVERY_PROCESS <= names, service
    for service, name, labels in (
        ("prescriber", "medchain_http_requests_total", {"route": "/v1/prescriptions", "status": "201"}),
        ("prescriber", "medchain_append_seconds_count", {}),
        ("prescriber", "medchain_outcome_wait_seconds_count", {}),
        ("medication-list", "medchain_read_wait_seconds_count", {"reached": "yes"}),
    ):
        assert value(after[service], name, **labels) > value(before[service], name, **labels), name
    applied = value(before["processor"], "medchain_processor_events_total", outcome="applied")
    told = scraped(chain, "processor-1")
    assert value(told, "medchain_processor_events_total", outcome="applied") >= applied + 1
    assert value(told, "medchain_processor_partitions_owned") == 8
    for service, text in after.items():
        for secret in (PATIENT, NAME, "Kari", "Metformin", "A10BA02", prescription):
            assert secret not in text, f"{service} tells {secret}"
