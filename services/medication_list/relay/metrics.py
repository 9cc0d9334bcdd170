"""A relay's metrics of the effects that it sends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from services.telemetry import Registry

_SECONDS: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 8.0)


class RelayMetrics:
    """Counts rounds, what they sent, and what they had to hold."""

    def __init__(self, registry: Registry) -> None:
        self._relayed = Counter(
            "medchain_relay_effects_total", "Effects sent, confirmed and deleted.", registry=registry
        )
        self._held = Gauge(
            "medchain_relay_held_topics", "Topics whose effects wait because one cannot be sent.", registry=registry
        )
        self._refused = Counter(
            "medchain_relay_held_total", "Times that an effect was held, by reason.", ("reason",), registry=registry
        )
        self._failures = Counter("medchain_relay_failures_total", "Rounds that failed.", registry=registry)
        self._leased = Gauge(
            "medchain_relay_partitions_leased", "Partitions that this relay works on.", registry=registry
        )
        self._sending = Histogram(
            "medchain_relay_send_seconds",
            "From handing a round to the log to its confirmation.",
            buckets=_SECONDS,
            registry=registry,
        )

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Around the sending of one round."""
        with self._sending.time():
            yield

    def relayed(self, effects: int) -> None:
        """So many are gone from the outbox."""
        self._relayed.inc(effects)

    def held(self, reason: str) -> None:
        """An effect cannot be sent at present."""
        self._refused.labels(reason).inc()

    def failed(self) -> None:
        """A round failed."""
        self._failures.inc()
        self._leased.set(0)

    def stands(self, held: Mapping[int, Mapping[str, str]]) -> None:
        """For each leased partition the topics that are held."""
        self._leased.set(len(held))
        self._held.set(len({topic for topics in held.values() for topic in topics}))
