"""The span of each submission: from its turn until its events, or the receipt of its rejection, are safe."""

from __future__ import annotations

from opentelemetry.trace import SpanKind

from services.submissions.inbox import Receive
from services.submissions.reception import Received
from services.telemetry.traces import Traces, allowed


def traced(receive: Receive, traces: Traces) -> Receive:
    """The same reception; continues the trace that a record names, or begins one. What it raises is raised."""

    async def traced_receive(received: Received) -> None:
        with traces.span("receive submission", SpanKind.CONSUMER, received.traceparent) as span:
            if span.is_recording():
                place = {"topic": received.topic, "partition": received.partition, "offset": received.offset}
                span.set_attributes(allowed(place))
            await receive(received)

    return traced_receive
