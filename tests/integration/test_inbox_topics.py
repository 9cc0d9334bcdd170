"""An inbox before topics that lost what it had not read, and topics that are none of submissions."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from uuid import uuid4

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from prometheus_client import generate_latest
from structlog.testing import capture_logs

from services.clock import SystemClock
from services.health import Readiness, TroubleReason
from services.publishing.kafka_access import KafkaAccess
from services.submissions.inbox import Inbox
from services.submissions.inbox_metrics import InboxMetrics
from services.submissions.reception import Received
from services.telemetry import TroubleMetrics, new_registry
from tests.alerting import Series, check_fires, told

pytestmark = pytest.mark.integration


class Stand:
    """A kind of submissions of its own, with one topic of one partition; `taken` are the values that an inbox took."""

    def __init__(self, kafka: str) -> None:
        self.kafka = kafka
        self.kind = f"kind{uuid4().hex[:8]}"
        self.topic = f"{self.kind}.journal"
        self.group = f"inbox-{uuid4().hex[:8]}"
        self.taken: list[bytes | None] = []
        self.make(self.topic)

    def make(self, topic: str) -> None:
        """Make a topic."""
        with closing(KafkaAdminClient(bootstrap_servers=self.kafka)) as admin:
            admin.create_topics([NewTopic(topic, 1, 1)], wait_for_metadata=True)

    def send(self, *values: bytes, topic: str | None = None) -> None:
        """Append, each under its own key."""
        with closing(KafkaProducer(bootstrap_servers=self.kafka)) as producer:
            for value in values:
                producer.send(topic or self.topic, key=value, value=value).get(10)

    def delete_before(self, offset: int) -> None:
        """As retention does."""
        with closing(KafkaAdminClient(bootstrap_servers=self.kafka)) as admin:
            admin.delete_records({TopicPartition(self.topic, 0): offset})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """An inbox that runs meanwhile."""
        self.registry = new_registry()
        self.inbox = self._inbox()
        task = asyncio.create_task(self.inbox.run())
        yield
        assert not task.done(), "nothing ends it"
        self.inbox.stop()
        await task

    async def has_taken(self, *values: bytes) -> None:
        """Wait until it has taken these, in this order."""
        await until(lambda: self.taken == list(values))

    async def troubles(self) -> list[TroubleReason]:
        """What it says of itself."""
        return [each.reason for each in await self.inbox.check() if not each.stops]

    async def tells(self) -> Series:
        """What its process would tell of that at /metrics."""
        readiness = Readiness({"inbox": self.inbox.check})
        TroubleMetrics(readiness, self.registry)
        readiness.tell(await readiness.troubles())
        return told(generate_latest(self.registry).decode())

    def _inbox(self) -> Inbox:
        async def receive(received: Received) -> None:
            self.taken.append(received.value)

        return Inbox(
            kafka=KafkaAccess(self.kafka),
            kind=self.kind,
            group=self.group,
            receive=receive,
            clock=SystemClock(),
            metrics=InboxMetrics(self.registry),
        )


@pytest.fixture
def stand(kafka: str) -> Stand:
    return Stand(kafka)


async def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not met():
        assert time.monotonic() < deadline, "it did not come about in time"
        await asyncio.sleep(0.05)


async def test_what_was_deleted_before_it_was_read_is_told_with_its_range(stand: Stand, tmp_path: Path) -> None:
    stand.send(b"0", b"1")
    with capture_logs() as lines:
        async with stand.running():
            await stand.has_taken(b"0", b"1")
        assert not [line for line in lines if line["event"] == "submissions_lost"], "a topic is begun without loss"
        stand.send(b"2", b"3", b"4")
        stand.delete_before(4)
        async with stand.running():
            await stand.has_taken(b"0", b"1", b"4")
            assert await stand.troubles() == [TroubleReason.SUBMISSIONS_LOST]
            stand.send(b"5")
            await stand.has_taken(b"0", b"1", b"4", b"5")
            assert await stand.troubles() == [TroubleReason.SUBMISSIONS_LOST], "it stays"
            check_fires(tmp_path, ("MedchainSubmissionsNotRead",), {}, await stand.tells())
    (line,) = (line for line in lines if line["event"] == "submissions_lost")
    assert (line["log_level"], line["topic"], line["partition"]) == ("error", stand.topic, 0)
    assert (line["offset"], line["next_offset"], line["count"]) == (2, 4, 2)
    assert stand.registry.get_sample_value("medchain_inbox_lost_total") == 2


async def test_what_was_read_may_be_deleted(stand: Stand) -> None:
    stand.send(b"0", b"1")
    async with stand.running():
        await stand.has_taken(b"0", b"1")
    stand.delete_before(2)
    async with stand.running():
        stand.send(b"2")
        await stand.has_taken(b"0", b"1", b"2")
        assert await stand.troubles() == []


async def test_a_topic_of_a_name_that_no_system_can_have_is_told_once_and_disturbs_nobody(stand: Stand) -> None:
    stray = f"{stand.kind}.a-"
    stand.make(stray)
    stand.send(b"by hand", topic=stray)
    with capture_logs() as lines:
        async with stand.running():
            stand.send(b"0")
            await stand.has_taken(b"0")
            stand.send(b"1")
            await stand.has_taken(b"0", b"1")
            assert await stand.troubles() == [TroubleReason.TOPIC_UNDECLARED]
        assert len([line for line in lines if line["event"] == "topic_of_no_system"]) == 1
    assert stand.taken == [b"0", b"1"]
