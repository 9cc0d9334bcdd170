"""The port of a process that serves nothing else over HTTP: health in its own thread, beside the work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from threading import Thread
from typing import Final, Self

import uvicorn
from fastapi import APIRouter, FastAPI

from services.health.listening import bound
from services.health.pulse import Pulse
from services.health.readiness import Readiness
from services.health.routes import health_routes
from services.serving import OURS_ALONE
from services.serving.quiet_server import QuietServer

_ENDS_WITHIN_S: Final = 5.0


class HealthServer:
    """Answers on host:port until stopped. It has its own thread and loop, and so answers even while the work stands still."""

    def __init__(
        self, readiness: Readiness, pulse: Pulse, *, host: str, port: int | None, more: Iterable[APIRouter] = ()
    ) -> None:
        """`port` None: nothing is served. `more`: what else the process tells on its port. Raises OSError: it is taken."""
        self._readiness = readiness
        self._bound = None if port is None else bound(host, port)
        app = FastAPI(
            openapi_url=None,
            lifespan=self._watched,
            telemetry=OURS_ALONE,
        )
        for router in (health_routes(lambda _: readiness, pulse), *more):
            app.include_router(router)
        config = uvicorn.Config(app, loop="asyncio", http="httptools", log_config=None, access_log=False)
        self._server = QuietServer(config)
        self._thread = Thread(target=self._serve, name="health", daemon=True)

    def start(self) -> None:
        """Answer from now on."""
        if self._bound is not None:
            self._thread.start()

    def stop(self) -> None:
        """End. Twice does no harm."""
        self._server.end()
        if self._thread.is_alive():
            self._thread.join(_ENDS_WITHIN_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _serve(self) -> None:
        assert self._bound is not None, "only then is the thread started"
        with self._bound:
            self._server.run(sockets=[self._bound])

    @asynccontextmanager
    async def _watched(self, _: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(self._readiness.watch(), name="readiness")
        try:
            yield
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
