"""Single records read back from a real log by their places."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import closing

import pytest
import pytest_asyncio
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from services.medication_list.log.record_log import KafkaRecordLog, LogLookupError
from services.medication_list.read_api.log_lookup import LogLookup
from services.publishing.kafka_access import KafkaAccess
from tests.conftest import FreshTopic

pytestmark = pytest.mark.integration
RECORDS = 3_000


@pytest_asyncio.fixture
async def lookup(kafka: str, fresh_topic: FreshTopic) -> AsyncIterator[LogLookup]:
    topic = fresh_topic(partitions=2)
    with closing(KafkaProducer(bootstrap_servers=kafka, linger_ms=5)) as producer:
        for number in range(RECORDS):
            producer.send(topic, key=b"k", value=b"record %d" % number, partition=0, timestamp_ms=1_000 + number)
        producer.send(topic, key=b"k", value=b"alone", partition=1)
        producer.flush()
    made = LogLookup(KafkaRecordLog(KafkaAccess(kafka), topic))
    yield made
    await made.close()


async def test_what_is_asked_for_is_found_wherever_it_lies(lookup: LogLookup, seed: int) -> None:
    wanted = [0, *random.Random(seed).sample(range(RECORDS), 40), *range(1_500, 1_900), RECORDS - 1]
    found = await lookup.read(0, wanted)
    assert {offset: record.value for offset, record in found.items()} == {
        offset: b"record %d" % offset for offset in wanted
    }
    assert {record.timestamp - record.offset for record in found.values()} == {1_000}


async def test_what_is_not_there_is_not_found(lookup: LogLookup) -> None:
    assert await lookup.read(1, []) == {}
    assert list(await lookup.read(1, [0, 1])) == [0]
    assert await lookup.read(1, [1]) == {}
    assert await lookup.read(1, [10_000]) == {}
    assert list(await lookup.read(1, [0])) == [0]


async def test_what_lies_behind_records_that_were_removed_is_found(kafka: str, fresh_topic: FreshTopic) -> None:
    topic = fresh_topic(partitions=1)
    with (
        closing(KafkaProducer(bootstrap_servers=kafka)) as producer,
        closing(KafkaAdminClient(bootstrap_servers=kafka)) as admin,
    ):
        for number in range(10):
            producer.send(topic, key=b"k", value=b"record %d" % number, partition=0)
        producer.flush()
        admin.delete_records({TopicPartition(topic, 0): 5})
    lookup = LogLookup(KafkaRecordLog(KafkaAccess(kafka), topic))
    assert list(await lookup.read(0, [2, 3, 7, 9, 12])) == [7, 9]
    assert await lookup.read(0, [4]) == {}
    await lookup.close()


async def test_a_log_that_does_not_answer_is_an_error() -> None:
    lookup = LogLookup(KafkaRecordLog(KafkaAccess("127.0.0.1:1")))
    with pytest.raises(LogLookupError):
        await lookup.read(0, [0])
    await lookup.close()
