"""What a processor holds in memory while Redis is silent and the log fills: it must not grow with what waits.

``make bench ONLY='-k silent_redis'`` prints it.
"""

# ruff: noqa: T201 — printing is what it does

import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from kafka import KafkaProducer

from deploy.local.platform import Platform
from deploy.local.waiting import wait_until
from deploy.services import SERVICES
from services.medication_list.log.source_log import KafkaSourceLog
from services.medication_list.store.link import Link, command
from services.publishing.kafka_access import KafkaAccess
from services.publishing.partitioning import partition_of
from services.topics.registry import EVENTS_TOPIC, load

PROCESSOR: Final = tuple(each for each in SERVICES if each.name == "processor")
LOADS: Final = {"100,000 records of 2 kB": (100_000, 2_000), "400 records of 900 kB": (400, 900_000)}
GROWS_AT_MOST_MB: Final = 200
SILENT_S: Final = 20


@pytest.mark.benchmark
@pytest.mark.parametrize("what", LOADS)
def test_a_processor_before_a_silent_redis_holds_no_more_than_its_bound(scratch: Path, what: str) -> None:
    count, size = LOADS[what]
    folder = scratch / f"memory-{size}"
    with Platform(folder / "data", run=folder / "run", services=PROCESSOR, usual_ports=False) as platform:
        pid = platform.child("processor-1").pid
        redis_pid = platform.child("redis").pid
        assert pid is not None
        assert redis_pid is not None
        before_mb = resident_mb(pid)
        with peak_of(pid) as peak:
            os.kill(redis_pid, signal.SIGSTOP)
            try:
                fill(platform.kafka_address, count, size)
                wait_until(lambda: is_told(platform), within_s=60, what="readiness says that Redis is silent")
                threading.Event().wait(SILENT_S)
            finally:
                os.kill(redis_pid, signal.SIGCONT)
            wait_until(lambda: is_judged(platform), within_s=300, what="all of it is judged")
        print(
            f"\n{what} ({count * size / 1e6:.0f} MB) before a Redis that is silent for {SILENT_S} s: "
            f"{before_mb:.0f} MB before, {peak[0]:.0f} MB at most, {resident_mb(pid):.0f} MB when all was judged"
        )
        assert peak[0] - before_mb < GROWS_AT_MOST_MB


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextmanager
def peak_of(pid: int) -> Iterator[list[float]]:
    """The most that a process holds within this block, looked at ten times a second."""
    peak, ended = [resident_mb(pid)], threading.Event()

    def look() -> None:
        while not ended.wait(0.1):
            peak[0] = max(peak[0], resident_mb(pid))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield peak
    finally:
        ended.set()
        looking.join()


def fill(kafka: str, count: int, size: int) -> None:
    """Records that nobody can read, under keys of many patients: they are parked, which needs no more than a read."""
    partitions, dice = load().partitions(EVENTS_TOPIC), random.Random(count)
    producer: Any = KafkaProducer(bootstrap_servers=kafka, linger_ms=20)
    with closing(producer):
        value = dice.randbytes(size)
        for _ in range(count):
            key = f"{dice.getrandbits(128):032x}".encode()
            producer.send(EVENTS_TOPIC, key=key, value=value, partition=partition_of(key, partitions))
        producer.flush()


def is_told(platform: Platform) -> bool:
    return "redis_unreachable" in httpx.get(f"{platform.url('processor-1')}/health/ready", timeout=10).text


def is_judged(platform: Platform) -> bool:
    link = Link(platform.redis_url)
    generation = link.ask([command("HGET", "live", "generation")])[0].decode()
    ends = KafkaSourceLog(KafkaAccess(platform.kafka_address)).ends()
    offsets = link.ask([command("HGET", f"{generation}:{{{each}}}:offset", "offset") for each in ends])
    link.close()
    return [int(each) for each in offsets] == list(ends.values())
