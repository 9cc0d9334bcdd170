"""The Faust app around the driver: every setting on which the driver's promises depend, and the worker process."""

import os
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

import faust
import structlog
from aiokafka import codec  # type: ignore[import-untyped]  # the library has no types
from faust import SSLCredentials
from yarl import URL

from services.medication_list.driver.batches import Fetch, LogReader, PartitionBatch, Positions
from services.medication_list.driver.cursors import Cursors, PartitionStatus
from services.medication_list.driver.kafka import BatchTransport, Intervals, register
from services.publishing.kafka_access import KafkaAccess

_log = structlog.get_logger(__name__)

_SWITCH_INTERVAL_S = 0.0005
"""How long a thread may keep the interpreter. The fold computes in one thread and the consumer's thread, which answers
heartbeats and receives records, needs the interpreter often and briefly: Python's 5 ms made the slowest hundredth of
events take 114 ms instead of 46 at 2,000 a second."""

_LEAVE_WITHIN_S = 10.0
"""How long a worker may take to leave after SIGTERM. Leaving asks the broker, which may be away; and since the next
worker needs nothing from this one, being killed costs no more than the session timeout."""

_PROBE = b"a batch that must come back as it was" * 8

_CODECS: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    "gzip": (codec.gzip_encode, codec.gzip_decode),
    "snappy": (codec.snappy_encode, codec.snappy_decode),
    "lz4": (codec.lz4_encode, codec.lz4_decode),
    "zstd": (codec.zstd_encode, codec.zstd_decode),
}

Agent = Callable[[LogReader], Awaitable[None]]
"""What reads the log for as long as the worker lives: usually `pump` with its process."""


class CodecMissingError(Exception):
    """This installation cannot read a codec that a producer may use: one such batch would stop its partition."""


@dataclass(frozen=True, slots=True)
class DriverSettings:
    """What differs between workers.

    `group` is the consumer group and so the Faust app's id.
    """

    group: str
    kafka: KafkaAccess
    topic: str
    declared_partitions: int
    max_poll_records: int = 1000
    session_timeout_s: float = 6.0
    intervals: Intervals = field(default_factory=Intervals)


class FetchSchema(faust.Schema[None, Fetch]):
    """Passes a fetch through Faust as it is: decoding is the processor's, record by record."""

    def loads_key(self, app: Any, message: Any, **_: Any) -> None:  # noqa: ARG002 - Faust's signature
        """Nothing: a fetch has many keys."""
        return

    def loads_value(self, app: Any, message: Any, **_: Any) -> Fetch:  # noqa: ARG002 - Faust's signature
        """The fetch."""
        return cast("Fetch", message.value)


class BatchApp(faust.App):
    """A Faust app without tables, so without anything on disk."""

    def _create_directories(self) -> None:
        """Make no directories: Faust would keep tables there."""


class BatchWorker(faust.Worker):
    """The worker process, with a bound on how long leaving may take."""

    def _schedule_shutdown(self, signal: Any) -> None:
        leaving = threading.Timer(_LEAVE_WITHIN_S, _leave_at_once)
        leaving.daemon = True
        leaving.start()
        super()._schedule_shutdown(signal)


def _leave_at_once() -> None:
    _log.error("leaving_timed_out", timeout_s=_LEAVE_WITHIN_S)
    os._exit(1)


class FaustLog(LogReader):
    """The log as Faust hands it to the agent."""

    def __init__(self, stream: Any, cursors: Cursors, now_s: Callable[[], float]) -> None:
        self._stream = stream
        self._cursors = cursors
        self._now_s = now_s

    async def fetches(self) -> AsyncIterator[Fetch]:
        """Yield fetches until the worker stops."""
        async for fetch in self._stream:
            yield fetch

    def is_current(self, batch: PartitionBatch) -> bool:
        """Whether no rewind and no new assignment came after the batch was read."""
        return self._cursors.is_current(batch)

    def applied(self, batch: PartitionBatch) -> None:
        """Note that the store has taken the batch."""
        self._cursors.applied(batch, self._now_s())

    def rewind(self, partition: int, offset: int, rest_s: float = 0.0) -> None:
        """Read the partition again from `offset`, after a rest."""
        self._cursors.rewind(partition, offset, rest_s)


def check_codecs() -> None:
    """Compress and decompress a probe with every codec of Kafka.

    Raises:
        CodecMissingError: with the codecs that do not work here.
    """
    missing = [name for name, pair in _CODECS.items() if not _works(*pair)]
    if missing:
        raise CodecMissingError(f"cannot read batches compressed with {', '.join(missing)}: is cramjam installed?")


def _works(encode: Callable[[bytes], bytes], decode: Callable[[bytes], bytes]) -> bool:
    try:
        return bytes(decode(encode(_PROBE))) == _PROBE
    except Exception:  # noqa: BLE001 - a missing library shows as whatever its absence breaks
        return False


def create_app(settings: DriverSettings, positions: Positions) -> faust.App:
    """The Faust app of one worker; give it to `run`.

    Raises:
        CodecMissingError: some batches could not be read.
    """
    check_codecs()
    context = settings.kafka.context
    scheme = register(
        positions,
        topic=settings.topic,
        declared_partitions=settings.declared_partitions,
        intervals=settings.intervals,
    )
    return BatchApp(
        settings.group,
        broker=[URL(f"{scheme}://{server}") for server in settings.kafka.addresses],
        broker_credentials=None if context is None else SSLCredentials(context),
        # A member that was killed keeps its partitions for as long: a minute by Faust's default.
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.session_timeout_s / 4,
        broker_rebalance_timeout=10.0,
        broker_request_timeout=20.0,
        broker_max_poll_records=settings.max_poll_records,
        # With max_poll_records, and with the bytes of one fetch, the bound on memory: so many fetches may wait for the agent.
        stream_buffer_maxsize=8,
        # What is fetched ahead of each partition. A larger batch is fetched all the same, alone.
        consumer_max_fetch_size=1 << 20,
        # An offset outside the log stops the partition with an alarm. Every other policy skips events or repeats them.
        consumer_auto_offset_reset="none",
        # Metadata is where a changed partition count shows.
        consumer_metadata_max_age_ms=int(settings.intervals.partition_count_check_s * 1000),
        # The compare-and-set is what waits for nobody: a batch in hand when partitions move is applied or refused.
        stream_wait_empty=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        # Otherwise Faust brings its own assignor, which other versions of it need not understand.
        table_standby_replicas=0,
        store="memory://",
        web_enabled=False,
        worker_redirect_stdouts=False,
        autodiscover=False,
    )


def run(app: faust.App, agent: Agent, *, on_ready: Callable[[], None] | None = None) -> NoReturn:
    """Run the worker in this process until SIGTERM or SIGINT; exit with 0 then, and with 1 if Faust itself fails.

    `on_ready` is called once the app has started. Logging is left as it is.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    attach(app, agent)
    worker = BatchWorker(app, override_logging=False, redirect_stdouts=False, quiet=True, blocking_timeout=0.0)
    worker.spinner = None
    if on_ready is not None:

        @app.on_worker_init.connect
        def ready(*_: Any, **__: Any) -> None:
            on_ready()

    worker.execute_from_commandline()


def attach(app: faust.App, agent: Agent) -> None:
    """Let `agent` read the app's log, one fetch at a time."""
    plan = cast("BatchTransport", app.transport).plan
    topic = app.topic(plan.topic, schema=FetchSchema(), acks=False)

    @app.agent(topic, name="medication_events", concurrency=1)
    async def read(stream: Any) -> None:
        await agent(FaustLog(stream, plan.cursors, app.loop.time))


def status(app: faust.App) -> tuple[PartitionStatus, ...]:
    """How far each partition of the worker has come, for health, metrics and lag."""
    return cast("BatchTransport", app.transport).plan.cursors.status()
