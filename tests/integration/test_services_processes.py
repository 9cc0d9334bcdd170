"""The services as processes on the real broker: started by their environment, stopped in order, silent about patients."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from kafka import KafkaConsumer, TopicPartition

from schemas import codec
from schemas.events import Event
from services.topics.registry import EVENTS_TOPIC
from tests.integration.services_stand import (
    PATIENT,
    PHARMACY,
    PRESCRIPTION,
    ListPlayed,
    a_caller,
    a_prescription,
    served,
)

pytestmark = pytest.mark.integration

KEYS = {
    "MEDCHAIN_PSEUDONYM_KEY": "11" * 32,
    "MEDCHAIN_SEALING_KEY": "22" * 32,
    "MEDCHAIN_READ_TOKEN_KEY": "33" * 32,
}


@pytest.fixture(scope="module")
def played() -> Iterator[ListPlayed]:
    played = ListPlayed()
    with served(played.app()) as url:
        played.url = url
        yield played


def a_free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def a_process(module: str, kafka: str, list_url: str, log: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A service as a user starts it; its URL and its process. Its log goes to a file."""
    port = a_free_port()
    told = {"MEDCHAIN_KAFKA": kafka, "MEDCHAIN_PORT": str(port), "MEDCHAIN_LIST_URL": list_url, **KEYS}
    with (
        log.open("wb") as out,
        subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", module], env={**os.environ, **told}, stderr=out
        ) as process,
    ):
        try:
            yield f"http://127.0.0.1:{port}", process
        finally:
            if process.poll() is None:
                process.kill()


def until_answering(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(f"{url}/health/live", timeout=5)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError("the service did not start")


def written(kafka: str, system: str) -> list[Event[Any]]:
    """The events of this system in the log."""
    with closing(KafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False, group_id=None)) as consumer:
        places = [TopicPartition(EVENTS_TOPIC, partition) for partition in consumer.partitions_for_topic(EVENTS_TOPIC)]
        consumer.assign(places)
        ends = consumer.end_offsets(places)
        consumer.seek_to_beginning(*places)
        found: list[Event[Any]] = []
        while any(consumer.position(place) < end for place, end in ends.items()):
            for records in consumer.poll(timeout_ms=100).values():
                decoded = [codec.decode(record.value) for record in records if record.value]
                found += [event for event in decoded if event.source.system == system]
        return found


def test_a_prescription_and_a_claim_go_through_both_processes_into_the_log(
    kafka: str, played: ListPlayed, scratch: Path
) -> None:
    played.forget()
    system = f"system-{uuid4().hex[:8]}"
    write = {"Idempotency-Key": "a-key"}
    for module, path, sent, caller in (
        ("services.prescriber.app", "/v1/prescriptions", a_prescription(), a_caller(system)),
        (
            "services.pharmacy.app",
            "/v1/claims",
            {"patient": PATIENT, "prescription": PRESCRIPTION},
            a_caller(system, PHARMACY, "pharmacist"),
        ),
    ):
        log = scratch / f"{module}.log"
        with a_process(module, kafka, played.url, log) as (url, process):
            until_answering(url, process)
            assert httpx.get(f"{url}/health/ready", timeout=30).status_code == 200
            headers = {**write, "Idempotency-Key": path, "Medchain-Caller": caller}
            answer = httpx.post(url + path, json=sent, headers=headers, timeout=30)
            assert answer.status_code == 201, answer.text
            process.send_signal(signal.SIGTERM)
            process.wait(30)
        check_log(log.read_text(encoding="utf-8"), path, system)
    assert [type(event.body).__name__ for event in written(kafka, system)] == ["PrescriptionIssued", "ClaimRequested"]


def check_log(text: str, path: str, system: str) -> None:
    """One canonical line for each request, and nothing of the patient."""
    lines = [json.loads(line) for line in text.splitlines()]
    (wrote,) = [line for line in lines if line["event"] == "request" and line["method"] == "POST"]
    assert (wrote["route"], wrote["status"], wrote["system"]) == (path, 201, system)
    for secret in (PATIENT["national_id"], PATIENT["name"], "Metformin", "A10BA02", *KEYS.values()):
        assert secret not in text


def test_without_a_broker_a_write_is_answered_with_503_within_its_bound(played: ListPlayed, scratch: Path) -> None:
    played.forget()
    nowhere = f"127.0.0.1:{a_free_port()}"
    with a_process("services.prescriber.app", nowhere, played.url, scratch / "nowhere.log") as (url, process):
        until_answering(url, process)
        headers = {"Idempotency-Key": "k", "Medchain-Caller": a_caller()}
        answer = httpx.post(f"{url}/v1/prescriptions", json=a_prescription(), headers=headers, timeout=8)
        assert answer.status_code == 503
        assert answer.json()["type"] == "/problems/log_unavailable"
        assert httpx.get(f"{url}/health/ready", timeout=8).status_code == 503
        process.send_signal(signal.SIGTERM)
        process.wait(30)
