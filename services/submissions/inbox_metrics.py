"""An inbox' metrics of the submissions that it takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from services.telemetry import Registry

_SECONDS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class InboxMetrics:
    """Counts batches, rejections and failures."""

    def __init__(self, registry: Registry) -> None:
        self._records = Counter("medchain_inbox_records_total", "Submissions read.", registry=registry)
        self._rejected = Counter(
            "medchain_inbox_rejections_total",
            "Submissions that did not get past the door.",
            ("reason",),
            registry=registry,
        )
        self._failures = Counter(
            "medchain_inbox_failures_total", "Rounds that failed; what they had is read again.", registry=registry
        )
        self._lost = Counter(
            "medchain_inbox_lost_total", "Offsets that were deleted before they were read.", registry=registry
        )
        self._behind = Gauge(
            "medchain_inbox_behind_seconds", "How old the oldest submission of the last batch was.", registry=registry
        )
        self._taking = Histogram(
            "medchain_inbox_batch_seconds",
            "From a batch to its events in the log.",
            buckets=_SECONDS,
            registry=registry,
        )

    @contextmanager
    def taking(self, records: int) -> Iterator[None]:
        """Around the taking of one batch."""
        with self._taking.time():
            yield
        self._records.inc(records)

    def behind(self, seconds: float) -> None:
        """The age of the oldest submission at hand."""
        self._behind.set(max(0.0, seconds))

    def nothing_waits(self) -> None:
        """The topics were read to their ends."""
        self._behind.set(0)

    def rejected(self, reason: str) -> None:
        """One was rejected."""
        self._rejected.labels(reason).inc()

    def lost(self, offsets: int) -> None:
        """So many offsets were deleted before they were read."""
        self._lost.inc(offsets)

    def failed(self) -> None:
        """A round failed."""
        self._failures.inc()
