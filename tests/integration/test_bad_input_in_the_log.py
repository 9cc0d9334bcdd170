"""Bad records in the log itself, against the running chain: parked and shown, and all before and after them takes effect."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import httpx
import msgspec
import pytest
from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]
from kafka.errors import MessageSizeTooLargeError

from deploy.local.layout import CHECKOUT
from schemas import codec
from schemas import events as ev
from services.identity.national_id import NationalId, synthetic
from services.medication_list.fold import VERSION
from services.medication_list.generations import GenerationRecord, enter
from services.medication_list.log.source_log import KafkaSourceLog
from services.medication_list.store.link import Link
from services.medication_list.store.redis_roles import RedisRoles
from services.medication_list.store.redis_store import RedisStore
from services.medication_list.stored.parked_note import ParkedNote, unpack_note
from services.publishing.kafka_access import KafkaAccess
from services.publishing.partitioning import partition_of
from services.topics.registry import EVENTS_TOPIC, load
from tests.acceptance.step_checks import milliseconds
from tests.acceptance.translate import ACTORS
from tests.acceptance.values import instant
from tests.chain import Chain
from tests.integration.test_bad_input_over_http import a_prescription

pytestmark = pytest.mark.integration

NOW_MS: Final = instant("d0 12:00")
PRESCRIBER: Final = ACTORS["prescriber A"]
PHARMACIST: Final = ACTORS["pharmacy P"]
PARTITIONS: Final = load().partitions(EVENTS_TOPIC)
BROKER_TAKES_BYTES: Final = 1_048_588


@dataclass(frozen=True, slots=True)
class Citizen:
    """Somebody with one prescription, and the record of it in the log."""

    chain: Chain
    number: NationalId
    record: Any

    def prescribe(self) -> str:
        """One more prescription, over HTTP; its position."""
        answer = self.chain.post("prescriber", "/v1/prescriptions", a_prescription(self.patient), PRESCRIBER)
        assert (answer.status_code, answer.json()["outcome"]) == (201, "applied"), answer.text
        return str(answer.json()["position"])

    def append(self, value: bytes | None, **where: Any) -> Any:
        """A record from outside, under this citizen's key and in the right partition unless said otherwise."""
        place = {"key": self.record.key, "partition": self.record.partition} | where
        with self.chain.producer(max_request_size=4_000_000) as producer:
            return producer.send(EVENTS_TOPIC, value=value, **place).get(30)

    def next_event(self, note: str | None = None) -> ev.Event[Any]:
        """Another prescription as an event, as a platform of ours would write it."""
        signed = codec.decode(self.record.value)
        body = msgspec.structs.replace(signed.body, prescription=str(uuid4()), treatment=str(uuid4()), note=note)
        event: ev.Event[Any] = msgspec.structs.replace(signed, event_id=str(uuid4()), body=body)
        return event

    def read(self, position: str) -> dict[str, Any]:
        """The list, once it takes account of this position."""
        return self.chain.read_list(self.number.digits, PRESCRIBER, position)

    @property
    def patient(self) -> dict[str, str]:
        """As a message states whom it is about."""
        return {"national_id": self.number.digits, "name": "Kari Nordmann"}


NEXT: Final = iter(range(33_000, 34_000))


@pytest.fixture
def citizen(chain: Chain) -> Citizen:
    chain.set_clock(NOW_MS)
    number = synthetic(next(NEXT))
    sent = a_prescription({"national_id": number.digits, "name": "Kari Nordmann"})
    answer = chain.post("prescriber", "/v1/prescriptions", sent, PRESCRIBER)
    assert answer.status_code == 201, answer.text
    return Citizen(chain, number, chain.record_at(answer.json()["position"]))


def parked(chain: Chain, partition: int) -> dict[int, ParkedNote]:
    """The parked list of a partition, by offset."""
    with closing(Link(chain.platform.redis_url)) as link:
        pointer = RedisRoles(link).pointer()
        assert pointer is not None
        notes = RedisStore(link, pointer.generation).parked(partition)
    return {offset: unpack_note(packed) for offset, packed in notes.items()}


def a_notice() -> bytes:
    notice = ev.Notice(
        effect_id=str(uuid4()),
        kind="dispensed",
        organisation=PRESCRIBER.organisation,
        prescription=None,
        source_event=str(uuid4()),
        source_partition=0,
        source_offset=0,
        at_ms=NOW_MS,
    )
    return codec.encode(notice)


UNREADABLE: Final[dict[str, tuple[Callable[[Citizen], bytes | None], str]]] = {
    "truncated": (lambda citizen: citizen.record.value[:-7], "unreadable"),
    "unknown fingerprint": (
        lambda citizen: b"\xc3\x01" + b"\xff" * 8 + citizen.record.value[10:],
        "unknown_schema",
    ),
    "wrong magic byte": (lambda citizen: b"\xc3\x02" + citizen.record.value[2:], "unreadable"),
    "empty value": (lambda _: b"", "no_value"),
    "null value": (lambda _: None, "no_value"),
    "JSON": (lambda _: b'{"patient": {}}', "unreadable"),
    "a record of another topic": (lambda _: a_notice(), "invalid_content"),
    "the largest that the broker takes": (lambda citizen: garbage(citizen, BROKER_TAKES_BYTES), "unreadable"),
}


def garbage(citizen: Citizen, batch_bytes: int) -> bytes:
    """What no schema knows, as long as makes a batch of this size: 61 bytes of the batch, and those of the record."""
    return b"\x00" * (batch_bytes - 61 - len(citizen.record.key) - 12)


@pytest.mark.parametrize(("value_of", "reason"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_record_that_cannot_be_read_is_parked_and_shown_and_the_rest_takes_effect(
    citizen: Citizen, value_of: Callable[[Citizen], bytes | None], reason: str
) -> None:
    sent = citizen.append(value_of(citizen))
    whole = citizen.read(citizen.prescribe())
    assert len(whole["treatments"]) == 2, "what came before, and what came after"
    bad = citizen.chain.record_at(f"{sent.partition}-{sent.offset}")
    assert (whole["complete"], milliseconds(whole["incomplete_since"])) == (False, bad.timestamp)
    told = citizen.chain.history(citizen.number.digits, PRESCRIBER)
    assert [each["outcome"] for each in told] == ["applied", "parked", "applied"]
    assert (told[1]["position"], told[1]["reason"]) == (f"{sent.partition}-{sent.offset}", reason)
    note = parked(citizen.chain, sent.partition)[sent.offset]
    assert (note.reason, note.patient, note.at_ms) == (reason, citizen.record.key.decode(), bad.timestamp)


def another_partition(citizen: Citizen) -> int:
    return int((citizen.record.partition + 1) % PARTITIONS)


ELSEWHERE: Final[dict[str, tuple[Callable[[Citizen], dict[str, Any]], str]]] = {
    "null key": (lambda _: {"key": None}, "no_key"),
    "empty key": (lambda _: {"key": b""}, "no_key"),
    "a key that is no pseudonym": (lambda citizen: {"key": citizen.number.digits.encode()}, "wrong_key"),
    "a key in the wrong partition": (lambda citizen: {"partition": another_partition(citizen)}, "wrong_partition"),
}


@pytest.mark.parametrize(("where_of", "reason"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_record_of_nobody_is_parked_for_its_partition_and_touches_no_patient(
    citizen: Citizen, where_of: Callable[[Citizen], dict[str, Any]], reason: str
) -> None:
    sent = citizen.append(codec.encode(citizen.next_event()), **where_of(citizen))
    neighbour = in_partition(citizen.chain, sent.partition)
    after = neighbour.prescribe()
    assert len(neighbour.read(after)["treatments"]) == 2
    note = parked(citizen.chain, sent.partition)[sent.offset]
    assert (note.reason, note.patient) == (reason, None)
    whole = citizen.read(citizen.prescribe())
    assert (whole["complete"], len(whole["treatments"])) == (True, 2)


def in_partition(chain: Chain, partition: int) -> Citizen:
    """Somebody with a prescription whose events lie in this partition."""
    for index in NEXT:
        number = synthetic(index)
        sent = a_prescription({"national_id": number.digits, "name": "Kari Nordmann"})
        answer = chain.post("prescriber", "/v1/prescriptions", sent, PRESCRIBER)
        record = chain.record_at(answer.json()["position"])
        assert record.partition == partition_of(record.key, PARTITIONS)
        if record.partition == partition:
            return Citizen(chain, number, record)
    raise AssertionError("there are not as many citizens")


def test_an_event_under_another_patients_key_is_parked_with_that_patient(citizen: Citizen) -> None:
    other = in_partition(citizen.chain, citizen.record.partition)
    sent = citizen.append(codec.encode(other.next_event()))
    whole = citizen.read(f"{sent.partition}-{sent.offset}")
    assert (whole["complete"], len(whole["treatments"])) == (False, 1)
    assert parked(citizen.chain, sent.partition)[sent.offset].reason == "wrong_key"
    whole = other.read(f"{sent.partition}-{sent.offset}")
    assert (whole["complete"], len(whole["treatments"])) == (True, 1)


def test_an_event_as_large_as_the_broker_takes_is_judged_like_any_other(citizen: Citizen) -> None:
    bare = len(codec.encode(citizen.next_event("")))
    note = "x" * (len(garbage(citizen, BROKER_TAKES_BYTES)) - bare - 10)
    sent = citizen.append(codec.encode(citizen.next_event(note)))
    whole = citizen.read(f"{sent.partition}-{sent.offset}")
    assert whole["complete"]
    notes = {len(entry["prescriptions"][0]["issued"].get("note", "")) for entry in whole["treatments"]}
    assert notes == {0, len(note)}


def test_a_record_that_is_larger_is_not_taken(citizen: Citizen) -> None:
    with pytest.raises(MessageSizeTooLargeError):
        citizen.append(garbage(citizen, BROKER_TAKES_BYTES + 10))
    assert citizen.read(citizen.prescribe())["complete"]


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
async def test_a_batch_in_every_compression_is_judged_and_can_be_looked_up(citizen: Citizen, compression: str) -> None:
    events = [citizen.next_event() for _ in range(20)]
    place = {"key": citizen.record.key, "partition": citizen.record.partition}
    producer = AIOKafkaProducer(bootstrap_servers=citizen.chain.kafka, compression_type=compression, linger_ms=50)
    async with producer:
        sent = [await producer.send(EVENTS_TOPIC, codec.encode(event), **place) for event in events]
        last = [await each for each in sent][-1]
    whole = citizen.read(f"{last.partition}-{last.offset}")
    assert (whole["complete"], len(whole["treatments"])) == (True, 21)
    told = citizen.chain.history(citizen.number.digits, PRESCRIBER)
    assert [each["event_id"] for each in told[1:]] == [event.event_id for event in events]
    asked = f"/v1/events/{events[-1].event_id}?position={last.partition}-{last.offset}"
    assert citizen.chain.get("medication-list", asked, PRESCRIBER).json()["outcome"] == "applied"


# --- A broker or a Redis of another platform --------------------------------------------------------------------------


def started(module: str, *, kafka: str, redis: str) -> subprocess.CompletedProcess[str]:
    """A process of the platform that must not work: how it ended."""
    keys = dict.fromkeys(("MEDCHAIN_PSEUDONYM_KEY", "MEDCHAIN_SEALING_KEY", "MEDCHAIN_READ_TOKEN_KEY"), "11" * 32)
    told = {"MEDCHAIN_KAFKA": kafka, "MEDCHAIN_REDIS": redis, **keys}
    return subprocess.run(  # noqa: S603  our own module
        [sys.executable, "-m", module],
        cwd=CHECKOUT,
        env={**os.environ, **told},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def check_refused(ended: subprocess.CompletedProcess[str]) -> None:
    assert ended.returncode == 1, ended.stderr
    (sentence,) = ended.stderr.strip().splitlines()
    assert sentence.startswith("Redis holds the view of another log")
    assert sentence.endswith("use the Redis that belongs to it, or an empty one.")


OF_THE_LIST: Final = tuple(
    f"services.medication_list.{each}" for each in ("processor.app", "read_api.app", "relay.app")
)


@pytest.mark.parametrize("module", OF_THE_LIST)
def test_a_broker_of_another_platform_is_refused_at_start_with_one_sentence(
    chain: Chain, kafka: str, module: str
) -> None:
    check_refused(started(module, kafka=kafka, redis=chain.platform.redis_url))
    ready = httpx.get(f"{chain.platform.url('medication-list')}/health/ready", timeout=30)
    assert ready.is_success, "the view was left alone"


@pytest.mark.parametrize("module", OF_THE_LIST)
def test_a_redis_of_another_platform_is_refused_at_start_with_one_sentence(
    chain: Chain, kafka: str, redis_url: str, module: str
) -> None:
    begin_a_view(kafka, redis_url)
    check_refused(started(module, kafka=chain.kafka, redis=redis_url))


def begin_a_view(kafka: str, redis_url: str) -> None:
    """Another platform's: its processor began it on its own log."""
    link = Link(redis_url)
    enter(RedisRoles(link), KafkaSourceLog(KafkaAccess(kafka)), GenerationRecord(VERSION, "another", NOW_MS))
    link.close()
