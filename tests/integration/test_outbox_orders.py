"""An order's whole way: a dispatch judged, its effect in the outbox, and the record that its pharmacy alone reads."""

import asyncio
import json
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import redis
from kafka import KafkaConsumer, TopicPartition

from schemas.codec import decode, encode
from schemas.events import DispatchRequested, DispenseOrder, Event, PrescriptionIssued, Source
from services.clock import ManualClock, SystemClock
from services.identity.national_id import NationalId
from services.identity.sealing import SealedIdentityContent, Sealer
from services.medication_list.driver.batches import Applied, Fetch, PartitionBatch
from services.medication_list.judging.judge import Judge
from services.medication_list.log.source_log import KafkaSourceLog
from services.medication_list.relay.party_topics import KafkaPartyTopics, MemoryPartyTopics
from services.medication_list.relay.relay import Relay
from services.medication_list.store.link import Link
from services.medication_list.store.memory_outbox import MemoryOutbox
from services.medication_list.store.memory_roles import MemoryRoles
from services.medication_list.store.memory_server import MemoryServer
from services.medication_list.store.memory_store import MemoryStore
from services.medication_list.store.port import Store
from services.medication_list.store.redis_outbox import RedisOutbox
from services.medication_list.store.redis_roles import RedisRoles
from services.medication_list.store.redis_store import RedisStore
from services.medication_list.store.roles import Beginning
from services.publishing.kafka_access import KafkaAccess
from services.publishing.kafka_log import KafkaLog
from services.publishing.memory_log import MemoryLog
from services.topics.registry import load

G1 = "g1-aaaaaa"
PHARMACY = "313000036"
ORDERS = f"dispense-orders.{PHARMACY}"
ANNA = "a" * 32
DIGITS, NAME = "13926900018", "Åse Nordmann"
SEALER = Sealer(b"k" * 32)
GOLDEN = Path(__file__).parents[2] / "schemas" / "golden"


class LogLine(NamedTuple):
    """A record as the driver hands it on."""

    offset: int
    key: bytes
    value: bytes
    timestamp: int
    headers: tuple[tuple[str, bytes], ...] = ()


def issued() -> Event[PrescriptionIssued]:
    golden: Event[PrescriptionIssued] = decode(min(GOLDEN.glob("PrescriptionIssued/1/*.bin")).read_bytes())
    sealed = SEALER.seal(SealedIdentityContent(NationalId.parse(DIGITS), NAME), ANNA)
    body = msgspec.structs.replace(golden.body, identity=sealed, renews=None)
    return msgspec.structs.replace(golden, patient=ANNA, body=body)


def judge_a_dispatch(store: Store) -> PrescriptionIssued:
    """A prescription with a sealed identity, and the citizen's wish to fetch it from the pharmacy, as one fetch."""
    prescribed = issued()
    now_ms = prescribed.received_at_ms + 60_000
    wish = Event(
        event_id="5bb1ba1e-3e70-4ac5-9f4c-0f6a6f7bd2a1",
        patient=ANNA,
        occurred_at_ms=now_ms,
        received_at_ms=now_ms,
        source=Source(system="portal", organisation="930000001", role="citizen"),
        body=DispatchRequested(
            dispatch="0a4b6de5-6f63-4a0c-8a1e-6cdd9a0f4c11",
            prescription=prescribed.body.prescription,
            pharmacy=PHARMACY,
            every=False,
        ),
    )
    lines = [LogLine(at, ANNA.encode(), encode(event), now_ms) for at, event in enumerate((prescribed, wish))]
    assert Judge(store, 1).process(Fetch((PartitionBatch(0, 0, 2, lines, 0),))) == {0: Applied(2)}
    return prescribed.body


def check(key: bytes, value: bytes, prescribed: PrescriptionIssued) -> None:
    """The record is the order of that prescription, with the identity opened and nothing sealed left in it."""
    order: DispenseOrder = decode(value)
    assert (key.decode(), order.pharmacy, order.source_offset) == (prescribed.prescription, PHARMACY, 1)
    assert order.issued == msgspec.structs.replace(prescribed, identity=None)
    assert order.identity is not None
    assert json.loads(order.identity) == {"national_id": DIGITS, "name": NAME}


async def test_a_dispatch_brings_the_pharmacy_an_order_with_the_identity_opened() -> None:
    server = MemoryServer()
    MemoryRoles(server).begin({0: Beginning(G1, 1, 0, 0)})
    prescribed = judge_a_dispatch(MemoryStore(server, G1))
    kept = repr(server.content())
    assert "{0}:outbox" in kept
    assert DIGITS not in kept
    log, clock = MemoryLog(load().partitions, ManualClock(0)), ManualClock(1_700_000_000_000)
    relay = Relay(MemoryOutbox(server), log, MemoryPartyTopics({ORDERS}), SEALER, clock, 1, dict)
    assert await relay.step() == 1
    (sent,) = log.records(ORDERS)
    check(sent.key, sent.value, prescribed)
    assert DIGITS.encode() not in b"".join(content for _, content in sent.headers) + sent.key
    assert "{0}:outbox" not in server.content()


@pytest.mark.integration
async def test_on_real_servers_the_order_lies_on_the_pharmacys_own_topic(kafka: str, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    link, topics = Link(redis_url), load()
    RedisRoles(link).begin({0: Beginning(G1, 1, 0, 0)})
    prescribed = judge_a_dispatch(RedisStore(link, G1))
    log, source_log = KafkaLog(KafkaAccess(kafka), topics.partitions), KafkaSourceLog(KafkaAccess(kafka))
    party_topics = KafkaPartyTopics(KafkaAccess(kafka), topics, create_missing=True)
    relay = Relay(RedisOutbox(link), log, party_topics, SEALER, SystemClock(), 1, source_log.relayed)
    async with asyncio.timeout(30):
        while await relay.step() == 0:
            pass
    await relay.hand_over()
    await log.close()
    link.close()
    key, value = await asyncio.to_thread(_first_record, kafka)
    check(key, value, prescribed)


def _first_record(kafka: str) -> tuple[bytes, bytes]:
    consumer: Any = KafkaConsumer(
        bootstrap_servers=kafka.split(","), group_id=None, auto_offset_reset="earliest", consumer_timeout_ms=20_000
    )
    try:
        consumer.assign([TopicPartition(ORDERS, each) for each in consumer.partitions_for_topic(ORDERS)])
        record = next(iter(consumer))
        return record.key, record.value
    finally:
        consumer.close()
