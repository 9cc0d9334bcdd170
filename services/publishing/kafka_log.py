"""The log on Kafka: one idempotent producer for the process, kept off the event loop, bounded in time."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import zip_longest
from threading import Lock, Thread
from typing import Any, Final

from kafka import KafkaProducer
from kafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    NodeNotReadyError,
    RetriableError,
    TopicAuthorizationFailedError,
)

from schemas.framing import PLAIN, Framing
from services.health import Trouble, TroubleReason
from services.publishing.kafka_access import KafkaAccess
from services.publishing.kafka_clients import connect
from services.publishing.kept_admin import listens
from services.publishing.log import (
    LARGEST_RECORD_BYTES,
    Headers,
    LogOverloaded,
    LogRecord,
    LogUnavailable,
    PartitionCountDiffers,
    Position,
    RecordTooLarge,
    TopicRefused,
    record_bytes,
)
from services.publishing.partitioning import partition_of

# The bounds add up: a record waits at most SEND_WITHIN_MS to be handed to the producer, which gives up on it after
# DELIVERY_TIMEOUT_MS. Together they stay below the 8 seconds after which a caller is told that the write failed.
SEND_WITHIN_MS: Final = 2_500
DELIVERY_TIMEOUT_MS: Final = 5_000
ANSWER_WITHIN_MS: Final = SEND_WITHIN_MS + DELIVERY_TIMEOUT_MS
AT_MOST_UNDER_WAY: Final = 5_000
"""Records that may wait for their answer; a whole round of the relay has 2,000. Further ones are refused at once."""
AT_MOST_UNDER_WAY_BYTES: Final = 64 * 1024 * 1024
SILENT_AFTER_MS: Final = 3_000
"""A log, or a partition of it, that has not answered for so long is not given more by callers who can be told: they learn at
once what they would learn in seconds. After a failure one append at a time finds out whether it answers again."""
_BLOCK_MS: Final = 2_000
_REQUEST_TIMEOUT_MS: Final = 4_000
_METADATA_MAX_AGE_MS: Final = 30_000
"""How long another partition count at the broker can go unseen."""
_RECONNECT_MAX_MS: Final = 500
_TOLD_FOR_S: Final = 10.0
"""How long readiness tells of an append that failed, when none has come since to show that it works again."""


_Place = tuple[str, int]
"""A topic and a partition of it."""


class _Batch:
    """Records that were asked for together; their answers come one by one, from several threads.

    `places`: where each of them goes, None where nobody can tell; without them, nobody asks.
    """

    def __init__(self, records: Sequence[LogRecord], places: Sequence[_Place | None] = ()) -> None:
        self.records = records
        self.places = places
        self.bytes = sum(record_bytes(each.key, each.value, each.headers) for each in records)
        self.asked_at = time.monotonic()
        self.sent_at: float | None = None
        self.done: Future[Sequence[Position | Exception]] = Future()
        # From here on it cannot be cancelled: the records may be in flight when the caller is gone.
        self.done.set_running_or_notify_cancel()
        self._answers: dict[int, Position | Exception] = {}
        self._lock = Lock()

    def answer(self, number: int, answer: Position | Exception) -> None:
        """Keep a record's answer, the first one that it gets; the last record's ends the waiting."""
        with self._lock:
            if number in self._answers:
                return
            self._answers[number] = answer
            complete = len(self._answers) == len(self.records)
        if complete:
            self.done.set_result([self._answers[each] for each in range(len(self.records))])

    def give_up(self) -> None:
        """Answer for every record that has none."""
        for number in range(len(self.records)):
            self.answer(number, LogUnavailable("the log did not confirm the record in time"))

    def refuse_if_late(self) -> None:
        """What waited too long is not sent at all: its caller may have been told already that it failed."""
        if (time.monotonic() - self.asked_at) * 1000 > SEND_WITHIN_MS:
            raise LogOverloaded("the log did not take the record in time")


class _UnderWay:
    """What was asked for and has no answer yet, in that order. Used by the event loop alone."""

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[Sequence[Position | Exception]], _Batch] = {}
        self._at: dict[_Place, dict[_Batch, None]] = {}
        self._records = 0
        self._bytes = 0

    def add(self, task: asyncio.Task[Sequence[Position | Exception]], batch: _Batch) -> None:
        self._tasks[task] = batch
        for place in filter(None, batch.places):
            self._at.setdefault(place, {})[batch] = None
        self._records += len(batch.records)
        self._bytes += batch.bytes
        task.add_done_callback(self._remove)

    def _remove(self, task: asyncio.Task[Sequence[Position | Exception]]) -> None:
        batch = self._tasks.pop(task)
        for place in set(filter(None, batch.places)):
            del self._at[place][batch]
            if not self._at[place]:
                del self._at[place]
        self._records -= len(batch.records)
        self._bytes -= batch.bytes

    def is_full(self, more: Sequence[LogRecord], more_bytes: int) -> bool:
        """Whether so much more is too much. Something is always taken on."""
        records, count = self._records + len(more), self._bytes + more_bytes
        return bool(self._tasks) and (records > AT_MOST_UNDER_WAY or count > AT_MOST_UNDER_WAY_BYTES)

    def longest_wait_ms(self, sent_after: float) -> float | None:
        """How long the oldest that was sent since then waits for the log to confirm it, None where nothing is under way.

        What this process has yet to send, or to hand to its caller, says nothing against the log.
        """
        return _longest_wait_ms(self._tasks.values(), sent_after)

    def longest_wait_at_ms(self, place: _Place) -> float | None:
        """The same of one partition, whenever it was sent."""
        return _longest_wait_ms(self._at.get(place, ()), -math.inf)


def _longest_wait_ms(oldest_first: Collection[_Batch], sent_after: float) -> float | None:
    if not oldest_first:
        return None
    waiting = (each.sent_at for each in oldest_first if each.sent_at and not each.done.done())
    sent_at = next((each for each in waiting if each > sent_after), None)
    return 0.0 if sent_at is None else (time.monotonic() - sent_at) * 1000


class _Confirmed:
    """Who confirmed last what it was given: the log as a whole, and each partition. Used by the event loop alone.

    The log is silent where none of its partitions has confirmed anything since what failed was asked for. A partition
    without a leader is silent by itself, and the appends to all others come through beside it.
    """

    def __init__(self) -> None:
        self.at = -math.inf
        self.silent: set[_Place] = set()
        self._failed_asked_at = -math.inf

    @property
    def is_log_silent(self) -> bool:
        """Whether the last that failed was asked for when the log had confirmed everything that it ever would."""
        return self._failed_asked_at > self.at

    def note(self, batch: _Batch, answers: Sequence[Position | Exception]) -> None:
        """It was answered like this."""
        for place, answer in zip_longest(batch.places, answers):
            if isinstance(answer, Position):
                self.at = time.monotonic()
                self.silent.discard(place)
            elif _is_unconfirmed(answer):
                self._failed_asked_at = max(self._failed_asked_at, batch.asked_at)
                if place is not None:
                    self.silent.add(place)


def _is_unconfirmed(answer: Position | Exception) -> bool:
    return isinstance(answer, LogUnavailable) and not isinstance(answer, LogOverloaded)


class KafkaLog:
    """Appends with acks from all in-sync replicas. Make one for a process; it connects when first needed."""

    def __init__(
        self,
        kafka: KafkaAccess,
        partitions: Callable[[str], int],
        *,
        client_id: str = "medchain",
        linger_ms: int = 0,
        framing: Framing = PLAIN,
        tells_callers: bool = False,
    ) -> None:
        """`partitions`: the declared number for a topic; raises if undeclared.

        `linger_ms`: how long a record waits for company; for a writer of many, to whom it is worth the delay.
        `framing`: how records are framed on the topics. `tells_callers`: for a writer on behalf of callers, who are
        told at once while the log is silent; one that reads from a topic rather waits.
        """
        self._tells_callers = tells_callers
        self._kafka = kafka
        self._partitions = partitions
        self._client_id = client_id
        self._linger_ms = linger_ms
        self._framing = framing
        self._producer: Any = None
        self._discarded: Any = None
        self._under_way = _UnderWay()
        self._confirmed = _Confirmed()
        self._unconfirmed_at: float | None = None
        self._missing: set[str] = set()
        # One thread: records leave in the order in which they were asked for, and a broker that is away blocks only it.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kafka-log")

    async def start(self, topics: Iterable[str]) -> None:
        """Connect and compare these topics with what is declared, so that the first append is not the slow one.

        Raises LogUnavailable when the broker or a topic is not there, PartitionCountDiffers when it is another.
        """
        await asyncio.get_running_loop().run_in_executor(self._thread, self._warm_up, tuple(topics))

    async def append(self, topic: str, key: bytes, value: bytes, headers: Headers = ()) -> Position:
        """Append, and return when it is safe; see `Log.append`. Takes at most 7.5 seconds."""
        (answer,) = await self.append_many([LogRecord(topic, key, value, headers)])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def append_many(self, records: Sequence[LogRecord]) -> Sequence[Position | Exception]:
        """Append these, and return an answer for each; see `Log.append_many`. Takes at most 7.5 seconds."""
        if not records:
            return ()
        batch = _Batch(records, [self._place_of(each) for each in records] if self._tells_callers else ())
        refusal = self._refusal(records, batch.bytes) or self._refusal_there(batch)
        if refusal is not None:
            return [refusal for _ in records]
        # A separate task: a record in flight counts until it is answered, even if its caller is gone.
        task = asyncio.create_task(self._answered(batch), name="append")
        self._under_way.add(task, batch)
        return await asyncio.shield(task)

    async def check(self) -> Sequence[Trouble]:
        """Whether it takes appends, by how the last ones went (see `services.health`)."""
        refusal = self._refusal()
        if refusal is not None:
            return (Trouble(TroubleReason.LOG_OVERLOADED, f"Appends are turned away: {refusal}."),)
        unconfirmed_s = None if self._unconfirmed_at is None else time.monotonic() - self._unconfirmed_at
        if unconfirmed_s is None or unconfirmed_s > _TOLD_FOR_S:
            return ()
        text = f"The last append, {unconfirmed_s:.0f} s ago, was not confirmed; its sender was told to repeat it."
        return (Trouble(TroubleReason.LOG_UNCONFIRMED, text),)

    def _refusal(self, more: Sequence[LogRecord] = (), more_bytes: int = 0) -> LogOverloaded | None:
        """Why so much more is not taken on now, None if it is."""
        if self._under_way.is_full(more, more_bytes):
            return LogOverloaded("too much waits for the log already")
        waited_ms = self._under_way.longest_wait_ms(sent_after=self._confirmed.at)
        if not self._tells_callers or waited_ms is None:
            return None
        if waited_ms > SILENT_AFTER_MS or self._confirmed.is_log_silent:
            return LogOverloaded("the log does not confirm what it was given before")
        return None

    def _refusal_there(self, batch: _Batch) -> LogOverloaded | None:
        """Why a batch is not taken on now for where it goes to, None if it is."""
        for place in filter(None, batch.places):
            waited_ms = self._under_way.longest_wait_at_ms(place)
            if waited_ms is not None and (waited_ms > SILENT_AFTER_MS or place in self._confirmed.silent):
                return LogOverloaded("a partition of the log does not confirm what it was given before")
        return None

    def _place_of(self, record: LogRecord) -> _Place | None:
        try:
            return record.topic, partition_of(record.key, self._partitions(record.topic))
        except Exception:  # noqa: BLE001 - it is told by the answer, when its turn has come
            return None

    async def _answered(self, batch: _Batch) -> Sequence[Position | Exception]:
        try:
            self._thread.submit(self._send_all, batch)
        except RuntimeError:
            return [LogUnavailable("the log was closed") for _ in batch.records]
        answered = asyncio.wrap_future(batch.done)
        try:
            answers = await asyncio.wait_for(asyncio.shield(answered), ANSWER_WITHIN_MS / 1000)
        except TimeoutError:
            # The producer should have given up by itself. One whose broker fell silent without closing the connection
            # has been seen to wait for ever, with all that came after: it goes, and what it still held with it.
            self._discard(self._producer)
            batch.give_up()
            answers = await answered
        if any(isinstance(each, TopicRefused) for each in answers):
            # Only now, for what is on its way to other topics may come through: where it was told with the topics of the cluster,
            # the refusal has not ended the producer.
            self._discard(self._producer)
        self._confirmed.note(batch, answers)
        self._unconfirmed_at = time.monotonic() if any(map(_is_unconfirmed, answers)) else None
        return answers

    async def close(self) -> None:
        """Deliver what was accepted (at most the delivery timeout), then disconnect."""
        await asyncio.get_running_loop().run_in_executor(None, self._close)

    # In the log's own thread.

    def _warm_up(self, topics: tuple[str, ...]) -> None:
        self._missing.clear()  # they are waited for, as none that is asked for later
        try:
            for topic in topics:
                self._check_partitions(topic)
        except KafkaError as error:
            raise LogUnavailable(f"the log cannot be reached ({type(error).__name__})") from error

    def _send_all(self, batch: _Batch) -> None:
        batch.sent_at = time.monotonic()
        checked: dict[str, int] = {}
        unavailable: dict[str, LogUnavailable] = {}
        for number, record in enumerate(batch.records):
            if record.topic in unavailable:
                batch.answer(number, unavailable[record.topic])
                continue
            try:
                sent = self._send(record, batch, checked)
            except Exception as error:  # noqa: BLE001 - whatever it was, the caller is told
                answer = self._failed(record.topic, self._producer, error) if isinstance(error, KafkaError) else error
                batch.answer(number, answer)
                if isinstance(answer, LogUnavailable):
                    unavailable[record.topic] = answer
            else:
                sent.add_callback(partial(_delivered, batch, number))
                sent.add_errback(partial(self._not_delivered, batch, number, self._producer))

    def _send(self, record: LogRecord, batch: _Batch, checked: dict[str, int]) -> Any:
        """Hand a record to the producer; returns its future. `checked`: the topics of the batch that are as declared."""
        topic, key, value, headers = record
        value = self._framing.to_topic(value)
        if record_bytes(key, value, headers) > LARGEST_RECORD_BYTES:
            raise RecordTooLarge(f"a record for {topic} is larger than {LARGEST_RECORD_BYTES} bytes")
        declared = checked.get(topic)
        if declared is None:
            batch.refuse_if_late()
            declared = checked[topic] = self._check_partitions(topic)
        batch.refuse_if_late()
        return self._producer.send(
            topic, value=value, key=key, headers=list(headers), partition=partition_of(key, declared)
        )

    def _check_partitions(self, topic: str) -> int:
        """The declared number of partitions, once it is known that the broker has as many."""
        declared = self._partitions(topic)
        if self._producer is None:
            self._producer = self._connect()
            self._missing.clear()
        found = len(self._partitions_there(topic))
        if found != declared:
            raise PartitionCountDiffers(topic, declared, found)
        return declared

    def _partitions_there(self, topic: str) -> Collection[int]:
        """Those that the broker has of a topic. Raises KafkaError.

        One that it does not know is waited for once, and from then on looked for in passing: whatever is asked for waits
        behind it, until it is too old to be sent.
        """
        known = self._producer._metadata  # noqa: SLF001 - the library waits for whatever it is asked
        if topic in self._missing and topic not in known.topics():
            known.request_update()
            raise KafkaTimeoutError("the broker does not know the topic")
        asked_ms = time.monotonic() * 1000
        try:
            found: Collection[int] = self._producer.partitions_for(topic)
        except KafkaTimeoutError:
            if known._last_successful_refresh_ms > asked_ms:  # noqa: SLF001 - it answered, and not of this topic
                self._missing.add(topic)
            raise
        self._missing.discard(topic)
        return found

    def _connect(self) -> Any:
        if not any(listens(address, _BLOCK_MS / 1000) for address in self._kafka.addresses):
            # The library would try for two seconds, and leave every refused socket open behind it.
            raise NodeNotReadyError("no broker answers")
        return connect(
            KafkaProducer,
            self._kafka,
            client_id=self._client_id,
            enable_idempotence=True,
            acks="all",
            allow_auto_create_topics=False,
            delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
            max_block_ms=_BLOCK_MS,
            bootstrap_timeout_ms=_BLOCK_MS,
            metadata_max_age_ms=_METADATA_MAX_AGE_MS,
            linger_ms=self._linger_ms,
            reconnect_backoff_max_ms=_RECONNECT_MAX_MS,
            # Nobody reads them, and they take a tenth of what a record costs here.
            metrics_enabled=False,
        )

    def _close(self) -> None:
        self._thread.shutdown(wait=True)
        if self._producer is not None:
            self._producer.close(timeout=DELIVERY_TIMEOUT_MS / 1000)

    # In the producer's thread, or the log's own.

    def _not_delivered(self, batch: _Batch, number: int, producer: Any, error: Exception) -> None:
        if len(batch.records) > 1 and isinstance(error, KafkaTimeoutError):
            # It was given up. What waits behind it was made a moment later, would be sent if the broker came back in that
            # moment, and lie before it for good: at once, in this thread, so that nothing more is sent.
            producer._sender.force_close()  # noqa: SLF001 - the library has no other way
            self._discard(producer)
        batch.answer(number, self._failed(batch.records[number].topic, producer, error))

    def _failed(self, topic: str, producer: Any, error: Exception) -> Exception:
        """The error for the caller, from a producer's error about a record for a topic."""
        if isinstance(error, MessageSizeTooLargeError):
            return RecordTooLarge("the broker takes no record of this size")
        # The library ends a producer for one topic's refusal, and all that was on its way to others fails with that error.
        if isinstance(error, TopicAuthorizationFailedError) and error.args in ((topic,), ({topic},)):
            return _caused(TopicRefused, error)
        if not isinstance(error, RetriableError) or _looks_no_more(producer):
            # The producer may have given up for good (its identity is fenced, its rights are gone): start a new one.
            self._discard(producer)
        return _caused(LogUnavailable, error)

    def _discard(self, spent: Any) -> None:
        # Many records tell of the same end, and the first of them is enough.
        if spent is None or spent is self._discarded:
            return
        self._discarded = spent

        def replace() -> None:
            # Two threads may have reported it nevertheless: the next producer must not be closed with this one.
            if spent is self._producer:
                self._producer = None
                # In a separate thread: a hanging producer must not delay the next one.
                Thread(target=_abandon, args=(spent,), name="kafka-log-spent", daemon=True).start()

        try:
            self._thread.submit(replace)
        except RuntimeError:
            return  # closing anyway


def _caused(kind: type[LogUnavailable], error: Exception) -> LogUnavailable:
    failed = kind(f"the log did not confirm the record ({type(error).__name__})")
    failed.__cause__ = error
    return failed


def _looks_no_more(producer: Any) -> bool:
    """Whether a producer has heard nothing of the cluster for longer than it asks by itself, and an answer takes.

    Where a connection ends at the wrong moment its library stops to look for metadata, for good: a topic that it does not
    know, and a partition whose leader has moved, would time out for ever. A broker that is away for so long looks the
    same, and there a new producer does no harm.
    """
    if producer is None:
        return False
    heard_ms: float = producer._metadata._last_successful_refresh_ms  # noqa: SLF001 - the library tells it no other way
    return time.monotonic() * 1000 - heard_ms > _METADATA_MAX_AGE_MS + _REQUEST_TIMEOUT_MS


def _abandon(spent: Any) -> None:
    """Close a producer with what it still holds."""
    try:
        spent.close(timeout=0)
    except KafkaError:
        # It waits first for what a silent broker never confirms, and leaves its sender running when it has waited.
        spent._sender.force_close()  # noqa: SLF001 - the library has no other way


def _delivered(batch: _Batch, number: int, at: Any) -> None:
    batch.answer(number, Position(at.partition, at.offset, at.timestamp))
