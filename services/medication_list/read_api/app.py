"""Starts the medication list's read API: `python -m services.medication_list.read_api.app`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Final

from fastapi import FastAPI, Request, Response
from pydantic import SecretStr

from schemas.framing import PLAIN, Framing
from schemas.reasons import DoorReason
from services.admission.door import Door
from services.admission.read_token import ReadTokens
from services.canonical_log import configure
from services.clock import Clock, SystemClock
from services.health import Readiness, Trouble, health_routes
from services.identity.pseudonym import Pseudonymiser
from services.medication_list.log.record_log import KafkaRecordLog, LogLookupError
from services.medication_list.log.source_log import KafkaSourceLog, SourceLogUnavailableError
from services.medication_list.read_api.api import (
    DECODED_BY_TYPE,
    DIRECT,
    RETRY_AFTER_S,
    Parts,
    check_view,
    inside,
    outside,
    progress_of,
    readiness_of,
)
from services.medication_list.read_api.event_places import EventPlaces
from services.medication_list.read_api.log_lookup import LogLookup
from services.medication_list.read_api.number_conflicts import NumberConflicts
from services.medication_list.read_api.outcomes import Outcomes
from services.medication_list.read_api.read_metrics import ReadMetrics
from services.medication_list.settings import MedicationListSettings
from services.medication_list.starting import refuse_to_start
from services.medication_list.store.port import StoreUnavailableError
from services.medication_list.store.reading import NotReadyError, ViewReader
from services.medication_list.store.redis_check import RedisCheck
from services.medication_list.store.redis_views import RedisViews
from services.problems import install, unavailable
from services.problems.rendering import response_to
from services.publishing.broker_check import BrokerCheck
from services.recording.app import CanonicalLine, serve
from services.recording.bound import Bound
from services.recording.direct import DirectRoutes
from services.schema_registry import framing_at_start
from services.serving import OURS_ALONE
from services.serving.documents import describe
from services.telemetry import RequestMetrics, TroubleMetrics, metrics_routes, new_registry
from services.telemetry.exposition import with_process
from services.telemetry.traced_requests import TracedRequests
from services.telemetry.traces import Traces, traces_of
from services.topics.registry import EVENTS_TOPIC, load

PORT: Final = 8803
_AT_MOST_UNDER_WAY: Final = 1_000
"""*Policy*: a read takes a millisecond, and whoever waits for an outcome gives up after two seconds. It holds all that the
two writing services ask at once (200 each) and leaves the larger part to readers."""
_RETRYABLE: Final = {
    StoreUnavailableError: DoorReason.LIST_UNAVAILABLE,
    LogLookupError: DoorReason.LOG_UNAVAILABLE,
    SourceLogUnavailableError: DoorReason.LOG_UNAVAILABLE,
}

OpenParts = Callable[[], AbstractAsyncContextManager[Parts]]


def opened(
    settings: MedicationListSettings,
    clock: Clock,
    topic: str = EVENTS_TOPIC,
    framing: Framing = PLAIN,
    traces: Traces | None = None,
) -> OpenParts:
    """The parts of a real process. Raises ValueError when it was not given the keys that it needs."""
    tokens = ReadTokens(_key(settings.read_token_key, "MEDCHAIN_READ_TOKEN_KEY"))
    door = Door(Pseudonymiser(_key(settings.pseudonym_key, "MEDCHAIN_PSEUDONYM_KEY")), tokens)

    @asynccontextmanager
    async def open_parts() -> AsyncIterator[Parts]:
        partitions = load().partitions(EVENTS_TOPIC)
        source = KafkaSourceLog(settings.kafka, events=topic)

        async def log_ends() -> Mapping[int, int]:
            return await asyncio.to_thread(source.ends)

        registry = with_process(new_registry())
        metrics = ReadMetrics(registry)
        reader = ViewReader(RedisViews(settings.redis), partitions, log_ends, metrics.waited)
        # A request that waits for a write's outcome does not queue behind one that reads years of history.
        log, short = (LogLookup(KafkaRecordLog(settings.kafka, topic), framing) for _ in range(2))
        places = EventPlaces(settings.redis, partitions)
        store_check = RedisCheck(settings.redis, writes=False)
        broker_check = BrokerCheck(settings.kafka, load().partitions, [EVENTS_TOPIC])
        readiness = Readiness(
            {
                "Redis": store_check,
                "view": partial(check_view, reader, partitions),
                "broker": partial(_check_log, broker_check),
            }
        )
        TroubleMetrics(readiness, registry)
        if traces is not None:
            traces.tell(registry)
        try:
            numbers = NumberConflicts(reader, short, metrics.found_conflict)
            yield Parts(
                reader,
                log,
                numbers,
                Outcomes(reader, short, numbers),
                places,
                door,
                tokens,
                clock,
                partitions,
                readiness,
                registry,
            )
        finally:
            broker_check.close()
            store_check.close()
            await reader.close()
            await places.close()
            await log.close()
            await short.close()
            if traces is not None:
                await asyncio.to_thread(traces.close)

    return open_parts


async def _check_log(broker: BrokerCheck) -> Sequence[Trouble]:
    """Lists as they are now can be read without the log; only what is read from the log itself cannot."""
    return [trouble._replace(stops=False) for trouble in await broker()]


def _key(given: SecretStr | None, name: str) -> bytes:
    if given is None:
        raise ValueError(f"{name} is not set")
    return bytes.fromhex(given.get_secret_value())


def create_app(open_parts: OpenParts, traces: Traces | None = None) -> FastAPI:
    """The application."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_parts() as parts:
            app.state.parts = parts
            watching = asyncio.create_task(parts.readiness.watch(), name="readiness")
            yield
            watching.cancel()

    about = "One citizen, one medication list: how it stands, how it stood, and how it came to be."
    app = FastAPI(
        title="Medication list",
        version="1",
        description=about,
        lifespan=lifespan,
        redirect_slashes=False,
        openapi_url="/openapi.json",
        telemetry=OURS_ALONE,
    )
    registry = new_registry()
    metrics = metrics_routes(lambda request: (registry, request.app.state.parts.registry))
    app.router.routes.insert(0, DirectRoutes(DIRECT))
    for router in (outside, inside, health_routes(readiness_of), metrics):
        app.include_router(router)
    install(app, retryable=dict(_RETRYABLE), decoded_by_type=DECODED_BY_TYPE, hands_on_faults=True)
    app.add_exception_handler(NotReadyError, _not_ready)
    app.add_middleware(Bound, at_most=_AT_MOST_UNDER_WAY, reason=DoorReason.LIST_UNAVAILABLE)
    app.add_middleware(CanonicalLine, clock=SystemClock(), metrics=RequestMetrics(registry))
    if traces is not None:
        app.add_middleware(TracedRequests, traces=traces)
    describe(app)
    return app


async def _not_ready(request: Request, error: Exception) -> Response:
    assert isinstance(error, NotReadyError), "it is asked for these alone"
    problem = unavailable(DoorReason.LIST_UNAVAILABLE, retry_after_s=RETRY_AFTER_S, progress=progress_of(error))
    return response_to(problem, request.headers)


def main() -> None:
    """Serve until told to stop. Exits with 1 and one sentence where log and store do not belong together."""
    settings = MedicationListSettings()  # type: ignore[call-arg]  # the environment fills it
    configure("medication_list")
    refuse_to_start(settings)
    framing, traces = framing_at_start(settings.schema_registry), traces_of(settings, "medication_list")
    app = create_app(opened(settings, SystemClock(), framing=framing, traces=traces), traces)
    serve(app, service="medication_list", host=settings.host, port=settings.port or PORT)


if __name__ == "__main__":
    main()
