"""An operator's cases on the real log and the real view: refolds while traffic runs, closings, and traces to the topics."""

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from kafka import KafkaAdminClient
from typer.testing import CliRunner

from deploy.local.layout import CHECKOUT
from deploy.local.waiting import wait_until
from schemas.events import Event, PrescriptionRecalled
from schemas.framing import PLAIN
from services.casework import event, parked, patient
from services.casework.access_record import AccessRecord
from services.casework.appending import kafka_append
from services.casework.desk import Desk
from services.identity.pseudonym import Pseudonymiser
from services.medication_list.driver.batches import Applied, Fetch, PartitionBatch, Rewind
from services.medication_list.judging.judge import Judge
from services.medication_list.log.record_log import KafkaRecordLog, LogLookupError
from services.medication_list.refolding.refolder import Refolder
from services.medication_list.store.keys import GenerationKeys, PartitionKeys
from services.medication_list.store.link import command
from services.medication_list.store.redis_outbox import RedisOutbox
from services.medication_list.store.redis_roles import RedisRoles
from services.medication_list.store.redis_views import RedisViews
from services.medication_list.stored.packing import unpack_effect
from services.publishing.kafka_access import KafkaAccess
from tests.conftest import FreshTopic
from tests.integration.list_stand import PARTITIONS, ListStand, Patient, a_list_stand, position
from tests.organisations import organisation_number
from tests.unit.fold_world import claimed, dispensed, issued, recalled

pytestmark = pytest.mark.integration
WITHIN_S = 30.0
WHY = ("--reason", "alarm record_parked")


class Casework:
    """A list stand, and a desk at which its log and view are worked on."""

    def __init__(self, stand: ListStand, kafka: str, folder: Path) -> None:
        self.stand = stand
        self.record = folder / "access.jsonl"
        self.records = KafkaRecordLog(KafkaAccess(kafka), stand.topic)
        self.desk = Desk(
            store=stand.store,
            views=lambda: RedisViews(stand.settings.redis),
            generation=stand.generation,
            roles=RedisRoles(stand.link),
            source=stand.source,
            records=self.records,
            outbox=RedisOutbox(stand.link),
            partitions=PARTITIONS,
            clock=stand.clock,
            accesses=AccessRecord(self.record, stand.clock),
            pseudonymiser=lambda: Pseudonymiser(b"p" * 32),
            append=kafka_append(KafkaAccess(kafka), lambda _: PARTITIONS, PLAIN, stand.topic),
            kafka=KafkaAccess(kafka),
            topic=stand.topic,
        )

    def told(self, module: Any, *words: str) -> Any:
        """What a command says in JSON; it must have been done."""
        said = CliRunner().invoke(module.make_app(lambda: nullcontext(self.desk)), [*words, "--json"])
        assert said.exit_code == 0, said.output
        return json.loads(said.stdout.splitlines()[-1])

    def refolder(self) -> Refolder:
        """As the desk makes it."""
        return Refolder(self.stand.store, self.records, PARTITIONS, self.stand.clock.now_ms)

    def who(self, whose: Patient) -> tuple[str, str]:
        """The patient by its pseudonym."""
        return ("--pseudonym", whose.key)

    def replayed(self, whose: Patient) -> dict[str, Any]:
        """What a generation made from this log from its beginning holds of a patient, without what was answered."""
        before = self.view(whose)
        self.stand.link.ask([command("FLUSHALL")])
        self.stand.begin()
        self.stand.judge()
        after = self.view(whose)
        return {name: each for name, each in after.items() if before.get(name) != each}

    def view(self, whose: Patient) -> dict[str, Any]:
        """A patient's hash and index, what is parked, and who is found by what."""
        keys = GenerationKeys(self.stand.generation, whose.partition)
        names = (keys.list_key(whose.key), keys.events_key(whose.key), keys.rx, keys.parked)
        replies = self.stand.link.ask([command("HGETALL", name) for name in names])
        pairs = [dict(zip(reply[::2], reply[1::2], strict=True)) for reply in replies]
        pairs[0].pop(b"answered", None)
        return dict(zip(("list", "index", "rx", "parked"), pairs, strict=True))

    def notices(self, whose: Patient) -> list[tuple[str, str]]:
        """Kind and recipient of every effect of a partition that waits."""
        (entries,) = self.stand.link.ask([command("XRANGE", PartitionKeys(whose.partition).outbox, "-", "+")])
        due = [unpack_effect(pairs[1]).due for _, pairs in entries]
        return [(str(getattr(each, "kind", "")), getattr(each, "organisation", "")) for each in due]


@pytest.fixture
def casework(kafka: str, redis_url: str, fresh_topic: FreshTopic, tmp_path: Path) -> Iterator[Casework]:
    topic = fresh_topic(PARTITIONS)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    with a_list_stand(kafka, redis_url, topic) as stand:
        work = Casework(stand, kafka, tmp_path)
        with closing(work.records):
            yield work


@contextmanager
def faulty_fold() -> Iterator[None]:
    """Recalls cannot be judged while it lasts, as by a release with a fault of ours."""
    from services.medication_list.fold import prescribing  # noqa: PLC0415  the rule that has the fault

    sound = prescribing.prescription_recalled

    def faulty(draft: object, event: Event[PrescriptionRecalled]) -> Any:
        raise ZeroDivisionError(type(draft).__name__, type(event).__name__)

    prescribing.prescription_recalled = faulty
    try:
        yield
    finally:
        prescribing.prescription_recalled = sound


def test_a_prescription_whose_number_came_first_in_another_partition_is_in_no_list_that_an_operator_sees(
    casework: Casework,
) -> None:
    """No store of one partition knows it: the index of every partition is asked."""
    stand, first = casework.stand, casework.stand.a_patient()
    second = next(each for each in (stand.a_patient() for _ in range(1_000)) if each.partition != first.partition)
    number = uuid.uuid4().hex
    for whose in (first, second):
        stand.say(whose, issued(f"R {whose.key}", "T1", reference_number=number))
    (flagged,) = casework.told(patient, "list", *casework.who(first), *WHY)["treatments"]
    assert flagged["flags"] == ["prescription_number_conflict"]
    assert casework.told(patient, "list", *casework.who(second), *WHY)["treatments"] == []
    (event,) = casework.told(patient, "timeline", *casework.who(second), *WHY)["events"]
    assert (event["hidden"], event["changed"]) == (True, [])


def test_a_fault_of_ours_from_noticing_to_the_mended_list(casework: Casework) -> None:
    """The how-to, step by step: noticed in the timeline, mended by a release, looked at, done, and well."""
    stand, whose = casework.stand, casework.stand.a_patient()
    stand.say(whose, issued("R1"))
    with faulty_fold():
        unjudged = stand.say(whose, recalled("R1"))
        claim = stand.say(whose, claimed("R1", "C1", by="P"))
    events = casework.told(patient, "timeline", *casework.who(whose), *WHY)["events"]
    assert [each["event"]["outcome"] for each in events] == ["applied", "parked", "applied"]
    (listed,) = casework.told(parked, "list")["records"]
    assert (listed["position"], listed["reason"]) == (position(unjudged), "not_judged")
    assert stand.read(whose)["complete"] is False

    before = casework.view(whose)
    (shown,) = casework.told(parked, "refold", *WHY)
    assert [(each["position"], each["answered"], each["now"]) for each in shown["answers"]] == [
        (position(claim), "applied", "refused(recalled)")
    ]
    assert casework.view(whose) == before
    assert casework.notices(whose) == []
    (done,) = casework.told(parked, "refold", *WHY, "--yes")
    assert done["unparked"] == [position(unjudged)]
    assert stand.read(whose)["complete"] is True
    (entry,) = stand.read(whose)["treatments"]
    assert (entry["prescriptions"][0]["status"], "outcome_changed" in entry["flags"]) == ("T", True)
    assert casework.notices(whose) == [("outcome_changed", "920000001")]
    assert casework.told(patient, "refold", *casework.who(whose), *WHY)["needed"] is False
    assert casework.replayed(whose) == {}


def test_a_refold_while_traffic_runs_loses_nothing_and_comes_to_what_a_replay_does(casework: Casework) -> None:
    """Two refolders and a processor on one patient: whatever the order, the view is the log's."""
    stand, whose = casework.stand, casework.stand.a_patient()
    stand.say(whose, issued("R1", refills=99))
    with faulty_fold():
        stand.say(whose, recalled("R9"))
    stopped = threading.Event()
    failures: list[BaseException] = []

    def refold() -> None:
        refolder = casework.refolder()
        try:
            while not stopped.is_set():
                with suppress(LogLookupError):  # a busy machine: it is tried again, as an operator would
                    refolder.refold(whose.key)
        except BaseException as error:  # noqa: BLE001  it is told in the test's own thread
            failures.append(error)

    refolders = [threading.Thread(target=refold) for _ in range(2)]
    for each in refolders:
        each.start()
    for number in range(40):
        stand.say(whose, dispensed(f"D{number}", "R1", by="P"), judge=False)
        judge_as_the_driver_does(stand, whose.partition)
    stopped.set()
    for each in refolders:
        each.join(WITHIN_S)
    assert failures == []
    assert stand.read(whose)["complete"] is True
    (entry,) = stand.read(whose)["treatments"]
    assert entry["prescriptions"][0]["dispenses_done"] == 40
    assert casework.replayed(whose) == {}


def judge_as_the_driver_does(stand: ListStand, partition: int) -> None:
    """Until the view is at the log's end; what a refold made void is read again."""
    judge, end = Judge(stand.store, PARTITIONS), stand.source_ends()[partition]

    def is_done() -> bool:
        offset = stand.store.next_offsets([partition])[partition]
        if offset >= end:
            return True
        records = stand._records(partition, offset)  # noqa: SLF001  the stand's own reading
        batch = PartitionBatch(partition, offset, records[-1].offset + 1, records, 0)
        assert isinstance(judge.process(Fetch((batch,)))[partition], Applied | Rewind)
        return False

    wait_until(is_done, within_s=WITHIN_S, what="judged")


def test_a_closed_record_stays_closed_in_a_replay(casework: Casework) -> None:
    stand, whose = casework.stand, casework.stand.a_patient()
    stand.say(whose, issued("R1"))
    damaged = stand.append(whose, b"no Avro of ours", "3f0f5a52-0000-4000-8000-000000000001")
    assert stand.read(whose)["complete"] is False
    running = threading.Event()

    def process() -> None:
        while not running.is_set():
            judge_as_the_driver_does(stand, whose.partition)
            time.sleep(0.02)

    processor = threading.Thread(target=process)
    processor.start()
    try:
        words = ("--organisation", organisation_number(5), "--yes")
        done = casework.told(parked, "close", position(damaged), *WHY, *words)
    finally:
        running.set()
        processor.join(WITHIN_S)
    assert done["outcome"] == "applied"
    assert stand.read(whose)["complete"] is True
    assert casework.told(parked, "list")["total"] == 0
    assert casework.replayed(whose) == {}
    assert stand.read(whose)["complete"] is True


def test_a_trace_leads_to_the_place_of_an_effect_on_its_topic(casework: Casework, kafka: str) -> None:
    stand, whose = casework.stand, casework.stand.a_patient()
    for said in (issued("R1"), claimed("R1", "C1", by="P")):
        stand.say(whose, said)
    at = stand.say(whose, recalled("R1"))
    (waits,) = casework.told(event, "trace", stand.last_event_id, "--position", position(at), *WHY)["effects"]
    assert waits["state"] == "waiting"
    with closing(KafkaAdminClient(bootstrap_servers=kafka)) as admin:
        admin.create_topics({waits["topic"]: {"num_partitions": 2, "replication_factor": 1}}, wait_for_metadata=True)
    sent = stand.producer.send(
        waits["topic"], b"the relay's", key=b"x", headers=[("ce_id", waits["effect_id"].encode())]
    ).get(10)
    stand.link.ask([command("DEL", PartitionKeys(whose.partition).outbox)])
    (found,) = casework.told(event, "trace", stand.last_event_id, "--position", position(at), *WHY)["effects"]
    assert (found["state"], found["position"]) == ("sent", f"{sent.partition}-{sent.offset}")
    assert found["at_ms"] == sent.timestamp


def test_the_shells_command_refuses_another_logs_view_and_never_says_a_number(
    casework: Casework, kafka: str, redis_url: str, tmp_path: Path
) -> None:
    """As a process of its own: what is in its arguments, on its output, and in the access record."""
    whose = casework.stand.a_patient()
    file = tmp_path / "patient"
    file.write_text(whose.national_id.digits, encoding="utf-8")
    said = subprocess.run(  # noqa: S603  our own command
        [
            str(Path(sys.executable).with_name("medchain")),
            *("patient", "timeline", "--patient-file", str(file), "--json", *WHY),
        ],
        cwd=CHECKOUT,
        env={
            **os.environ,
            "MEDCHAIN_KAFKA": kafka,
            "MEDCHAIN_REDIS": redis_url,
            "MEDCHAIN_PSEUDONYM_KEY": (b"p" * 32).hex(),
            "MEDCHAIN_ACCESS_RECORD": str(casework.record),
            "MEDCHAIN_SCHEMA_REGISTRY": "",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    # The stand's view is of a topic of its own, and the command knows the declared one alone.
    assert said.returncode == 2
    assert "another log" in json.loads(said.stdout)["error"]
    assert whose.national_id.digits not in said.stdout + said.stderr
