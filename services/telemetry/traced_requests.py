"""The server span of each request: its route template, never its URL, and nothing of its content."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from opentelemetry.trace import SpanKind, Status, StatusCode
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.telemetry.requests import NO_ROUTE
from services.telemetry.traces import TRACEPARENT, Traces, allowed

_ABOUT_THE_PROCESS: Final = ("/health/", "/metrics")


class TracedRequests:
    """ASGI middleware: the request is a span, and the current one, while it is answered."""

    def __init__(self, app: ASGIApp, traces: Traces) -> None:
        self._app = app
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, as a span that continues the caller's trace or begins one."""
        if scope["type"] != "http" or scope["path"].startswith(_ABOUT_THE_PROCESS):
            await self._app(scope, receive, send)
            return
        status = int(HTTPStatus.INTERNAL_SERVER_ERROR)

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self._traces.span("request", SpanKind.SERVER, Headers(scope=scope).get(TRACEPARENT)) as span:
            try:
                await self._app(scope, receive, noted)
            finally:
                if span.is_recording():
                    route = getattr(scope.get("route"), "path", None)
                    told = allowed({"method": scope["method"], "route": route, "status": status})
                    span.set_attributes(told)
                    span.update_name(f"{told.get('method', 'other')} {told.get('route', NO_ROUTE)}")
                    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                        span.set_status(Status(StatusCode.ERROR))
