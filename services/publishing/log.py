"""What a log is to its writers: the port, its errors, and the headers that every record carries."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple, Protocol

Headers = Sequence[tuple[str, bytes]]
SUBMISSION_HEADER: Final = "medchain_submission"
"""Header of an event that came by a submission: its message id. The processor answers those with a receipt."""

LARGEST_RECORD_BYTES: Final = 1_000_000
"""Key, value and headers together. The broker takes 1,048,588 for a batch; the rest is room for its framing."""


class Position(NamedTuple):
    """Where a record is. `broker_time_ms`: when the broker took it, milliseconds since the epoch."""

    partition: int
    offset: int
    broker_time_ms: int


class LogRecord(NamedTuple):
    """A record to append."""

    topic: str
    key: bytes
    value: bytes
    headers: Headers = ()


class LogUnavailable(Exception):  # noqa: N818 - named for what is wrong
    """The log did not confirm the record in time. It may have arrived all the same: repeat it with the same id."""


class LogOverloaded(LogUnavailable):
    """Too many records wait for the log, or it has confirmed nothing for long: this one was not sent."""


class PartitionCountDiffers(LogUnavailable):
    """The broker has another number of partitions than declared: keys would go where nobody looks for them."""

    def __init__(self, topic: str, declared: int, found: int) -> None:
        super().__init__(f"topic {topic} has {found} partitions, but {declared} are declared")
        self.topic = topic
        self.declared = declared
        self.found = found


class TopicRefused(LogUnavailable):
    """The log lets this writer not write to this topic; that says nothing of any other."""


class RecordTooLarge(Exception):  # noqa: N818 - named for what is wrong
    """The record is larger than the log takes; repeating it does not help."""


class Log(Protocol):
    """An append-only log of records, partitioned by key."""

    async def append(self, topic: str, key: bytes, value: bytes, headers: Headers = ()) -> Position:
        """Append, and return when all in-sync replicas have the record.

        Records that one task appends one after the other to one key keep that order. Raises LogUnavailable (with
        PartitionCountDiffers and TopicRefused), RecordTooLarge, and whatever the declaration raises for a topic that is not declared.
        """
        ...

    async def append_many(self, records: Sequence[LogRecord]) -> Sequence[Position | Exception]:
        """Append these, and return one answer each, in their order, when none is on its way any more.

        An answer is the record's position, or the exception that `append` would have raised for it alone. Records of
        one key keep their order: after one that was not confirmed (LogUnavailable), no other one of its topic is appended.
        One that fails otherwise does not stop those after it. Raises nothing.
        """
        ...

    async def close(self) -> None:
        """Deliver what was accepted, then let go of everything. Raises nothing."""
        ...


def record_bytes(key: bytes, value: bytes, headers: Headers) -> int:
    """How much a record counts against LARGEST_RECORD_BYTES."""
    return len(key) + len(value) + sum(len(name.encode("utf-8")) + len(content) for name, content in headers)


def cloud_event_headers(
    *, event_id: str, event_type: str, source: str, time_ms: int, traceparent: str | None = None
) -> list[tuple[str, bytes]]:
    """The CloudEvents attributes of a record as Kafka headers, and the W3C trace context where there is one.

    source: the system that sent it, never a person. time_ms: milliseconds since the epoch, UTC.
    """
    time = datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    headers = {"ce_specversion": "1.0", "ce_id": event_id, "ce_type": event_type, "ce_source": source, "ce_time": time}
    if traceparent is not None:
        headers["traceparent"] = traceparent
    return [(name, text.encode("utf-8")) for name, text in headers.items()]
