"""What the processor is measured against: other ways to bring the same records to the same judge, each a program.

`python -m tests.benchmark.readers <reader> <kafka> <redis url>` reads the log from its beginning until it is killed.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import faust
from aiokafka import AIOKafkaConsumer, TopicPartition  # type: ignore[import-untyped]

from deploy.local.layout import BUILD
from schemas.codec import UndecodableError, decode
from schemas.events import Body, Event
from services.canonical_log import configure
from services.clock import SystemClock
from services.medication_list.driver.batches import Applied, Fetch, PartitionBatch, Verdict
from services.medication_list.log.record import Record
from services.medication_list.log.source_log import KafkaSourceLog
from services.medication_list.processor.worker import Worker
from services.medication_list.store.keys import GenerationKeys
from services.medication_list.store.link import Link, command
from services.medication_list.store.redis_roles import RedisRoles
from services.medication_list.store.redis_store import RedisStore
from services.medication_list.store.roles import Beginning
from services.publishing.kafka_access import KafkaAccess
from services.topics.registry import EVENTS_TOPIC
from tests.benchmark.backlog import PARTITIONS

TOGETHER: Final = 1000
_FLOOR: Final = "g1-floor00"


class Handed(NamedTuple):
    """A record as stock Faust hands it on, with the time in the unit of the judge."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: Sequence[tuple[str, bytes]]


def worker_of(kafka: str, redis_url: str) -> Worker:
    """The processor's own worker, entered: all readers but the floor judge with it."""
    link = Link(redis_url)

    def store_of(generation: str) -> RedisStore:
        return RedisStore(link, generation)

    worker = Worker(RedisRoles(link), KafkaSourceLog(KafkaAccess(kafka)), store_of, PARTITIONS, SystemClock().now_ms())
    worker.enter()
    return worker


async def read_by_hand(kafka: str, redis_url: str) -> None:
    """A loop as one would write it: getmany, judge, again. No group, no rewinds, no errors."""
    worker = worker_of(kafka, redis_url)
    async with AIOKafkaConsumer(bootstrap_servers=kafka, max_poll_records=TOGETHER) as consumer:
        await from_the_beginning(consumer)
        while True:
            got = await consumer.getmany(timeout_ms=500)
            if got:
                check(worker.process(Fetch(tuple(batch_of(tp.partition, records) for tp, records in got.items()))))


async def read_to_the_floor(kafka: str, redis_url: str) -> None:
    """Consume, decode, one field of the patient's hash an event and the offset, pipelined: no fold can cost less."""
    link = Link(redis_url)
    RedisRoles(link).begin({each: Beginning(_FLOOR, 1, 0, 0) for each in range(PARTITIONS)})
    keys = [GenerationKeys(_FLOOR, each) for each in range(PARTITIONS)]
    async with AIOKafkaConsumer(bootstrap_servers=kafka, max_poll_records=TOGETHER) as consumer:
        await from_the_beginning(consumer)
        while True:
            got = await consumer.getmany(timeout_ms=500)
            link.transact(floor_of(keys[tp.partition], records) for tp, records in got.items())


def floor_of(at: GenerationKeys, records: Sequence[Record]) -> list[bytes]:
    """The commands of one partition's share."""
    commands = [command("HSET", at.list_of + event.patient, "last", event.event_id) for event in readable(records)]
    return [*commands, command("HSET", at.offset, "offset", records[-1].offset + 1)]


def readable(records: Iterable[Record]) -> Iterable[Event[Body]]:
    """The events, without the damaged ones."""
    for record in records:
        with suppress(UndecodableError):
            yield decode(record.value)


async def from_the_beginning(consumer: AIOKafkaConsumer) -> None:
    """Take all partitions, from their first record."""
    partitions = [TopicPartition(EVENTS_TOPIC, number) for number in range(PARTITIONS)]
    consumer.assign(partitions)
    await consumer.seek_to_beginning(*partitions)


def read_with_stock_faust(kafka: str, redis_url: str, together: int) -> None:
    """A Faust agent as its documentation has it: one event after the other, or `together` at a time."""
    worker = worker_of(kafka, redis_url)
    app = faust.App(
        f"stock-{os.getpid()}",
        broker=f"aiokafka://{kafka}",
        store="memory://",
        datadir=str(BUILD / "bench"),
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
    )
    topic = app.topic(EVENTS_TOPIC, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")

    async def one_by_one(stream: Any) -> None:
        async for event in stream.events():
            check(worker.process(fetch_of([event.message])))

    async def by_takes(stream: Any) -> None:
        async for taken in stream.take_events(together, within=0.1):
            check(worker.process(fetch_of([event.message for event in taken])))

    app.agent(topic)(one_by_one if together == 1 else by_takes)
    faust.Worker(app, override_logging=False, redirect_stdouts=False, quiet=True).execute_from_commandline()


def fetch_of(messages: Iterable[Any]) -> Fetch:
    """Faust's messages as the judge takes them, each partition's in order."""
    records: dict[int, list[Record]] = {}
    for each in messages:
        handed = Handed(each.offset, each.key, each.value, int(each.timestamp * 1000), each.headers)
        records.setdefault(each.partition, []).append(handed)
    return Fetch(tuple(batch_of(partition, of) for partition, of in records.items()))


def batch_of(partition: int, records: Sequence[Record]) -> PartitionBatch:
    """Consecutive records as a batch."""
    return PartitionBatch(partition, records[0].offset, records[-1].offset + 1, records, 0)


def check(verdicts: Mapping[int, Verdict]) -> None:
    """Nobody else writes here, so a batch that is refused is a mistake of the measurement."""
    refused = {partition: verdict for partition, verdict in verdicts.items() if not isinstance(verdict, Applied)}
    if refused:
        raise RuntimeError(f"refused: {refused}")


READERS: Mapping[str, Callable[[str, str], None]] = {
    "loop": lambda kafka, redis_url: asyncio.run(read_by_hand(kafka, redis_url)),
    "floor": lambda kafka, redis_url: asyncio.run(read_to_the_floor(kafka, redis_url)),
    "faust": lambda kafka, redis_url: read_with_stock_faust(kafka, redis_url, 1),
    "faust-take": lambda kafka, redis_url: read_with_stock_faust(kafka, redis_url, TOGETHER),
}

if __name__ == "__main__":
    configure("reader")
    READERS[sys.argv[1]](*sys.argv[2:])
