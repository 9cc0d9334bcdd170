"""A service's metrics of its writes: how long the log takes to confirm, and how long outcomes are waited for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from services.publishing.log import LogUnavailable
from services.telemetry import Registry

_SECONDS: Final = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 8.0)


class WriteMetrics:
    """Measures each append, and each wait for an outcome."""

    def __init__(self, registry: Registry) -> None:
        self._under_way = Gauge("medchain_writes_under_way", "Events on their way into the log.", registry=registry)
        self._appended = Histogram(
            "medchain_append_seconds",
            "From handing an event to the log to its confirmation.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._failed = Counter(
            "medchain_appends_failed_total", "Events that the log did not confirm.", registry=registry
        )
        self._waited = Histogram(
            "medchain_outcome_wait_seconds",
            "How long the medication list was asked for an outcome.",
            buckets=_SECONDS,
            registry=registry,
        )

    @contextmanager
    def appending(self) -> Iterator[None]:
        """Around one append."""
        began = time.monotonic()
        with self._under_way.track_inprogress(), self._failed.count_exceptions(LogUnavailable):
            yield
        self._appended.observe(time.monotonic() - began)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around one question for an outcome."""
        with self._waited.time():
            yield
