"""Submissions over Kafka: the same door, the sender's order, receipts for what is turned away, and nothing lost."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import MemberToRemove

from schemas import codec, golden
from schemas.events import (
    BODIES,
    ClaimRequested,
    Event,
    ListReconciled,
    PatientIdentity,
    PrescriptionIssued,
    PrescriptionRecalled,
    Submission,
    SubmissionReceipt,
)
from services.clock import ManualClock, SystemClock
from services.identity.national_id import synthetic
from services.publishing.kafka_access import KafkaAccess
from services.publishing.kafka_log import KafkaLog
from services.publishing.log import SUBMISSION_HEADER, LogUnavailable
from services.publishing.memory_log import MemoryLog
from services.recording.outcomes import MedicationListClient
from services.submissions.inbox import Inbox, take
from services.submissions.reception import Received, Reception
from services.topics import cluster
from services.topics.registry import EVENTS_TOPIC, Parties, load
from tests.integration.services_stand import DOOR, NOW_MS, SEALER, ListPlayed, served

pytestmark = pytest.mark.integration

TOPIC = "prescription-submissions.journal"
RECEIPTS = "submission-receipts.journal"
NUMBER = synthetic(1)


@pytest.fixture(scope="module")
def played() -> Iterator[ListPlayed]:
    played = ListPlayed()
    with served(played.app()) as url:
        played.url = url
        yield played


class Desk:
    """A reception before a log in memory."""

    def __init__(self, client: MedicationListClient) -> None:
        self.clock = ManualClock(NOW_MS)
        self.log = MemoryLog(load().partitions, self.clock)
        self.reception = Reception(log=self.log, medication_list=client, door=DOOR, sealer=SEALER, clock=self.clock)

    async def receive(self, value: bytes | None, topic: str = TOPIC, offset: int = 0) -> None:
        """One record of a submissions topic."""
        await self.reception.receive(Received(topic, 0, offset, b"key", value))

    def events(self) -> list[Event[Any]]:
        """What lies in the log of events."""
        return [codec.decode(record.value) for record in self.log.records(EVENTS_TOPIC)]

    def receipts(self, topic: str = RECEIPTS) -> list[SubmissionReceipt]:
        """What the sender was told."""
        return [codec.decode(record.value) for record in self.log.records(topic)]


@pytest.fixture
async def desk(played: ListPlayed) -> AsyncIterator[Desk]:
    played.forget()
    client = MedicationListClient(played.url)
    yield Desk(client)
    await client.close()


def a_recall(**changed: Any) -> Submission[PrescriptionRecalled]:
    said: dict[str, Any] = {
        "message_id": str(uuid4()),
        "patient": PatientIdentity(national_id=NUMBER.digits, kind=NUMBER.kind.value, name="Ola"),
        "occurred_at_ms": NOW_MS - 60_000,
        "organisation": "974760673",
        "role": "doctor",
        "bodies": (PrescriptionRecalled(prescription=str(uuid4()), reason="other"),),
    }
    return Submission(**{**said, **changed})


async def test_a_submission_becomes_events_of_the_system_that_owns_the_topic(desk: Desk) -> None:
    bodies = tuple(PrescriptionRecalled(prescription=str(uuid4()), reason="other") for _ in range(2))
    message = a_recall(bodies=bodies)
    await desk.receive(codec.encode(message))
    first, second = desk.events()
    assert (first.body, second.body) == bodies
    assert first.event_id != second.event_id
    assert first.source.system == "journal"
    assert (first.occurred_at_ms, first.received_at_ms) == (NOW_MS - 60_000, NOW_MS)
    assert desk.receipts() == []


async def test_a_claim_that_is_received_again_when_it_is_old_is_not_rejected_though_it_holds_its_prescription(
    desk: Desk, played: ListPlayed
) -> None:
    claims = "dispense-submissions.pharmacy-desk"
    bodies = (ClaimRequested(claim=str(uuid4()), prescription=str(uuid4())),)
    value = codec.encode(a_recall(bodies=bodies, organisation="313000028", role="pharmacist"))
    await desk.receive(value, claims)
    (first,) = desk.events()
    desk.clock.advance(16 * 60_000)
    played.status = 503
    with pytest.raises(LogUnavailable):
        await desk.receive(value, claims)
    played.status = 200
    played.happened_at[first.event_id] = datetime.fromtimestamp(first.occurred_at_ms / 1000, UTC).isoformat()
    await desk.receive(value, claims)
    assert [each.event_id for each in desk.events()] == [first.event_id] * 2
    assert desk.receipts("submission-receipts.pharmacy-desk") == []
    played.happened_at.clear()
    await desk.receive(value, claims)
    (receipt,) = desk.receipts("submission-receipts.pharmacy-desk")
    assert [(each.pointer, each.reason) for each in receipt.errors] == [("/occurred_at", "claim_too_old")]


async def test_an_event_says_by_which_submission_it_came(desk: Desk) -> None:
    message = a_recall()
    await desk.receive(codec.encode(message))
    (record,) = desk.log.records(EVENTS_TOPIC)
    assert (SUBMISSION_HEADER, message.message_id.encode()) in record.headers
    assert SUBMISSION_HEADER == "medchain_submission"  # the log holds it for ever under this name
    assert NUMBER.digits.encode() not in record.key + record.value + b"".join(value for _, value in record.headers)


async def test_a_submission_that_comes_again_is_the_same_event(desk: Desk) -> None:
    value = codec.encode(a_recall())
    await desk.receive(value)
    desk.clock.advance(60_000)
    await desk.receive(value)
    first, again = desk.events()
    assert msgspec.structs.replace(again, received_at_ms=first.received_at_ms) == first


async def test_the_identity_of_a_submitted_prescription_is_sealed_here(desk: Desk) -> None:
    (message, *_) = golden.newest_of("SubmissionPrescriptionIssued").values()
    desk.clock.set(message.occurred_at_ms)
    await desk.receive(codec.encode(message))
    issued = desk.events()[0]
    opened = SEALER.open(issued.body.identity, issued.patient)
    assert opened.national_id.digits == message.patient.national_id


@pytest.mark.parametrize("struct", BODIES, ids=lambda struct: struct.__name__)
async def test_the_example_of_every_submission_is_received(desk: Desk, struct: Any) -> None:
    if struct is ListReconciled:
        return  # an example's token is nobody's; a real one is in the tests of the door
    name = f"Submission{struct.__name__}"
    (topic,) = [each for each in (TOPIC, "dispense-submissions.journal") if name in load().declaration(each).schemas][
        :1
    ]
    message = next(iter(golden.newest_of(name).values()))
    desk.clock.set(message.occurred_at_ms)
    await desk.receive(codec.encode(message), topic)
    assert [type(event.body) for event in desk.events()] == [struct] * len(message.bodies)


# --- What is turned away -----------------------------------------------------------------------------------------


async def test_every_error_of_a_submission_is_on_its_receipt(desk: Desk) -> None:
    bad = PrescriptionRecalled(prescription="no id", reason="death")
    message = a_recall(
        patient=PatientIdentity(national_id="02013299987", kind="fødselsnummer"),
        bodies=(a_recall().bodies[0], bad),
    )
    await desk.receive(codec.encode(message), offset=7)
    (receipt,) = desk.receipts()
    assert (receipt.outcome, receipt.reason, receipt.message_id) == ("rejected", "invalid", message.message_id)
    assert (receipt.topic, receipt.partition, receipt.offset) == (TOPIC, 0, 7)
    assert {error.pointer: error.reason for error in receipt.errors} == {
        "/patient/national_id": "wrong_checksum",
        "/bodies/1/prescription": "wrong_format",
        "/bodies/1/reason": "unknown_code",
    }
    assert "02013299987" not in repr(receipt)
    assert desk.events() == []


GOOD = codec.encode(a_recall(message_id="0d8f7f0a-1111-4c34-9c0a-6f3e8d1f2a11"))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "unreadable"),
        (b"", "unreadable"),
        (b"\x00\x00\x00\x00\x07" + GOOD[10:], "unreadable"),
        (b"\xc3\x02" + GOOD[2:], "unreadable"),
        (GOOD[:2] + b"\xff" * 8 + GOOD[10:], "unknown_schema"),
        (GOOD[:30], "unreadable"),
        (GOOD + b"\x00", "unreadable"),
        (b'{"message_id": 1}', "unreadable"),
    ],
    ids=[
        "null",
        "empty",
        "registry framing",
        "wrong magic byte",
        "unknown fingerprint",
        "truncated",
        "left over",
        "json",
    ],
)
async def test_what_cannot_be_read_gets_a_receipt_with_its_place(desk: Desk, value: bytes | None, reason: str) -> None:
    await desk.receive(value, offset=3)
    (receipt,) = desk.receipts()
    assert (receipt.outcome, receipt.reason, receipt.message_id) == ("rejected", reason, None)
    assert (receipt.topic, receipt.partition, receipt.offset) == (TOPIC, 0, 3)
    assert desk.events() == []


async def test_an_event_or_another_service_s_submission_does_not_belong_on_a_topic(desk: Desk) -> None:
    event = next(iter(golden.newest_of("PrescriptionIssued").values()))
    anothers = next(iter(golden.newest_of("SubmissionClaimRequested").values()))
    await desk.receive(codec.encode(event))
    await desk.receive(codec.encode(anothers))
    assert [receipt.reason for receipt in desk.receipts()] == ["unknown_schema", "unknown_schema"]
    assert {receipt.message_id for receipt in desk.receipts()} == {None, anothers.message_id}
    assert desk.events() == []


async def test_a_submission_of_nothing_is_turned_away(desk: Desk) -> None:
    one = codec.encode(a_recall(bodies=(PrescriptionRecalled(prescription="", reason=""),)))
    # An array of one body with two empty texts is count 1, "", "", end; without a body it is just the end.
    body_at = one.rfind(b"\x02\x00\x00\x00")
    await desk.receive(one[:body_at] + b"\x00" + one[body_at + 4 :])
    (receipt,) = desk.receipts()
    assert [(error.pointer, error.reason) for error in receipt.errors] == [("/bodies", "too_few")]


async def test_a_note_of_a_megabyte_is_too_long(desk: Desk) -> None:
    (message, *_) = golden.newest_of("SubmissionPrescriptionIssued").values()
    noted = msgspec.structs.replace(message.bodies[0], note="x" * 900_000)
    desk.clock.set(message.occurred_at_ms)
    await desk.receive(codec.encode(msgspec.structs.replace(message, bodies=(noted,))))
    (receipt,) = desk.receipts()
    assert [(error.pointer, error.reason) for error in receipt.errors] == [("/bodies/0/note", "too_long")]


async def test_what_only_the_platform_writes_is_not_taken_from_outside(desk: Desk) -> None:
    (message, *_) = golden.newest_of("SubmissionPrescriptionIssued").values()
    sealed = msgspec.structs.replace(message.bodies[0], identity=b"mine")
    desk.clock.set(message.occurred_at_ms)
    await desk.receive(codec.encode(msgspec.structs.replace(message, bodies=(sealed,))))
    (receipt,) = desk.receipts()
    assert [(error.pointer, error.reason) for error in receipt.errors] == [("/bodies/0/identity", "unexpected_field")]


async def test_a_prescription_of_another_patient_is_turned_away(desk: Desk, played: ListPlayed) -> None:
    message = a_recall()
    played.owners = {message.bodies[0].prescription: "f" * 32}
    await desk.receive(codec.encode(message))
    (receipt,) = desk.receipts()
    assert [(each.pointer, each.reason) for each in receipt.errors] == [("/bodies/0/prescription", "other_patient")]


async def test_a_submission_goes_on_while_the_list_is_away(desk: Desk, played: ListPlayed) -> None:
    played.status = 503
    await desk.receive(codec.encode(a_recall()))
    assert len(desk.events()) == 1


async def test_a_receipt_that_is_sent_again_is_the_same_receipt(desk: Desk) -> None:
    await desk.receive(b"garbage", offset=5)
    await desk.receive(b"garbage", offset=5)
    first, again = desk.receipts()
    assert first == again


# --- Order and failure -------------------------------------------------------------------------------------------


def records(*keys: bytes | None) -> list[Received]:
    return [Received(TOPIC, 0, offset, key, b"") for offset, key in enumerate(keys)]


async def test_records_of_a_key_are_taken_one_after_the_other() -> None:
    under_way: set[bytes | None] = set()
    done: list[int] = []

    async def receive(received: Received) -> None:
        assert received.key not in under_way
        under_way.add(received.key)
        for _ in range(3 - received.offset % 3):
            await asyncio.sleep(0)
        under_way.remove(received.key)
        done.append(received.offset)

    taken = await take(records(b"a", b"b", b"a", None, b"b", b"a", None), receive)
    assert taken == ({(TOPIC, 0): 7}, True)
    for key in ([0, 2, 5], [1, 4], [3, 6]):
        assert [offset for offset in done if offset in key] == key


async def test_a_failure_holds_its_key_and_is_read_again_but_no_other_key_waits() -> None:
    done: list[int] = []

    async def receive(received: Received) -> None:
        if received.offset == 1:
            raise LogUnavailable("away")
        done.append(received.offset)

    taken = await take(records(b"a", b"b", b"a", b"b"), receive)
    assert taken == ({(TOPIC, 0): 1}, False)
    assert done == [0, 2]


# --- On the real broker ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def system(kafka: str) -> str:
    """A system that nobody else uses, with its topics."""
    name = f"outside-{uuid4().hex[:12]}"
    cluster.create(KafkaAccess(kafka), load(), Parties(systems=(name,)), one_broker=True)
    return name


async def until(met: Callable[[], bool], within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not met():
        assert time.monotonic() < deadline, "it did not come about in time"
        await asyncio.sleep(0.05)


def consumed(kafka: str, topic: str) -> KafkaConsumer:
    """A reader of a topic from what comes next on."""
    consumer = KafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False, group_id=None)
    places = [TopicPartition(topic, partition) for partition in range(load().partitions(topic))]
    consumer.assign(places)
    consumer.seek_to_end(*places)
    for place in places:
        consumer.position(place)
    return consumer


async def test_an_inbox_takes_every_system_s_topic_and_starts_again_where_it_committed(
    kafka: str, system: str, played: ListPlayed
) -> None:
    played.forget()
    group = f"inbox-{uuid4().hex}"
    messages = [a_recall(occurred_at_ms=SystemClock().now_ms()) for _ in range(5)]
    values = [*(codec.encode(message) for message in messages[:3]), b"garbage", None]
    seen: list[Event[Any]] = []
    receipts: list[SubmissionReceipt] = []
    with (
        closing(consumed(kafka, EVENTS_TOPIC)) as events,
        closing(consumed(kafka, f"submission-receipts.{system}")) as answers,
        closing(KafkaProducer(bootstrap_servers=kafka)) as producer,
    ):

        def read() -> None:
            for batch in events.poll(timeout_ms=50).values():
                decoded = [codec.decode(record.value) for record in batch]
                seen.extend(event for event in decoded if event.source.system == system)
            for batch in answers.poll(timeout_ms=50).values():
                receipts.extend(codec.decode(record.value) for record in batch)

        def came(count: int) -> Callable[[], bool]:
            def met() -> bool:
                read()
                return len(seen) >= count

            return met

        def told(count: int) -> Callable[[], bool]:
            def met() -> bool:
                read()
                return len(receipts) >= count

            return met

        for value in values:
            producer.send(f"prescription-submissions.{system}", key=b"order", value=value)
        producer.flush()
        async with an_inbox(kafka, group, played.url):
            await until(came(3))
            await until(told(2))
        for message in messages[3:]:
            producer.send(f"prescription-submissions.{system}", key=b"order", value=codec.encode(message))
        producer.flush()
        async with an_inbox(kafka, group, played.url):
            await until(came(5))
    expected = [message.bodies[0] for message in messages]
    assert [event.body for event in seen] == expected
    assert sorted(receipt.offset or 0 for receipt in receipts) == [3, 4]


async def test_an_inbox_takes_once_what_lies_behind_a_record_that_is_held_back(kafka: str, system: str) -> None:
    topic, group = f"prescription-submissions.{system}", f"inbox-{uuid4().hex}"
    mark = uuid4().bytes
    held, beside, after = (mark + name for name in (b"held", b"beside", b"after"))
    tried: list[bytes] = []
    is_held = True

    async def receive(received: Received) -> None:
        if received.value is None or not received.value.startswith(mark):
            return
        tried.append(received.value)
        if is_held and received.value == held:
            raise LogUnavailable("away")

    def inbox() -> Inbox:
        return Inbox(
            kafka=KafkaAccess(kafka), kind="prescription-submissions", group=group, receive=receive, clock=SystemClock()
        )

    with closing(KafkaProducer(bootstrap_servers=kafka)) as producer:
        for value in (held, beside):
            producer.send(topic, key=value, value=value, partition=0).get(10)
        first = inbox()
        running = asyncio.create_task(first.run())
        await until(lambda: tried.count(held) == 4)
        first.stop()
        await running
        assert tried.count(beside) == 1
        # Another process knows nothing of it, and reads on from what is held.
        second = inbox()
        running = asyncio.create_task(second.run())
        await until(lambda: tried.count(held) == 6)
        assert tried.count(beside) == 2
        is_held = False
        producer.send(topic, key=after, value=after, partition=0).get(10)
        await until(lambda: tried[-1] == after)
        second.stop()
        await running
    assert tried.count(beside) == 2


async def test_an_inbox_that_fell_out_of_its_group_while_nothing_came_joins_again_and_takes_what_comes(
    kafka: str, system: str
) -> None:
    topic, group = f"prescription-submissions.{system}", f"inbox-{uuid4().hex}"
    taken: list[bytes | None] = []

    async def receive(received: Received) -> None:
        if received.topic == topic and received.value in (b"before", b"after"):
            taken.append(received.value)

    with (
        closing(KafkaAdminClient(bootstrap_servers=kafka)) as admin,
        closing(KafkaProducer(bootstrap_servers=kafka)) as producer,
    ):
        inbox = Inbox(
            kafka=KafkaAccess(kafka), kind="prescription-submissions", group=group, receive=receive, clock=SystemClock()
        )
        running = asyncio.create_task(inbox.run())
        producer.send(topic, value=b"before").get(10)
        await until(lambda: taken == [b"before"])

        def members() -> set[str]:
            return {each["member_id"] for each in admin.describe_groups([group])[group]["members"]}

        first = members()
        admin.remove_group_members(group, [MemberToRemove(member_id=each) for each in first])
        await until(lambda: bool(members() - first))
        producer.send(topic, value=b"after").get(10)
        await until(lambda: taken == [b"before", b"after"])
        inbox.stop()
        await running


class an_inbox:  # noqa: N801 - reads as a verb phrase where it is used
    """An inbox that runs while the block does, and leaves in order."""

    def __init__(self, kafka: str, group: str, list_url: str) -> None:
        self._log = KafkaLog(KafkaAccess(kafka), load().partitions)
        self._client = MedicationListClient(list_url)
        clock = SystemClock()
        reception = Reception(log=self._log, medication_list=self._client, door=DOOR, sealer=SEALER, clock=clock)
        self._inbox = Inbox(
            kafka=KafkaAccess(kafka),
            kind="prescription-submissions",
            group=group,
            receive=reception.receive,
            clock=clock,
        )
        self._running: asyncio.Task[None]

    async def __aenter__(self) -> None:
        self._running = asyncio.create_task(self._inbox.run())

    async def __aexit__(self, *_: object) -> None:
        self._inbox.stop()
        await self._running
        await self._log.close()
        await self._client.close()


def test_a_prescription_is_what_a_prescription_submission_holds() -> None:
    assert f"Submission{PrescriptionIssued.__name__}" in load().declaration(TOPIC).schemas
