"""GET /metrics: everything that a process counts, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from services.serving import reads

# When each series began would be as many series again, and nobody asks.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library left it without types

Registry = CollectorRegistry
"""What holds the metrics of one process, or of one part of it."""


def new_registry() -> Registry:
    """An empty one. Each process has its own, so that it tells of nothing that is not its own."""
    return CollectorRegistry(auto_describe=True)


def with_process(registry: Registry) -> Registry:
    """Let it also tell memory, processor time and open files of the process."""
    ProcessCollector(registry=registry)
    return registry


def metrics_routes(registries_of: Callable[[Request], Sequence[Registry]]) -> APIRouter:
    """The route. It is answered in the loop that serves it: what it reads must be at hand, and ask nobody."""
    metrics = APIRouter(include_in_schema=False)

    @reads(metrics, "/metrics")
    async def tell(request: Request) -> Response:
        texts = [generate_latest(each) for each in registries_of(request)]
        return Response(b"".join(texts), media_type=CONTENT_TYPE_LATEST)

    return metrics
