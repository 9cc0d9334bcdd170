"""A log whose sampled records are exported as spans, named in the records' headers for their readers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from services.publishing.log import LARGEST_RECORD_BYTES, Headers, Log, LogRecord, Position, record_bytes
from services.telemetry.traces import TRACEPARENT, Traces, allowed, context_of, sampled, traceparent_of

_HEADER_BYTES: Final = 80
"""More than the header takes."""


class TracedLog:
    """See `Log` for what each method promises; a record is appended the same, traced or not.

    The span's parent is the task's current span, or else the one that the record's own header names.
    """

    def __init__(self, log: Log, traces: Traces) -> None:
        self._log = log
        self._traces = traces

    async def append(self, topic: str, key: bytes, value: bytes, headers: Headers = ()) -> Position:
        """See `Log.append`."""
        (answer,) = await self.append_many([LogRecord(topic, key, value, headers)])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def append_many(self, records: Sequence[LogRecord]) -> Sequence[Position | Exception]:
        """See `Log.append_many`."""
        begun = [self._begun(record) for record in records]
        try:
            answers = await self._log.append_many([record for record, _ in begun])
            for (_, span), answer in zip(begun, answers, strict=True):
                if span is not None:
                    _answered(span, answer)
        finally:
            for _, span in begun:
                if span is not None:
                    span.end()
        return answers

    async def close(self) -> None:
        """See `Log.close`."""
        await self._log.close()

    def _begun(self, record: LogRecord) -> tuple[LogRecord, Span | None]:
        """The record with the header of its span; as it is, and no span, where it is not traced."""
        current = trace.get_current_span()
        if current.is_recording():
            parent = trace.set_span_in_context(current)
        elif (traceparent := sampled(record.headers)) is not None:
            parent = context_of(traceparent.decode("ascii"))
        else:
            return record, None
        if record_bytes(record.key, record.value, record.headers) + _HEADER_BYTES > LARGEST_RECORD_BYTES:
            # A trace must not be what makes a record too large.
            return record, None
        span = self._traces.begin(
            f"append {record.topic.partition('.')[0]}",
            SpanKind.PRODUCER,
            parent,
            topic=record.topic,
            event_id=_text(record.headers, "ce_id"),
            event_type=_text(record.headers, "ce_type"),
        )
        header = (traceparent_of(span) or "").encode("ascii")
        others = [each for each in record.headers if each[0] != TRACEPARENT]
        return record._replace(headers=[*others, (TRACEPARENT, header)]), span


def _answered(span: Span, answer: Position | Exception) -> None:
    if isinstance(answer, Exception):
        span.set_attributes(allowed({"error_type": type(answer).__name__}))
        span.set_status(Status(StatusCode.ERROR))
    else:
        span.set_attributes(allowed({"partition": answer.partition, "offset": answer.offset}))


def _text(headers: Headers, name: str) -> str | None:
    return next((value.decode("utf-8", "replace") for each, value in headers if each == name), None)
