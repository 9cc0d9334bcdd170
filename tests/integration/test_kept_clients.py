"""Clients that are kept from one look at the brokers to the next: they connect once, and anew when they have to."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError

from deploy.local.broker import Broker
from services.health import TroubleReason
from services.medication_list.overview.log_side import LogAsker
from services.publishing.broker_check import BrokerCheck
from services.publishing.kafka_access import KafkaAccess
from services.topics import cluster
from services.topics.registry import EVENTS_TOPIC, load
from tests.integration.test_silent_broker import open_sockets

pytestmark = [
    pytest.mark.integration,
    # The library drops a socket that a broker which is away refused, without closing it, at any moment of a test.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"),
]

GROUP = "kept-clients"
PARTITIONS = range(load().partitions(EVENTS_TOPIC))


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """One that has led a group before: the first time it makes a topic for that, and tells nothing of groups until then."""
    known = set(map(id, open_sockets()))
    with Broker(tmp_path / "kafka") as broker:
        cluster.create(KafkaAccess(broker.address), load(), one_broker=True)
        with a_worker(broker):
            pass
        yield broker
    # The library leaves every socket open that a broker which is away refuses.
    for each in open_sockets():
        if id(each) not in known:
            each.close()


def connections(broker: Broker) -> set[str]:
    """Every connection that this machine has or had to the broker within the last minute, by our own port."""
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    to = f":{broker.port:04X}"
    return {fields[1] for fields in map(str.split, lines) if fields[2].endswith(to)}


def assert_kept(broker: Broker, before: set[str]) -> None:
    """No new connection for each look: the library may make one more by itself, to the node that the first one named."""
    assert len(connections(broker) - before) <= 1


def append(broker: Broker, partition: int, count: int) -> None:
    with closing(KafkaProducer(**KafkaAccess(broker.address).client_settings())) as producer:
        for _ in range(count):
            producer.send(EVENTS_TOPIC, value=b"record", partition=partition).get(timeout=20)


async def test_a_check_asks_over_one_connection_and_over_a_new_one_after_a_failure(broker: Broker) -> None:
    with closing(BrokerCheck(KafkaAccess(broker.address), load().partitions, [EVENTS_TOPIC])) as check:
        assert list(await check()) == []
        before = connections(broker)
        for _ in range(8):
            assert list(await check()) == []
        assert_kept(broker, before)
        broker.kill()
        (away,) = await check()
        assert away.reason is TroubleReason.BROKER_UNREACHABLE
        await asyncio.to_thread(broker.start)
        assert list(await check()) == []


def test_ends_owners_and_what_waits_are_asked_over_connections_that_are_kept(broker: Broker) -> None:
    append(broker, 3, 5)
    append(broker, 5, 1)
    with closing(LogAsker(KafkaAccess(broker.address))) as asker, a_worker(broker):
        seen = asker.side([GROUP])
        assert (seen.ends[3], seen.ends[5], seen.ends[0]) == (5, 1, 0)
        assert set(seen.owners) == set(PARTITIONS)
        first = asker.first_waiting({3: 1, 5: 0})
        assert set(first) == {3, 5}
        before = connections(broker)
        assert asker.first_waiting({3: 1, 5: 0}) == first, "the same records, asked for again"
        assert set(asker.first_waiting({3: 4})) == {3}, "fewer of them"
        assert asker.first_waiting({5: 0}) == {5: first[5]}, "and others"
        assert asker.side([GROUP]) == seen
        assert_kept(broker, before)
        append(broker, 3, 1)
        assert asker.side([GROUP]).ends[3] == 6


def test_a_worker_that_joins_is_seen_at_the_next_look(broker: Broker) -> None:
    with closing(LogAsker(KafkaAccess(broker.address))) as asker:
        assert asker.side([GROUP]).owners == {}
        with a_worker(broker):
            assert set(asker.side([GROUP]).owners) == set(PARTITIONS)
        assert asker.side([GROUP]).owners == {}


def test_what_waits_is_asked_again_when_the_broker_is_back(broker: Broker) -> None:
    append(broker, 3, 2)
    with closing(LogAsker(KafkaAccess(broker.address))) as asker:
        assert asker.side([GROUP]).ends[3] == 2
        first = asker.first_waiting({3: 1})
        broker.kill()
        with pytest.raises((KafkaError, OSError)):
            asker.side([GROUP])
        broker.start()
        assert asker.side([GROUP]).ends[3] == 2
        assert asker.first_waiting({3: 1}) == first


class a_worker:  # noqa: N801 - it reads as a function where it is used
    """A member of the group to which all partitions are assigned."""

    def __init__(self, broker: Broker) -> None:
        self._consumer = KafkaConsumer(
            EVENTS_TOPIC, **KafkaAccess(broker.address).client_settings(), group_id=GROUP, enable_auto_commit=False
        )

    def __enter__(self) -> None:
        while len(self._consumer.assignment()) < len(PARTITIONS):
            self._consumer.poll(timeout_ms=500)

    def __exit__(self, *_: object) -> None:
        self._consumer.close()
