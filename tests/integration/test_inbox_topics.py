"""An inbox before topics that lost what it had not read, that hold what cannot be read, and that are none of submissions."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from prometheus_client import generate_latest
from structlog.testing import capture_logs

from services.clock import SystemClock
from services.health import Readiness, TroubleReason
from services.publishing.kafka_access import KafkaAccess
from services.submissions.inbox import Inbox, go_on_at
from services.submissions.inbox_metrics import InboxMetrics
from services.submissions.reception import Received
from services.telemetry import TroubleMetrics, new_registry
from tests.alerting import Series, check_fires, told

pytestmark = pytest.mark.integration


class Stand:
    """A kind of submissions of its own, with one topic of one partition."""

    def __init__(self, kafka: str) -> None:
        self.kafka = kafka
        self.kind = f"kind{uuid4().hex[:8]}"
        self.topic = f"{self.kind}.journal"
        self.group = f"inbox-{uuid4().hex[:8]}"
        self.received: list[Received] = []
        self.make(self.topic)

    @property
    def taken(self) -> list[bytes | None]:
        """The values that an inbox took."""
        return [each.value for each in self.received]

    def make(self, topic: str) -> None:
        """Make a topic."""
        with closing(KafkaAdminClient(bootstrap_servers=self.kafka)) as admin:
            admin.create_topics([NewTopic(topic, 1, 1)], wait_for_metadata=True)

    def send(self, *values: bytes, topic: str | None = None) -> None:
        """Append, each under its own key."""
        with closing(KafkaProducer(bootstrap_servers=self.kafka)) as producer:
            for value in values:
                producer.send(topic or self.topic, key=value, value=value).get(10)

    def send_in_one_batch(self, *headers: tuple[str, bytes], codec: str | None = None) -> None:
        """Append a record for each of these headers, numbered from 0 in key and value."""
        with closing(KafkaProducer(bootstrap_servers=self.kafka, linger_ms=5_000, compression_type=codec)) as producer:
            for number, header in enumerate(headers):
                text = str(number).encode()
                producer.send(self.topic, key=text, value=text * 100, headers=[header])
            producer.flush(10)

    def segment(self) -> Path:
        """The file that holds the records: the broker runs on this machine."""
        with closing(KafkaAdminClient(bootstrap_servers=self.kafka)) as admin:
            folders = [Path(found["log_dir"]) for broker in admin.describe_log_dirs() for found in broker["log_dirs"]]
        return next(file for folder in folders for file in folder.glob(f"{self.topic}-0/*.log"))

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

    async def has_taken(self, *values: bytes | None) -> None:
        """Wait until it has taken these, in this order."""
        await until(lambda: self.taken == list(values))

    async def troubles(self) -> list[TroubleReason]:
        """What it says of itself."""
        return [each.reason for each in await self.inbox.check() if not each.stops]

    async def comes_to_say(self, *reasons: TroubleReason) -> None:
        """Wait until it says these of itself, and no more."""
        deadline = time.monotonic() + 30
        while (said := await self.troubles()) != list(reasons):
            assert time.monotonic() < deadline, said
            await asyncio.sleep(0.05)

    async def tells(self) -> Series:
        """What its process would tell of that at /metrics."""
        readiness = Readiness({"inbox": self.inbox.check})
        TroubleMetrics(readiness, self.registry)
        readiness.tell(await readiness.troubles())
        return told(generate_latest(self.registry).decode())

    def _inbox(self) -> Inbox:
        async def receive(received: Received) -> None:
            self.received.append(received)

        return Inbox(
            kafka=KafkaAccess(self.kafka),
            kind=self.kind,
            group=self.group,
            receive=receive,
            clock=SystemClock(),
            metrics=InboxMetrics(self.registry),
            retry_unreadable_s=0.5,
        )


@pytest.fixture
def stand(kafka: str) -> Stand:
    return Stand(kafka)


class InLatin(str):
    """A header's name by a sender that does not write UTF-8."""

    __slots__ = ()

    def encode(self, *_: str) -> bytes:
        """Whatever it is asked for."""
        return super().encode("latin-1")


@contextmanager
def flipped_byte(file: Path, after: bytes) -> Iterator[None]:
    """Spoil the byte after this text, and mend it in the end."""

    def flip() -> None:
        at = file.read_bytes().index(after) + len(after)
        with file.open("r+b") as log:
            log.seek(at)
            flipped = bytes([log.read(1)[0] ^ 0xFF])
            log.seek(at)
            log.write(flipped)

    flip()
    try:
        yield
    finally:
        flip()


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


@pytest.mark.parametrize("codec", [None, "gzip"], ids=["plain", "gzip"])
async def test_a_header_whose_name_is_no_text_costs_its_own_record_its_value_and_no_other_anything(
    stand: Stand, codec: str | None
) -> None:
    before_ms = time.time_ns() // 1_000_000
    stand.send_in_one_batch(("a", b""), (InLatin("æ"), b""), ("æ", b""), (InLatin("ø"), b""), codec=codec)
    async with stand.running():
        stand.send(b"later")
        await stand.has_taken(b"0" * 100, None, b"2" * 100, None, b"later")
        assert [(each.offset, each.key) for each in stand.received[:4]] == [(n, str(n).encode()) for n in range(4)]
        assert all(before_ms - 1_000 <= each.sent_at_ms <= time.time_ns() // 1_000_000 for each in stand.received)
        assert await stand.troubles() == []
    stand.send(b"after a restart")
    async with stand.running():
        await until(lambda: len(stand.taken) == 6)
        assert stand.taken[5] == b"after a restart"


async def test_a_damaged_batch_stops_its_partition_with_an_alarm_and_no_other_until_it_is_mended(
    stand: Stand, tmp_path: Path
) -> None:
    other = f"{stand.kind}.pharmacy"
    stand.make(other)
    stand.send(b"0")
    stand.send(b"damaged-here-")
    stand.send(b"2")
    with capture_logs() as lines, flipped_byte(stand.segment(), b"damaged-here-"):
        async with stand.running():
            await stand.has_taken(b"0")
            await until(lambda: len([line for line in lines if line["event"] == "submissions_unreadable"]) >= 2)
            stand.send(b"of another", topic=other)
            await stand.has_taken(b"0", b"of another")
            assert await stand.troubles() == [TroubleReason.SUBMISSIONS_UNREADABLE]
            check_fires(tmp_path, ("MedchainSubmissionsNotRead",), {}, await stand.tells())
    line = next(line for line in lines if line["event"] == "submissions_unreadable")
    assert (line["log_level"], line["topic"], line["partition"], line["offset"]) == ("error", stand.topic, 0, 1)
    async with stand.running():
        await stand.has_taken(b"0", b"of another", b"damaged-here-", b"2")


async def test_a_batch_that_was_mended_is_read_without_a_restart(stand: Stand) -> None:
    stand.send(b"0")
    stand.send(b"damaged-here-")
    stand.send(b"2")
    async with stand.running():
        with flipped_byte(stand.segment(), b"damaged-here-"):
            await stand.has_taken(b"0")
            await stand.comes_to_say(TroubleReason.SUBMISSIONS_UNREADABLE)
        await stand.has_taken(b"0", b"damaged-here-", b"2")
        await stand.comes_to_say()


def test_a_partition_that_is_another_s_by_now_keeps_none_of_the_others_from_going_back_to_what_is_held(
    stand: Stand,
) -> None:
    stand.send(b"0", b"1", b"2")
    mine = TopicPartition(stand.topic, 0)
    with closing(KafkaConsumer(bootstrap_servers=stand.kafka, enable_auto_commit=False, group_id=None)) as consumer:
        consumer.assign([mine])
        consumer.seek(mine, 3)
        assert go_on_at(consumer, {(stand.topic, 1): 5, mine: 1}) == {mine: 1}
        assert consumer.position(mine) == 1
