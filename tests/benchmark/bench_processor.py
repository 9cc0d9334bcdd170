"""What an event costs the processor: a real worker process works off a backlog, beside other ways to do the same.

`make bench ONLY='-k backlog'` prints it; EVENTS in the environment makes the backlog smaller. Counted is the whole
process (user and system time, all threads) and Redis, from the first write to the last; joining the group is not.
"""

# ruff: noqa: T201 — printing is what it does

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from services.publishing.kafka_access import KafkaAccess
from services.topics import cluster
from services.topics.registry import load
from tests.benchmark.backlog import Cost, Sample, cost, fill, watch
from tests.servers import a_kafka

EVENTS = int(os.environ.get("EVENTS", "300000"))
FEWER = max(10_000, EVENTS // 10)
"""For readers that take ten times as long. Everybody is compared over the same first events of the log."""
PROCESSOR = "processor"
FULL = (PROCESSOR, "loop", "floor")
SLOW = ("faust-take", "faust")


@pytest.fixture(scope="module")
def backlog(scratch: Path) -> Iterator[str]:
    """A broker of its own, whose log holds the backlog and nothing else."""
    with a_kafka(scratch / "backlog") as address:
        cluster.create(KafkaAccess(address), load(), one_broker=True)
        fill(address, scratch, EVENTS, seed=1)
        yield address


@contextlib.contextmanager
def reading(reader: str, kafka: str, redis_url: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The processor as it is started everywhere, or another reader."""
    told = {"MEDCHAIN_KAFKA": kafka, "MEDCHAIN_REDIS": redis_url}
    command = (
        [sys.executable, "-m", "services.medication_list.processor.app"]
        if reader == PROCESSOR
        else [sys.executable, "-m", "tests.benchmark.readers", reader, kafka, redis_url]
    )
    with (folder / f"{reader}.log").open("wb") as log:
        process = subprocess.Popen(command, env=os.environ | told, stdout=log, stderr=log)  # noqa: S603
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def measured(reader: str, kafka: str, redis_url: str, folder: Path, events: int) -> list[Sample]:
    """Work the backlog off from an empty view."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    with reading(reader, kafka, redis_url, folder) as process:
        return watch(process.pid, redis_url, events, lambda: process.poll() is None)


@pytest.mark.benchmark
def test_a_backlog_beside_other_ways_to_read_it(backlog: str, redis_url: str, scratch: Path) -> None:
    runs = {reader: measured(reader, backlog, redis_url, scratch, EVENTS) for reader in FULL}
    runs |= {reader: measured(reader, backlog, redis_url, scratch, FEWER) for reader in SLOW}
    print(f"\nmachine: {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for events, readers in ((EVENTS, FULL), (FEWER, (*FULL, *SLOW))):
        print(f"the first {events:,} events: µs of the reader's CPU, of Redis's CPU, and on the clock, an event")
        ours = cost(runs[PROCESSOR], events)
        for reader in readers:
            tell(reader, cost(runs[reader], events), ours)


def tell(reader: str, its: Cost, ours: Cost) -> None:
    """One line of the table; the ratio is of the reader's CPU."""
    print(
        f"  {reader:<11} {its.reader_us:7.1f} {its.redis_us:6.1f} {its.wall_us:7.1f}"
        f"   {1e6 / its.wall_us:8,.0f} events/s   {its.reader_us / ours.reader_us:5.2f} x ours",
    )
