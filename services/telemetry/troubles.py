"""A process' readiness as metrics: one series for each reason, 1 while it applies."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.health import Readiness, TroubleReason
from services.telemetry.exposition import Registry


class TroubleMetrics(Collector):
    """Exports the troubles of the last look (some seconds ago, see `Readiness.watch`): scraping runs no checks."""

    def __init__(self, readiness: Readiness, registry: Registry) -> None:
        self._standing: Callable[[], frozenset[TroubleReason]] = lambda: readiness.standing
        registry.register(self)

    def describe(self) -> Iterator[Metric]:
        """Name and labels, without a look."""
        yield _family()

    def collect(self) -> Iterator[Metric]:
        """One value for each reason."""
        family, standing = _family(), self._standing()
        for reason in TroubleReason:
            family.add_metric([reason.value], float(reason in standing))
        yield family


def _family() -> GaugeMetricFamily:
    return GaugeMetricFamily("medchain_trouble", "1 while the process has this trouble.", labels=["reason"])
