"""The processor: takes fetches from the driver, judges them into the store, one or many workers.

`python -m services.medication_list.processor` runs one worker. What a fetch means is in `judging.py`.
"""

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Final, NoReturn

from schemas.framing import PLAIN, Framing
from services.canonical_log import configure, get_logger
from services.clock import SystemClock
from services.health import HealthServer, Pulse, Readiness
from services.medication_list.driver import (
    Applied,
    DriverSettings,
    Fetch,
    LogReader,
    Rewind,
    Verdict,
    create_app,
    pump,
    run,
    status,
)
from services.medication_list.fold import VERSION
from services.medication_list.generations import GenerationRecord, GenerationRefusedError, enter, follow
from services.medication_list.health import Progress
from services.medication_list.judging import Judge
from services.medication_list.mending import Held, Mender, keep_mending
from services.medication_list.record_log import KafkaRecordLog, RecordLog
from services.medication_list.settings import MedicationListSettings
from services.medication_list.source_log import KafkaSourceLog, SourceLog, SourceLogUnavailableError
from services.medication_list.store.link import Link
from services.medication_list.store.port import Store, StoreUnavailableError, ViewLostError
from services.medication_list.store.redis_check import RedisCheck
from services.medication_list.store.redis_roles import RedisRoles
from services.medication_list.store.redis_store import RedisStore
from services.medication_list.store.roles import Roles
from services.publishing.broker_check import BrokerCheck
from services.schema_registry import framing_at_start
from services.topics.registry import EVENTS_TOPIC, load

RELEASE: Final = "0.1.0"
_TOLD_EVERY_S: Final = 10.0
_ENTER_AGAIN_S: Final = 0.5
_COLLECTED_AFTER: Final = (70_000, 10, 10)
_log = get_logger()


class Worker:
    """One worker: enters its generation, judges what the driver brings, and enters again when the view is lost."""

    def __init__(
        self,
        roles: Roles,
        log: SourceLog,
        store_of: Callable[[str], Store],
        partitions: int,
        made_at_ms: int,
        generation: str | None = None,
        framing: Framing = PLAIN,
        records: RecordLog | None = None,
    ) -> None:
        """`store_of` gives the store of a generation; `generation` is the one to work on, None: whichever is live.

        `records`: where the records of a patient are read whose parked ones can be read now; None: nothing is mended.
        """
        self._roles = roles
        self._log = log
        self._store_of = store_of
        self._partitions = partitions
        self._record = GenerationRecord(VERSION, RELEASE, made_at_ms)
        self._wanted = generation
        self._framing = framing
        self._records = records
        self._mender: Mender | None = None
        self.held = Held()
        self._store: Store | None = None
        self._judge: Judge | None = None
        self._tally = Tally()

    def enter(self) -> None:
        """Begin or join the generation. Raises GenerationRefusedError where this worker must not work."""
        generation = enter(self._roles, self._log, self._record, self._wanted)
        self._store = self._store_of(generation)
        self._judge = Judge(self._store, self._partitions, self._framing)
        if self._records is not None:
            now_ms = SystemClock().now_ms
            self._mender = Mender(self._store, self._records, self._partitions, now_ms, self._framing)
        _log.info("generation_entered", generation=generation)

    def next_offsets(self, partitions: Collection[int]) -> Mapping[int, int]:
        """The store's word on how far each partition has come (see `driver.Positions`)."""
        self.held.asked(partitions)
        try:
            return self._standing_store().next_offsets(partitions)
        except ViewLostError:
            self._store = None
            return self._standing_store().next_offsets(partitions)

    def process(self, fetch: Fetch) -> Mapping[int, Verdict]:
        """Judge one fetch (see `driver.Process`)."""
        self._standing_store()
        assert self._judge is not None, "a worker that has entered has a judge"
        try:
            verdicts = self._judge.process(fetch)
        except ViewLostError:
            self._store = None
            raise
        if any(verdicts[batch.partition] == Rewind(batch.first_offset) for batch in fetch.batches):
            # Nothing may be written: a switch is under way, or it was decided and nobody has told this partition.
            follow(self._roles, self._partitions)
        self._tally.count(fetch, verdicts)
        return verdicts

    def mend(self, partition: int) -> int:
        """Refold what was parked in a partition for a schema that is here now (see `Mender.mend`)."""
        return 0 if self._mender is None else self._mender.mend(partition)

    def _standing_store(self) -> Store:
        if self._store is None:
            self.enter()
        assert self._store is not None, "entering gives a store"
        return self._store


class Tally:
    """Counts what was done, and tells it in one line every ten seconds."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._told_at_s = time.monotonic()

    def count(self, fetch: Fetch, verdicts: Mapping[int, Verdict]) -> None:
        """Take one fetch into account."""
        for batch in fetch.batches:
            is_applied = isinstance(verdicts[batch.partition], Applied)
            self._counts["events" if is_applied else "refused"] += len(batch.records)
            self._counts["batches"] += 1
        now_s = time.monotonic()
        if now_s - self._told_at_s >= _TOLD_EVERY_S:
            _log.info("events_processed", **self._counts)
            self._counts.clear()
            self._told_at_s = now_s


def main() -> NoReturn:
    """Run one worker until SIGTERM. Exits with 1 and one sentence where it must not work on this store or log."""
    settings = MedicationListSettings()  # type: ignore[call-arg]  # the environment fills it
    configure("processor")
    partitions = load().partitions(EVENTS_TOPIC)
    framing = framing_at_start(settings.schema_registry)
    link = Link(settings.redis)
    worker = Worker(
        RedisRoles(link),
        KafkaSourceLog(settings.kafka, framing=framing),
        lambda generation: RedisStore(link, generation),
        partitions,
        SystemClock().now_ms(),
        settings.generation,
        framing,
        KafkaRecordLog(settings.kafka),
    )
    pulse, progress = Pulse(), Progress()
    readiness = Readiness(
        {
            "broker": BrokerCheck(settings.kafka, load().partitions, [EVENTS_TOPIC]),
            "Redis": RedisCheck(settings.redis, writes=True),
            "partitions": progress.check,
        }
    )
    HealthServer(readiness, pulse, host=settings.host, port=settings.port).start()
    _enter_when_possible(worker, pulse)
    group = f"medication-list.{settings.generation}" if settings.generation else "medication-list"
    driver = DriverSettings(group, settings.kafka.split(","), EVENTS_TOPIC, partitions)
    app = create_app(driver, worker)

    async def agent(log: LogReader) -> None:
        beating = asyncio.create_task(pulse.keep(), name="pulse")
        progress.follow(lambda: status(app))
        try:
            await pump(log, worker.process)
        finally:
            beating.cancel()

    keep_mending(worker.held, worker.mend)
    _collect_seldom()
    run(app, agent)


def _collect_seldom() -> None:
    """Leave what was imported out of every garbage collection, and look for cycles a hundred times less often.

    A fetch makes many thousand objects that live until it is written and form no cycles: counting references frees
    them. The collector walked them over and over meanwhile, for a twentieth of all time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTED_AFTER)


def _enter_when_possible(worker: Worker, pulse: Pulse) -> None:
    """A broker or a Redis that is still starting is waited for; a store that is not ours is not."""
    while True:
        pulse.beat()
        try:
            worker.enter()
        except GenerationRefusedError as refusal:
            raise SystemExit(str(refusal)) from None
        except (StoreUnavailableError, SourceLogUnavailableError) as error:
            _log.warning("waiting_to_enter", error=type(error).__name__)
            time.sleep(_ENTER_AGAIN_S)
        else:
            return


if __name__ == "__main__":
    main()
