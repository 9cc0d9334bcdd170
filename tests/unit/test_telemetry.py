"""Metrics: every label is of a closed vocabulary, whatever callers send, and time is counted as an operator means it."""

from collections.abc import Iterable
from typing import Final

import httpx
import msgspec
from fastapi import FastAPI
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from schemas.reasons import DoorReason
from services.clock import ManualClock
from services.health import Readiness, Trouble, TroubleReason
from services.medication_list.driver.batches import Applied, Fetch, PartitionBatch, Rewind
from services.medication_list.driver.cursors import PartitionStatus, Stop, StopReason
from services.medication_list.judging.counting import Judged
from services.medication_list.overview.metrics import OverviewCollector
from services.medication_list.overview.overview import GenerationOverview, Overview, PartitionOverview, RedisOverview
from services.medication_list.processor.metrics import Positions, ProcessorMetrics
from services.medication_list.read_api.read_metrics import ReadMetrics
from services.medication_list.relay.metrics import RelayMetrics
from services.problems import Problem, install
from services.recording.app import CanonicalLine
from services.recording.write_metrics import WriteMetrics
from services.submissions.inbox_metrics import InboxMetrics
from services.telemetry import Registry, RequestMetrics, TroubleMetrics, metrics_routes, new_registry
from services.telemetry.traces import Traces

LABELS: Final = {
    # Ours: route templates, our own vocabularies, what the deployment declares. Nothing that a sender chooses.
    *("method", "route", "status", "reason", "outcome", "stage", "verdict", "reached"),
    *("partition", "generation", "fold_version"),
    *("le", "quantile"),
}


def series(registry: Registry) -> dict[str, float]:
    """Every series by its name and labels."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        each.name + "".join(f",{name}={value}" for name, value in sorted(each.labels.items())): each.value
        for family in families
        for each in family.samples
    }


def labels_of(registry: Registry) -> set[str]:
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {name for family in families for sample in family.samples for name in sample.labels}


def everything() -> Registry:
    """Every metric of the platform, each told something once."""
    registry = new_registry()
    requests, writes, reads = RequestMetrics(registry), WriteMetrics(registry), ReadMetrics(registry)
    requests.began()
    requests.ended(method="POST", route="/v1/claims", status=409, seconds=0.1, reason="held")
    with writes.appending(), writes.waiting():
        reads.waited(0.1, reached=True)
    reads.found_conflict()
    processor, relay, inbox = ProcessorMetrics(registry), RelayMetrics(registry), InboxMetrics(registry)
    processor.entered("g1-abcdef")
    judged = Judged(seconds={"fold": 0.1}, conflicts=1, conflicting=1)
    judged.outcomes["applied"] = judged.parked["no_key"] = 1
    processor.judged(judged)
    processor.settled(Fetch((PartitionBatch(0, 0, 2, (), 1),)), {0: Applied(2)})
    processor.positions.follow(lambda: (status(0, 3, 5, StopReason.CORRUPT_BATCH),))
    relay.held("topic_missing")
    inbox.rejected("invalid")
    OverviewCollector(lambda: overview_of(1), registry).look()
    TroubleMetrics(Readiness({}), registry)
    traces = Traces("a_service", 0.0, InMemorySpanExporter())
    traces.tell(registry)
    traces.close()
    return registry


def status(partition: int, applied: int, end: int, stop: StopReason | None = None) -> PartitionStatus:
    return PartitionStatus(partition, applied, end, None if stop is None else Stop(stop, partition, applied))


def overview_of(lag: int) -> Overview:
    partition = PartitionOverview(
        partition=0, end=lag, offset=0, lag=lag, lag_seconds=1.0, parked=1, outbox=1, outbox_seconds=1.0
    )
    generation = GenerationOverview(
        generation="g1-abcdef",
        fold_version=2,
        release="0.1.0",
        made_at_ms=0,
        is_live=True,
        is_complete=True,
        is_fed=True,
        lag=lag,
    )
    beside = msgspec.structs.replace(generation, generation="g2-abcdef", is_live=False)
    redis = RedisOverview(version="7.0", used_bytes=1, max_bytes=2, policy="noeviction", appends_file=True)
    return Overview(at_ms=0, partitions=(partition,), generations=(generation, beside), redis=redis)


def test_every_label_is_of_a_closed_vocabulary() -> None:
    assert labels_of(everything()) <= LABELS


def test_every_metric_is_named_after_the_platform_and_says_what_it_is() -> None:
    families = list(text_string_to_metric_families(generate_latest(everything()).decode()))
    assert len(families) > 25
    assert [each.name for each in families if not each.name.startswith("medchain_")] == []
    assert [each.name for each in families if not each.documentation.endswith(".")] == []


class Asked:
    """A service in one process, with the frame that all services have."""

    def __init__(self) -> None:
        self.registry = new_registry()
        app = FastAPI()
        app.include_router(metrics_routes(lambda _: (self.registry,)))

        @app.post("/v1/things/{thing}")
        async def thing(thing: str) -> str:
            if thing == "held":
                raise Problem(409, DoorReason.WRONG_FORMAT)
            return thing

        install(app)
        app.add_middleware(CanonicalLine, clock=ManualClock(0), metrics=RequestMetrics(self.registry))
        self._app = app

    async def ask(self, requests: Iterable[tuple[str, str]]) -> None:
        """Send these, one after the other."""
        transport = httpx.ASGITransport(app=self._app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            for method, path in requests:
                await client.request(method, path, json={})


async def test_what_callers_make_up_makes_no_new_series() -> None:
    asked = Asked()
    await asked.ask([("POST", "/v1/things/1"), ("POST", "/nowhere"), ("BREW", "/nowhere"), ("POST", "/v1/things/held")])
    before = len(series(asked.registry))
    await asked.ask([("POST", f"/v1/things/{number}") for number in range(200)])
    await asked.ask([("POST", f"/13857300054/{number}") for number in range(200)])
    await asked.ask([(f"BREW{number}".replace("0", "A"), "/nowhere") for number in range(20)])
    assert len(series(asked.registry)) == before
    assert "13857300054" not in generate_latest(asked.registry).decode()


async def test_requests_are_counted_by_template_status_and_reason_of_the_problem() -> None:
    asked = Asked()
    await asked.ask([("POST", "/v1/things/1"), ("POST", "/v1/things/2"), ("POST", "/v1/things/held")])
    found = series(asked.registry)
    assert found["medchain_http_requests_total,method=POST,route=/v1/things/{thing},status=200"] == 2
    assert found["medchain_http_problems_total,reason=wrong_format,route=/v1/things/{thing},status=409"] == 1
    assert found["medchain_http_request_seconds_count,route=/v1/things/{thing}"] == 3
    assert found["medchain_http_requests_under_way"] == 0


def test_only_what_the_store_took_is_counted_as_judged() -> None:
    registry = new_registry()
    metrics = ProcessorMetrics(registry)
    batches = (PartitionBatch(0, 0, 2, (), 1), PartitionBatch(1, 5, 9, (), 1))
    metrics.settled(Fetch(batches), {0: Applied(2), 1: Rewind(3)})
    found = series(registry)
    assert found["medchain_processor_batches_total,verdict=applied"] == 1
    assert found["medchain_processor_batches_total,verdict=rewind"] == 1


def test_a_partition_in_which_nothing_happened_for_a_day_is_not_a_day_behind_when_a_record_comes() -> None:
    registry, now_s = new_registry(), [90_000.0]
    positions = Positions(registry, lambda: now_s[0])
    positions.applied(0, 1_000)
    positions.follow(lambda: (status(0, 5, 5),))
    assert series(registry)["medchain_processor_lag_seconds,partition=0"] == 0
    positions.follow(lambda: (status(0, 5, 6),))
    now_s[0] += 7
    found = series(registry)
    assert found["medchain_processor_lag_seconds,partition=0"] == 7
    assert found["medchain_processor_lag_events,partition=0"] == 1


def test_a_stopped_partition_says_why() -> None:
    registry = new_registry()
    Positions(registry).follow(lambda: (status(3, 5, 6, StopReason.OFFSET_OUT_OF_RANGE),))
    assert series(registry)["medchain_processor_partition_stopped,partition=3,reason=offset_out_of_range"] == 1


async def test_a_trouble_is_1_while_it_stands() -> None:
    standing: list[Trouble] = [Trouble(TroubleReason.REDIS_UNREACHABLE, "It does not answer.")]

    async def check() -> list[Trouble]:
        return standing

    readiness, registry = Readiness({"Redis": check}), new_registry()
    TroubleMetrics(readiness, registry)
    readiness.tell(await readiness.troubles())
    assert series(registry)["medchain_trouble,reason=redis_unreachable"] == 1
    assert series(registry)["medchain_trouble,reason=broker_unreachable"] == 0
    standing.clear()
    readiness.tell(await readiness.troubles())
    assert series(registry)["medchain_trouble,reason=redis_unreachable"] == 0


def test_an_overview_that_fails_ends_nothing_and_tells_nothing_old() -> None:
    registry, broken = new_registry(), [False]

    def look() -> Overview:
        if broken[0]:
            raise RuntimeError
        return overview_of(3)

    collector = OverviewCollector(look, registry)
    assert series(registry) == {}
    collector.look()
    broken[0] = True
    collector.look()
    assert series(registry)["medchain_view_lag_events,partition=0"] == 3
