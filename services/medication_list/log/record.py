"""One undecoded record of the log, for the driver and for those who read single records."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from schemas.codec import UndecodableError
from schemas.framing import Framing


class Record(Protocol):
    """A record of the log. The records of both Kafka libraries satisfy it."""

    @property
    def offset(self) -> int:
        """Its offset in its partition."""
        ...

    @property
    def key(self) -> bytes | None:
        """Its key."""
        ...

    @property
    def value(self) -> bytes | None:
        """Its bytes; None for a record without a value."""
        ...

    @property
    def timestamp(self) -> int:
        """When the broker took it, in milliseconds since the epoch, by the broker's clock."""
        ...

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """Name and value of each header, in the sender's order."""
        ...


class _Unframed(NamedTuple):
    """A record whose value is in single-object encoding."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: Sequence[tuple[str, bytes]]


def unframed(record: Record, framing: Framing) -> Record:
    """The record with its value in single-object encoding, or as it is if nobody can read it. Raises RegistryUnavailableError."""
    try:
        value = framing.from_topic(record.value)
    except UndecodableError:
        return record
    return _Unframed(record.offset, record.key, value, record.timestamp, record.headers)
