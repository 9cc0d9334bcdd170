"""A service's metrics of the requests that it answers: by route template, never by address."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from services.telemetry.exposition import Registry

NO_ROUTE: Final = "none"
"""Stands for every address that leads nowhere: what callers make up must not make new series."""
OTHER_METHOD: Final = "other"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS: Final = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class RequestMetrics:
    """Counts requests; one for each application."""

    def __init__(self, registry: Registry) -> None:
        self._answered = Counter(
            "medchain_http_requests_total", "Requests answered.", ("method", "route", "status"), registry=registry
        )
        self._lasted = Histogram(
            "medchain_http_request_seconds",
            "From a request to the end of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._problems = Counter(
            "medchain_http_problems_total",
            "Answers that are problems, by reason.",
            ("route", "status", "reason"),
            registry=registry,
        )
        self._under_way = Gauge(
            "medchain_http_requests_under_way", "Requests that have no whole answer yet.", registry=registry
        )

    def began(self) -> None:
        """A request has come."""
        self._under_way.inc()

    def ended(self, *, method: str, route: str | None, status: int, seconds: float, reason: str | None) -> None:
        """It was answered. `route`: the template; None where the address leads nowhere. `reason`: of a problem."""
        self._under_way.dec()
        template = route or NO_ROUTE
        self._answered.labels(method if method in _METHODS else OTHER_METHOD, template, str(status)).inc()
        self._lasted.labels(template).observe(seconds)
        if reason is not None:
            self._problems.labels(template, str(status), reason).inc()
