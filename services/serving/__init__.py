"""What all our HTTP applications share: HEAD is answered wherever GET is, and no telemetry is sent by the framework."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from fastapi import APIRouter
from fastapi.telemetry import TelemetryConfig

OURS_ALONE: Final[TelemetryConfig] = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
"""FastAPI's own telemetry stays off, whatever the environment says: it reports URLs with their ids, and error texts."""

_Handler = TypeVar("_Handler", bound=Callable[..., Any])


def reads(router: APIRouter, path: str, **documented: Any) -> Callable[[_Handler], _Handler]:
    """A decorator: what answers GET and HEAD at a path. `documented`: FastAPI's keywords of a route.

    HEAD is not a separate operation in the OpenAPI document. So the route that answers both comes first and is not
    documented, and the documented one comes after it.
    """

    def add(handler: _Handler) -> _Handler:
        router.add_api_route(path, handler, methods=["GET", "HEAD"], include_in_schema=False)
        router.add_api_route(path, handler, methods=["GET"], **documented)
        return handler

    return add
