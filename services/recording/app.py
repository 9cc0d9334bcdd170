"""The frame of a service that takes writes: routes from its table, problems, health, one canonical line a request."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Final, NamedTuple

import uvicorn
from fastapi import APIRouter, FastAPI, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.typing import FilteringBoundLogger
from uvicorn.config import STARTUP_FAILURE

from schemas.framing import PLAIN, Framing
from schemas.reasons import DoorReason, catalogue
from services.canonical_log import configure, get_logger
from services.clock import Clock, SystemClock
from services.health import Check, Readiness, health_routes
from services.interpreter import collect_seldom, switch_often
from services.problems import install
from services.problems.rendering import REASON_IN_SCOPE
from services.publishing.broker_check import BrokerCheck
from services.publishing.kafka_log import KafkaLog
from services.publishing.log import Log, LogUnavailable
from services.publishing.traced_log import TracedLog
from services.recording.bound import Bound
from services.recording.direct import DirectRoutes
from services.recording.listening import listening
from services.recording.outcomes import ListUnreachable, MedicationListClient
from services.recording.recorder import Recorder
from services.recording.routes import Write, direct_of, router_of
from services.recording.settings import RecordingSettings
from services.recording.write_metrics import WriteMetrics
from services.serving import OURS_ALONE
from services.serving.documents import describe
from services.serving.quiet_server import QuietServer
from services.telemetry import Registry, RequestMetrics, TroubleMetrics, metrics_routes, new_registry
from services.telemetry.exposition import with_process
from services.telemetry.traced_requests import TracedRequests
from services.telemetry.traces import Traces
from services.topics.registry import EVENTS_TOPIC, load

_RETRYABLE: Final = {LogUnavailable: DoorReason.LOG_UNAVAILABLE, ListUnreachable: DoorReason.LIST_UNAVAILABLE}
_KEEP_ALIVE_S: Final = 75
"""Longer than callers keep idle connections, aiohttp's 15 s among them: who sends on one that is just being closed here
cannot know whether the write came through."""


class Parts(NamedTuple):
    """What a running service is made of."""

    recorder: Recorder
    readiness: Readiness
    registry: Registry


OpenParts = Callable[[], AbstractAsyncContextManager[Parts]]


def opened(
    settings: RecordingSettings, service: str, framing: Framing = PLAIN, traces: Traces | None = None
) -> OpenParts:
    """The parts of a real process: Kafka, the medication list over HTTP, the machine's clock."""

    @asynccontextmanager
    async def open_parts() -> AsyncIterator[Parts]:
        log = KafkaLog(settings.kafka, load().partitions, client_id=service, framing=framing, tells_callers=True)
        appended: Log = log if traces is None else TracedLog(log, traces)
        medication_list = MedicationListClient(settings.list_url, is_traced=traces is not None)
        try:
            await log.start([EVENTS_TOPIC])
        except LogUnavailable:
            # The service answers 503 until the log is there; readiness says so.
            get_logger().warning("log_unavailable", topic=EVENTS_TOPIC)
        registry = with_process(new_registry())
        recorder = Recorder(
            log=appended,
            medication_list=medication_list,
            door=settings.door(),
            sealer=settings.sealer(),
            clock=SystemClock(),
            list_public_url=settings.list_public_url,
            metrics=WriteMetrics(registry),
        )
        broker = BrokerCheck(settings.kafka, load().partitions, [EVENTS_TOPIC])
        checks: dict[str, Check] = {"broker": broker, "log": log.check, "medication list": medication_list.check}
        try:
            readiness = Readiness(checks)
            TroubleMetrics(readiness, registry)
            if traces is not None:
                traces.tell(registry)
            yield Parts(recorder, readiness, registry)
        finally:
            broker.close()
            await log.close()
            await medication_list.close()
            if traces is not None:
                await asyncio.to_thread(traces.close)

    return open_parts


def create_app(
    *,
    title: str,
    about: str,
    writes: Iterable[Write],
    open_parts: OpenParts,
    more: Iterable[APIRouter] = (),
    traces: Traces | None = None,
) -> FastAPI:
    """The application of a service; `more` are its routes that write nothing."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_parts() as parts:
            app.state.recorder = parts.recorder
            app.state.parts = parts
            watching = asyncio.create_task(parts.readiness.watch(), name="readiness")
            yield
            watching.cancel()

    app = FastAPI(
        title=title,
        version="1",
        description=about,
        lifespan=lifespan,
        redirect_slashes=False,
        openapi_url="/openapi.json",
        telemetry=OURS_ALONE,
    )
    registry = new_registry()
    metrics = metrics_routes(lambda request: (registry, request.app.state.parts.registry))
    writes = tuple(writes)
    app.router.routes.insert(0, DirectRoutes(direct_of(writes)))
    for router in (router_of(writes), health_routes(_readiness_of), metrics, *more):
        app.include_router(router)
    install(app, retryable=dict(_RETRYABLE), hands_on_faults=True)
    app.add_middleware(Bound)
    app.add_middleware(CanonicalLine, clock=SystemClock(), metrics=RequestMetrics(registry))
    if traces is not None:
        app.add_middleware(TracedRequests, traces=traces)
    describe(app)
    return app


def _readiness_of(request: Request) -> Readiness:
    parts: Parts = request.app.state.parts
    return parts.readiness


class CanonicalLine:
    """ASGI middleware: one line for each request, with the route and never the URL; and the same counted."""

    def __init__(self, app: ASGIApp, clock: Clock, metrics: RequestMetrics) -> None:
        self._app = app
        self._clock = clock
        self._metrics = metrics
        self._line: FilteringBoundLogger | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and tell how it ended."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_ms = self._clock.monotonic_ms()
        self._metrics.began()
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            method, reason = scope["method"], scope.get(REASON_IN_SCOPE)
            route = getattr(scope.get("route"), "path", None)
            duration_ms = self._clock.monotonic_ms() - began_ms
            self._metrics.ended(method=method, route=route, status=status, seconds=duration_ms / 1000, reason=reason)
            told = {} if reason is None else {"problem": reason}
            # Bound once, and not anew for each line, which costs as much as the line.
            self._line = self._line or get_logger().bind()
            self._line.info("request", method=method, route=route, status=status, duration_ms=duration_ms, **told)


def serve(app: FastAPI, *, service: str, host: str, port: int) -> None:
    """Run until told to stop: uvloop and httptools, no access log beside the canonical lines.

    Raises OSError where the port is taken, SystemExit where the application could not start (the reason is in the log).
    """
    configure(service)
    catalogue()  # read now: the first problem would have all requests wait while its text is looked up
    switch_often()
    collect_seldom()
    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", access_log=False, log_config=None, timeout_keep_alive=_KEEP_ALIVE_S
    )
    server = QuietServer(config)
    with suppress(KeyboardInterrupt):
        server.run(listening(host, port))
    if not server.started:
        sys.exit(STARTUP_FAILURE)
