"""A backlog of a town's events in a real log, and a meter for whoever works it off, read from outside the process."""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import redis

from services.identity.pseudonym import Pseudonymiser
from services.identity.sealing import Sealer
from services.medication_list.store.keys import GenerationKeys, PartitionKeys
from services.publishing.kafka_access import KafkaAccess
from services.simulator.history import History
from services.simulator.log_channel import LogChannel
from services.simulator.playing import play
from services.simulator.population import Town
from services.simulator.town import events, patients_for
from services.topics.registry import EVENTS_TOPIC, load

PARTITIONS = load().partitions(EVENTS_TOPIC)
_SAMPLED_EVERY_S = 0.05
_BEGINS_WITHIN_S = 60
_STALLED_AFTER_S = 60


class Sample(NamedTuple):
    """How far a reader has come, and what it, Redis and the clock had used by then, in seconds."""

    applied: int
    wall_s: float
    reader_s: float
    redis_s: float


class Cost(NamedTuple):
    """Microseconds an event."""

    reader_us: float
    redis_us: float
    wall_us: float


def fill(kafka: str, folder: Path, count: int, seed: int) -> None:
    """Write a town's first `count` events into the log, every kind in its natural share, damaged ones among them."""
    town = Town(patients_for(count))

    async def run(lines: History) -> None:
        channel = LogChannel(KafkaAccess(kafka), town, Pseudonymiser(bytes(32)), Sealer(bytes(32)), lines)
        await play(events(seed, count, town=town), {channel: 1})

    with History(folder / "backlog.jsonl") as lines:
        asyncio.run(run(lines))


def watch(pid: int, redis_url: str, until: int, is_alive: Callable[[], bool]) -> list[Sample]:
    """Look at a reader and at Redis twenty times a second, from its first write until it has applied `until` events.

    Raises TimeoutError when it does not begin, or stops before.
    """
    samples: list[Sample] = []
    with closing(redis.Redis.from_url(redis_url)) as client:
        generation = None
        deadline_s = time.monotonic() + _BEGINS_WITHIN_S
        while not samples or samples[-1].applied < until:
            generation = generation or _live(client)
            sample = _sample(pid, client, generation or "")
            if sample.applied and (not samples or samples[-1].applied < sample.applied):
                samples.append(sample)
                deadline_s = time.monotonic() + _STALLED_AFTER_S
            if not is_alive() or time.monotonic() > deadline_s:
                raise TimeoutError(f"the reader stands still at {sample.applied} of {until} events")
            time.sleep(_SAMPLED_EVERY_S)
    return samples


def cost(samples: list[Sample], upto: int) -> Cost:
    """What an event cost between the first sample and the one at which `upto` were applied.

    Raises ValueError when that is one sample: so few events cannot be measured from outside.
    """
    first, last = samples[0], next(each for each in samples if each.applied >= upto)
    done = last.applied - first.applied
    if not done:
        raise ValueError(f"{upto} events are too few to see anything between them")
    reader, of_redis, wall = (
        1e6 * (end - begin) / done
        for begin, end in (
            (first.reader_s, last.reader_s),
            (first.redis_s, last.redis_s),
            (first.wall_s, last.wall_s),
        )
    )
    return Cost(reader, of_redis, wall)


def _live(client: "redis.Redis") -> str | None:
    live = client.hget(PartitionKeys(0).role, "live")
    return live.decode() if isinstance(live, bytes) else live


def _sample(pid: int, client: "redis.Redis", generation: str) -> Sample:
    with client.pipeline(transaction=False) as pipeline:
        for partition in range(PARTITIONS):
            pipeline.hget(GenerationKeys(generation, partition).offset, "offset")
        pipeline.info("cpu")
        *offsets, cpu = pipeline.execute()
    return Sample(
        sum(int(each or 0) for each in offsets),
        time.perf_counter(),
        cpu_s_of(pid),
        cpu["used_cpu_user"] + cpu["used_cpu_sys"],
    )


def cpu_s_of(pid: int) -> float:
    """User and system time of a process, all its threads, in seconds."""
    # The name in brackets may hold spaces; the times are the 14th and 15th field of the line.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
