"""Positions as callers see them: a place in the log, opaque to them, the same in every generation of the view."""

import re
from typing import Final, NamedTuple

_FORM: Final = re.compile(r"(0|[1-9][0-9]{0,4})-(0|[1-9][0-9]{0,17})")


class InvalidPositionError(ValueError):
    """A text that no answer of ours ever held as a position."""


class LogPlace(NamedTuple):
    """Where one record is."""

    partition: int
    offset: int


def position_of(partition: int, offset: int) -> str:
    """The position of the record at this place."""
    return f"{partition}-{offset}"


def position_before(partition: int, offset: int) -> str | None:
    """The position of the last record before an offset, None before the first one."""
    return position_of(partition, offset - 1) if offset > 0 else None


def place_of(position: str, partitions: int) -> LogPlace:
    """The place that a position names, of a log with so many partitions. Raises InvalidPositionError."""
    found = _FORM.fullmatch(position)
    if found is None or int(found[1]) >= partitions:
        raise InvalidPositionError("not a position of this log")
    return LogPlace(int(found[1]), int(found[2]))
