"""The log on Kafka: one idempotent producer for the process, kept off the event loop, bounded in time."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError, NodeNotReadyError, RetriableError

from services.publishing.log import (
    LARGEST_RECORD_BYTES,
    Headers,
    LogUnavailable,
    PartitionCountDiffers,
    Position,
    RecordTooLarge,
    record_bytes,
)
from services.publishing.partitioning import partition_of

# The bounds add up: a record waits at most SEND_WITHIN_MS to be handed to the producer, which gives up on it after
# DELIVERY_TIMEOUT_MS. Together they stay below the 8 seconds after which a caller is told that the write failed.
SEND_WITHIN_MS: Final = 2_500
DELIVERY_TIMEOUT_MS: Final = 5_000
_BLOCK_MS: Final = 2_000
_REQUEST_TIMEOUT_MS: Final = 4_000
_METADATA_MAX_AGE_MS: Final = 30_000
"""How long another partition count at the broker can go unseen."""
_RECONNECT_MAX_MS: Final = 500


@dataclass(frozen=True, slots=True)
class _Record:
    topic: str
    key: bytes
    value: bytes
    headers: Headers
    asked_at: float


class KafkaLog:
    """Appends with acks from all in-sync replicas. Make one for a process; it connects when first needed."""

    def __init__(self, bootstrap: str, partitions: Callable[[str], int], *, client_id: str = "medchain") -> None:
        """`bootstrap`: host:port[,host:port]. `partitions`: the declared number for a topic; raises if undeclared."""
        self._bootstrap = bootstrap.split(",")
        self._partitions = partitions
        self._client_id = client_id
        self._producer: Any = None
        # One thread: records leave in the order in which they were asked for, and a broker that is away blocks only it.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kafka-log")

    async def start(self, topics: Iterable[str]) -> None:
        """Connect and compare these topics with what is declared, so that the first append is not the slow one.

        Raises LogUnavailable when the broker or a topic is not there, PartitionCountDiffers when it is another.
        """
        await asyncio.get_running_loop().run_in_executor(self._thread, self._warm_up, tuple(topics))

    async def append(self, topic: str, key: bytes, value: bytes, headers: Headers = ()) -> Position:
        """Append, and return when it is safe; see `Log.append`. Takes at most 7.5 seconds."""
        self._partitions(topic)
        if record_bytes(key, value, headers) > LARGEST_RECORD_BYTES:
            raise RecordTooLarge(f"a record for {topic} is larger than {LARGEST_RECORD_BYTES} bytes")
        done: Future[Position] = Future()
        # From here on nobody can cancel it: the record may be on its way when the caller has gone.
        done.set_running_or_notify_cancel()
        record = _Record(topic, key, value, headers, time.monotonic())
        try:
            self._thread.submit(self._send, record, done)
        except RuntimeError as error:
            raise LogUnavailable("the log was closed") from error
        return await asyncio.wrap_future(done)

    async def close(self) -> None:
        """Deliver what was accepted (at most the delivery timeout), then disconnect."""
        await asyncio.get_running_loop().run_in_executor(None, self._close)

    # In the log's own thread.

    def _warm_up(self, topics: tuple[str, ...]) -> None:
        try:
            for topic in topics:
                self._check_partitions(topic)
        except KafkaError as error:
            raise LogUnavailable(f"the log cannot be reached ({type(error).__name__})") from error

    def _send(self, record: _Record, done: Future[Position]) -> None:
        try:
            _refuse_if_late(record)
            declared = self._check_partitions(record.topic)
            _refuse_if_late(record)
            sent = self._producer.send(
                record.topic,
                value=record.value,
                key=record.key,
                headers=list(record.headers),
                partition=partition_of(record.key, declared),
            )
        except KafkaError as error:
            self._fail(done, error)
        except Exception as error:  # noqa: BLE001 - whatever it was, the caller is told
            done.set_exception(error)
        else:
            sent.add_callback(lambda at: done.set_result(Position(at.partition, at.offset, at.timestamp)))
            sent.add_errback(lambda error: self._fail(done, error))

    def _check_partitions(self, topic: str) -> int:
        """The declared number of partitions, once it is known that the broker has as many."""
        if self._producer is None:
            self._producer = self._connect()
        declared = self._partitions(topic)
        found = len(self._producer.partitions_for(topic))
        if found != declared:
            raise PartitionCountDiffers(topic, declared, found)
        return declared

    def _connect(self) -> Any:
        if not any(_answers(address) for address in self._bootstrap):
            # The library would try for two seconds, and leave every refused socket open behind it.
            raise NodeNotReadyError("no broker answers")
        return KafkaProducer(
            bootstrap_servers=self._bootstrap,
            client_id=self._client_id,
            enable_idempotence=True,
            acks="all",
            allow_auto_create_topics=False,
            delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
            max_block_ms=_BLOCK_MS,
            bootstrap_timeout_ms=_BLOCK_MS,
            metadata_max_age_ms=_METADATA_MAX_AGE_MS,
            reconnect_backoff_max_ms=_RECONNECT_MAX_MS,
        )

    def _close(self) -> None:
        self._thread.shutdown(wait=True)
        if self._producer is not None:
            self._producer.close(timeout=DELIVERY_TIMEOUT_MS / 1000)

    # In the producer's thread, or the log's own.

    def _fail(self, done: Future[Position], error: Exception) -> None:
        if isinstance(error, MessageSizeTooLargeError):
            done.set_exception(RecordTooLarge("the broker takes no record of this size"))
            return
        failed = LogUnavailable(f"the log did not confirm the record ({type(error).__name__})")
        failed.__cause__ = error
        done.set_exception(failed)
        if not isinstance(error, RetriableError):
            # The producer may have given up for good (its identity is fenced, its rights are gone): start a new one.
            self._discard()

    def _discard(self) -> None:
        def replace() -> None:
            spent, self._producer = self._producer, None
            if spent is not None:
                spent.close(timeout=0)

        try:
            self._thread.submit(replace)
        except RuntimeError:
            return  # closing anyway


def _refuse_if_late(record: _Record) -> None:
    """A record that waited too long is not sent at all: its caller may have been told already that it failed."""
    if (time.monotonic() - record.asked_at) * 1000 > SEND_WITHIN_MS:
        raise LogUnavailable("the log did not take the record in time")


def _answers(address: str) -> bool:
    """Whether anything listens at host:port."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_BLOCK_MS / 1000).close()
    except OSError:
        return False
    return True
