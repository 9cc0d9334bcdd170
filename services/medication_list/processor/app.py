"""The processor's process: `python -m services.medication_list.processor.app` runs one worker."""

import asyncio
import atexit
import os
import signal
import time
from collections.abc import Callable
from typing import Final, NoReturn

from schemas.framing import Framing
from services.canonical_log import configure, get_logger
from services.clock import SystemClock
from services.health import HealthServer, Pulse, Readiness
from services.interpreter import collect_seldom
from services.medication_list.driver.app import DriverSettings, create_app, run, status
from services.medication_list.driver.batches import LogReader
from services.medication_list.driver.pump import pump
from services.medication_list.fold import VERSION
from services.medication_list.generations import GenerationRefusedError
from services.medication_list.groups import group_of_generation, group_of_release
from services.medication_list.judging.counting import Judged
from services.medication_list.judging.event_spans import EventSpans
from services.medication_list.log.record_log import KafkaRecordLog, RecordLog
from services.medication_list.log.source_log import KafkaSourceLog, SourceLogUnavailableError
from services.medication_list.processor.progress import Progress
from services.medication_list.processor.worker import OF_EVERY_BATCH, LeavingWhenGone, MenderOf, Patience, Worker
from services.medication_list.refolding.mending import Mender, keep_mending
from services.medication_list.refolding.refolder import Refolder
from services.medication_list.settings import MedicationListSettings
from services.medication_list.store.link import Link
from services.medication_list.store.port import Store, StoreUnavailableError
from services.medication_list.store.redis_check import RedisCheck
from services.medication_list.store.redis_roles import RedisRoles
from services.medication_list.store.redis_store import RedisStore
from services.publishing.broker_check import BrokerCheck
from services.schema_registry import framing_at_start
from services.telemetry import TroubleMetrics, metrics_routes
from services.telemetry.traces import traces_of
from services.topics.registry import EVENTS_TOPIC, load

_ENTER_AGAIN_S: Final = 0.5
_WAIT_FOR_LEAVE_S: Final = 0.4
"""A switch usually takes less; then no batch need be read again."""
_log = get_logger()


def main() -> NoReturn:
    """Run one worker until SIGTERM. Exits with 1 and one sentence where it must not work on this store or log."""
    settings = MedicationListSettings()  # type: ignore[call-arg]  # the environment fills it
    configure("processor")
    partitions = load().partitions(EVENTS_TOPIC)
    framing = framing_at_start(settings.schema_registry)
    link, traces = Link(settings.redis), traces_of(settings, "processor")
    worker = Worker(
        RedisRoles(link),
        KafkaSourceLog(settings.kafka, framing=framing),
        lambda generation: RedisStore(link, generation),
        partitions,
        SystemClock().now_ms(),
        settings.generation,
        framing,
        mender_of=_mender_of(KafkaRecordLog(settings.kafka), partitions, framing),
        patience=Patience(for_s=_WAIT_FOR_LEAVE_S),
        traces=traces,
    )
    pulse, progress = Pulse(), Progress()
    readiness = Readiness(
        {
            "broker": BrokerCheck(settings.kafka, load().partitions, [EVENTS_TOPIC]),
            "Redis": RedisCheck(settings.redis, writes=True),
            "partitions": progress.check,
        }
    )
    TroubleMetrics(readiness, worker.registry)
    if traces is not None:
        traces.tell(worker.registry)
    more = [metrics_routes(lambda _: (worker.registry,))]
    HealthServer(readiness, pulse, host=settings.host, port=settings.port, more=more).start()
    _enter_when_possible(worker, pulse)
    # Releases that fold otherwise feed generations of their own, beside one another: they must not share partitions.
    group = group_of_generation(settings.generation) if settings.generation else group_of_release(VERSION)
    driver = DriverSettings(group, settings.kafka, EVENTS_TOPIC, partitions)
    leaving = LeavingWhenGone(worker, lambda: os.kill(os.getpid(), signal.SIGTERM))
    if traces is not None:
        atexit.register(traces.close)
    atexit.register(worker.leave)
    app = create_app(driver, leaving)

    async def agent(log: LogReader) -> None:
        beating = asyncio.create_task(pulse.keep(), name="pulse")
        progress.follow(lambda: status(app))
        worker.metrics.positions.follow(lambda: status(app))
        try:
            await pump(log, leaving.process, of_all=OF_EVERY_BATCH)
        finally:
            beating.cancel()

    keep_mending(worker.held, worker.mend)
    collect_seldom()
    run(app, agent)


def _mender_of(records: RecordLog, partitions: int, framing: Framing) -> MenderOf:
    def mender(store: Store, spans: EventSpans | None, told: Callable[[Judged], None]) -> Mender:
        refolder = Refolder(store, records, partitions, SystemClock().now_ms, framing, spans, told)
        return Mender(refolder, store, records, partitions, framing)

    return mender


def _enter_when_possible(worker: Worker, pulse: Pulse) -> None:
    """A broker or a Redis that is still starting is waited for; a store that is not ours is not."""
    while True:
        pulse.beat()
        try:
            worker.enter()
        except GenerationRefusedError as refusal:
            raise SystemExit(str(refusal)) from None
        except (StoreUnavailableError, SourceLogUnavailableError) as error:
            _log.warning("waiting_to_enter", error_type=type(error).__name__)
            time.sleep(_ENTER_AGAIN_S)
        else:
            return


if __name__ == "__main__":
    main()
