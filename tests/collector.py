"""A small collector for tests: takes traces as OTLP over HTTP, decodes them, and keeps every span with its process."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Final, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SentSpan

PATH: Final = "/v1/traces"


class Arrived(NamedTuple):
    """A span as it arrived: ids as hexadecimal digits, times in nanoseconds since the epoch. `text`: all of it, to search."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    began_ns: int
    ended_ns: int
    attributes: dict[str, str | int | float | bool]
    text: str


class Collector:
    """What has arrived so far; safe to ask from any thread."""

    def __init__(self) -> None:
        self.url = ""
        self._spans: list[Arrived] = []
        self._lock = Lock()

    def take(self, body: bytes) -> None:
        """One request. Raises google.protobuf.message.DecodeError."""
        request = ExportTraceServiceRequest.FromString(body)
        with self._lock:
            for of_process in request.resource_spans:
                about = {each.key: _value(each.value) for each in of_process.resource.attributes}
                for scope in of_process.scope_spans:
                    self._spans += [_arrived(str(about["service.name"]), span) for span in scope.spans]

    @property
    def spans(self) -> list[Arrived]:
        """All that arrived, in that order."""
        with self._lock:
            return list(self._spans)

    def of_trace(self, trace_id: str) -> list[Arrived]:
        """What arrived of this trace, by when it began."""
        return sorted((span for span in self.spans if span.trace_id == trace_id), key=lambda span: span.began_ns)


@contextmanager
def a_collector() -> Iterator[Collector]:
    """A collector that listens at `url` until the end."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == PATH:
                collector.take(body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200 if self.path == PATH else 404)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="collector")
        serving.start()
        collector.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield collector
        finally:
            server.shutdown()
            serving.join()


def _arrived(service: str, span: SentSpan) -> Arrived:
    return Arrived(
        service=service,
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        began_ns=span.start_time_unix_nano,
        ended_ns=span.end_time_unix_nano,
        attributes={each.key: _value(each.value) for each in span.attributes},
        text=str(span),
    )


def _value(value: AnyValue) -> str | int | float | bool:
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value
        case "int_value":
            return value.int_value
        case "double_value":
            return value.double_value
        case "bool_value":
            return value.bool_value
        case other:
            raise TypeError(f"an attribute of another kind: {other}")
