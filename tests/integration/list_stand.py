"""A stand for the read API: a real log, a real Redis, a judge that folds when a test says so, and the API over HTTP."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any, Final

import httpx
import msgspec
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from pydantic import SecretStr

from schemas import codec
from schemas import events as ev
from services.admission.read_token import ReadTokens
from services.clock import ManualClock
from services.identity.national_id import synthetic
from services.identity.sealing import SealedIdentityContent
from services.medication_list.driver.batches import Applied, Fetch, PartitionBatch
from services.medication_list.fold import VERSION
from services.medication_list.generations import GenerationRecord, enter
from services.medication_list.judging.judge import Judge
from services.medication_list.log.positions import LogPlace, position_of
from services.medication_list.log.source_log import KafkaSourceLog
from services.medication_list.read_api.app import create_app, opened
from services.medication_list.settings import MedicationListSettings
from services.medication_list.store.link import Link
from services.medication_list.store.redis_roles import RedisRoles
from services.medication_list.store.redis_store import RedisStore
from services.publishing.kafka_access import KafkaAccess
from services.publishing.log import cloud_event_headers
from services.publishing.partitioning import partition_of
from tests.integration.services_stand import DOOR, SEALER, a_caller, served
from tests.unit.fold_world import ACTORS, MINUTE_MS, Said, at, id_of

PARTITIONS: Final = 8


class Patient:
    """A patient that no other test knows."""

    def __init__(self, number: int) -> None:
        self.national_id = synthetic(number)
        self.key = DOOR.patient_key(self.national_id)
        self.partition = partition_of(self.key.encode(), PARTITIONS)

    def id_of(self, name: str) -> str:
        """The id of a prescription of this patient: another patient's of the same name has another one."""
        return str(uuid.uuid5(uuid.UUID(id_of(name)), self.key))

    def body(self, **more: Any) -> dict[str, Any]:
        """The body of a request about this patient."""
        return {"patient": {"national_id": self.national_id.digits}, **more}


class ListStand:
    """The log, the view and the API before them."""

    def __init__(self, bootstrap: str, redis_url: str, topic: str) -> None:
        self.clock = ManualClock(at(0))
        self.tokens = ReadTokens(b"r" * 32)
        self.topic = topic
        self.source = KafkaSourceLog(KafkaAccess(bootstrap), events=topic)
        self.link = Link(redis_url)
        self.producer: Any = KafkaProducer(bootstrap_servers=bootstrap, acks="all")
        self.consumer: Any = KafkaConsumer(
            bootstrap_servers=bootstrap, group_id=None, enable_auto_commit=False, fetch_max_wait_ms=5
        )
        self.settings = MedicationListSettings(
            kafka=KafkaAccess(bootstrap),
            redis=redis_url,
            pseudonym_key=SecretStr((b"p" * 32).hex()),
            read_token_key=SecretStr((b"r" * 32).hex()),
        )
        self.http: httpx.Client
        self.appended: dict[LogPlace, bytes] = {}
        self._patients = 0
        self._minutes = 0
        self.begin()

    def begin(self) -> None:
        """Enter the live generation, as a worker does; in an empty Redis a new one begins."""
        generation = enter(RedisRoles(self.link), self.source, GenerationRecord(VERSION, "test", 0))
        self.store = RedisStore(self.link, generation)
        self.generation = generation

    def a_patient(self) -> Patient:
        """Another one each time."""
        self._patients += 1
        return Patient(1000 + self._patients)

    # --- The log --------------------------------------------------------------------------------------------------

    def say(self, patient: Patient, said: Said, *, event_id: str | None = None, judge: bool = True) -> LogPlace:
        """Append an event a minute later than the one before, by everybody's clock; judge it unless told not to."""
        self._minutes += 1
        now_ms = self.clock.now_ms() + MINUTE_MS
        self.clock.set(now_ms)
        said = replace(said, body=_of_this_patient(said.body, patient), event_id=event_id)
        return self._append_said(patient, said, now_ms, judge=judge)

    def say_anothers(self, patient: Patient, said: Said) -> LogPlace:
        """As `say`, with the ids as they are: another patient's, perhaps."""
        self.clock.set(self.clock.now_ms() + MINUTE_MS)
        return self._append_said(patient, said, self.clock.now_ms(), judge=True)

    def _append_said(self, patient: Patient, said: Said, now_ms: int, *, judge: bool) -> LogPlace:
        body = said.body
        if isinstance(body, ev.PrescriptionIssued):
            sealed = SEALER.seal(SealedIdentityContent(patient.national_id, "Ola Nordmann"), patient.key)
            body = _with_identity(body, sealed)
        event = ev.Event(
            event_id=said.event_id or str(uuid.uuid4()),
            patient=patient.key,
            occurred_at_ms=said.at_ms if said.at_ms is not None else now_ms,
            received_at_ms=now_ms,
            source=ACTORS[said.by],
            body=body,
        )
        self.last_event_id = event.event_id
        return self.append(patient, codec.encode(event), event.event_id, judge=judge)

    def append(self, patient: Patient, value: bytes, event_id: str, *, judge: bool = True) -> LogPlace:
        """Append these bytes; the broker's time is the stand's clock."""
        headers = cloud_event_headers(event_id=event_id, event_type="T", source="s", time_ms=self.clock.now_ms())
        sent = self.producer.send(
            self.topic,
            key=patient.key.encode(),
            value=value,
            headers=headers,
            partition=patient.partition,
            timestamp_ms=self.clock.now_ms(),
        ).get(10)
        if judge:
            self.judge()
        place = LogPlace(sent.partition, sent.offset)
        self.appended[place] = value
        return place

    def judge(self) -> None:
        """Fold what is in the log and not yet in the view."""
        judge = Judge(self.store, PARTITIONS)
        offsets = self.store.next_offsets(range(PARTITIONS))
        for partition, end in self.source_ends().items():
            offset = offsets[partition]
            while offset < end:
                records = self._records(partition, offset)
                batch = PartitionBatch(partition, offset, records[-1].offset + 1, records, 0)
                verdict = judge.process(Fetch((batch,)))[partition]
                assert isinstance(verdict, Applied)
                offset = verdict.next_offset

    def source_ends(self) -> dict[int, int]:
        """Where the log ends."""
        places = [TopicPartition(self.topic, each) for each in range(PARTITIONS)]
        return {place.partition: end for place, end in self.consumer.end_offsets(places).items()}

    def _records(self, partition: int, offset: int) -> list[Any]:
        place = TopicPartition(self.topic, partition)
        self.consumer.assign([place])
        self.consumer.seek(place, offset)
        for _ in range(100):
            polled: list[Any] = self.consumer.poll(timeout_ms=200).get(place, [])
            if polled:
                return polled
        raise TimeoutError("the log brought nothing")

    # --- The API --------------------------------------------------------------------------------------------------

    def ask(self, path: str, sent: object, *, caller: str | None = None) -> httpx.Response:
        """A request with a body."""
        return self.http.post(path, json=sent, headers={"Medchain-Caller": caller or a_caller()})

    def get(self, path: str, *, caller: str | None = None, **parameters: str) -> httpx.Response:
        """A request without one."""
        return self.http.get(path, params=parameters, headers={"Medchain-Caller": caller or a_caller()})

    def read(self, patient: Patient, **more: Any) -> dict[str, Any]:
        """The patient's list, which must be there."""
        answer = self.ask("/v1/list/read", patient.body(**more))
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def outcome(self, patient: Patient, place: LogPlace, event_id: str, wait_ms: int = 2_000) -> httpx.Response:
        """What the services ask: without the record, and with it, as they do, which must come to the same."""
        asked = {"patient": patient.key, "event_id": event_id, **place._asdict(), "wait_ms": wait_ms}
        answer = self.http.post("/internal/outcomes", json=asked)
        record = self.appended.get(place, b"")
        if is_event(record):
            told = {"record": base64.b64encode(record).decode()}
            with_record = self.http.post("/internal/outcomes", json=asked | told)
            assert (with_record.status_code, with_record.content) == (answer.status_code, answer.content)
        return answer

    def close(self) -> None:
        """Let everything go."""
        self.producer.close()
        self.consumer.close()
        self.link.close()


def _of_this_patient(body: ev.Body, patient: Patient) -> ev.Body:
    """The prescription that a body names by the world's id, as this patient's own."""
    named = getattr(body, "prescription", None)
    if named is None:
        return body
    own = str(uuid.uuid5(uuid.UUID(named), patient.key))
    return msgspec.structs.replace(body, prescription=own)


def _with_identity(body: ev.PrescriptionIssued, sealed: bytes) -> ev.PrescriptionIssued:
    return ev.PrescriptionIssued(
        **{name: getattr(body, name) for name in body.__struct_fields__ if name != "identity"}, identity=sealed
    )


def is_event(record: bytes) -> bool:
    """Whether these bytes are what a service would append."""
    try:
        return isinstance(codec.decode(record), ev.Event)
    except codec.UndecodableError:
        return False


def position(place: LogPlace) -> str:
    """As answers tell it."""
    return position_of(*place)


@contextmanager
def a_list_stand(bootstrap: str, redis_url: str, topic: str) -> Iterator[ListStand]:
    """All of it, reachable over HTTP."""
    stand = ListStand(bootstrap, redis_url, topic)
    with (
        closing(stand),
        served(create_app(opened(stand.settings, stand.clock, topic))) as url,
        httpx.Client(base_url=url, timeout=20) as http,
    ):
        stand.http = http
        yield stand
