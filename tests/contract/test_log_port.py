"""What every log promises to its writers, on the log in memory and on the real broker."""

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.future import Future
from kafka.partitioner.default import murmur2 as murmur2_of_the_library

from services.clock import SystemClock
from services.publishing.kafka_access import KafkaAccess
from services.publishing.kafka_log import SILENT_AFTER_MS, KafkaLog
from services.publishing.log import (
    LARGEST_RECORD_BYTES,
    Log,
    LogOverloaded,
    LogRecord,
    LogUnavailable,
    PartitionCountDiffers,
    Position,
    RecordTooLarge,
    cloud_event_headers,
)
from services.publishing.memory_log import MemoryLog, StoredRecord
from services.publishing.partitioning import murmur2, partition_of

PARTITIONS = 3
KEY = b"6f1c0a523c1e4d0e9e430a7f5a1b2c3d"
BOTH = [pytest.param("memory"), pytest.param("kafka", marks=pytest.mark.integration)]


def declared(topic: str) -> int:
    """The declaration of these tests: a topic of theirs has three partitions, no other exists."""
    if not topic.startswith("log-port-"):
        raise KeyError(topic)
    return PARTITIONS


class Written:
    """A log under test, a topic of its own, and what lies there afterwards."""

    def __init__(self, log: Log, topic: str, read: Callable[[str], list[tuple[bytes, bytes]]]) -> None:
        self.log = log
        self.topic = topic
        self.read = read


@pytest.fixture(params=BOTH)
async def written(request: pytest.FixtureRequest) -> AsyncIterator[Written]:
    """Each promise is checked on both; the broker is the one of `tests/conftest.py` (its address: host:port)."""
    topic = f"log-port-{uuid.uuid4()}"
    log: Log
    if request.param == "memory":
        log = memory = MemoryLog(declared, SystemClock())

        def read(name: str) -> list[tuple[bytes, bytes]]:
            return [(record.key, record.value) for record in memory.records(name)]
    else:
        bootstrap = address(request)
        create(bootstrap, topic, PARTITIONS)
        log = kafka_log = KafkaLog(KafkaAccess(bootstrap), declared)
        await connect(kafka_log, topic)

        def read(name: str) -> list[tuple[bytes, bytes]]:
            return consume(bootstrap, name)

    yield Written(log, topic, read)
    await log.close()


def address(request: pytest.FixtureRequest) -> str:
    """The broker's address from the `kafka` fixture, whether that is the address or holds it."""
    broker = request.getfixturevalue("kafka")
    return str(getattr(broker, "address", broker))


def create(bootstrap: str, topic: str, partitions: int) -> None:
    """Make a topic, and return once every partition has a leader that takes records."""
    new = NewTopic(topic, partitions, 1, topic_configs={"message.timestamp.type": "LogAppendTime"})
    with closing(KafkaAdminClient(bootstrap_servers=bootstrap)) as admin:
        admin.create_topics([new], wait_for_metadata=True)
    # The leaders too, not their names alone: each is asked where its partition ends.
    places = [TopicPartition(topic, each) for each in range(partitions)]
    with closing(KafkaConsumer(bootstrap_servers=bootstrap)) as consumer:
        assert consumer.end_offsets(places) == dict.fromkeys(places, 0)


async def connect(log: KafkaLog, topic: str) -> None:
    """As a service does before it takes the first write, which has too little time for it on a busy machine."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return await log.start([topic])
        except LogUnavailable:
            if time.monotonic() > deadline:
                raise


def consume(bootstrap: str, topic: str) -> list[tuple[bytes, bytes]]:
    """All that lies in the topic, by partition, then by offset."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
    partitions = [TopicPartition(topic, each) for each in range(PARTITIONS)]
    consumer.assign(partitions)
    ends = consumer.end_offsets(partitions)
    found: dict[int, list[tuple[bytes, bytes]]] = {each: [] for each in range(PARTITIONS)}
    while any(consumer.position(each) < ends[each] for each in partitions):
        for partition, records in consumer.poll(timeout_ms=200).items():
            found[partition.partition] += [(record.key, record.value) for record in records]
    consumer.close()
    return [record for each in range(PARTITIONS) for record in found[each]]


async def test_an_appended_record_can_be_read_where_the_answer_said(written: Written) -> None:
    before_ms = time.time_ns() // 1_000_000
    position = await written.log.append(written.topic, KEY, b"value", [("ce_id", b"1")])
    assert position.partition == partition_of(KEY, PARTITIONS)
    assert position.offset == 0
    assert before_ms - 1_000 <= position.broker_time_ms <= time.time_ns() // 1_000_000 + 1_000
    assert written.read(written.topic) == [(KEY, b"value")]


async def test_records_of_one_key_keep_the_order_in_which_they_were_asked_for(written: Written) -> None:
    values = [f"{number}".encode() for number in range(200)]
    positions = await asyncio.gather(*(written.log.append(written.topic, KEY, value) for value in values))
    assert [position.offset for position in positions] == list(range(200))
    assert written.read(written.topic) == [(KEY, value) for value in values]


async def test_every_key_lies_in_its_own_partition(written: Written) -> None:
    keys = [uuid.UUID(int=number).hex.encode() for number in range(60)]
    positions = await asyncio.gather(*(written.log.append(written.topic, key, b"x") for key in keys))
    assert [position.partition for position in positions] == [partition_of(key, PARTITIONS) for key in keys]
    assert {position.partition for position in positions} == set(range(PARTITIONS))


async def test_a_record_of_the_largest_size_is_taken(written: Written) -> None:
    value = bytes(LARGEST_RECORD_BYTES - len(KEY))
    await written.log.append(written.topic, KEY, value)
    assert written.read(written.topic) == [(KEY, value)]


async def test_a_larger_record_is_refused_and_nothing_lies_there(written: Written) -> None:
    with pytest.raises(RecordTooLarge):
        await written.log.append(written.topic, KEY, bytes(LARGEST_RECORD_BYTES), [("ce_id", b"1")])
    assert written.read(written.topic) == []


async def test_a_topic_that_is_not_declared_is_refused(written: Written) -> None:
    with pytest.raises(KeyError):
        await written.log.append("undeclared", KEY, b"value")


async def test_many_records_are_answered_in_their_order_and_those_of_one_key_lie_in_it(written: Written) -> None:
    keys = [uuid.UUID(int=number % 7).hex.encode() for number in range(500)]
    records = [LogRecord(written.topic, key, b"%d" % number, [("n", b"x")]) for number, key in enumerate(keys)]
    answers = await written.log.append_many(records)
    counted: Counter[int] = Counter()
    for record, answer in zip(records, answers, strict=True):
        assert isinstance(answer, Position)
        partition = partition_of(record.key, PARTITIONS)
        assert (answer.partition, answer.offset) == (partition, counted[partition])
        counted[partition] += 1
    expected = sorted(zip(records, answers, strict=True), key=lambda pair: pair[1].partition)  # type: ignore[union-attr]  # positions, as seen above
    assert written.read(written.topic) == [(record.key, record.value) for record, _ in expected]


async def test_of_many_records_those_that_cannot_be_taken_do_not_stop_the_others(written: Written) -> None:
    answers = await written.log.append_many(
        [
            LogRecord(written.topic, KEY, b"first"),
            LogRecord(written.topic, KEY, bytes(LARGEST_RECORD_BYTES)),
            LogRecord("undeclared", KEY, b"value"),
            LogRecord(written.topic, KEY, b"last"),
        ]
    )
    assert [type(answer) for answer in answers] == [Position, RecordTooLarge, KeyError, Position]
    assert written.read(written.topic) == [(KEY, b"first"), (KEY, b"last")]


async def test_no_records_at_all_are_no_answers(written: Written) -> None:
    assert list(await written.log.append_many([])) == []


async def test_many_records_and_single_ones_of_one_key_keep_the_order_in_which_they_were_asked_for(
    written: Written,
) -> None:
    log, topic = written.log, written.topic
    await asyncio.gather(
        log.append(topic, KEY, b"0"),
        log.append_many([LogRecord(topic, KEY, b"%d" % number) for number in range(1, 100)]),
        log.append(topic, KEY, b"100"),
    )
    assert written.read(topic) == [(KEY, b"%d" % number) for number in range(101)]


async def test_a_closed_log_answers_each_of_many_that_it_is_not_available(written: Written) -> None:
    await written.log.close()
    answers = await written.log.append_many([LogRecord(written.topic, KEY, b"x")] * 3)
    assert [type(answer) for answer in answers] == [LogUnavailable] * 3


async def test_a_caller_that_goes_away_takes_nothing_back(written: Written) -> None:
    await written.log.append(written.topic, KEY, b"first")
    leaving = asyncio.ensure_future(written.log.append(written.topic, KEY, b"second"))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await written.log.append(written.topic, KEY, b"third")
    assert written.read(written.topic) == [(KEY, b"first"), (KEY, b"second"), (KEY, b"third")]


async def test_a_closed_log_takes_nothing_more(written: Written) -> None:
    await written.log.append(written.topic, KEY, b"first")
    await written.log.close()
    with pytest.raises(LogUnavailable):
        await written.log.append(written.topic, KEY, b"second")
    assert written.read(written.topic) == [(KEY, b"first")]


async def test_a_broker_that_is_not_there_is_told_in_time() -> None:
    log = KafkaLog(KafkaAccess("127.0.0.1:1"), declared)
    with pytest.raises(LogUnavailable):
        await asyncio.wait_for(log.append("log-port-x", KEY, b"value"), timeout=8)
    many = [LogRecord("log-port-x", KEY, b"value"), LogRecord("undeclared", KEY, b"value")]
    answers = await asyncio.wait_for(log.append_many(many * 100), timeout=8)
    assert [type(answer) for answer in answers] == [LogUnavailable, KeyError] * 100
    with pytest.raises(LogUnavailable):
        await log.start(["log-port-x"])
    await log.close()


@pytest.mark.integration
async def test_another_partition_count_at_the_broker_is_refused_with_both_numbers(
    request: pytest.FixtureRequest,
) -> None:
    bootstrap = address(request)
    topic = f"log-port-{uuid.uuid4()}"
    create(bootstrap, topic, PARTITIONS + 1)
    log = KafkaLog(KafkaAccess(bootstrap), declared)
    with pytest.raises(PartitionCountDiffers, match="has 4 partitions, but 3 are declared"):
        await log.start([topic])
    with pytest.raises(PartitionCountDiffers):
        await log.append(topic, KEY, b"value")
    await log.close()
    assert consume(bootstrap, topic) == []


@pytest.mark.integration
async def test_a_topic_that_does_not_exist_is_not_made_by_accident(request: pytest.FixtureRequest) -> None:
    bootstrap = address(request)
    topic = f"log-port-{uuid.uuid4()}"
    log = KafkaLog(KafkaAccess(bootstrap), declared)
    with pytest.raises(LogUnavailable):
        await log.append(topic, KEY, b"value")
    await log.close()
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    assert topic not in admin.list_topics()
    admin.close()


@pytest.mark.integration
async def test_a_topic_that_does_not_exist_holds_up_no_other_and_is_found_when_it_is_made(
    request: pytest.FixtureRequest,
) -> None:
    bootstrap = address(request)
    there, missing = (f"log-port-{uuid.uuid4()}" for _ in range(2))
    create(bootstrap, there, PARTITIONS)
    log = KafkaLog(KafkaAccess(bootstrap), declared)
    await connect(log, there)
    for _ in range(2):
        # As an inbox does, whose rejections have no topic for their receipts: several in each round, and again in the next.
        *refused, taken = await asyncio.gather(
            *(log.append(missing, KEY, b"receipt") for _ in range(4)),
            log.append(there, KEY, b"event"),
            return_exceptions=True,
        )
        assert [type(each) for each in refused] == [LogUnavailable] * 4
        assert isinstance(taken, Position)
    create(bootstrap, missing, PARTITIONS)
    deadline = time.monotonic() + 30
    while not isinstance((await log.append_many([LogRecord(missing, KEY, b"receipt")]))[0], Position):
        assert time.monotonic() < deadline, "it is not found"
        await asyncio.sleep(0.05)
    await log.close()
    assert consume(bootstrap, missing) == [(KEY, b"receipt")]


@pytest.mark.integration
async def test_a_producer_that_has_stopped_to_look_for_metadata_loses_one_record_and_not_all_that_follow(
    request: pytest.FixtureRequest,
) -> None:
    bootstrap, topic = address(request), f"log-port-{uuid.uuid4()}"
    create(bootstrap, topic, PARTITIONS)
    log = KafkaLog(KafkaAccess(bootstrap), declared)
    await connect(log, topic)
    await log.append(topic, KEY, b"before")
    known = log._producer._metadata  # noqa: SLF001 - nobody can make the library come to this by other means
    # It waits for a look that never ends; the last one that did is a minute ago, and since then the leaders have moved.
    known._refresh_future = Future()  # noqa: SLF001
    known._last_successful_refresh_ms -= 60_000  # noqa: SLF001
    for partition in known._partitions[topic].values():  # noqa: SLF001
        partition.leader_id = -1
    with pytest.raises(LogUnavailable):
        await log.append(topic, KEY, b"given up")
    assert (await log.append(topic, KEY, b"after")).offset == 1
    await log.close()
    assert consume(bootstrap, topic) == [(KEY, b"before"), (KEY, b"after")]


@pytest.mark.integration
async def test_a_partition_without_a_leader_turns_away_its_own_appends_and_no_others(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    bootstrap, topic = address(request), f"log-port-{uuid.uuid4()}"
    create(bootstrap, topic, PARTITIONS)
    log = KafkaLog(KafkaAccess(bootstrap), declared, tells_callers=True)
    await connect(log, topic)
    keys = (uuid.uuid4().hex.encode() for _ in count())
    led, leaderless = (next(key for key in keys if partition_of(key, PARTITIONS) == each) for each in (0, 1))
    known = log._producer._metadata  # noqa: SLF001 - a broker that is alone leads either all partitions or none
    leader_of, led_by, without = known.leader_for_partition, known.partitions_for_broker, TopicPartition(topic, 1)
    monkeypatch.setattr(known, "leader_for_partition", lambda at: -1 if at == without else leader_of(at))
    monkeypatch.setattr(known, "partitions_for_broker", lambda node: led_by(node) - {without})

    async def the_others_go_on(until: Callable[[], bool]) -> None:
        while not until():
            assert isinstance(await log.append(topic, led, b"taken"), Position)
            assert await log.check() == ()
            await asyncio.sleep(0.05)

    silent_at = time.monotonic() + SILENT_AFTER_MS / 1000 + 0.1
    first = asyncio.create_task(log.append(topic, leaderless, b"waits"))
    await the_others_go_on(until=lambda: time.monotonic() > silent_at)
    with pytest.raises(LogOverloaded):
        await log.append(topic, leaderless, b"when it has been silent for long")
    await the_others_go_on(until=first.done)
    with pytest.raises(LogUnavailable):
        await first
    second = asyncio.create_task(log.append(topic, leaderless, b"to find out"))
    await asyncio.sleep(0)
    with pytest.raises(LogOverloaded):
        await log.append(topic, leaderless, b"beside it")
    assert isinstance(await log.append(topic, led, b"taken"), Position)
    monkeypatch.undo()
    assert isinstance(await second, Position)
    assert isinstance(await log.append(topic, leaderless, b"taken"), Position)
    await log.close()


async def test_a_log_in_memory_that_is_away_takes_nothing() -> None:
    log = MemoryLog(declared, SystemClock())
    log.is_available = False
    with pytest.raises(LogUnavailable):
        await log.append("log-port-x", KEY, b"value")
    log.is_available = True
    position = await log.append("log-port-x", KEY, b"value", [("a", b"b")])
    assert log.records("log-port-x", position.partition) == [StoredRecord(position, KEY, b"value", (("a", b"b"),))]


@pytest.mark.parametrize(
    ("key", "java"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_hash_is_that_of_the_java_client(key: bytes, java: int) -> None:
    assert int.from_bytes(murmur2(key).to_bytes(4, "big"), "big", signed=True) == java


@given(st.binary(max_size=80), st.integers(min_value=1, max_value=200))
def test_the_partition_is_where_the_library_would_put_the_key(key: bytes, partitions: int) -> None:
    assert partition_of(key, partitions) == (murmur2_of_the_library(key) & 0x7FFFFFFF) % partitions


def test_the_headers_of_a_record_are_cloud_events_with_the_trace() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = cloud_event_headers(
        event_id="e1", event_type="PrescriptionIssued", source="emr-a", time_ms=1_772_400_000_123, traceparent=trace
    )
    assert dict(headers) == {
        "ce_specversion": b"1.0",
        "ce_id": b"e1",
        "ce_type": b"PrescriptionIssued",
        "ce_source": b"emr-a",
        "ce_time": b"2026-03-01T21:20:00.123Z",
        "traceparent": trace.encode(),
    }
    assert "traceparent" not in dict(cloud_event_headers(event_id="e", event_type="t", source="s", time_ms=0))
