"""What an effect costs the relay: microseconds from the outbox in Redis to the ack of a real broker and the deletion.

``pytest -m benchmark tests/benchmark/bench_relay.py -s`` prints it. Only the relay's own process is counted as CPU.
"""

# ruff: noqa: T201 — printing is what it does

import io
import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis

from schemas.reasons import NoticeKind
from services.canonical_log import configure
from services.clock import SystemClock
from services.identity.sealing import Sealer
from services.medication_list.fold.judgement import NoticeDue
from services.medication_list.log.source_log import KafkaSourceLog
from services.medication_list.relay.app import LINGER_MS
from services.medication_list.relay.party_topics import KafkaPartyTopics
from services.medication_list.relay.relay import Relay
from services.medication_list.store.link import Link
from services.medication_list.store.port import PartitionWrite
from services.medication_list.store.redis_outbox import RedisOutbox
from services.medication_list.store.redis_roles import RedisRoles
from services.medication_list.store.redis_store import RedisStore
from services.medication_list.store.roles import Beginning
from services.medication_list.stored.packing import pack_effect
from services.publishing.kafka_access import KafkaAccess
from services.publishing.kafka_log import KafkaLog
from services.topics import cluster
from services.topics.registry import InvalidPartyError, Parties, load

EFFECTS = 20_000
PARTITIONS = 8
ORGANISATIONS = 40
ROUNDS = 3
GENERATION = "g1-aaaaaa"


def organisations() -> Iterator[str]:
    """Numbers with a valid check digit."""
    for number in range(313_100_000, 313_999_999):
        try:
            yield Parties(organisations=(str(number),)).organisations[0]
        except InvalidPartyError:
            continue


def fill(store: RedisStore, start: int, parties: list[str], dice: random.Random) -> None:
    """Notices for random organisations about as many prescriptions, the same number in each partition."""

    def some_id() -> str:
        return str(uuid.UUID(int=dice.getrandbits(128), version=4))

    each = EFFECTS // PARTITIONS
    for partition in range(PARTITIONS):
        effects = [
            pack_effect(
                offset,
                "a" * 32,
                NoticeDue(NoticeKind.ORDER_VOID, dice.choice(parties), some_id(), 1_772_400_000_123, some_id()),
            )
            for offset in range(start, start + each)
        ]
        store.write([PartitionWrite(partition, start, 0, start + each, [], effects)])


@contextmanager
def measured() -> Iterator[None]:
    """Print what the block costs an effect."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    wall, cpu = (1e6 * spent / EFFECTS for spent in (time.perf_counter() - wall, time.process_time() - cpu))
    print(f"\nrelay: {cpu:.0f} µs CPU an effect ({1e6 / cpu:,.0f} a second on a core), {wall:.0f} µs wall")


@pytest.mark.benchmark
async def test_the_relay_empties_a_full_outbox(kafka: str, redis_url: str, seed: int) -> None:
    configure("relay", stream=io.StringIO())
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    dice, every = random.Random(seed), organisations()
    parties, topics = [next(every) for _ in range(ORGANISATIONS)], load()
    cluster.create(KafkaAccess(kafka), topics, Parties(organisations=tuple(parties)), one_broker=True)
    link = Link(redis_url)
    RedisRoles(link).begin({each: Beginning(GENERATION, 1, 0, 0) for each in range(PARTITIONS)})
    log = KafkaLog(KafkaAccess(kafka), topics.partitions, linger_ms=LINGER_MS)
    await log.start(f"notices.{each}" for each in parties)
    party_topics = KafkaPartyTopics(KafkaAccess(kafka), topics, create_missing=False)
    relayed = KafkaSourceLog(KafkaAccess(kafka)).relayed
    relay = Relay(RedisOutbox(link), log, party_topics, Sealer(b"k" * 32), SystemClock(), PARTITIONS, relayed)
    for turn in range(ROUNDS):
        fill(RedisStore(link, GENERATION), turn * EFFECTS // PARTITIONS, parties, dice)
        left = EFFECTS
        with measured():
            while left > 0:
                left -= await relay.step()
    await relay.hand_over()
    await log.close()
    link.close()
