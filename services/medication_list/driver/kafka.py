"""Kafka's side of the driver: reads one fetch of all partitions through aiokafka and hands it to Faust as one message.

Everything that touches aiokafka's consumer runs in the consumer's own thread; the rest of the worker reaches it through
`Cursors` alone.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any, ClassVar, NamedTuple, cast

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition  # type: ignore[import-untyped]  # the library has no types
from aiokafka.client import ConnectionGroup  # type: ignore[import-untyped]  # the library has no types
from aiokafka.errors import (  # type: ignore[import-untyped]  # the library has no types
    ConsumerStoppedError,
    CorruptRecordException,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    RecordTooLargeError,
    TopicAuthorizationFailedError,
)
from aiokafka.structs import OffsetAndMetadata  # type: ignore[import-untyped]  # the library has no types
from faust.transport.consumer import RecordMap
from faust.transport.drivers import TRANSPORTS
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP, ConsumerMessage
from mode import Service

from services.medication_list.driver.batches import Fetch, PartitionBatch, Positions
from services.medication_list.driver.cursors import Cursors, StopReason, rolled_back
from services.medication_list.log.record import Record

_log = structlog.get_logger(__name__)

_FETCH_MAX_WAIT_MS = 500
"""How long the broker holds an empty fetch back. Faust fixes 1,500: a seek on a quiet log would wait as long."""

_GATHER_MS = 10
"""How long the broker gathers records for the fetch that follows one which brought a few. Each fetch and each pass over it
costs about the same for one record as for ten: at 150 a second that came one by one they took a fifth of two cores."""

_FEW_RECORDS = 50
"""How many records a fetch may bring and still be followed by one that gathers."""

_GATHERED_BYTES = 64 << 10
"""With this much the broker answers a gathering fetch early."""

_IDLE_S = 0.25
"""How long one round waits for records, and so how soon a rewind on a quiet log is noticed."""

_FETCH_BYTES = 4 << 20
"""How many bytes of records one fetch hands on, give or take one partition's share. With the eight fetches that may wait
for the agent it bounds what a worker holds while its store is slow or silent: 40 MiB, and for each partition what
aiokafka fetched ahead (`consumer_max_fetch_size`). Records of usual size reach the bound of their number long before."""

_NOTHING_THERE_S = 5.0
"""How long a broker may answer that there is nothing where the record judged last must be."""

_REASONS: tuple[tuple[type[Exception], StopReason], ...] = (
    (OffsetOutOfRangeError, StopReason.OFFSET_OUT_OF_RANGE),
    (TopicAuthorizationFailedError, StopReason.NOT_READABLE),
    (RecordTooLargeError, StopReason.CORRUPT_BATCH),
)


@dataclass(frozen=True, slots=True)
class Intervals:
    """How often the driver checks, in seconds."""

    rollback_check_s: float = 2.0
    partition_count_check_s: float = 30.0
    offset_publication_s: float = 5.0
    retry_stopped_s: float = 30.0
    stuck_after_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What one registered driver reads, and where its offsets come from."""

    positions: Positions
    topic: str
    declared_partitions: int
    intervals: Intervals
    cursors: Cursors = field(default_factory=Cursors)


_plans: dict[str, Plan] = {}
_scheme_numbers = count(1)


def register(positions: Positions, *, topic: str, declared_partitions: int, intervals: Intervals | None = None) -> str:
    """Register the driver with Faust for this topic and this store. Returns the scheme of its URLs.

    Faust builds a transport from the broker's URL alone, so the scheme is what leads from there to the store.
    """
    scheme = f"batch{next(_scheme_numbers)}"
    _plans[scheme] = Plan(positions, topic, declared_partitions, intervals or Intervals())
    TRANSPORTS.aliases[scheme] = f"{__name__}:BatchTransport"
    return scheme


class _Sought(NamedTuple):
    """A partition that was found without the record judged last.

    `polled`: when it had been fetched last, at the last look. `answered_s`: when the first answer was found that came after
    the first look; None before there is one.
    """

    turn: int
    polled: int | None
    answered_s: float | None = None


class PartitionReader:
    """Reads the assigned partitions of one topic with aiokafka, from the store's offsets.

    Its coroutines run in the consumer's thread. It seeks nowhere else than at the beginning of `read`.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._cursors = plan.cursors
        self._halted = False
        self._topic_missed = False
        self._queue: list[int] = []
        self._published: dict[int, int] = {}
        self._gathers = False
        self._sought: dict[int, _Sought] = {}
        self._begun_over: dict[int, object | None] = {}
        self._resting: set[int] = set()

    async def read(self, consumer: AIOKafkaConsumer, max_records: int) -> tuple[PartitionBatch, ...]:
        """The next batches, at most one a partition, or none after a short wait.

        Raises:
            ConsumerStoppedError: the worker is leaving.
            KafkaError: the consumer group is broken; the worker has to start anew.
        """
        with consumer._subscription.fetch_context():  # noqa: SLF001 - else standing still would count as a dead poller
            if self._halted:
                await asyncio.sleep(_IDLE_S)
                return ()
            turns = await self._place(consumer)
            batches = await self._take_ready(consumer, turns, max_records)
            if not batches:
                await self._wait_for_records(consumer)
            return batches

    async def check_partition_count(self, consumer: AIOKafkaConsumer) -> None:
        """Halt the worker while the topic has another number of partitions than declared, and go on when it has not."""
        found = len(consumer.partitions_for_topic(self._plan.topic) or ())
        if not found and not self._topic_missed:
            self._topic_missed = True  # perhaps the first answer of the broker is still to come
            return
        self._topic_missed = not found
        halted = found != self._plan.declared_partitions
        if halted:
            # Repeated at every check: while this lasts nothing is read, and the last line of the log says why.
            _log.error(
                StopReason.PARTITION_COUNT.value,
                topic=self._plan.topic,
                declared_partitions=self._plan.declared_partitions,
                found_partitions=found,
            )
        elif self._halted:
            _log.info("partition_count_restored", topic=self._plan.topic, found_partitions=found)
        self._halted = halted

    async def publish_offsets(self, consumer: AIOKafkaConsumer, within_s: float) -> None:
        """Commit to Kafka how far the store has come, for lag displays.

        Nothing ever starts from these offsets, so an error or a broker that is away costs a display its freshness and
        nothing else: both are swallowed, and an unbounded wait would hold up the thread that reads.
        """
        assigned = {tp.partition for tp in consumer.assignment()}
        offsets = {p: offset for p, (_, offset) in self._cursors.believed().items() if p in assigned}
        changed = {p: offset for p, offset in offsets.items() if self._published.get(p) != offset}
        if not changed:
            return
        try:
            commit = consumer.commit({self._tp(p): OffsetAndMetadata(offset, "") for p, offset in changed.items()})
            await asyncio.wait_for(commit, within_s)
        except Exception as error:  # noqa: BLE001 - see above
            _log.info("offset_publication_failed", error_type=type(error).__name__)
        else:
            self._published = offsets

    def _tp(self, partition: int) -> TopicPartition:
        return TopicPartition(self._plan.topic, partition)

    async def _place(self, consumer: AIOKafkaConsumer) -> dict[int, int]:
        """Seek every partition that needs it. Returns the turn of each that can be read."""
        assigned = {tp.partition for tp in consumer.assignment()}
        self._cursors.retry_stopped(asyncio.get_running_loop().time())
        unplaced = self._cursors.unplaced(assigned)
        if unplaced:
            await self.check_partition_count(consumer)
            if self._halted:
                return {}
            # Before they are sought: what comes over a later one is not what was asked for over this.
            self._begun_over.update((each, self._connection(consumer, each)) for each in unplaced)
            await self._ask_store(unplaced)
        resting = self._cursors.resting(asyncio.get_running_loop().time())
        for partition, offset in self._cursors.take_seeks(assigned).items():
            try:
                consumer.seek(self._tp(partition), offset)
            except IllegalStateError:
                continue  # revoked while the store was asked; the next assignment places it again
            # What was fetched of one that rests would hold up the next fetch of all others of its broker.
            (consumer.pause if partition in resting else consumer.resume)(self._tp(partition))
        for partition in (self._resting & assigned) - resting:
            with suppress(IllegalStateError):
                consumer.resume(self._tp(partition))
        self._resting = resting
        return self._cursors.readable(assigned - resting)

    async def _ask_store(self, unplaced: Mapping[int, int]) -> None:
        try:
            stored = await asyncio.to_thread(self._plan.positions.standing, tuple(unplaced))
        except Exception as error:  # noqa: BLE001 - a store that is away is waited for, at start too
            _log.warning("store_unreachable", error_type=type(error).__name__)
            await asyncio.sleep(1.0)
            return
        for partition, turn in unplaced.items():
            self._cursors.place(partition, turn, stored[partition])

    async def _take_ready(
        self, consumer: AIOKafkaConsumer, turns: Mapping[int, int], max_records: int
    ) -> tuple[PartitionBatch, ...]:
        """Take what has been fetched already, one partition after the other, so that an error has a partition.

        What is left of a partition comes first the next time: only when aiokafka has handed out everything of some
        partition does it fetch more. Then that partition goes to the end of the queue, so that none starves.
        """
        batches: list[PartitionBatch] = []
        taken, room_bytes = 0, _FETCH_BYTES
        self._queue = [p for p in self._queue if p in turns] + sorted(turns.keys() - set(self._queue))
        for partition in tuple(self._queue):
            batch = await self._take(consumer, partition, turns[partition], max_records)
            if batch is not None:
                batches.append(batch)
                taken += len(batch.records)
                max_records -= len(batch.records)
                room_bytes -= sum(len(record.value or b"") for record in batch.records)
                # Before anything else runs in this thread: aiokafka asks for more as soon as all was taken.
                self._gather(consumer, gathers=taken <= _FEW_RECORDS)
            if max_records <= 0 or room_bytes <= 0:
                break
            self._queue.remove(partition)
            self._queue.append(partition)
        return tuple(batches)

    async def _take(
        self, consumer: AIOKafkaConsumer, partition: int, turn: int, max_records: int
    ) -> PartitionBatch | None:
        tp = self._tp(partition)
        try:
            got = await consumer.getmany(tp, max_records=self._cursors.room(partition, max_records))
            records: Sequence[Record] = got.get(tp, ())
            # aiokafka steps over a batch that it finds too large, and tells by an error afterwards. An error that is
            # waiting means that the position without a record cannot be trusted.
            if not records and tp in consumer._fetcher._records:  # noqa: SLF001 - `getmany` does not say whether an error waits
                return None
            position = await consumer.position(tp)
            end = consumer.last_stable_offset(tp)
        except (ConsumerStoppedError, IllegalStateError, AssertionError) as error:
            if isinstance(error, ConsumerStoppedError):
                raise
            return None  # revoked meanwhile
        except NoOffsetForPartitionError:
            return None  # aiokafka looked for Kafka's offset before the store's was sought
        except Exception as error:  # noqa: BLE001 - decompression raises whatever its library raises
            self._stop_reading(consumer, partition, turn, error, max_records)
            return None
        if (lost := self._lost(consumer, partition, turn, records, position)) is not None:
            self._stop(consumer, partition, turn, lost)
            return None
        if records and self._came_over_another(consumer, partition):
            self._cursors.begin_again(partition, turn)
        return self._cursors.take(partition, turn, records, position, end)

    def _came_over_another(self, consumer: AIOKafkaConsumer, partition: int) -> bool:
        """Whether the connection is another than the one over which the partition began, to whichever leader.

        A restarted broker may have lost what it had not written, and have taken more since than was read from it: no error
        would ever say so. So the record judged last is looked for again.
        """
        connection = self._connection(consumer, partition)
        return connection is not None and connection is not self._begun_over.get(partition)

    def _connection(self, consumer: AIOKafkaConsumer, partition: int) -> object | None:
        client = consumer._client  # noqa: SLF001 - nothing public tells one connection from the next
        leader = client.cluster.leader_for_partition(self._tp(partition))
        return cast("object | None", client._conns.get((leader, ConnectionGroup.DEFAULT)))  # noqa: SLF001 - as above

    def _lost(
        self, consumer: AIOKafkaConsumer, partition: int, turn: int, records: Sequence[Record], position: int
    ) -> StopReason | None:
        """Why reading may not continue: the record judged last is gone, or another is in its place. It is looked for first."""
        if self._cursors.is_another(partition, turn, records, position):
            return StopReason.LOG_REWRITTEN
        is_lacking = not records and self._lacks_the_last(consumer, partition, turn)
        return StopReason.OFFSET_OUT_OF_RANGE if is_lacking else None

    def _lacks_the_last(self, consumer: AIOKafkaConsumer, partition: int, turn: int) -> bool:
        """Whether the log ends where the record judged last must be: no error says so, and nothing comes.

        A newly elected leader may not show its records for a moment. So the time is counted from its own first answer:
        while there is no leader nothing comes either, and that may last longer.
        """
        if not self._cursors.is_unproved(partition, turn):
            return False
        now_s = asyncio.get_running_loop().time()
        sought, polled = self._sought.get(partition), consumer.last_poll_timestamp(self._tp(partition))
        if sought is None or sought.turn != turn:
            self._sought[partition] = _Sought(turn, polled)
            return False
        if polled == sought.polled:
            return False
        answered_s = now_s if sought.answered_s is None else sought.answered_s
        self._sought[partition] = _Sought(turn, polled, answered_s)
        return now_s - answered_s >= _NOTHING_THERE_S

    def _stop_reading(
        self, consumer: AIOKafkaConsumer, partition: int, turn: int, error: Exception, within: int
    ) -> None:
        reason = _stop_reason(error)
        if reason is StopReason.CORRUPT_BATCH and self._cursors.suspect(partition, turn, within):
            return
        self._stop(consumer, partition, turn, reason, type(error).__name__)

    def _stop(
        self,
        consumer: AIOKafkaConsumer,
        partition: int,
        turn: int,
        reason: StopReason,
        error_type: str | None = None,
    ) -> None:
        retry_at_s = asyncio.get_running_loop().time() + self._plan.intervals.retry_stopped_s
        stop = self._cursors.stop(partition, turn, reason, retry_at_s)
        if stop is not None:
            consumer.pause(self._tp(partition))
            _log.error(
                reason.value, topic=self._plan.topic, partition=partition, offset=stop.offset, error_type=error_type
            )

    async def _wait_for_records(self, consumer: AIOKafkaConsumer) -> None:
        """Wait until something was fetched, without taking it: `getmany` would not say whose error it raises."""
        waiter = consumer._fetcher._create_fetch_waiter()  # noqa: SLF001 - no public way waits without taking
        if self._gathers:
            await asyncio.wait([waiter], timeout=2 * _GATHER_MS / 1000)
            if not waiter.done():
                self._gather(consumer, gathers=False)
        done, _ = await asyncio.wait([waiter], timeout=_IDLE_S)
        if done:
            waiter.result()
        else:
            waiter.cancel()

    def _gather(self, consumer: AIOKafkaConsumer, *, gathers: bool) -> None:
        """Have the broker gather records for the next fetches, or answer them with the first record that comes."""
        if gathers != self._gathers:
            self._gathers = gathers
            consumer._fetcher._fetch_max_wait_ms = _GATHER_MS if gathers else _FETCH_MAX_WAIT_MS  # noqa: SLF001 - aiokafka has no public way to change it while it runs
            consumer._fetcher._fetch_min_bytes = _GATHERED_BYTES if gathers else 1  # noqa: SLF001 - as above


async def look_for_rollback(plan: Plan) -> None:
    """Notice a store that was emptied or restored while nothing was being written to it."""
    cursors = plan.cursors
    believed = cursors.believed()
    if not believed:
        return
    try:
        standing = await asyncio.to_thread(plan.positions.standing, tuple(believed))
    except Exception as error:  # noqa: BLE001 - the next tick asks again
        _log.warning("store_unreachable", error_type=type(error).__name__)
        return
    stored = {partition: each.offset for partition, each in standing.items()}
    for partition in rolled_back(cursors, believed, stored):
        _log.warning(
            "store_rolled_back",
            partition=partition, offset=believed[partition][1], stored_offset=stored[partition],
        )  # fmt: skip


def _stop_reason(error: Exception) -> StopReason:
    """What stops the partition.

    Raises:
        KafkaError: `error` is not about one partition but about the whole consumer.
    """
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    if isinstance(error, KafkaError) and not isinstance(error, CorruptRecordException):
        raise error
    return StopReason.CORRUPT_BATCH


class BatchConsumerThread(AIOKafkaConsumerThread):
    """The thread that owns aiokafka's consumer."""

    reader: PartitionReader

    async def on_thread_stop(self) -> None:
        """Leave the group and close.

        While a broker is away, aiokafka lets the cancellation of its own fetch escape. Passed on, it would kill this
        thread before it reports its end, and the worker would wait for that for ever.
        """
        with suppress(asyncio.CancelledError):
            await super().on_thread_stop()

    def _create_worker_consumer(self, transport: Transport) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        # Faust ties this to its own exactly-once mode, which cannot cover Redis: without it, records of an aborted
        # transaction would be read. aiokafka takes both over when it starts.
        consumer._isolation_level = "read_committed"  # noqa: SLF001 - Faust makes the consumer, and has no setting for it
        consumer._fetch_max_wait_ms = _FETCH_MAX_WAIT_MS  # noqa: SLF001 - as above
        return consumer

    async def _fetch_records(
        self,
        consumer: AIOKafkaConsumer,
        active_partitions: set[TP],  # noqa: ARG002 - Cursors knows better which can be read
        timeout: float | None = None,  # noqa: ASYNC109, ARG002 - Faust's signature
        max_records: int | None = None,
    ) -> RecordMap:
        if not self.consumer.flow_active:
            return {}
        batches = await self.reader.read(consumer, max_records or 1)
        if not batches:
            return {}
        return {
            TP(cast("BatchConsumer", self.consumer).plan.topic, batches[0].partition): [Fetch(batches, time.time_ns())]
        }


class BatchConsumer(Consumer):
    """Faust's consumer, with one message a fetch and the store as the authority on offsets."""

    plan: Plan
    _thread: BatchConsumerThread
    _messages: "count[int]"

    def _new_consumer_thread(self) -> BatchConsumerThread:
        transport = cast("BatchTransport", self.transport)
        self.plan = transport.plan
        self._messages = count()
        thread = BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)
        thread.reader = PartitionReader(self.plan)
        return thread

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Have every assigned partition begin at the store's offset.

        Faust calls this after each assignment, and whenever it dropped what it had fetched. The seek itself happens with
        the next fetch; the empty answer leaves Faust's own bookkeeping of offsets empty.
        """
        self.plan.cursors.assign((tp.partition for tp in self.assignment()), self.loop.time())
        return {}

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Make all that is queued stale: the partitions may be another worker's by now."""
        self.plan.cursors.assign((), self.loop.time())
        await super().on_partitions_revoked(revoked)

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        fetch = cast("Fetch", record)
        # Faust drops a message whose offset is below the last one's, so messages are numbered, not placed.
        return ConsumerMessage(
            tp.topic, tp.partition, next(self._messages), 0.0, 0, None, None, cast("Any", fetch), None, 0, 0, tp,
            generation_id=self.app.consumer_generation_id,
        )  # fmt: skip

    def on_buffer_full(self, tp: TP) -> None:
        """Do nothing: Faust would take the partition out and sleep a second; its full queue holds us back already."""

    def highwater(self, tp: TP) -> int:
        """The partition's last known end; asking aiokafka would reach into its thread."""
        return next((s.end for s in self.plan.cursors.status() if s.partition == tp.partition and s.end is not None), 0)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Do nothing: Faust's watch knows only its own acknowledgements. `_watch_progress` is ours."""

    @Service.task
    async def _watch_store(self) -> None:
        """Notice a store that was emptied or restored while nothing was being written to it."""
        async for _ in self.itertimer(self.plan.intervals.rollback_check_s, name="rollback_check"):
            await look_for_rollback(self.plan)

    @Service.task
    async def _watch_progress(self) -> None:
        """Raise an alarm for a partition that has records waiting and does not advance."""
        limit_s = self.plan.intervals.stuck_after_s
        async for _ in self.itertimer(limit_s / 10, name="progress_check"):
            for status in self.plan.cursors.stuck(self.loop.time(), limit_s):
                _log.error("partition_stuck", partition=status.partition, offset=status.applied, end_offset=status.end)

    @Service.task
    async def _watch_partition_count(self) -> None:
        async for _ in self.itertimer(self.plan.intervals.partition_count_check_s, name="partition_count_check"):
            await self._thread.call_thread(self._thread.reader.check_partition_count, self._thread._ensure_consumer())  # noqa: SLF001 - Faust keeps the consumer to its thread

    @Service.task
    async def _publish_offsets(self) -> None:
        async for _ in self.itertimer(self.plan.intervals.offset_publication_s, name="offset_publication"):
            await self._publish_once(within_s=5.0)

    async def on_stop(self) -> None:
        """Leave lag displays with the last offset, then let Faust leave the group."""
        await self._publish_once(within_s=1.0)
        await super().on_stop()

    async def _publish_once(self, within_s: float) -> None:
        thread = self._thread
        if thread._consumer is None or thread.should_stop:  # noqa: SLF001 - as above
            return
        # Bounded a second time: a thread that has died answers nothing.
        with suppress(TimeoutError):
            call = thread.call_thread(thread.reader.publish_offsets, thread._consumer, within_s)  # noqa: SLF001 - as above
            await asyncio.wait_for(call, within_s + 1.0)


class BatchTransport(Transport):
    """What Faust builds from a broker URL with a scheme from `register`."""

    Consumer: ClassVar[type[BatchConsumer]] = BatchConsumer

    @property
    def plan(self) -> Plan:
        """The driver that was registered under this transport's scheme."""
        return _plans[self.url[0].scheme]
