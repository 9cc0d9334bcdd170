"""The interface of one undecoded record of the log, for the driver and for those who read single records."""

from collections.abc import Sequence
from typing import Protocol


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
