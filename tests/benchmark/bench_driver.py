"""What the driver adds to a bare aiokafka loop: microseconds an event over a backlog, with a process that does nothing.

``pytest -m benchmark tests/benchmark/bench_driver.py -s`` prints it. Run as a program, this file is one reader.
"""

# ruff: noqa: T201 — printing is what it does

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition  # type: ignore[import-untyped]
from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # type: ignore[import-untyped]

from services.medication_list.driver.app import DriverSettings, create_app, run
from services.medication_list.driver.batches import Applied, Fetch, LogReader, Verdict
from services.medication_list.driver.pump import pump
from services.medication_list.store.port import Standing
from services.publishing.kafka_access import KafkaAccess

EVENTS = 300_000
PARTITIONS = 8
ROUNDS = 3


@dataclass
class Stopwatch:
    """Measures from the first fetch on, so that joining the group does not count."""

    seen: int = 0
    fetches: int = 0
    begun: tuple[float, float] | None = None

    def add(self, events: int) -> bool:
        """Count a fetch; print the result and tell so once all events have come."""
        now = time.perf_counter(), time.process_time()
        if self.begun is None:
            self.begun = now
            return False
        self.seen += events
        self.fetches += 1
        if self.seen < EVENTS * 0.95:
            return False
        wall, cpu = (1e6 * (end - start) / self.seen for start, end in zip(self.begun, now, strict=True))
        print(json.dumps({"wall": wall, "cpu": cpu, "fetch": self.seen / self.fetches}), flush=True)
        return True


@dataclass
class NoStore:
    """Takes every batch at once and remembers nothing but offsets."""

    watch: Stopwatch = field(default_factory=Stopwatch)
    offsets: dict[int, int] = field(default_factory=dict)

    def standing(self, partitions: Collection[int]) -> Mapping[int, Standing]:
        """Return how far was read."""
        return {p: Standing(self.offsets.get(p, 0)) for p in partitions}

    def process(self, fetch: Fetch) -> Mapping[int, Verdict]:
        """Take the fetch; leave after the last one."""
        self.offsets |= {batch.partition: batch.next_offset for batch in fetch.batches}
        if self.watch.add(sum(len(batch.records) for batch in fetch.batches)):
            os.kill(os.getpid(), signal.SIGTERM)
        return {batch.partition: Applied(batch.next_offset) for batch in fetch.batches}


def read_with_driver(kafka: str, topic: str) -> None:
    store = NoStore()

    async def agent(log: LogReader) -> None:
        await pump(log, store.process)

    run(create_app(DriverSettings(f"{topic}-{os.getpid()}", KafkaAccess(kafka), topic, PARTITIONS), store), agent)


async def read_plainly(kafka: str, topic: str) -> None:
    watch = Stopwatch()
    async with AIOKafkaConsumer(bootstrap_servers=kafka, max_poll_records=1000) as consumer:
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        while True:
            got = await consumer.getmany(timeout_ms=1000)
            if watch.add(sum(map(len, got.values()))):
                return


async def fill(kafka: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=kafka, linger_ms=20, max_batch_size=65_536) as producer:
        for number in range(EVENTS):
            await producer.send(topic, b"%0100d" % number, partition=number % PARTITIONS)
        await producer.flush()


@pytest.mark.benchmark
async def test_driver_against_plain_getmany(kafka: str) -> None:
    topic = f"bench-{uuid4().hex[:8]}"
    await fill(kafka, topic)
    best: dict[str, dict[str, float]] = {}
    for _ in range(ROUNDS):
        for reader in ("plain", "driver"):
            command = [sys.executable, "-m", __name__, reader, kafka, topic]
            printed = subprocess.run(command, check=True, capture_output=True, timeout=120).stdout  # noqa: ASYNC221, S603
            run_ = json.loads(printed.decode().strip().splitlines()[-1])
            best[reader] = min(best.get(reader, run_), run_, key=lambda result: result["cpu"])
    for reader, result in best.items():
        print(f"\n{reader}: {result['wall']:.2f} µs wall, {result['cpu']:.2f} µs CPU, {result['fetch']:.0f} a fetch")
    print(f"driver / plain: {best['driver']['cpu'] / best['plain']['cpu']:.2f} of CPU")


if __name__ == "__main__":
    reader, *arguments = sys.argv[1:]
    if reader == "driver":
        read_with_driver(*arguments)
    else:
        asyncio.run(read_plainly(*arguments))
