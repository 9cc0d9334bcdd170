"""The driver's fetches: after one that brought a few the broker gathers for a moment, and nothing else waits for that."""

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition  # type: ignore[import-untyped]
from aiokafka.client import ConnectionGroup  # type: ignore[import-untyped]

from services.medication_list.driver.kafka import Intervals, PartitionReader, Plan
from services.medication_list.store.port import Standing
from tests.simulation.loop import Scheduler, running

TOPIC, PLACE = "medication-events", TopicPartition("medication-events", 0)
GATHERS_MS = 10
FEW = 50
RECORD_BYTES = 500


class FirstOffsets:
    """A store in which nothing was judged yet."""

    def standing(self, partitions: Collection[int]) -> Mapping[int, Standing]:
        """See `Positions.standing`."""
        return dict.fromkeys(partitions, Standing(0))


class PlayedConsumer:
    """aiokafka's consumer of one partition, and the broker behind it.

    A fetch is asked for with the settings of that moment, as soon as all of the last one was taken. The broker answers when
    it has the bytes that the fetch wants at least, and with whatever it has when the fetch has waited for as long as it may.
    """

    def __init__(self, loop: Scheduler) -> None:
        self._loop = loop
        self._subscription = SimpleNamespace(fetch_context=_standing)
        self._fetcher = SimpleNamespace(
            _records={}, _fetch_max_wait_ms=500, _fetch_min_bytes=1, _create_fetch_waiter=self._create_fetch_waiter
        )
        cluster = SimpleNamespace(leader_for_partition=lambda _: 0)
        self._client = SimpleNamespace(cluster=cluster, _conns={(0, ConnectionGroup.DEFAULT): self})
        self._at_broker: list[int] = []
        self._fetched: list[int] = []
        self._position = 0
        self._more, self._answered = asyncio.Event(), asyncio.Event()

    def append(self, count: int = 1) -> None:
        """So many records come to the broker, at this moment."""
        self._at_broker += [round(self._loop.time() * 1000)] * count
        self._more.set()

    async def serve(self) -> None:
        """Ask for one fetch after the other."""
        while True:
            until_s = self._loop.time() + self._fetcher._fetch_max_wait_ms / 1000  # noqa: SLF001  as the library has it
            enough = self._fetcher._fetch_min_bytes  # noqa: SLF001  as above
            while len(self._at_broker) * RECORD_BYTES < enough and self._loop.time() < until_s:
                self._more.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(until_s):
                        await self._more.wait()
            self._fetched, self._at_broker = self._at_broker, []
            while self._fetched:
                self._answered.set()
                self._more.clear()
                await self._more.wait()

    # --- What the reader asks of it ----------------------------------------------------------------------------------

    def assignment(self) -> set[TopicPartition]:
        """What it reads."""
        return {PLACE}

    def partitions_for_topic(self, _topic: str) -> set[int]:
        """What there is."""
        return {0}

    def seek(self, _place: TopicPartition, offset: int) -> None:
        """Go on from there."""
        self._position = offset

    def resume(self, _place: TopicPartition) -> None:
        """Nothing pauses it."""

    async def getmany(self, place: TopicPartition, max_records: int) -> Mapping[TopicPartition, list[Any]]:
        """What was fetched, at most so many."""
        taken, self._fetched = self._fetched[:max_records], self._fetched[max_records:]
        offsets = range(self._position, self._position + len(taken))
        self._position += len(taken)
        if not self._fetched:
            self._loop.call_soon(self._more.set)
        return {
            place: [
                SimpleNamespace(offset=offset, value=b"v" * RECORD_BYTES, came_ms=came_ms)
                for offset, came_ms in zip(offsets, taken, strict=True)
            ]
        }

    async def position(self, _place: TopicPartition) -> int:
        """What comes next."""
        return self._position

    def last_stable_offset(self, _place: TopicPartition) -> int:
        """Where the log ends."""
        return self._position

    def _create_fetch_waiter(self) -> asyncio.Future[None]:
        self._answered.clear()
        return asyncio.ensure_future(self._answered.wait())  # type: ignore[arg-type]  # nobody looks at what it holds


@contextmanager
def _standing() -> Iterator[None]:
    yield


Taken = list[tuple[int, int]]
"""When each record came to the broker and when the reader handed it on, in ms."""


class Reading:
    """A reader and its broker, in a time that the test alone lets pass."""

    def __init__(self, loop: Scheduler) -> None:
        self._loop = loop
        self.fetches: list[Taken] = []

    def play(self, *story: tuple[float, int]) -> list[Taken]:
        """Records come: after so many ms, so many. Returns what each fetch brought."""
        return self._loop.run_until_complete(self._play(story))

    async def _play(self, story: Sequence[tuple[float, int]]) -> list[Taken]:
        consumer = PlayedConsumer(self._loop)
        tasks = [asyncio.create_task(each) for each in (consumer.serve(), self._read(consumer))]
        await asyncio.sleep(1)
        for after_ms, count in story:
            await asyncio.sleep(after_ms / 1000)
            consumer.append(count)
        await asyncio.sleep(1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return self.fetches

    async def _read(self, consumer: PlayedConsumer) -> None:
        plan = Plan(FirstOffsets(), TOPIC, 1, Intervals())
        plan.cursors.assign([0], 0.0)
        reader = PartitionReader(plan)
        while True:
            for batch in await reader.read(consumer, 1_000):
                now_ms = round(self._loop.time() * 1000)
                self.fetches.append([(each.came_ms, now_ms) for each in batch.records])  # type: ignore[attr-defined]  # as played


@pytest.fixture
def reading() -> Iterator[Reading]:
    with running(Random(1)) as loop:
        yield Reading(loop)


def waits_ms(fetches: Sequence[Taken]) -> list[int]:
    """How long each record lay at the broker."""
    return [taken_ms - came_ms for fetch in fetches for came_ms, taken_ms in fetch]


def test_what_comes_after_a_pause_is_fetched_at_once(reading: Reading) -> None:
    fetches = reading.play((0, 1), (703, 1), (46, 1))
    assert [len(each) for each in fetches] == [1, 1, 1]
    assert max(waits_ms(fetches)) <= 1


def test_what_comes_one_by_one_is_gathered_and_waits_no_longer_than_that(reading: Reading) -> None:
    fetches = reading.play(*[(1, 1)] * 200)
    assert sum(map(len, fetches)) == 200
    assert len(fetches) <= 200 / GATHERS_MS + 2
    assert max(waits_ms(fetches)) <= GATHERS_MS


@pytest.mark.parametrize(("count", "wait_ms"), [(FEW, GATHERS_MS - 2), (FEW + 1, 0)], ids=["few", "more"])
def test_how_much_a_fetch_brought_decides_whether_the_next_one_gathers(
    reading: Reading, count: int, wait_ms: int
) -> None:
    fetches = reading.play((0, count), (2, 1))
    assert [len(each) for each in fetches] == [count, 1]
    assert wait_ms <= waits_ms(fetches)[-1] <= wait_ms + 1


def test_a_backlog_is_not_gathered_for(reading: Reading) -> None:
    fetches = reading.play((0, 5_000))
    assert sum(map(len, fetches)) == 5_000
    assert max(waits_ms(fetches)) <= 1


def test_much_that_comes_while_the_broker_gathers_is_answered_before_its_time(reading: Reading) -> None:
    fetches = reading.play((0, 1), (1, 200))
    assert [len(each) for each in fetches] == [1, 200]
    assert max(waits_ms(fetches)) <= 1
