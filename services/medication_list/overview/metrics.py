"""The overview as metrics: taken every five seconds in its own thread, exported when scraped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from threading import Event, Thread
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.canonical_log import get_logger
from services.medication_list.overview.overview import Overview, PartitionOverview
from services.telemetry import Registry

LOOKS_EVERY_S: Final = 5.0
OLD_AFTER_S: Final = 60.0
"""Older values are no longer exported: an alert on a missing metric is better than an old number."""
_ENDS_WITHIN_S: Final = 5.0


class OverviewCollector(Collector):
    """Looks until it is stopped. `look` may block."""

    def __init__(self, look: Callable[[], Overview], registry: Registry, every_s: float = LOOKS_EVERY_S) -> None:
        self._look = look
        self._every_s = every_s
        self._seen: tuple[float, Overview] | None = None
        self._ended = Event()
        self._thread = Thread(target=self._run, name="overview", daemon=True)
        registry.register(self)

    def start(self) -> None:
        """Look from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join(_ENDS_WITHIN_S)

    def look(self) -> None:
        """Look once. A failure shows in the log, and by missing metrics."""
        try:
            self._seen = (time.monotonic(), self._look())
        except Exception:  # noqa: BLE001 - an overview that fails must not end the process that it is about
            get_logger().exception("overview_failed")

    def describe(self) -> Iterator[Metric]:
        """Names and labels are those of the last look; nothing is asked here."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """What was seen last, unless it is too old."""
        if self._seen is None or time.monotonic() - self._seen[0] > OLD_AFTER_S:
            return
        seen = self._seen[1]
        yield from _of_partitions(seen)
        yield from _of_generations(seen)
        if seen.redis is not None:
            yield _one("medchain_redis_used_bytes", "Memory that Redis uses.", seen.redis.used_bytes)
            yield _one("medchain_redis_max_bytes", "Its `maxmemory`; 0 for none.", seen.redis.max_bytes)

    def _run(self) -> None:
        while not self._ended.is_set():
            self.look()
            self._ended.wait(self._every_s)


_OF_PARTITIONS: Final[tuple[tuple[str, str, Callable[[PartitionOverview], float | None]], ...]] = (
    ("medchain_view_lag_events", "Records of the log that the live view lacks.", lambda each: each.lag),
    ("medchain_view_lag_seconds", "How long ago the broker took the first of them.", lambda each: each.lag_seconds),
    ("medchain_parked_records", "Records that stand parked.", lambda each: each.parked),
    ("medchain_outbox_effects", "Effects that were not sent yet.", lambda each: each.outbox),
    ("medchain_outbox_age_seconds", "Since when the first of them waits.", lambda each: each.outbox_seconds),
)


def _of_partitions(seen: Overview) -> Iterator[Metric]:
    for name, about, value_of in _OF_PARTITIONS:
        family = GaugeMetricFamily(name, about, labels=["partition"])
        for each in seen.partitions:
            value = value_of(each)
            if value is not None:
                family.add_metric([str(each.partition)], value)
        yield family
    without = seen.without_owner
    if without is not None:
        yield _one("medchain_partitions_without_owner", "Partitions that no processor works on.", len(without))


def _of_generations(seen: Overview) -> Iterator[Metric]:
    building = GaugeMetricFamily(
        "medchain_generation_building",
        "Of the live one: 1 while partitions of it are being made, and not shown.",
        labels=["generation"],
    )
    left = GaugeMetricFamily(
        "medchain_generation_left",
        "Of one beside it: 1 while it is half made and nobody works on it.",
        labels=["generation"],
    )
    lag = GaugeMetricFamily("medchain_generation_lag_events", "Records that it lacks.", labels=["generation"])
    for each in seen.generations:
        if each.lag is not None:
            lag.add_metric([each.generation], each.lag)
        if each.is_live:
            building.add_metric([each.generation], not each.is_complete)
        else:
            left.add_metric([each.generation], not each.is_complete and not each.is_fed)
    yield from (building, left, lag)


def _one(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(name, about, value=value)
