"""The read API's metrics: waits of readers and writers that ask for at least a position, and what is found on the way."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Histogram

from services.telemetry import Registry

_SECONDS: Final = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class ReadMetrics:
    """Measures each wait, and counts what is found on the way."""

    def __init__(self, registry: Registry) -> None:
        self._waited = Histogram(
            "medchain_read_wait_seconds",
            "Waits until the list has come to a position, by whether it came in time.",
            ("reached",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._conflicts = Counter(
            "medchain_read_number_conflicts_total",
            "Prescription ids and reference numbers that were found under several patients, each once a process.",
            registry=registry,
        )

    def waited(self, seconds: float, reached: bool) -> None:  # noqa: FBT001 - `ViewReader` tells it by position
        """One wait has ended."""
        self._waited.labels("yes" if reached else "no").observe(seconds)

    def found_conflict(self) -> None:
        """A number was found under several patients, and the alarm raised."""
        self._conflicts.inc()
