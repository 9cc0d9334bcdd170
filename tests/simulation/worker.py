"""A processor in the simulation: the production loop, reader, worker, judge and mender over simulated broker and store."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

from aiokafka import TopicPartition  # type: ignore[import-untyped]
from aiokafka.client import ConnectionGroup  # type: ignore[import-untyped]
from aiokafka.errors import IllegalStateError, OffsetOutOfRangeError  # type: ignore[import-untyped]

from schemas.framing import PLAIN, Framing
from services.medication_list.driver.app import FaustLog
from services.medication_list.driver.batches import Fetch, Verdict
from services.medication_list.driver.kafka import Intervals, PartitionReader, Plan, look_for_rollback
from services.medication_list.driver.pump import Pauses, pump
from services.medication_list.generations import GenerationRefusedError
from services.medication_list.judging.counting import Judged
from services.medication_list.judging.event_spans import EventSpans
from services.medication_list.log.source_log import SourceLogUnavailableError
from services.medication_list.processor.worker import OF_EVERY_BATCH, LeavingWhenGone, MenderOf, Patience, Worker
from services.medication_list.refolding.mending import Held, Mender, mend_held
from services.medication_list.refolding.refolder import Refolder
from services.medication_list.store.port import Store, StoreUnavailableError
from services.topics.registry import EVENTS_TOPIC
from tests.simulation.broker import HEARTBEAT_S, Group
from tests.simulation.loop import Process
from tests.simulation.ports import (
    SimulatedRecordLog,
    SimulatedRoles,
    SimulatedSourceLog,
    SimulatedStore,
    StoreLink,
)
from tests.simulation.world import World

QUEUED: Final = 8
"""Fetches that may wait for the loop, as `stream_buffer_maxsize`."""
LOOKS_EVERY_S: Final = 2.0


@dataclass
class Release:
    """What a worker's release can read, and how much it takes at once."""

    framing: Framing = PLAIN
    max_records: int = 5
    generation: str | None = None


async def run_worker(world: World, process: Process, release: Release, group: Group) -> None:
    """One worker from its start to its end; ends when it must not work on this store."""
    link = StoreLink(world, process)
    worker = Worker(
        SimulatedRoles(link),
        SimulatedSourceLog(world),
        lambda generation: SimulatedStore(link, generation),
        world.partitions,
        world.now_ms(),
        release.generation,
        release.framing,
        mender_of=_mender_of(world, release.framing),
        held=Held(world.loop.time),
        patience=Patience(world.dice.choice((0.0, 0.4)), sleep=world.loop.pause, monotonic=world.loop.time),
    )
    if not await _entered(world, worker):
        return
    leaving = LeavingWhenGone(worker, lambda: world.loop.kill(process))
    plan = Plan(leaving, EVENTS_TOPIC, world.partitions, Intervals())
    consumer = SimulatedConsumer(world, process)
    queue: asyncio.Queue[Fetch] = asyncio.Queue(QUEUED)
    seat = Seat(world, process, leaving, plan, consumer)
    world.seats[process.name] = seat
    loop = world.loop
    tasks = [
        loop.spawn(process, _member(world, process, group, plan, consumer), f"{process.name} member"),
        loop.spawn(process, _fetch(plan, consumer, queue, release.max_records), f"{process.name} fetches"),
        loop.spawn(process, _watch_store(plan), f"{process.name} watches"),
        loop.spawn(process, _mend(worker), f"{process.name} mends"),
    ]
    log = FaustLog(_queued(queue), plan.cursors, loop.time)
    try:
        await pump(log, seat.process_fetch, Pauses(), of_all=OF_EVERY_BATCH)
    finally:
        for each in tasks:
            each.cancel()


async def _entered(world: World, worker: Worker) -> bool:
    """A broker or a store that is away is waited for; a store that is not ours is not."""
    while True:
        try:
            await asyncio.to_thread(worker.enter)
        except GenerationRefusedError as refusal:
            world.note(f"refused: {refusal}")
            return False
        except (StoreUnavailableError, SourceLogUnavailableError):
            await asyncio.sleep(0.5)
        else:
            return True


@dataclass
class Seat:
    """A worker as the checks see it."""

    world: World
    process: Process
    worker: LeavingWhenGone
    plan: Plan
    consumer: "SimulatedConsumer"

    def process_fetch(self, fetch: Fetch) -> Mapping[int, Verdict]:
        """Hand a fetch to the worker."""
        for each in fetch.batches:
            if not self.plan.cursors.is_current(each):
                self.world.history.broken(
                    "I6", f"{self.process.name} was given a batch of p{each.partition} that a rewind has overtaken"
                )
        self.world.on_belief(self.process.name, self.plan.cursors.believed())
        return self.worker.process(fetch)


def _mender_of(world: World, framing: Framing) -> MenderOf:
    """What the processor's process makes its menders with, in the time of this world."""
    records = SimulatedRecordLog(world)

    def mender(store: Store, spans: EventSpans | None, told: Callable[[Judged], None]) -> Mender:
        refolder = Refolder(store, records, world.partitions, world.now_ms, framing, spans, told)
        return Mender(refolder, store, records, world.partitions, framing, world.loop.pause)

    return mender


async def _queued(queue: "asyncio.Queue[Fetch]") -> AsyncIterator[Fetch]:
    while True:
        yield await queue.get()


async def _fetch(plan: Plan, consumer: "SimulatedConsumer", queue: "asyncio.Queue[Fetch]", max_records: int) -> None:
    """What the consumer's thread does, with the queue of the stream behind it."""
    reader = PartitionReader(plan)
    while True:
        batches = await reader.read(cast("Any", consumer), max_records)
        if batches:
            await queue.put(Fetch(batches))


async def _watch_store(plan: Plan) -> None:
    while True:
        await asyncio.sleep(LOOKS_EVERY_S)
        await look_for_rollback(plan)


async def _mend(worker: Worker) -> None:
    while True:
        await asyncio.sleep(1.0)
        await asyncio.to_thread(mend_held, worker.held, worker.mend)


async def _member(world: World, process: Process, group: Group, plan: Plan, consumer: "SimulatedConsumer") -> None:
    """Stays in the group, and takes what it is assigned; it learns of a change with its next heartbeat."""
    seen = -1
    while True:
        if world.broker.is_available:
            generation = group.heartbeat(process.name)
            if generation != seen:
                plan.cursors.assign((), world.loop.time())
                consumer.give(frozenset())
                await asyncio.sleep(world.dice.random() * 0.3)
                seen = group.heartbeat(process.name)
                consumer.give(group.assigned.get(process.name, frozenset()))
                world.note(f"assigned {sorted(consumer.partitions)}")
                plan.cursors.assign(consumer.partitions, world.loop.time())
        await asyncio.sleep(HEARTBEAT_S if world.dice.random() < 0.7 else 0.1)


class _Fetcher:
    """The little that the driver asks aiokafka's fetcher for."""

    def __init__(self, world: World) -> None:
        self._records: dict[TopicPartition, Any] = {}
        self._world = world

    def _create_fetch_waiter(self) -> "asyncio.Future[None]":
        waiter = asyncio.get_running_loop().create_future()
        self._world.fetch_waiters.append(waiter)
        return waiter


class SimulatedConsumer:
    """What the driver uses of aiokafka's consumer: positions, seeks, and records from where it stands."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process
        self._subscription = self
        self._fetcher = _Fetcher(world)
        self._positions: dict[int, int] = {}
        self.partitions: frozenset[int] = frozenset()
        self.resets_to_start = False
        self.brings_at_most = 1_000
        self._polled_ms: int | None = None
        self._client = self
        self.cluster = self

    def assign(self, places: Iterable[TopicPartition]) -> None:
        """Without a group: whoever reads says what it reads."""
        self.give(frozenset(place.partition for place in places))

    def give(self, partitions: frozenset[int]) -> None:
        """The group has decided."""
        self.partitions = partitions
        self._positions = {each: at for each, at in self._positions.items() if each in partitions}

    @contextmanager
    def fetch_context(self) -> Iterator[None]:
        """Nobody counts here how long a poller is away."""
        yield

    def leader_for_partition(self, _place: TopicPartition) -> int:
        """There is one broker."""
        return 0

    @property
    def _conns(self) -> Mapping[tuple[int, Any], object]:
        return {(0, ConnectionGroup.DEFAULT): self._world.broker.connection}

    def assignment(self) -> set[TopicPartition]:
        """What it has."""
        return {TopicPartition(EVENTS_TOPIC, each) for each in self.partitions}

    def partitions_for_topic(self, topic: str) -> set[int]:
        """All there are."""
        return set(range(self._world.partitions_of(topic)))

    def seek(self, place: TopicPartition, offset: int) -> None:
        """Read from there."""
        if place.partition not in self.partitions:
            raise IllegalStateError(place)
        self._positions[place.partition] = offset

    def resume(self, place: TopicPartition) -> None:
        """Nothing is ever held back here."""

    def pause(self, place: TopicPartition) -> None:
        """Nothing is ever held back here: the driver does not ask for what it stopped."""

    async def getmany(self, place: TopicPartition, max_records: int) -> Mapping[TopicPartition, Any]:
        """What was fetched from there on; nothing while the broker is away."""
        world, partition = self._world, place.partition
        await asyncio.sleep(0.0005 * world.dice.random())
        if partition not in self.partitions:
            raise IllegalStateError(place)
        at = self._positions.get(partition)
        if at is None or not world.broker.is_available:
            return {}
        self._polled_ms = world.now_ms()
        start, end = world.broker.starts.get((EVENTS_TOPIC, partition), 0), world.broker.ends[EVENTS_TOPIC, partition]
        if not start <= at <= end:
            if not self.resets_to_start:
                raise OffsetOutOfRangeError({place: at})
            at = start
        at_most = min(max_records, self.brings_at_most)
        records = world.broker.read(EVENTS_TOPIC, partition, at, 1 + int(world.dice.random() * at_most))
        is_last = not records or records[-1] is world.broker.records[EVENTS_TOPIC, partition][-1]
        self._positions[partition] = end if is_last else records[-1].offset + 1
        return {place: records}

    async def position(self, place: TopicPartition) -> int:
        """Above what was handed out, and above markers that follow it."""
        if place.partition not in self._positions:
            raise IllegalStateError(place)
        return self._positions[place.partition]

    def last_poll_timestamp(self, _place: TopicPartition) -> int | None:
        """When the broker answered last, in milliseconds."""
        return self._polled_ms

    def last_stable_offset(self, place: TopicPartition) -> int:
        """The log's end."""
        return self._world.broker.ends[EVENTS_TOPIC, place.partition]
