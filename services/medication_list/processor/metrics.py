"""A processor's metrics: counted once a fetch, never once an event, so that their cost cannot be measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.medication_list.driver.batches import Applied, Fetch, Verdict
from services.medication_list.driver.cursors import PartitionStatus
from services.medication_list.fold import VERSION
from services.medication_list.judging.counting import Judged
from services.telemetry import Registry

_RECORDS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class ProcessorMetrics:
    """Counts fetches and the outcomes of their records; progress is looked up on request."""

    def __init__(self, registry: Registry) -> None:
        self._outcomes = Counter(
            "medchain_processor_events_total", "Records judged and stored, by outcome.", ("outcome",), registry=registry
        )
        self._parked = Counter(
            "medchain_processor_parked_total", "Records parked, by reason.", ("reason",), registry=registry
        )
        self._batches = Counter(
            "medchain_processor_batches_total",
            "Batches, by whether the store took them or told another offset.",
            ("verdict",),
            registry=registry,
        )
        self._records = Histogram(
            "medchain_processor_fetch_records", "Records in a fetch.", buckets=_RECORDS, registry=registry
        )
        self._stages = Histogram(
            "medchain_processor_stage_seconds",
            "A fetch's time by stage: decode, read, fold (with what it reads on its way), store.",
            ("stage",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._failures = Counter(
            "medchain_processor_failures_total", "Fetches that failed whole and come again.", registry=registry
        )
        self._conflicts = Counter(
            "medchain_processor_number_conflicts_total",
            "Prescription ids and reference numbers that belong to another patient already.",
            registry=registry,
        )
        self._conflicting = Counter(
            "medchain_processor_conflicting_duplicates_total",
            "Events that say otherwise what was said before under the same id.",
            registry=registry,
        )
        self._generation = Gauge(
            "medchain_processor_generation_info",
            "The generation worked on.",
            ("generation", "fold_version"),
            registry=registry,
        )
        self.positions = Positions(registry)

    def entered(self, generation: str) -> None:
        """The worker works on this generation now."""
        self._generation.clear()
        self._generation.labels(generation, str(VERSION)).set(1)

    def failed(self) -> None:
        """A fetch failed whole."""
        self._failures.inc()

    def judged(self, judged: Judged) -> None:
        """A fetch was judged, and what the store took of it is counted."""
        for outcome, count in judged.outcomes.items():
            self._outcomes.labels(outcome).inc(count)
        for reason, count in judged.parked.items():
            self._parked.labels(reason).inc(count)
        if judged.conflicts:
            self._conflicts.inc(judged.conflicts)
        if judged.conflicting:
            self._conflicting.inc(judged.conflicting)
        for stage, seconds in judged.seconds.items():
            self._stages.labels(stage).observe(seconds)

    def settled(self, fetch: Fetch, verdicts: Mapping[int, Verdict]) -> None:
        """The verdicts of a fetch are known."""
        records = 0
        for batch in fetch.batches:
            records += len(batch.records)
            is_applied = isinstance(verdicts[batch.partition], Applied)
            self._batches.labels("applied" if is_applied else "rewind").inc()
            if is_applied and batch.records:
                self.positions.applied(batch.partition, batch.records[-1].timestamp)
        self._records.observe(records)


class Positions(Collector):
    """How far each partition of a worker has come. From any thread."""

    def __init__(self, registry: Registry, now_s: Callable[[], float] = time.time) -> None:
        self._status: Callable[[], Sequence[PartitionStatus]] = tuple
        self._now_s = now_s
        self._applied_ms: dict[int, int] = {}
        self._current_at_s: dict[int, float] = {}
        registry.register(self)

    def follow(self, status: Callable[[], Sequence[PartitionStatus]]) -> None:
        """The worker runs, and this tells how far it has come."""
        self._status = status

    def applied(self, partition: int, timestamp_ms: int) -> None:
        """The last record that the store took is of this time, by the broker's clock."""
        self._applied_ms[partition] = timestamp_ms

    def describe(self) -> Iterator[Metric]:
        """Names and labels."""
        yield from _families()

    def collect(self) -> Iterator[Metric]:
        """Owned partitions, and of each the lag in records and in seconds, and whether it stands still."""
        owned, lag, lag_s, stopped, stuck = _families()
        statuses = self._status()
        owned.add_metric([], len(statuses))
        for each in statuses:
            name = [str(each.partition)]
            behind = 0 if each.end is None or each.applied is None else max(0, each.end - each.applied)
            lag.add_metric(name, behind)
            lag_s.add_metric(name, self._seconds_behind(each.partition, behind))
            stuck.add_metric(name, float(each.is_stuck))
            stopped.add_metric([*name, "none" if each.stop is None else each.stop.reason.value], float(bool(each.stop)))
        yield from (owned, lag, lag_s, stopped, stuck)

    def _seconds_behind(self, partition: int, behind: int) -> float:
        """At most as long ago as the last record that was taken; and no longer than it was last seen to be current.

        A partition in which nothing happened for a day is not a day behind when a record comes.
        """
        now_s = self._now_s()
        if not behind:
            self._current_at_s[partition] = now_s
            return 0.0
        since_s = max(self._applied_ms.get(partition, 0) / 1000, self._current_at_s.get(partition, 0.0))
        return max(0.0, now_s - since_s) if since_s else 0.0


def _families() -> tuple[GaugeMetricFamily, ...]:
    each = ["partition"]
    return (
        GaugeMetricFamily("medchain_processor_partitions_owned", "Partitions that this worker works on."),
        GaugeMetricFamily("medchain_processor_lag_events", "Records of the log that wait.", labels=each),
        GaugeMetricFamily("medchain_processor_lag_seconds", "How old the oldest of them is at most.", labels=each),
        GaugeMetricFamily(
            "medchain_processor_partition_stopped", "1 while it is not read on.", labels=["partition", "reason"]
        ),
        GaugeMetricFamily("medchain_processor_partition_stuck", "1 while records wait and nothing moves.", labels=each),
    )
