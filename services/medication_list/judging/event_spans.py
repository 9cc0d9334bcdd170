"""The processor's spans: one for each sampled event, from the fetch, or the refold, that read it until its view was stored."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from opentelemetry.trace import SpanKind

from services.medication_list.log.record import Record
from services.telemetry.traces import Traces, context_of, sampled


class StoredEvent(NamedTuple):
    """A sampled event that the store took. `event_id`, `event_type`: None for a record that cannot be read."""

    traceparent: bytes
    partition: int
    offset: int
    outcome: str
    event_id: str | None = None
    event_type: str | None = None


class EventSpans:
    """Makes them when all is done, so that none of it is between reading and storing."""

    def __init__(self, traces: Traces, generation: str) -> None:
        """`generation`: the view that is fed; an event has a span for each view that it is stored in."""
        self._traces = traces
        self._generation = generation

    def stored(self, events: Iterable[StoredEvent], fetched_ns: int) -> None:
        """Each was fetched at this time (nanoseconds since the epoch), and is stored now."""
        self._made("judge and store", events, fetched_ns)

    def refolded(self, events: Iterable[StoredEvent], began_ns: int) -> None:
        """Each had been parked; its patient's refold began at this time, and is stored now."""
        self._made("refold", events, began_ns)

    def _made(self, name: str, events: Iterable[StoredEvent], began_ns: int) -> None:
        for event in events:
            self._traces.begin(
                name,
                SpanKind.CONSUMER,
                context_of(event.traceparent.decode("ascii")),
                began_ns=began_ns,
                partition=event.partition,
                offset=event.offset,
                outcome=event.outcome,
                event_id=event.event_id,
                event_type=event.event_type,
                generation=self._generation,
            ).end()


def sampled_in(records: Sequence[Record]) -> dict[int, bytes]:
    """By offset, the traceparents of those records that are to be traced."""
    found = {}
    for record in records:
        traceparent = sampled(record.headers)
        if traceparent is not None:
            found[record.offset] = traceparent
    return found
