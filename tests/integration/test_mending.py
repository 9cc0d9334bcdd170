"""From a record that no worker can read to the whole list, in order: the schema comes between two starts of the processors."""

import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from kafka import KafkaProducer

from deploy.local.layout import CHECKOUT
from deploy.local.program import Child, Program
from deploy.local.waiting import wait_until
from schemas import codec
from schemas import events as ev
from services.medication_list.fold.judgement import NoticeDue
from services.medication_list.fold.remembering import recollect
from services.medication_list.fold.state import META, Meta
from services.medication_list.read_api.view import show_prescription
from services.medication_list.store.keys import PartitionKeys
from services.medication_list.store.link import Link, command
from services.medication_list.store.port import StoreUnavailableError
from services.medication_list.store.redis_roles import RedisRoles
from services.medication_list.store.redis_store import RedisStore
from services.medication_list.stored.event_index import places_of
from services.medication_list.stored.packing import unpack_effect, unpack_field
from services.publishing.partitioning import partition_of
from services.topics.registry import EVENTS_TOPIC, load
from tests.unit.fold_world import ACTORS, Said, at, claimed, id_of, issued, organisation, recalled

pytestmark = pytest.mark.integration
WITHIN_S = 60.0
WORKERS = 2


class Stand:
    """A patient nobody knows, a log, a view, and workers that have only the schemas of a folder."""

    def __init__(self, kafka: str, redis_url: str, folder: Path) -> None:
        self.kafka, self.redis, self.folder = kafka, redis_url, folder
        self.patient = uuid.uuid4().hex
        self.partition = partition_of(self.patient.encode(), load().partitions(EVENTS_TOPIC))
        self.link = Link(redis_url)
        self.events: list[str] = []

    def say(self, said: Said) -> int:
        """Append it; returns its offset."""
        now_ms = at(0, 9, len(self.events))
        event: ev.Event[ev.Body] = ev.Event(
            event_id=str(uuid.uuid4()),
            patient=self.patient,
            occurred_at_ms=now_ms,
            received_at_ms=now_ms,
            source=ACTORS[said.by],
            body=said.body,
        )
        self.events.append(event.event_id)
        with closing(KafkaProducer(bootstrap_servers=self.kafka, acks="all")) as producer:
            sent = producer.send(EVENTS_TOPIC, codec.encode(event), key=self.patient.encode(), partition=self.partition)
            return int(sent.get(10).offset)

    @contextmanager
    def workers(self) -> Iterator[None]:
        """Two processors, each a process of its own."""
        with ExitStack() as running:
            for number in range(WORKERS):
                program = Program(
                    name=f"processor-{number}",
                    # Without the checkout itself on the path, which would come before the folder.
                    argv=(sys.executable, "-P", "-m", "services.medication_list.processor.app"),
                    log=self.folder / f"processor-{number}.log",
                    ready=lambda: True,
                    environment={
                        "PYTHONPATH": os.pathsep.join([str(self.folder), str(CHECKOUT)]),
                        "MEDCHAIN_KAFKA": self.kafka,
                        "MEDCHAIN_REDIS": self.redis,
                        "MEDCHAIN_SCHEMA_REGISTRY": "",
                    },
                )
                running.enter_context(Child(program))
            yield

    @property
    def store(self) -> RedisStore:
        """The live generation."""
        pointer = RedisRoles(self.link).pointer()
        if pointer is None:
            raise StoreUnavailableError("no worker has begun")
        return RedisStore(self.link, pointer.generation)

    def await_judged(self, offset: int) -> None:
        """Return once the view has come beyond an offset."""

        def has_come() -> bool:
            try:
                return self.store.next_offsets([self.partition])[self.partition] > offset
            except StoreUnavailableError:
                return False

        wait_until(has_come, within_s=WITHIN_S, what=f"judged {offset}")

    def outcomes(self) -> list[str]:
        """What is remembered of each record, in log order; a dash for what is parked."""
        whole = self.store.read_whole(self.partition, self.patient, with_index=True)
        known = places_of(whole.fields, whole.remembered).values()
        return ["-" if each is None or each.outcome == 3 else recollect(each).outcome for each in known]

    def meta(self) -> Meta:
        """The patient as a whole."""
        found = unpack_field(META, self.store.read_whole(self.partition, self.patient).fields[META])
        assert isinstance(found, Meta)
        return found


@pytest.fixture
def stand(kafka: str, redis_url: str, tmp_path: Path) -> Iterator[Stand]:
    shutil.copytree(CHECKOUT / "schemas", tmp_path / "schemas", ignore=shutil.ignore_patterns("golden"))
    stand = Stand(kafka, redis_url, tmp_path)
    with closing(stand.link):
        yield stand


def test_a_schema_that_comes_between_two_starts_makes_the_list_whole_and_in_order(stand: Stand) -> None:
    lacking = stand.folder / "schemas" / "avro" / "PrescriptionRecalled" / "1.avsc"
    put_back = lacking.read_bytes()
    lacking.unlink()
    stand.say(issued("R1"))
    unread = stand.say(recalled("R1"))
    last = stand.say(claimed("R1", "C1", by="P"))
    with stand.workers():
        stand.await_judged(last)
    assert stand.outcomes() == ["applied", "-", "applied"]
    assert stand.meta().incomplete_since_ms > 0
    assert unread in stand.store.parked(stand.partition)
    lacking.write_bytes(put_back)
    with stand.workers():
        wait_until(lambda: unread not in stand.store.parked(stand.partition), within_s=WITHIN_S, what="mended")
    assert stand.outcomes() == ["applied", "applied", "refused"]
    assert stand.meta().incomplete_since_ms == 0
    whole = stand.store.read_whole(stand.partition, stand.patient)
    shown = show_prescription(
        {name: unpack_field(name, each) for name, each in whole.fields.items()}, id_of("R1"), at(1)
    )
    assert shown is not None
    assert (shown.status, shown.holder) == ("T", None)
    (entries,) = stand.link.ask([command("XRANGE", PartitionKeys(stand.partition).outbox, "-", "+")])
    due = [unpack_effect(pairs[1]).due for _, pairs in entries]
    told = [each for each in due if isinstance(each, NoticeDue) and each.source_event == stand.events[2]]
    assert [(each.kind, each.organisation, each.outcome) for each in told] == [
        ("outcome_changed", organisation("P"), "refused")
    ], "once, though two workers looked"
