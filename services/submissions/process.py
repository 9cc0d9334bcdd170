"""An inbox as its own process: it can fall behind, stop and start without affecting the service beside it."""

from __future__ import annotations

import asyncio

from schemas.framing import Framing
from services.canonical_log import configure
from services.clock import SystemClock
from services.health import HealthServer, Pulse, Readiness
from services.publishing.broker_check import BrokerCheck
from services.publishing.kafka_log import KafkaLog
from services.publishing.traced_log import TracedLog
from services.recording.outcomes import MedicationListClient
from services.schema_registry import framing_at_start
from services.submissions.inbox import Inbox, run_until_signalled
from services.submissions.inbox_metrics import InboxMetrics
from services.submissions.reception import Reception
from services.submissions.settings import InboxSettings
from services.submissions.traced_reception import traced
from services.telemetry import TroubleMetrics, metrics_routes, new_registry
from services.telemetry.exposition import with_process
from services.telemetry.traces import traces_of
from services.topics.registry import EVENTS_TOPIC, load


def serve_inbox(kind: str, service: str) -> None:
    """Take the submissions of one kind (`prescription-submissions`, ...) until told to stop."""
    configure(f"{service}_inbox")
    settings = InboxSettings()  # type: ignore[call-arg]  # the environment gives them
    asyncio.run(_run(settings, kind, f"{service}-inbox", framing_at_start(settings.schema_registry)))


async def _run(settings: InboxSettings, kind: str, group: str, framing: Framing) -> None:
    log = KafkaLog(settings.kafka, load().partitions, client_id=group, framing=framing)
    traces = traces_of(settings, group.replace("-", "_"))
    medication_list = MedicationListClient(settings.list_url, is_traced=traces is not None)
    clock, registry = SystemClock(), with_process(new_registry())
    metrics = InboxMetrics(registry)
    reception = Reception(
        log=log if traces is None else TracedLog(log, traces),
        medication_list=medication_list,
        door=settings.door(),
        sealer=settings.sealer(),
        clock=clock,
        framing=framing,
        metrics=metrics,
    )
    receive = reception.receive if traces is None else traced(reception.receive, traces)
    inbox = Inbox(kafka=settings.kafka, kind=kind, group=group, receive=receive, clock=clock, metrics=metrics)
    readiness = Readiness(
        {
            "broker": BrokerCheck(settings.kafka, load().partitions, [EVENTS_TOPIC]),
            "log": log.check,
            "inbox": inbox.check,
        }
    )
    TroubleMetrics(readiness, registry)
    if traces is not None:
        traces.tell(registry)
    more = [metrics_routes(lambda _: (registry,))]
    pulse = Pulse()
    beating = asyncio.create_task(pulse.keep(), name="pulse")
    try:
        with HealthServer(readiness, pulse, host=settings.host, port=settings.port, more=more):
            await run_until_signalled(inbox)
    finally:
        beating.cancel()
        await log.close()
        await medication_list.close()
        if traces is not None:
            await asyncio.to_thread(traces.close)
