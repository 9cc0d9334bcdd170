"""Traces: nothing where no collector is named, only what is sampled, nothing of a patient, and nobody waits for a collector."""

import io
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, overload

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from pydantic import ValidationError

from deploy.local.waiting import wait_until
from schemas import codec
from schemas.events import Body, Event
from schemas.reasons import NoticeKind
from services.canonical_log import configure
from services.canonical_log.allowed_keys import ALLOWED
from services.clock import ManualClock
from services.medication_list.driver.batches import Applied, Fetch, PartitionBatch, Rewind
from services.medication_list.fold.judgement import NoticeDue
from services.medication_list.judging.event_spans import EventSpans
from services.medication_list.judging.judge import Judge
from services.medication_list.refolding.refolder import Refolder
from services.medication_list.stored.packing import pack_effect, unpack_effect
from services.publishing.log import LARGEST_RECORD_BYTES, LogRecord, LogUnavailable
from services.publishing.memory_log import MemoryLog
from services.publishing.traced_log import TracedLog
from services.submissions.reception import Received
from services.submissions.traced_reception import traced
from services.telemetry import new_registry
from services.telemetry.traced_requests import TracedRequests
from services.telemetry.traces import (
    WAITING_AT_MOST,
    TracedSettings,
    Traces,
    allowed,
    context_of,
    sampled,
    traceparent_of,
    traces_of,
    well_formed,
)
from services.topics.registry import EVENTS_TOPIC
from tests.collector import a_collector
from tests.unit.fold_world import ACTORS, PATIENT, at, id_of, issued, recalled
from tests.unit.refold_world import UNKNOWN, RefoldWorld, Stored

TRACE_ID: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
SAMPLED: Final = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
UNSAMPLED: Final = f"00-{TRACE_ID}-00f067aa0ba902b7-00"
NUMBER: Final = "13857300054"
KEY: Final = b"a" * 32
DUE: Final = NoticeDue(NoticeKind.ORDER_VOID, "974761076", "R1", 0)
MALFORMED: Final = (
    "",
    "00",
    "01",
    SAMPLED[:-1],
    SAMPLED + "0",
    SAMPLED.upper(),
    SAMPLED.replace("-", "_"),
    "ff" + SAMPLED[2:],
    f"00-{'0' * 32}-00f067aa0ba902b7-01",
    f"00-{TRACE_ID}-{'0' * 16}-01",
    f"00-{NUMBER}-00f067aa0ba902b7-01",
    "x" * 55,
    "é" * 28,
)


class Kept:
    """Traces whose spans are kept here."""

    def __init__(self, ratio: float = 0.0) -> None:
        self._exporter = InMemorySpanExporter()
        self.traces = Traces("a_service", ratio, self._exporter)

    def spans(self) -> Sequence[ReadableSpan]:
        """All of them; no more are made after this."""
        self.traces.close()
        return self._exporter.get_finished_spans()


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


# --- Settings ----------------------------------------------------------------------------------------------------


def test_without_a_collector_nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MEDCHAIN_TRACES", "MEDCHAIN_TRACES_RATIO"):
        monkeypatch.setenv(name, "")
    assert traces_of(TracedSettings(), "prescriber") is None
    # The library's own variable does not switch it on: there is one place that does.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    assert traces_of(TracedSettings(), "prescriber") is None


@pytest.mark.parametrize(
    ("name", "value"), [("TRACES", "collector:x"), ("TRACES_RATIO", "1.5"), ("TRACES_RATIO", "-1")]
)
def test_a_setting_that_cannot_be_meant_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"MEDCHAIN_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        TracedSettings()


# --- What is traced ----------------------------------------------------------------------------------------------


def test_a_record_is_traced_by_the_flag_that_it_bears_and_by_nothing_else() -> None:
    for last in "0123456789abcdef":
        header = SAMPLED[:-1] + last
        found = sampled([("ce_id", b"1"), ("traceparent", header.encode())])
        assert (found is not None) == bool(int(last, 16) & 1), header
    assert sampled([("ce_id", b"1")]) is None
    assert sampled([]) is None


@pytest.mark.parametrize("header", MALFORMED)
def test_a_malformed_traceparent_is_no_trace(header: str) -> None:
    assert sampled([("traceparent", header.encode())]) is None
    assert well_formed(header) is None
    kept = Kept()
    with kept.traces.span("request", SpanKind.SERVER, header) as span:
        assert not span.is_recording()
    assert kept.spans() == ()


@given(st.binary(max_size=80))
def test_whatever_stands_in_the_header_is_a_trace_or_none(header: bytes) -> None:
    found = sampled([("traceparent", header)])
    assert found in (None, header)


def test_a_traceparent_goes_on_as_it_came_sampled_or_not() -> None:
    assert [well_formed(header) for header in (SAMPLED, UNSAMPLED, None)] == [SAMPLED, UNSAMPLED, None]


def test_a_header_without_a_value_is_no_trace() -> None:
    headers: Any = [("traceparent", None)]
    assert sampled(headers) is None


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_a_caller_decides_for_its_own_trace_and_the_ratio_for_all_others(ratio: float) -> None:
    kept = Kept(ratio)
    for header in (SAMPLED, UNSAMPLED, None):
        with kept.traces.span("request", SpanKind.SERVER, header):
            pass
    spans = kept.spans()
    assert len(spans) == (2 if ratio else 1)
    assert f"{spans[0].context.trace_id:032x}" == TRACE_ID if spans[0].context else False


# --- Attributes --------------------------------------------------------------------------------------------------


def test_only_what_a_log_line_may_have_becomes_an_attribute() -> None:
    given_attributes = {
        "partition": 3,
        "event_type": "PrescriptionIssued",
        "national_id": NUMBER,
        "name": "Kari",
        "patient": PATIENT,
        "outcome": NUMBER,
        "offset": int(NUMBER),
        "route": f"/v1/patients/{NUMBER}",
        "event_id": NUMBER,
        "topic": None,
    }
    assert allowed(given_attributes) == {"partition": 3, "event_type": "PrescriptionIssued"}


async def test_a_request_tells_its_route_and_status_and_nothing_of_what_was_sent() -> None:
    kept, app = Kept(), FastAPI()

    @app.post("/v1/things/{thing}")
    async def refuse(thing: str) -> None:
        raise RuntimeError(f"{thing} of {NUMBER}")

    app.add_middleware(TracedRequests, traces=kept.traces)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
        headers = {"traceparent": SAMPLED, "tracestate": f"a={NUMBER}"}
        await client.post(f"/v1/things/{NUMBER}?q={NUMBER}", json={"a": NUMBER}, headers=headers)
        await client.post(f"/nowhere/{NUMBER}", headers=headers)
        await client.get("/health/live", headers=headers)
    failed, lost = kept.spans()
    assert (failed.name, attributes(failed)) == (
        "POST /v1/things/{thing}",
        {"method": "POST", "route": "/v1/things/{thing}", "status": 500},
    )
    assert (lost.name, attributes(lost)) == ("POST none", {"method": "POST", "status": 404})
    for span in (failed, lost):
        assert NUMBER not in span.to_json()
        assert span.events == ()


async def test_a_submission_that_fails_tells_nothing_of_why() -> None:
    kept = Kept()

    async def refuse(received: Received) -> None:
        raise LogUnavailable(f"{received.key!r} of {NUMBER}")

    with pytest.raises(LogUnavailable):
        await traced(refuse, kept.traces)(Received("prescription-submissions.journal", 0, 7, b"k", b"v", 0, SAMPLED))
    (span,) = kept.spans()
    assert attributes(span) == {"topic": "prescription-submissions.journal", "partition": 0, "offset": 7}
    assert NUMBER not in span.to_json()


# --- The log -----------------------------------------------------------------------------------------------------


@contextmanager
def a_traced_log() -> Iterator[tuple[Kept, MemoryLog, TracedLog]]:
    kept = Kept()
    log = MemoryLog(lambda _: 1, ManualClock(1))
    yield kept, log, TracedLog(log, kept.traces)


async def test_an_unsampled_record_is_appended_as_it_is() -> None:
    with a_traced_log() as (kept, log, traced_log):
        headers = (("ce_id", b"1"), ("traceparent", UNSAMPLED.encode()))
        await traced_log.append(EVENTS_TOPIC, KEY, b"v", headers)
        await traced_log.append(EVENTS_TOPIC, KEY, b"v", ())
        assert [record.headers for record in log.records(EVENTS_TOPIC)] == [headers, ()]
        assert kept.spans() == ()


async def test_a_sampled_record_names_its_append_to_whoever_reads_it() -> None:
    with a_traced_log() as (kept, log, traced_log):
        event_id = id_of("an event")
        headers = [("ce_id", event_id.encode()), ("traceparent", SAMPLED.encode()), ("other", b"1")]
        await traced_log.append(EVENTS_TOPIC, KEY, b"v", headers)
        (record,) = log.records(EVENTS_TOPIC)
        (span,) = kept.spans()
        assert attributes(span) == {"topic": EVENTS_TOPIC, "event_id": event_id, "partition": 0, "offset": 0}
        assert dict(record.headers)["other"] == b"1"
        assert [name for name, _ in record.headers].count("traceparent") == 1
        assert dict(record.headers)["traceparent"].decode() == (
            f"00-{TRACE_ID}-{span.context.span_id if span.context else 0:016x}-01"
        )


async def test_the_span_under_way_is_the_parent_of_what_is_appended_in_it() -> None:
    with a_traced_log() as (kept, _, traced_log):
        with kept.traces.span("request", SpanKind.SERVER, SAMPLED):
            await traced_log.append(EVENTS_TOPIC, KEY, b"v", [("traceparent", SAMPLED.encode())])
        append, request = kept.spans()
        assert append.parent is not None
        assert request.context is not None
        assert append.parent.span_id == request.context.span_id


async def test_a_failed_append_is_answered_the_same_and_tells_no_text() -> None:
    with a_traced_log() as (kept, log, traced_log):
        log.is_available = False
        records = [LogRecord(EVENTS_TOPIC, KEY, b"v", [("traceparent", SAMPLED.encode())])]
        (answer,) = await traced_log.append_many(records)
        assert isinstance(answer, LogUnavailable)
        (span,) = kept.spans()
        assert attributes(span) == {"topic": EVENTS_TOPIC, "error_type": "LogUnavailable"}


async def test_a_trace_makes_no_record_too_large() -> None:
    with a_traced_log() as (kept, log, traced_log):
        headers = (("traceparent", SAMPLED.encode()),)
        room = LARGEST_RECORD_BYTES - len(KEY) - len("traceparent") - len(SAMPLED)
        with kept.traces.span("request", SpanKind.SERVER, SAMPLED):
            await traced_log.append(EVENTS_TOPIC, KEY, b"v" * room, headers)
        assert log.records(EVENTS_TOPIC)[0].headers == headers


# --- The processor -----------------------------------------------------------------------------------------------


class Looked(Sequence[tuple[str, bytes]]):
    """Headers that count how often somebody goes through them."""

    def __init__(self, *headers: tuple[str, bytes]) -> None:
        self._headers = headers
        self.times = 0

    @overload
    def __getitem__(self, index: int) -> tuple[str, bytes]: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[tuple[str, bytes]]: ...

    def __getitem__(self, index: int | slice) -> tuple[str, bytes] | Sequence[tuple[str, bytes]]:
        return self._headers[index]

    def __len__(self) -> int:
        return len(self._headers)

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        self.times += 1
        return iter(self._headers)


def a_record(
    offset: int, traceparent: str | None, *, value: bytes | None = None, body: Body | None = None, by: str = "A"
) -> Any:
    event = Event(
        event_id=id_of(f"event {offset}"),
        patient=PATIENT,
        occurred_at_ms=at(0),
        received_at_ms=at(0),
        source=ACTORS[by],
        body=body or issued(f"R{offset}", f"T{offset}").body,
    )
    headers = Looked(*([] if traceparent is None else [("traceparent", traceparent.encode())]))
    record: Any = Stored(offset, PATIENT.encode(), value or codec.encode(event), at(0), ())
    return record._replace(headers=headers)


def judged(traces: Traces | None, records: Sequence[Any], first_offset: int = 0) -> tuple[RefoldWorld, Any]:
    world = RefoldWorld()
    spans = None if traces is None else EventSpans(traces, "g1-000000")
    batch = PartitionBatch(0, first_offset, first_offset + len(records), records, 0)
    return world, Judge(world.store, 1, spans=spans).process(Fetch((batch,), 1_000))


def test_a_processor_without_traces_looks_at_no_header_for_them() -> None:
    records = [a_record(offset, SAMPLED) for offset in range(3)]
    judged(None, records)
    # Once: whether the event came by a submission.
    assert [record.headers.times for record in records] == [1, 1, 1]


def test_the_processor_has_one_span_for_each_sampled_event_and_none_for_the_others() -> None:
    kept = Kept(ratio=1.0)
    unreadable = a_record(3, SAMPLED, value=UNKNOWN + b"1234")
    records = [a_record(0, SAMPLED), a_record(1, UNSAMPLED), a_record(2, None), unreadable]
    _, verdicts = judged(kept.traces, records)
    assert verdicts == {0: Applied(4)}
    read, parked = kept.spans()
    common = {"partition": 0, "generation": "g1-000000"}
    about = {"offset": 0, "outcome": "applied", "event_id": id_of("event 0"), "event_type": "PrescriptionIssued"}
    assert attributes(read) == {**common, **about}
    assert attributes(parked) == {**common, "offset": 3, "outcome": "parked"}
    assert read.start_time == 1_000
    assert (read.end_time or 0) > 1_000
    assert {*attributes(read), *attributes(parked)} <= set(ALLOWED)


def test_what_the_store_refuses_has_no_span() -> None:
    kept = Kept()
    _, verdicts = judged(kept.traces, [a_record(5, SAMPLED)], first_offset=5)
    assert verdicts == {0: Rewind(0)}
    assert kept.spans() == ()


def test_a_view_is_the_same_whether_it_was_traced_or_not() -> None:
    kept = Kept()
    records = [a_record(offset, SAMPLED if offset % 2 else None) for offset in range(4)]
    (with_traces, _), (without, _) = judged(kept.traces, records), judged(None, records)
    assert with_traces.server.content() == without.server.content()


def test_what_was_parked_is_traced_once_more_when_it_is_refolded_and_its_effects_carry_the_trace() -> None:
    kept, world, recall = Kept(), RefoldWorld(), recalled("R0", by="B")
    good = [a_record(0, None), a_record(1, SAMPLED, body=recall.body, by=recall.by), a_record(2, None)]
    for record in (good[0], good[1]._replace(value=UNKNOWN + b"1234"), good[2]):
        world.add(record)
    assert world.effects() == []
    world.records[0, 1] = good[1]
    spans = EventSpans(kept.traces, "g1-000000")
    assert Refolder(world.store, world.log, 1, lambda: at(1), spans=spans).refold(PATIENT) is not None
    (span,) = kept.spans()
    assert span.name == "refold"
    assert span.parent is not None
    assert f"{span.parent.trace_id:032x}" == TRACE_ID
    about = {"partition": 0, "offset": 1, "generation": "g1-000000", "outcome": "applied"}
    assert attributes(span) == {**about, "event_id": id_of("event 1"), "event_type": "PrescriptionRecalled"}
    assert {each.traceparent for each in world.effects()} == {SAMPLED.encode()}


def test_an_effect_carries_its_traceparent_and_one_without_is_packed_as_ever() -> None:
    plain = pack_effect(3, PATIENT, DUE)
    assert unpack_effect(plain).traceparent is None
    carried = unpack_effect(pack_effect(3, PATIENT, DUE, SAMPLED.encode()))
    assert carried.traceparent == SAMPLED.encode()
    assert carried.due == unpack_effect(plain).due


# --- The collector -----------------------------------------------------------------------------------------------


def test_spans_arrive_at_a_collector_with_the_name_of_their_process() -> None:
    with a_collector() as collector:
        traces = traces_of(TracedSettings(traces=collector.url + "/", traces_ratio=1.0), "prescriber")
        assert traces is not None
        with traces.span("request", SpanKind.SERVER, None) as span:
            said = traceparent_of(span)
        traces.close()
        (arrived,) = collector.spans
    assert arrived.service == "prescriber"
    assert said is not None
    assert said.startswith(f"00-{arrived.trace_id}-{arrived.span_id}-")
    assert sampled([("traceparent", said.encode())])


class Collecting(SpanExporter):
    """A collector that takes spans or refuses them, and takes its time where it is held up."""

    def __init__(self, *, takes: bool) -> None:
        self._takes = takes
        self.goes_on = threading.Event()
        self.goes_on.set()

    def export(self, _: Sequence[ReadableSpan]) -> SpanExportResult:
        """See `SpanExporter.export`."""
        self.goes_on.wait(10)
        return SpanExportResult.SUCCESS if self._takes else SpanExportResult.FAILURE


def made(traces: Traces, count: int) -> None:
    for _ in range(count):
        traces.begin("judge and store", SpanKind.CONSUMER, context_of(SAMPLED), partition=1).end()


def lost(traces: Traces) -> float | None:
    registry = new_registry()
    traces.tell(registry)
    return registry.get_sample_value("medchain_spans_lost_total")


@pytest.mark.parametrize("takes", [True, False])
def test_a_span_that_the_collector_did_not_take_is_counted_as_lost_and_no_other(*, takes: bool) -> None:
    traces = Traces("a_service", 0.0, Collecting(takes=takes))
    made(traces, 1_000)
    traces.close()
    assert lost(traces) == (0 if takes else 1_000)


def test_a_span_that_finds_too_many_waiting_is_lost_and_counted() -> None:
    collecting = Collecting(takes=True)
    collecting.goes_on.clear()
    traces = Traces("a_service", 0.0, collecting)
    made(traces, WAITING_AT_MOST + 7)
    assert lost(traces) == 7
    collecting.goes_on.set()
    wait_until(lambda: _makes_room(traces), within_s=10, what="the collector takes what waited")
    traces.close()


def _makes_room(traces: Traces) -> bool:
    """Whether one more span is not lost."""
    before = lost(traces)
    made(traces, 1)
    return lost(traces) == before


@pytest.mark.parametrize("is_silent", [False, True], ids=["refuses", "silent"])
def test_a_collector_that_is_away_holds_up_nobody_and_is_told_of_once(*, is_silent: bool) -> None:
    told = io.StringIO()
    configure("a_service", stream=told)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if is_silent:
            listening.listen()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1/traces"
        traces = Traces("a_service", 1.0, OTLPSpanExporter(url, timeout=0.2))
        # More than waits at most: what is too much is dropped without a word for each.
        for _ in range(5_000):
            traces.begin("judge and store", SpanKind.CONSUMER, context_of(SAMPLED), partition=1).end()
        traces.close()
    lines = [json.loads(line) for line in told.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["traces_lost"]
