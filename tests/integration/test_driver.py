"""The batch driver on a real broker and a real Redis: exactly once through kills, rollbacks, codecs and transactions.

Run as a program, this file is the worker under test. Its store is the least that the driver leans on: one script that
counts events and moves the offset, valid only if the batch begins where the store stands.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import redis
from aiokafka import AIOKafkaProducer, TopicPartition  # type: ignore[import-untyped]
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete  # type: ignore[import-untyped]
from kafka import KafkaAdminClient
from prometheus_client import generate_latest

from services.medication_list.driver.app import DriverSettings, create_app, run, status
from services.medication_list.driver.batches import Applied, Fetch, LogReader, Rewind, Verdict
from services.medication_list.driver.kafka import Intervals
from services.medication_list.driver.pump import pump
from services.medication_list.log.last_record import mark_of
from services.medication_list.processor.metrics import Positions
from services.medication_list.store.port import Standing
from services.publishing.kafka_access import KafkaAccess
from services.telemetry import new_registry
from tests.alerting import Series, check_fires, told

pytestmark = pytest.mark.integration

PARTITIONS = 4

COUNT_ONCE = """
local stored = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
if stored ~= tonumber(ARGV[2]) then return {0, stored} end
for i = 6, #ARGV do redis.call('HINCRBY', KEYS[2], ARGV[i], 1) end
redis.call('HINCRBY', KEYS[3], ARGV[4], #ARGV - 5)
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], ARGV[1] .. ':last', ARGV[5]) end
return {1, tonumber(ARGV[3])}
"""


class CountingStore:
    """Counts each event by its value, with the offset, in one script call."""

    def __init__(self, redis_url: str, prefix: str) -> None:
        self.client = redis.Redis.from_url(redis_url, socket_timeout=2.0, decode_responses=True)
        self.offsets, self.counts, self.workers = (f"{prefix}:{name}" for name in ("offsets", "counts", "workers"))
        self._count_once = self.client.register_script(COUNT_ONCE)

    def next_offsets(self, partitions: Collection[int]) -> Mapping[int, int]:
        """Return where the store stands."""
        stored = self.client.hmget(self.offsets, [str(p) for p in partitions])
        return {p: int(offset or 0) for p, offset in zip(partitions, stored, strict=True)}

    def standing(self, partitions: Collection[int]) -> Mapping[int, Standing]:
        """Return where the store stands, and what it counted last."""
        found = {p: self.client.hmget(self.offsets, [str(p), f"{p}:last"]) for p in partitions}
        return {p: Standing(int(offset or 0), str(last or "").encode()) for p, (offset, last) in found.items()}

    def process(self, fetch: Fetch) -> Mapping[int, Verdict]:
        """Take each batch that begins where the store stands."""
        verdicts: dict[int, Verdict] = {}
        for batch in fetch.batches:
            values = [(record.value or b"").decode() for record in batch.records]
            last = mark_of(batch.records[-1]) if batch.records else b""
            taken, offset = self._count_once(
                keys=[self.offsets, self.counts, self.workers],
                args=[batch.partition, batch.first_offset, batch.next_offset, os.getpid(), last, *values],
            )
            verdicts[batch.partition] = Applied(offset) if taken else Rewind(offset)
        return verdicts

    def count(self) -> int:
        """Return how many events were counted."""
        return self.client.hlen(self.counts)

    def counted_once(self) -> set[str]:
        """Return the events that were counted exactly once."""
        return {str(value) for value, times in self.client.hgetall(self.counts).items() if times == "1"}

    def roll_back(self) -> None:
        """Forget counts and offsets together, as a restore of an empty backup would."""
        self.client.delete(self.offsets, self.counts)


class Stage:
    """One topic, one store, and the workers between them."""

    def __init__(self, kafka: str, redis_url: str, folder: Path) -> None:
        self.kafka, self.redis_url, self.folder = kafka, redis_url, folder
        self.topic = f"driver-{uuid4().hex[:8]}"
        self.store = CountingStore(redis_url, self.topic)

    async def create_topic(self) -> None:
        """Make the topic."""
        async with self._admin() as admin:
            await admin.create_topics([NewTopic(self.topic, PARTITIONS, 1)])

    async def make_topic_again(self) -> None:
        """Delete the topic, and make it anew."""
        deadline = time.monotonic() + 30
        async with self._admin() as admin:
            await admin.delete_topics([self.topic])
            while self.topic in await admin.list_topics():
                assert time.monotonic() < deadline, "the topic is not deleted"
                await asyncio.sleep(0.1)
        await self.create_topic()

    async def add_partition(self) -> None:
        """Make one partition more than was declared."""
        async with self._admin() as admin:
            await admin.create_partitions({self.topic: NewPartitions(PARTITIONS + 1)})

    async def delete_records(self, partition: int, before: int) -> None:
        """Move the start of the log."""
        async with self._admin() as admin:
            await admin.delete_records({TopicPartition(self.topic, partition): RecordsToDelete(before)})

    async def send(self, values: Collection[str], **producer_settings: object) -> None:
        """Send the values round the partitions and await the acks."""
        async with AIOKafkaProducer(bootstrap_servers=self.kafka, linger_ms=5, **producer_settings) as producer:
            sent = [
                await producer.send(self.topic, value.encode(), partition=number % PARTITIONS)
                for number, value in enumerate(values)
            ]
            await asyncio.gather(*sent)

    async def send_in_transaction(self, values: Collection[str], *, commit: bool) -> None:
        """Send the values and end the transaction."""
        async with AIOKafkaProducer(bootstrap_servers=self.kafka, transactional_id=uuid4().hex) as producer:
            await producer.begin_transaction()
            for number, value in enumerate(values):
                await producer.send_and_wait(self.topic, value.encode(), partition=number % PARTITIONS)
            await (producer.commit_transaction() if commit else producer.abort_transaction())

    def segment(self, partition: int) -> Path:
        """Return the file that holds the partition's records: the broker runs on this machine."""
        with closing(KafkaAdminClient(bootstrap_servers=self.kafka)) as admin:
            folders = [Path(found["log_dir"]) for broker in admin.describe_log_dirs() for found in broker["log_dirs"]]
        return next(file for folder in folders for file in folder.glob(f"{self.topic}-{partition}/*.log"))

    @contextmanager
    def worker(self, **overrides: float) -> Iterator["Worker"]:
        """Run a worker as a process of its own."""
        worker = Worker(self, overrides)
        try:
            yield worker
        finally:
            worker.stop()

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()


class Worker:
    """A worker process and what it logs."""

    def __init__(self, stage: Stage, overrides: Mapping[str, float]) -> None:
        self.log = stage.folder / f"{uuid4().hex}.log"
        intervals = {"partition_count_check_s": 0.3, **overrides}
        self._metrics = self.log.with_suffix(".prom")
        arguments = [stage.kafka, stage.redis_url, stage.topic, json.dumps(intervals), str(self._metrics)]
        with self.log.open("wb") as log:
            # kafka-python calls deprecated functions while it is being imported; every other warning is an error.
            tolerated = [f"-Wignore:{name} is deprecated:DeprecationWarning" for name in ("read_text", "open_text")]
            command = [sys.executable, "-Werror", *tolerated, "-m", "tests.integration.test_driver", *arguments]
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)  # noqa: S603

    def logged(self, *words: str) -> bool:
        """Tell whether a line of the log has all these words."""
        return any(all(word in line for word in words) for line in self.log.read_text().splitlines())

    def tells(self) -> Series:
        """What it told last of its partitions, as a processor does at /metrics."""
        return told(self._metrics.read_text(encoding="utf-8")) if self._metrics.exists() else {}

    async def until(self, reached: Callable[[], bool], within_s: float = 30.0) -> None:
        """Wait while the worker works; fail with its log if it dies or the time is up."""
        deadline = time.monotonic() + within_s
        while not reached():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            await asyncio.sleep(0.02)

    def kill(self) -> None:
        """Kill without notice."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask it to leave; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)


@contextmanager
def flipped_byte(file: Path, after: bytes) -> Iterator[None]:
    """Spoil the byte after this text, and mend it in the end."""
    at = file.read_bytes().index(after) + len(after)
    flip_byte(file, at)
    try:
        yield
    finally:
        flip_byte(file, at)


def flip_byte(file: Path, at: int) -> None:
    with file.open("r+b") as log:
        log.seek(at)
        flipped = bytes([log.read(1)[0] ^ 0xFF])
        log.seek(at)
        log.write(flipped)


@pytest.fixture
async def stage(kafka: str, redis_url: str, tmp_path: Path) -> Stage:
    stage = Stage(kafka, redis_url, tmp_path)
    await stage.create_topic()
    return stage


async def test_fifty_thousand_events_take_effect_once_though_a_worker_is_killed(stage: Stage) -> None:
    warm_up = [f"w{n}" for n in range(400)]
    first, second = ([f"{half}{n}" for n in range(25_000)] for half in "ab")
    with stage.worker() as killed, stage.worker() as survivor:
        await stage.send(warm_up)
        # Two processes start and share the partitions: on a busy machine that takes its time.
        await survivor.until(lambda: stage.store.count() == len(warm_up), within_s=120.0)
        while len(stage.store.client.hkeys(stage.store.workers)) < 2:  # until both own partitions
            warm_up += [f"w{len(warm_up) + n}" for n in range(PARTITIONS)]
            await stage.send(warm_up[-PARTITIONS:])
        await stage.send(first)
        killed.kill()
        await stage.send(second)
        everything = {*warm_up, *first, *second}
        await survivor.until(lambda: stage.store.count() == len(everything))
        assert stage.store.counted_once() == everything
        assert survivor.stop() == 0


async def test_a_store_that_was_emptied_while_idle_is_filled_again(stage: Stage) -> None:
    values = {f"v{n}" for n in range(1_000)}
    await stage.send(values)
    with stage.worker(rollback_check_s=0.5) as worker:
        await worker.until(lambda: stage.store.count() == len(values))
        stage.store.roll_back()
        await worker.until(lambda: stage.store.counted_once() == values)
        assert worker.logged("store_rolled_back")
        assert worker.stop() == 0


async def test_a_refused_batch_sends_the_partition_to_where_the_store_stands(stage: Stage) -> None:
    values = {f"v{n}" for n in range(1_000)}
    await stage.send(values)
    with stage.worker(rollback_check_s=3600.0) as worker:
        await worker.until(lambda: stage.store.count() == len(values))
        stage.store.roll_back()
        more = {f"m{n}" for n in range(PARTITIONS)}
        await stage.send(more)
        await worker.until(lambda: stage.store.counted_once() == values | more)
        assert worker.logged("batch_refused", "stored_offset=0")
        assert worker.stop() == 0


async def test_every_codec_and_transactions_are_read_up_to_the_end_of_the_log(stage: Stage) -> None:
    read: set[str] = set()
    with stage.worker() as worker:
        for codec in ("gzip", "snappy", "lz4", "zstd"):
            values = {f"{codec}{n}" for n in range(400)}
            await stage.send(values, compression_type=codec)
            read |= values
        committed = {f"committed{n}" for n in range(20)}
        await stage.send_in_transaction(committed, commit=True)
        await stage.send_in_transaction({f"aborted{n}" for n in range(20)}, commit=False)
        read |= committed
        # Beside the records, each transaction leaves one marker a partition, and the aborted one its records.
        end = (len(read) + 20) // PARTITIONS + 2
        await worker.until(lambda: set(stage.store.next_offsets(range(PARTITIONS)).values()) == {end})
        assert stage.store.counted_once() == read
        assert worker.stop() == 0


async def test_an_offset_outside_the_log_stops_its_partition_with_an_alarm(stage: Stage) -> None:
    await stage.send([f"v{n}" for n in range(40)])
    stage.store.client.hset(stage.store.offsets, mapping={"0": 10_000})
    await stage.delete_records(1, before=5)
    with stage.worker(retry_stopped_s=0.5) as worker:
        await worker.until(lambda: worker.logged("offset_out_of_range", "partition=0", "offset=10000"))
        await worker.until(lambda: worker.logged("offset_out_of_range", "partition=1", "offset=0"))
        await worker.until(lambda: stage.store.next_offsets((2, 3)) == {2: 10, 3: 10})
        assert stage.store.next_offsets((0, 1)) == {0: 10_000, 1: 0}
        await worker.until(lambda: [*worker.tells().values()].count(1) == 2)
        check_fires(stage.folder, ("MedchainPartitionStopped",), {}, worker.tells())
        stage.store.client.hset(stage.store.offsets, mapping={"0": 4, "1": 5})  # what an operator decides
        await worker.until(lambda: stage.store.next_offsets((0, 1)) == {0: 10, 1: 10})
        assert worker.stop() == 0


async def test_a_log_that_lost_records_and_grew_on_stops_its_partitions_until_the_view_is_made_again(
    stage: Stage,
) -> None:
    await stage.send([f"v{n}" for n in range(40)])
    with stage.worker() as worker:
        await worker.until(lambda: stage.store.count() == 40)
        assert worker.stop() == 0
    await stage.make_topic_again()
    others = {f"w{n}" for n in range(80)}
    await stage.send(others)
    with stage.worker(retry_stopped_s=0.5) as worker:
        for partition in range(PARTITIONS):
            await worker.until(lambda p=partition: worker.logged("log_rewritten", f"partition={p}", "offset=10"))  # type: ignore[misc]
        assert stage.store.next_offsets(range(PARTITIONS)) == dict.fromkeys(range(PARTITIONS), 10)
        stage.store.roll_back()
        await worker.until(lambda: stage.store.counted_once() == others)
        assert worker.stop() == 0


async def test_a_partition_whose_batches_fail_again_and_again_is_stuck_and_raises_its_alert(stage: Stage) -> None:
    stage.store.client.set(stage.store.counts, "no hash")
    await stage.send(["v1"])
    with stage.worker(stuck_after_s=0.5) as worker:
        await worker.until(lambda: worker.logged("partition_stuck"))
        await worker.until(lambda: 1 in worker.tells().values())
        check_fires(stage.folder, ("MedchainPartitionStuck",), {}, worker.tells())
        stage.store.client.delete(stage.store.counts)
        await worker.until(lambda: stage.store.count() == 1)
        assert worker.stop() == 0


async def test_a_partition_that_fails_is_named_and_keeps_no_other_one_from_being_read(stage: Stage) -> None:
    await stage.send([f"v{n}" for n in range(40)])
    with stage.worker(stuck_after_s=2.0) as worker:
        await worker.until(lambda: stage.store.count() == 40)
        stage.store.client.hset(stage.store.offsets, "1", "no number")
        for part in "abcde":  # in several fetches, each with one of the partition that fails
            await stage.send([f"{part}{n}" for n in range(400)])
        others = {0: 510, 2: 510, 3: 510}
        await worker.until(lambda: stage.store.next_offsets(others) == others)
        assert worker.logged("batch_failed", "partition=1", "offset=10", "error_type=ValueError")
        await worker.until(lambda: worker.logged("partition_stuck"))
        assert not any(worker.logged("partition_stuck", f"partition={each}") for each in others)
        assert not any(worker.logged("batch_failed", f"partition={each}") for each in others)
        stage.store.client.hset(stage.store.offsets, "1", "10")
        await worker.until(lambda: stage.store.count() == 2_040)
        assert len(stage.store.counted_once()) == 2_040
        assert worker.stop() == 0


async def test_a_corrupt_batch_is_an_alarm_at_its_offset_and_what_lies_before_it_is_applied(stage: Stage) -> None:
    for part in "abc":
        await stage.send([f"{part}{n}" for n in range(40)])
    with stage.worker(retry_stopped_s=0.5) as worker:
        with flipped_byte(stage.segment(0), b"b20"):
            await worker.until(lambda: worker.logged("corrupt_batch", "partition=0", "offset=10"))
            await worker.until(lambda: stage.store.next_offsets(range(PARTITIONS)) == {0: 10, 1: 30, 2: 30, 3: 30})
        await worker.until(lambda: stage.store.count() == 120)
        assert len(stage.store.counted_once()) == 120
        assert worker.stop() == 0


async def test_another_partition_count_than_declared_halts_the_worker(stage: Stage) -> None:
    await stage.send([f"v{n}" for n in range(40)])
    with stage.worker() as worker:
        await worker.until(lambda: stage.store.count() == 40)
        await stage.add_partition()
        await worker.until(lambda: worker.logged("partition_count", "declared_partitions=4", "found_partitions=5"))
        await stage.send([f"x{n}" for n in range(40)])
        before = worker.log.read_text().count("found_partitions=5")
        await worker.until(lambda: worker.log.read_text().count("found_partitions=5") >= before + 2)
        assert stage.store.count() == 40
        assert worker.stop() == 0


def main(kafka: str, redis_url: str, topic: str, intervals: str, metrics: str) -> None:
    store = CountingStore(redis_url, topic)
    settings = DriverSettings(
        topic, KafkaAccess(kafka), topic, PARTITIONS, intervals=Intervals(**json.loads(intervals))
    )

    app = create_app(settings, store)
    registry = new_registry()
    positions = Positions(registry)

    async def tell() -> None:
        while True:
            fresh = Path(metrics).with_suffix(".fresh")
            fresh.write_bytes(generate_latest(registry))
            fresh.replace(metrics)
            await asyncio.sleep(0.2)

    async def agent(log: LogReader) -> None:
        positions.follow(lambda: status(app))
        telling = asyncio.create_task(tell())
        try:
            await pump(log, store.process)
        finally:
            telling.cancel()

    run(app, agent)


if __name__ == "__main__":
    main(*sys.argv[1:])
