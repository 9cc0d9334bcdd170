"""Reads the submissions topics of all systems: in each sender's order, committed only when the answer is safe.

At most one record of an ordering key is under way at a time; other keys go on beside it. What is committed was
answered: its events are in the log, or the receipt of its rejection is. Everything else is read again. The process skips
what it already took; otherwise each retry of a held record would append everything behind it again.
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, Final, NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError
from kafka.structs import OffsetAndMetadata

from services.canonical_log import get_logger
from services.clock import Clock
from services.health import Trouble, TroubleReason
from services.publishing.kafka_access import KafkaAccess
from services.publishing.kafka_clients import connect
from services.publishing.log import LogUnavailable
from services.submissions.inbox_metrics import InboxMetrics
from services.submissions.reception import Received
from services.submissions.unreadable import UnreadableBatch, read_anew, tolerate
from services.telemetry import new_registry
from services.telemetry.traces import well_formed
from services.topics.registry import PARTY

Receive = Callable[[Received], Coroutine[Any, Any, None]]
Place = tuple[str, int]
"""A topic and a partition of it."""

RECORDS_AT_ONCE: Final = 200
_POLL_MS: Final = 1_000
"""How long a poll waits for the first record, and the broker with the answer to a fetch: one that comes is handed on at once.
Twice as often cost half as much again, and an inbox that is told to stop, or to share its partitions, waits for this."""
_JOIN_MS: Final = 8_000
"""How long each step of joining the group may take: to join, and to learn where to go on. It takes several requests, with
the metadata of all topics among them, and one that ends before them begins anew: on a busy machine half a second never
suffices. A poll of this length would come to the same, but return after all of it where nothing waits."""
_RETRY_AFTER_S: Final = 1.0
_NEW_TOPICS_SEEN_WITHIN_MS: Final = 5_000
_SESSION_MS: Final = 10_000
_RETRY_UNREADABLE_S: Final = 30.0
"""As often as a processor tries a stopped partition again: a broker that was mended needs no restart of ours."""
BEHIND_MS: Final = 24 * 60 * 60 * 1000
"""*Policy*: submissions are kept for 7 days; a day behind is an alarm, with six days left to do something about it."""


class Taken(NamedTuple):
    """How far a batch has come: the next offset of each partition, and whether all of it was taken."""

    next_offsets: Mapping[Place, int]
    is_complete: bool


class TakenBehind:
    """What was taken behind a held record. It is read again with that record each time, but not taken again.

    It never covers more than one round's read of a partition, since every round begins at the held record. A record is
    identified by content and time too: a topic deleted and created again gives the same offsets to other records.
    """

    def __init__(self) -> None:
        self._marks: dict[Place, dict[int, int]] = {}

    def __contains__(self, received: Received) -> bool:
        mark = self._marks.get(_place_of(received), {}).get(received.offset)
        return mark is not None and mark == hash(received)

    def __len__(self) -> int:
        return sum(len(marks) for marks in self._marks.values())

    def add(self, received: Received) -> None:
        """It was taken."""
        self._marks.setdefault(_place_of(received), {})[received.offset] = hash(received)

    def forget_before(self, next_offsets: Mapping[Place, int]) -> None:
        """Each of these partitions continues at this offset: everything before is committed, and not read again."""
        for place, next_offset in next_offsets.items():
            marks = self._marks.pop(place, {})
            behind = {offset: mark for offset, mark in marks.items() if offset >= next_offset}
            if behind:
                self._marks[place] = behind

    def forget_others(self, places: Collection[Place]) -> None:
        """These partitions are ours now, and no others."""
        self._marks = {place: marks for place, marks in self._marks.items() if place in places}


async def take(batch: Sequence[Received], receive: Receive, behind: TakenBehind | None = None) -> Taken:
    """Receive a batch: keys beside each other, the records of a key one after the other, up to its first failure.

    behind: what was taken already, from one batch to the next.
    """
    known = TakenBehind() if behind is None else behind

    async def receive_once(received: Received) -> None:
        await receive(received)
        known.add(received)

    queues: dict[tuple[Place, bytes | None], list[Received]] = {}
    for received in batch:
        if received not in known:
            queues.setdefault((_place_of(received), received.key), []).append(received)
    unfinished = await asyncio.gather(*(_take_queue(queue, receive_once) for queue in queues.values()))
    next_offsets: dict[Place, int] = {}
    for received in batch:
        next_offsets[_place_of(received)] = received.offset + 1
    for left in unfinished:
        if left is not None:
            next_offsets[_place_of(left)] = min(next_offsets[_place_of(left)], left.offset)
    known.forget_before(next_offsets)
    return Taken(next_offsets, is_complete=not any(unfinished))


def _place_of(received: Received) -> Place:
    return received.topic, received.partition


async def _take_queue(queue: Sequence[Received], receive: Receive) -> Received | None:
    """The first record that could not be received, None if all could."""
    for received in queue:
        try:
            await receive(received)
        except LogUnavailable:
            return received
        except Exception as error:  # noqa: BLE001 - one submission must end nobody's inbox: it is tried again, and its key waits
            place = {"topic": received.topic, "partition": received.partition, "offset": received.offset}
            get_logger().error("submission_not_taken", **place, error_type=type(error).__name__)
            return received
    return None


def go_on_at(consumer: Any, next_offsets: Mapping[Place, int]) -> Mapping[TopicPartition, int]:
    """Seek each of these partitions; returns where those go on that are still ours, which is what may be committed.

    Each by itself: one that is another's by now must not keep the others where they are, past a record that is held back.
    """
    sought: dict[TopicPartition, int] = {}
    for place, offset in next_offsets.items():
        partition = TopicPartition(*place)
        try:
            consumer.seek(partition, offset)
        except (KafkaError, AssertionError, ValueError) as error:
            _tell_not_committed(error)
        else:
            sought[partition] = offset
    return sought


def _tell_not_committed(error: Exception) -> None:
    get_logger().warning("inbox_commit_failed", error_type=type(error).__name__)


class _Stopped(NamedTuple):
    """A partition that cannot be read on from this offset, and when that is tried again; None while it is tried."""

    offset: int
    retry_at_ms: int | None


class Inbox:
    """Consumes the topics `<kind>.<system>` of every system, including those created later."""

    def __init__(
        self,
        *,
        kafka: KafkaAccess,
        kind: str,
        group: str,
        receive: Receive,
        clock: Clock,
        metrics: InboxMetrics | None = None,
        retry_unreadable_s: float = _RETRY_UNREADABLE_S,
    ) -> None:
        self._metrics = metrics or InboxMetrics(new_registry())
        self._retry_unreadable_ms = round(retry_unreadable_s * 1000)
        self._receive = receive
        self._behind = TakenBehind()
        self._clock = clock
        self._stopping = asyncio.Event()
        self._kafka = kafka
        self._kind = kind
        self._group = group
        self._consumer: Any = None
        self._trouble: Trouble | None = Trouble(TroubleReason.NOT_STARTED, "The inbox has not reached the log yet.")
        self._lost: Trouble | None = None
        self._strays: frozenset[str] = frozenset()
        self._stopped: dict[TopicPartition, _Stopped] = {}

    def stop(self) -> None:
        """Finish what is under way, then leave."""
        self._stopping.set()

    async def check(self) -> Sequence[Trouble]:
        """Whether the last round came through, and what this process cannot mend (see `services.health`)."""
        strays = _stray(len(self._strays)) if self._strays else None
        stopped = [_unreadable(place, each.offset) for place, each in tuple(self._stopped.items())]
        return (*(each for each in (self._trouble, self._lost, strays) if each is not None), *stopped)

    async def run(self) -> None:
        """Take batch after batch until told to stop."""
        try:
            while not self._stopping.is_set():
                await self._take_one_batch()
        finally:
            if self._consumer is not None:
                await asyncio.to_thread(self._consumer.close)

    def _connected(self) -> Any:
        """The consumer, made when the broker is first there. Raises KafkaError."""
        if self._consumer is None:
            self._consumer = self._connect()
        return self._consumer

    def _connect(self) -> Any:
        consumer: Any = connect(
            KafkaConsumer,
            self._kafka,
            group_id=self._group,
            client_id=self._group,
            enable_auto_commit=False,
            # Where to go on is ours to say: the library would step over what was deleted without a word.
            auto_offset_reset="none",
            isolation_level="read_committed",
            allow_auto_create_topics=False,
            max_poll_records=RECORDS_AT_ONCE,
            fetch_max_wait_ms=_POLL_MS,
            metadata_max_age_ms=_NEW_TOPICS_SEEN_WITHIN_MS,
            session_timeout_ms=_SESSION_MS,
        )
        tolerate(consumer)
        consumer.subscribe(pattern=rf"^{re.escape(self._kind)}\.{PARTY.pattern}$")
        return consumer

    async def _take_one_batch(self) -> None:
        try:
            polled = await asyncio.to_thread(self._poll)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
            get_logger().warning("inbox_waits", error_type=type(error).__name__)
            self._trouble = _failed(f"the log could not be read ({type(error).__name__})")
            self._metrics.failed()
            await self._pause()
            return
        batch = [_received(record) for records in polled.values() for record in records]
        if not batch:
            self._trouble = None
            self._metrics.nothing_waits()
            return
        self._tell_if_behind(batch)
        with self._metrics.taking(len(batch)):
            taken = await take(batch, self._receive, self._behind)
        await asyncio.to_thread(self._commit, taken)
        get_logger().info("submissions_taken", records=len(batch))
        self._trouble = None if taken.is_complete else _failed("not all that was submitted could be taken")
        if not taken.is_complete:
            self._metrics.failed()
            get_logger().warning("inbox_waits", reason="not_taken")
            await self._pause()

    def _poll(self) -> Mapping[TopicPartition, Sequence[Any]]:
        consumer = self._connected()
        self._look_for_strays(consumer)
        try:
            # Before the poll, never after: what is raised there would lose what was polled.
            self._try_stopped_again(consumer)
            return self._polled(consumer)
        except UnreadableBatch as unreadable:
            self._stop_reading(consumer, unreadable)
        except NoOffsetForPartitionError as error:
            # Nothing of these was ever committed.
            consumer.seek_to_beginning(*error.args[0])
        except OffsetOutOfRangeError as error:
            for place, offset in error.args[0].items():
                self._go_on_from_the_start(consumer, place, offset)
        return {}

    def _stop_reading(self, consumer: Any, unreadable: UnreadableBatch) -> None:
        """Nothing may be skipped, and what lies behind it may be of the same keys; the other partitions are read on."""
        place, offset = unreadable.place, unreadable.offset
        told = {"topic": place.topic, "partition": place.partition, "offset": offset}
        get_logger().error("submissions_unreadable", **told, error_type=unreadable.error_type)
        self._stopped[place] = _Stopped(offset, self._clock.monotonic_ms() + self._retry_unreadable_ms)
        consumer.pause(place)

    def _try_stopped_again(self, consumer: Any) -> None:
        """Have what is stopped read once more when its time has come, and forget what is stopped no longer."""
        assigned = consumer.assignment()
        for place, stopped in tuple(self._stopped.items()):
            if place not in assigned:
                del self._stopped[place]
            elif consumer.position(place, timeout_ms=_JOIN_MS) != stopped.offset:
                # It was read on, or is to be read from elsewhere.
                del self._stopped[place]
                read_anew(consumer, place)
            elif stopped.retry_at_ms is not None and self._clock.monotonic_ms() >= stopped.retry_at_ms:
                self._stopped[place] = stopped._replace(retry_at_ms=None)
                read_anew(consumer, place)

    def _go_on_from_the_start(self, consumer: Any, place: TopicPartition, offset: int) -> None:
        """What was to be read next is not there any more: say what was lost, and go on with the oldest that there is."""
        start = consumer.beginning_offsets([place])[place]
        consumer.seek(place, start)
        told = {"topic": place.topic, "partition": place.partition, "offset": offset, "next_offset": start}
        if start > offset:
            get_logger().error("submissions_lost", **told, count=start - offset)
            self._metrics.lost(start - offset)
            self._lost = _lost(place)
        else:
            # The topic was created again, or lost its end: its records are read again, and known ones are duplicates.
            get_logger().warning("inbox_begins_anew", **told)

    def _look_for_strays(self, consumer: Any) -> None:
        """Tell once of each topic that could be meant as one of submissions, and that no system can have."""
        stem = f"{self._kind}."
        there = consumer._cluster.topics()  # noqa: SLF001 - what is public asks the broker each time
        named = (each.removeprefix(stem) for each in there if each.startswith(stem))
        strays = frozenset(each for each in named if not PARTY.fullmatch(each))
        for _ in strays - self._strays:
            get_logger().error("topic_of_no_system", kind=self._kind.replace("-", "_"))
        self._strays = strays

    def _polled(self, consumer: Any) -> Mapping[TopicPartition, Sequence[Any]]:
        # It would also tell of a lost place in the group with the next commit, but there is none while nothing comes.
        coordinator = consumer._coordinator  # noqa: SLF001 - nothing public says it, or ends when it has joined
        if coordinator.need_rejoin() and coordinator.poll(timeout_ms=_JOIN_MS):
            for place in tuple(consumer.assignment())[:1]:
                # Of one alone: the library asks for where all of them go on.
                consumer.position(place, timeout_ms=_JOIN_MS)
        polled: Mapping[TopicPartition, Sequence[Any]] = consumer.poll(timeout_ms=_POLL_MS)
        self._behind.forget_others({(place.topic, place.partition) for place in consumer.assignment()})
        return polled

    def _commit(self, taken: Taken) -> None:
        """Commit, and go back to what could not be taken. A lost commit only means that it is read again."""
        offsets = go_on_at(self._consumer, taken.next_offsets)
        try:
            self._consumer.commit({place: OffsetAndMetadata(offset, "", -1) for place, offset in offsets.items()})
        except (KafkaError, AssertionError, ValueError) as error:
            # A partition given to another inbox since: that one reads it again, which is harmless.
            _tell_not_committed(error)

    def _tell_if_behind(self, batch: Sequence[Received]) -> None:
        age_ms = self._clock.now_ms() - min(received.sent_at_ms for received in batch)
        self._metrics.behind(age_ms / 1000)
        if age_ms > BEHIND_MS:
            get_logger().error("inbox_behind", age_ms=age_ms)

    async def _pause(self) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), _RETRY_AFTER_S)
        except TimeoutError:
            return


async def run_until_signalled(inbox: Inbox) -> None:
    """Run until SIGTERM or SIGINT, then leave in order."""
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, inbox.stop)
    await inbox.run()


def _failed(why: str) -> Trouble:
    return Trouble(TroubleReason.ROUND_FAILED, f"The last round failed: {why}. Submissions wait in order.")


def _lost(place: TopicPartition) -> Trouble:
    text = (
        f"Submissions were deleted before they were read, last in partition {place.partition} of {place.topic}: what of them "
        "is not in the log must be sent again."
    )
    return Trouble(TroubleReason.SUBMISSIONS_LOST, text, stops=False)


def _unreadable(place: TopicPartition, offset: int) -> Trouble:
    text = f"Partition {place.partition} of {place.topic} cannot be read on from offset {offset}. The others are read."
    return Trouble(TroubleReason.SUBMISSIONS_UNREADABLE, text, stops=False)


def _stray(topics: int) -> Trouble:
    text = f"Topics that are named like those of submissions, and that no system can have: {topics}. They are not read."
    return Trouble(TroubleReason.TOPIC_UNDECLARED, text, stops=False)


def _received(record: Any) -> Received:
    headers = dict(record.headers or ())
    traceparent = headers.get("traceparent")
    return Received(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=record.key,
        value=record.value,
        sent_at_ms=record.timestamp,
        traceparent=None if traceparent is None else well_formed(traceparent.decode("ascii", "replace")),
    )
