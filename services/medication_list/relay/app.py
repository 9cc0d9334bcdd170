"""The relay's process: `python -m services.medication_list.relay.app` runs one."""

import asyncio
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from schemas.events import RelayProgress
from schemas.framing import PLAIN, Framing
from services.canonical_log import configure, get_logger
from services.clock import SystemClock
from services.health import HealthServer, Pulse, Readiness
from services.medication_list.generations import refuse_another_log
from services.medication_list.log.source_log import PROGRESS_TOPIC, KafkaSourceLog
from services.medication_list.overview.log_side import LogAsker
from services.medication_list.overview.metrics import OverviewCollector
from services.medication_list.overview.overview import overview
from services.medication_list.relay.metrics import RelayMetrics
from services.medication_list.relay.party_topics import KafkaPartyTopics
from services.medication_list.relay.relay import Relay
from services.medication_list.settings import MedicationListSettings
from services.medication_list.starting import refuse_to_start
from services.medication_list.store.link import Link
from services.medication_list.store.port import StoreUnavailableError
from services.medication_list.store.redis_check import RedisCheck
from services.medication_list.store.redis_outbox import RedisOutbox
from services.medication_list.store.redis_roles import RedisRoles
from services.publishing.broker_check import BrokerCheck
from services.publishing.kafka_log import KafkaLog
from services.publishing.log import Log
from services.publishing.traced_log import TracedLog
from services.schema_registry import framing_at_start
from services.telemetry import TroubleMetrics, metrics_routes, new_registry
from services.telemetry.exposition import with_process
from services.telemetry.traces import traces_of
from services.topics.registry import EVENTS_TOPIC, load

LINGER_MS: Final = 5
"""How long the producer waits for more of a batch: what the relay sends is on its way for longer anyhow."""


async def serve(settings: MedicationListSettings, framing: Framing = PLAIN) -> None:
    """Run the relay until SIGTERM or SIGINT; with a port, tell on it how it is."""
    clock, topics, registry = SystemClock(), load(), with_process(new_registry())
    link, source = Link(settings.redis), KafkaSourceLog(settings.kafka, framing=framing)

    def relayed() -> Mapping[int, RelayProgress]:
        # Asked again with every new lease: the store may have been empty, or away, at the start.
        refuse_another_log(RedisRoles(link), source)
        return source.relayed()

    log: Log = KafkaLog(
        settings.kafka, topics.partitions, client_id="medchain-relay", linger_ms=LINGER_MS, framing=framing
    )
    traces = traces_of(settings, "relay")
    if traces is not None:
        log = TracedLog(log, traces)
    relay = Relay(
        RedisOutbox(link),
        log,
        KafkaPartyTopics(settings.kafka, topics, create_missing=settings.create_party_topics),
        settings.sealer(),
        clock,
        topics.partitions(EVENTS_TOPIC),
        relayed,
        metrics=RelayMetrics(registry),
    )
    ended = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, ended.set)
    pulse = Pulse()
    readiness = Readiness(
        {
            "broker": BrokerCheck(settings.kafka, topics.partitions, [PROGRESS_TOPIC]),
            "Redis": RedisCheck(settings.redis, writes=True),
            "outbox": relay.check,
        }
    )
    TroubleMetrics(readiness, registry)
    if traces is not None:
        traces.tell(registry)
    asker = LogAsker(settings.kafka)
    collector = OverviewCollector(lambda: overview(asker, link, topics), registry)
    more = [metrics_routes(lambda _: (registry,))]
    health = HealthServer(readiness, pulse, host=settings.host, port=settings.port, more=more)
    health.start()
    collector.start()
    tasks = [asyncio.create_task(relay.run(), name="relay"), asyncio.create_task(pulse.keep(), name="pulse")]
    get_logger().info("relay_started")
    await asyncio.wait([asyncio.create_task(ended.wait()), *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError):
            await task
    with suppress(StoreUnavailableError):
        await relay.hand_over()
    await log.close()
    if traces is not None:
        await asyncio.to_thread(traces.close)
    collector.stop()
    asker.close()
    link.close()
    health.stop()


def main() -> None:
    """The process. Exits with 1 and one sentence where log and store do not belong together."""
    configure("relay")
    settings = MedicationListSettings()  # type: ignore[call-arg]  # the environment fills it
    refuse_to_start(settings)
    asyncio.run(serve(settings, framing_at_start(settings.schema_registry)))


if __name__ == "__main__":
    main()
