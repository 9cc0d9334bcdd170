"""One bulk reader: its partitions of the log, read without a consumer group, judged as the processor does.

`python -m services.replay.bulk` is started by `medchain replay`, which gives it its share on standard input and reads its
progress on standard output. It keeps nothing: where it continues is in the store, so it may be killed at any time. When
its input ends, the process that started it is gone, and it ends too.
"""

import asyncio
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition  # type: ignore[import-untyped]  # the library has no types

from schemas.framing import Framing
from services.canonical_log import configure, get_logger
from services.clock import Clock, SystemClock
from services.command_line.named_platform import named_platform
from services.interpreter import collect_seldom
from services.medication_list.driver.batches import Fetch, LogReader, PartitionBatch, Positions, Rewind, Verdict
from services.medication_list.driver.cursors import Cursors, rolled_back
from services.medication_list.driver.kafka import Intervals, PartitionReader, Plan
from services.medication_list.driver.pump import Pauses, pump
from services.medication_list.fold import VERSION
from services.medication_list.generations import (
    GenerationGoneError,
    GenerationRefusedError,
    GenerationState,
    generation_for,
    record_of,
)
from services.medication_list.log.source_log import KafkaSourceLog, SourceLog, SourceLogUnavailableError
from services.medication_list.processor.worker import OF_EVERY_BATCH, Patience, Worker
from services.medication_list.store.link import Link
from services.medication_list.store.port import Store, StoreUnavailableError
from services.medication_list.store.redis_roles import RedisRoles
from services.medication_list.store.redis_store import RedisStore
from services.medication_list.store.roles import Attending, Pointer, Roles, WorkerKind
from services.publishing.kafka_access import KafkaAccess
from services.replay.order import DONE, REFUSED, Order, Pacing, Told
from services.replay.pace import Pace
from services.schema_registry import framing_at_start
from services.topics.registry import EVENTS_TOPIC, load

_NICE: Final = 5
"""The live processors come first wherever they share a machine."""
_AT_ONCE: Final = 400
"""Records of one pass. The store's write of a pass holds up all others who ask the store: so it is kept short."""
CHASING: Final = Patience(for_s=0.3)
_CHECK_STORE_MS: Final = 2_000
_TELL_EVERY_S: Final = 0.5
_log = get_logger()


class ReplayWorker(Worker):
    """Fills the generation that a replay makes; from then on feeds the generation of its fold that nobody else feeds.

    So after a switch between generations of one fold, when the processors move to the live one, it keeps up the other,
    and the way back stays open.
    """

    def __init__(
        self,
        roles: Roles,
        log: SourceLog,
        store_of: Callable[[str], Store],
        partitions: int,
        made: str,
        framing: Framing,
        patience: Patience,
    ) -> None:
        super().__init__(roles, log, store_of, partitions, 0, made, framing, patience=patience)
        self._made = made
        self._replay_roles = roles
        self._is_live = False
        self.attending = Attending(WorkerKind.REPLAY, self.attending.name)

    def mine(self, pointer: Pointer) -> str | None:
        """See `Worker.mine`; None once every generation of this fold has processors, or the one made here was retired.

        The next replay's view has readers of its own: who looked only when that one was whole would go over to it, and
        the command that this reader belongs to would never end.
        """
        records = {name: record_of(pointer, name) for name in pointer.records}
        state = records[self._made].state if self._made in records else None
        if state == GenerationState.FILLING:
            return self._made
        if state == GenerationState.RETIRED:
            return None
        fitting = [
            name
            for name, record in records.items()
            if record.fold_version == VERSION and record.state == GenerationState.WHOLE
        ]
        fitting.sort(key=lambda name: (name == pointer.generation, name == self._made), reverse=True)
        return next((name for name in fitting if not self._is_fed(pointer, name)), None)

    def _is_fed(self, pointer: Pointer, generation: str) -> bool:
        """Processors go where the pointer sends them: one that is still seen elsewhere is about to leave, or is gone."""
        theirs = {WorkerKind.PINNED}
        if generation == generation_for(pointer, VERSION):
            theirs.add(WorkerKind.PROCESSOR)
        return any(each.kind in theirs for each in self._replay_roles.attending(generation))


class Bounded:
    """A worker's `process`, not beyond given offsets."""

    def __init__(self, worker: Worker, until: Mapping[int, int]) -> None:
        """`until`: for some partitions, the offset before which to stop."""
        self._worker = worker
        self._until = until
        self.records = 0

    def process(self, fetch: Fetch) -> Mapping[int, Verdict]:
        """See `driver.batches.Process`."""
        verdicts: dict[int, Verdict] = {}
        batches = []
        for batch in fetch.batches:
            stop = self._until.get(batch.partition)
            if stop is None or batch.next_offset <= stop:
                batches.append(batch)
            elif batch.first_offset < stop:
                records = [record for record in batch.records if record.offset < stop]
                batches.append(PartitionBatch(batch.partition, batch.first_offset, stop, records, batch.turn))
            else:
                verdicts[batch.partition] = Rewind(batch.first_offset)
        if batches:
            verdicts |= self._worker.process(Fetch(tuple(batches)))
            self.records += sum(len(batch.records) for batch in batches)
        return verdicts


class BulkReader(LogReader):
    """The log through the driver's own reader, for partitions that no group assigns: see `driver.kafka.PartitionReader`."""

    def __init__(
        self, consumer: Any, positions: Positions, partitions: Collection[int], declared: int, pace: Pace, clock: Clock
    ) -> None:
        """`consumer`: a started AIOKafkaConsumer without a group; these partitions are assigned to it here."""
        plan = Plan(positions, EVENTS_TOPIC, declared, Intervals())
        self._consumer = consumer
        self._positions = positions
        self._cursors: Cursors = plan.cursors
        self._reader = PartitionReader(plan)
        self._pace = pace
        self._clock = clock
        self._look_at_ms = 0
        consumer.assign([TopicPartition(EVENTS_TOPIC, each) for each in partitions])
        self._cursors.assign(partitions, self._now_s())

    async def fetches(self) -> AsyncIterator[Fetch]:
        """Yield fetches, rested for."""
        while True:
            await self._pace.rest()
            await self._check_store()
            batches = await self._reader.read(self._consumer, _AT_ONCE)
            if batches:
                yield Fetch(batches)

    def is_current(self, batch: PartitionBatch) -> bool:
        """See `LogReader.is_current`."""
        return self._cursors.is_current(batch)

    def applied(self, batch: PartitionBatch) -> None:
        """See `LogReader.applied`."""
        self._cursors.applied(batch, self._now_s())

    def rewind(self, partition: int, offset: int, rest_s: float = 0.0) -> None:
        """See `LogReader.rewind`."""
        self._cursors.rewind(partition, offset, rest_s)

    async def _check_store(self) -> None:
        """Notice a store that was restored, and a switch, also while nothing comes."""
        now_ms = self._clock.monotonic_ms()
        if now_ms < self._look_at_ms:
            return
        self._look_at_ms = now_ms + _CHECK_STORE_MS
        believed = self._cursors.believed()
        try:
            stored = await asyncio.to_thread(self._positions.standing, tuple(believed))
        except (StoreUnavailableError, SourceLogUnavailableError) as error:
            _log.warning("store_unreachable", error_type=type(error).__name__)
            return
        rolled_back(self._cursors, believed, {partition: each.offset for partition, each in stored.items()})

    def _now_s(self) -> float:
        return self._clock.monotonic_ms() / 1000


async def replay(
    consumer: Any,
    worker: Worker,
    bounded: Bounded,
    partitions: Collection[int],
    declared: int,
    pace: Pace,
    clock: Clock,
) -> None:
    """Read and judge until there is nothing to feed any more, which GenerationRefusedError says.

    `consumer`: see `BulkReader`. Raises also what the worker raises when it enters.
    """
    worker.enter()
    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def process(fetch: Fetch) -> Mapping[int, Verdict]:
        try:
            return bounded.process(fetch)
        except GenerationRefusedError as refusal:
            if not gone.done():
                gone.set_exception(refusal)
            raise

    reader = BulkReader(consumer, worker, partitions, declared, pace, clock)
    # Capped is the usual case once it chases: then a long pause would be a long switch.
    pumping = asyncio.ensure_future(pump(reader, process, Pauses(0.02, 0.2), of_all=OF_EVERY_BATCH))
    await asyncio.wait([pumping, gone], return_when=asyncio.FIRST_COMPLETED)
    pumping.cancel()
    for each in (pumping, gone):
        if each.done() and not each.cancelled() and (error := each.exception()) is not None:
            raise error


def code_of(ended: GenerationRefusedError) -> int:
    """What a bulk reader ends with."""
    return DONE if isinstance(ended, GenerationGoneError) else REFUSED


def main() -> None:
    """Work until told to end. Exits 0 when there is nothing left to feed, 2 with a sentence where it must not work."""
    order = msgspec.json.decode(sys.argv[1], type=Order)
    configure("replay")
    os.nice(_NICE)
    collect_seldom()
    platform = named_platform()
    framing = framing_at_start(platform.schema_registry)
    link, declared = Link(platform.redis), load().partitions(EVENTS_TOPIC)
    pace = Pace(order.share)
    worker = ReplayWorker(
        RedisRoles(link),
        KafkaSourceLog(platform.kafka, framing=framing),
        lambda generation: RedisStore(link, generation),
        declared,
        order.generation,
        framing,
        CHASING,
    )
    bounded = Bounded(worker, order.until)
    threading.Thread(target=_hear, args=(pace, worker), daemon=True).start()
    threading.Thread(target=_tell, args=(bounded, worker), daemon=True).start()
    try:
        asyncio.run(_replay_from(platform.kafka, worker, bounded, order, declared, pace))
    except GenerationRefusedError as refusal:
        if code_of(refusal) == DONE:
            worker.leave()
        else:
            sys.stderr.write(f"{refusal}\n")
        raise SystemExit(code_of(refusal)) from None


async def _replay_from(
    kafka: KafkaAccess, worker: Worker, bounded: Bounded, order: Order, declared: int, pace: Pace
) -> None:
    consumer = AIOKafkaConsumer(
        **kafka.client_settings(),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        max_partition_fetch_bytes=1 << 20,
    )
    await consumer.start()
    try:
        await replay(consumer, worker, bounded, order.partitions, declared, pace, SystemClock())
    finally:
        await consumer.stop()


def _hear(pace: Pace, worker: Worker) -> None:
    """Each line is what holds from now on; the end of the lines is the end of this process."""
    for line in sys.stdin:
        pacing = msgspec.json.decode(line, type=Pacing)
        pace.share, pace.is_paused = pacing.share, pacing.is_paused
    worker.leave()
    os._exit(DONE)


def _tell(bounded: Bounded, worker: Worker) -> None:
    while True:
        told = Told(bounded.records, time.process_time(), worker.generation)
        sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
        sys.stdout.flush()
        time.sleep(_TELL_EVERY_S)


if __name__ == "__main__":
    main()
