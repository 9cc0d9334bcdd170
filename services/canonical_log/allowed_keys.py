"""The keys that a log line may have, each with the form that its value must have; anything else is dropped.

A form is as narrow as the key allows, since a value is misplaced more easily than a key: a name in `topic`, an
identity number in `offset`. Add a key here when a line needs one; never one whose values a sender chooses freely.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from services.identity.national_id import InvalidNationalId, NationalId

Form = Callable[[object], bool]

_LONG_DIGITS: Final = re.compile(r"[0-9]{11,}")
_ID_DIGITS: Final = (10, 11, 12)  # as a whole number an identity number may have lost its leading zero


def _number(value: object) -> bool:
    match value:
        case bool() | None:
            return True
        case float():
            return math.isfinite(value)
        case int():
            return not _is_identity(str(value))
        case _:
            return False


def _is_identity(digits: str) -> bool:
    if len(digits) not in _ID_DIGITS:
        return False
    try:
        NationalId.parse(digits.zfill(11))
    except InvalidNationalId:
        return False
    return True


_TEXTS_REMEMBERED: Final = 256
"""For each key: most lines say again what a line before them said, such as a route."""


def _text(pattern: str) -> Form:
    compiled = re.compile(pattern)

    @lru_cache(maxsize=_TEXTS_REMEMBERED)
    def matches(value: str) -> bool:
        return bool(compiled.fullmatch(value)) and not _LONG_DIGITS.search(value)

    return lambda value: isinstance(value, str) and matches(value)


def _id(value: object) -> bool:
    """A UUID: random, so its digits are nobody's number."""
    return isinstance(value, str) and bool(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value))


_name: Final = _text(r"[a-z][a-z0-9_]{0,59}")
"""A name that stands in our own code or vocabularies: snake_case."""
_type: Final = _text(r"([A-Z][a-z0-9]+){2,8}")
"""A type of event or error: CamelCase of at least two words."""

EVENT_NAME: Final = _name

ALLOWED: Final[dict[str, Form]] = {
    # Who tells it.
    "service": _name,
    "level": _name,
    "timestamp": _text(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,15}Z"),
    "worker": _name,
    "version": _text(r"[0-9]+(\.[0-9]+){0,2}"),
    "pid": _number,
    "host": _text(r"[0-9.:]{2,40}|localhost"),
    "port": _number,
    # Requests. A route is the template, with {id} in the place of an id.
    "method": _text(r"[A-Z]{3,7}"),
    "route": _text(r"(/([a-z0-9_.-]+|\{[a-z_]+\}))*/?"),
    "status": _number,
    "problem": _name,
    "duration_ms": _number,
    "bytes": _number,
    "system": _text(r"[a-z][a-z0-9-]{0,39}"),
    "organisation": _text(r"[0-9]{9}"),
    "role": _name,
    # The log.
    "topic": _text(r"[a-z][a-z-]*(\.[a-z0-9-]{1,40})?"),
    "partition": _number,
    "partitions": _number,
    "declared": _number,
    "found": _number,
    "offset": _number,
    "next_offset": _number,
    "end_offset": _number,
    "stored_offset": _number,
    "declared_partitions": _number,
    "found_partitions": _number,
    "lag": _number,
    "epoch": _number,
    "generation": _text(r"g[0-9]{1,9}-[a-z0-9]{1,20}"),
    "turn": _number,
    "state": _name,
    "age_ms": _number,
    # Events and their outcomes.
    "event_id": _id,
    "event_type": _type,
    "outcome": _name,
    "reason": _name,
    "kind": _name,
    "records": _number,
    "batches": _number,
    "applied": _number,
    "duplicate": _number,
    "refused": _number,
    "events": _number,
    "parked": _number,
    "flagged": _number,
    "rejected": _number,
    "effects": _number,
    "patients": _number,
    "count": _number,
    "prescription": _id,
    # Trying again.
    "failures": _number,
    "timeout_s": _number,
    "attempt": _number,
    "retry_in_ms": _number,
    "timeout_ms": _number,
    "error_type": _type,
}
