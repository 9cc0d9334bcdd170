"""Traces: one message's way through the processes, as spans that a collector shows; never anything about a patient."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock, Thread
from typing import Annotated, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import Counter
from pydantic import AfterValidator, Field, HttpUrl, TypeAdapter
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.canonical_log import get_logger
from services.canonical_log.allowed_keys import ALLOWED
from services.telemetry.exposition import Registry

TRACEPARENT: Final = "traceparent"
"""The header of W3C trace context, in requests and in records alike."""

_SENT_WITHIN_S: Final = 2.0
_CLOSED_WITHIN_S: Final = 2.0
_WAIT_MS: Final = 1_000
WAITING_AT_MOST: Final = 4_096
_SENT_AT_ONCE: Final = 512
_LENGTH: Final = 55
_FLAGS_END: Final = 54
_SAMPLED: Final = b"13579bdf"
_FORM: Final = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
# No tracestate: its content is the sender's, and would be sent with every span.
_propagator: Final = TraceContextTextMapPropagator()


def _collector(url: str) -> str:
    TypeAdapter(HttpUrl).validate_python(url)
    return url


class TracedSettings(BaseSettings):
    """The settings for traces, among a process' other settings."""

    model_config = SettingsConfigDict(env_prefix="MEDCHAIN_", frozen=True, env_ignore_empty=True)

    traces: Annotated[str, AfterValidator(_collector)] | None = None
    """Base URL of a collector that takes OTLP over HTTP (`http://collector:4318`); no traces are made unless it is given."""
    traces_ratio: float = Field(default=0.01, ge=0, le=1)
    """The share of messages without a trace of their own for which one is begun. What a caller samples is traced anyway."""


class Traces:
    """Makes the spans of one process. They are sent by their own thread, in bounded number; excess ones are dropped."""

    def __init__(self, service: str, ratio: float, exporter: SpanExporter) -> None:
        """`ratio`: the share of traces begun here that are sampled; one that has come keeps its own flag."""
        # The library tells of every attempt, with addresses in the text; `_Told` says it once.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(ratio)),
            resource=Resource({"service.name": service}),
            shutdown_on_exit=False,
        )
        self._leaving = _Leaving(exporter)
        self._provider.add_span_processor(self._leaving)
        self._tracer = self._provider.get_tracer("medchain")

    def begin(
        self, name: str, kind: SpanKind, parent: Context, *, began_ns: int | None = None, **attributes: object
    ) -> Span:
        """A span that the caller ends. `began_ns`: nanoseconds since the epoch, now unless given."""
        return self._tracer.start_span(
            name, parent, kind, allowed(attributes), start_time=began_ns, record_exception=False
        )

    @contextmanager
    def span(self, name: str, kind: SpanKind, traceparent: str | None) -> Iterator[Span]:
        """A span that is the current one within; continues `traceparent`, or begins a trace where there is none."""
        span = self.begin(name, kind, context_of(traceparent))
        # An exception's text may quote what was sent: it is neither recorded nor made the status.
        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            yield span

    def tell(self, registry: Registry) -> None:
        """Let the process count what is lost of its spans among its metrics."""
        registry.register(self._leaving.lost)

    def close(self) -> None:
        """Send what waits, for two seconds at most: a collector that is away holds up nobody who leaves."""
        ending = Thread(target=self._provider.shutdown, name="traces-close", daemon=True)
        ending.start()
        ending.join(_CLOSED_WITHIN_S)


def traces_of(settings: TracedSettings, service: str) -> Traces | None:
    """The traces of a process with a collector; without one None, and nothing is created or loaded."""
    if settings.traces is None:
        return None
    # It brings 5 MiB of libraries along, which a process without traces need not have.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - loaded only where traces are on

    exporter = OTLPSpanExporter(f"{settings.traces.rstrip('/')}/v1/traces", timeout=_SENT_WITHIN_S)
    return Traces(service, settings.traces_ratio, exporter)


def sampled(headers: Sequence[tuple[str, bytes]]) -> bytes | None:
    """The traceparent of a record that is to be traced, None for every other. Usually one byte decides."""
    for name, value in headers:
        if name == TRACEPARENT:
            is_sampled = bool(value) and len(value) == _LENGTH and value[_FLAGS_END] in _SAMPLED
            return value if is_sampled and _FORM.fullmatch(value) else None
    return None


def well_formed(traceparent: str | None) -> str | None:
    """What a sender sent as its traceparent, if it is one: nothing else that it may have put there goes on into the log."""
    if traceparent is None or not _FORM.fullmatch(traceparent.encode("utf-8", "replace")):
        return None
    return traceparent


def context_of(traceparent: str | None) -> Context:
    """The parent that a traceparent names; none where it is missing or malformed."""
    return _propagator.extract({} if traceparent is None else {TRACEPARENT: traceparent}, Context())


def traceparent_of(span: Span) -> str | None:
    """The traceparent by which others refer to a span; None for the invalid span."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, trace.set_span_in_context(span, Context()))
    return carrier.get(TRACEPARENT)


def current_traceparent() -> str | None:
    """The traceparent of the span that is under way in this task, if one is."""
    return traceparent_of(trace.get_current_span())


def allowed(attributes: Mapping[str, object]) -> dict[str, str | bool | int | float]:
    """Those attributes that a log line may have too, in the form that it must have there; all others are dropped."""
    return {
        key: value
        for key, value in attributes.items()
        if isinstance(value, str | bool | int | float) and key in ALLOWED and ALLOWED[key](value)
    }


class _Leaving(SpanProcessor):
    """Lets a bounded number of spans wait for the collector, and counts those that it will never see.

    The bound of the library's own queue is never reached: what it drops there it tells nobody.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self.lost = Counter(
            "medchain_spans_lost_total",
            "Spans that no collector took: it refused them, or too many waited.",
            registry=None,
        )
        self._lock = Lock()
        self._waiting = 0
        self._batches = BatchSpanProcessor(
            _Told(exporter, self._left),
            max_queue_size=WAITING_AT_MOST,
            schedule_delay_millis=_WAIT_MS,
            max_export_batch_size=_SENT_AT_ONCE,
        )

    def on_end(self, span: ReadableSpan) -> None:
        """Let it wait, or let it go."""
        with self._lock:
            has_room = self._waiting < WAITING_AT_MOST
            self._waiting += has_room
        if has_room:
            self._batches.on_end(span)
        else:
            self.lost.inc()

    def _left(self, spans: int, lost: int) -> None:
        with self._lock:
            self._waiting -= spans
        self.lost.inc(lost)

    def shutdown(self) -> None:
        """Send what waits."""
        self._batches.shutdown()  # type: ignore[no-untyped-call]  # the library left it without types

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what waits, and go on."""
        return self._batches.force_flush(timeout_millis)


class _Told(SpanExporter):
    """Hands spans to the collector, and says once when they begin to get lost and once when they arrive again."""

    def __init__(self, exporter: SpanExporter, left: Callable[[int, int], None]) -> None:
        """`left`: called each time with how many spans no longer wait, and how many of them are lost."""
        self._exporter = exporter
        self._left = left
        self._is_away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send these; lost if that fails. Raises nothing."""
        error_type = None
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 - whatever a collector answers, the next batch is tried again
            result, error_type = SpanExportResult.FAILURE, type(error).__name__
        is_away = result is not SpanExportResult.SUCCESS
        if is_away and not self._is_away:
            get_logger().warning("traces_lost", count=len(spans), error_type=error_type)
        elif self._is_away and not is_away:
            get_logger().info("traces_arrive_again")
        self._is_away = is_away
        self._left(len(spans), len(spans) if is_away else 0)
        return result

    def shutdown(self) -> None:
        """Let go of the collector."""
        self._exporter.shutdown()
