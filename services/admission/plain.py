"""A contract type in its outside JSON form, so that a submission goes through the same door."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from services.admission.models import outside_name

_MS_OF_A_YEAR: Final = 31_556_952_000


def plain_of(message: msgspec.Struct) -> dict[str, Any]:
    """Builtins: dates as text, decimals as Decimal, bytes as bytes, `*_ms` as RFC 3339 under the name without `_ms`."""
    plain: dict[str, Any] = _renamed(msgspec.to_builtins(message, builtin_types=(Decimal, bytes)))
    return plain


def _renamed(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            outside_name(name): rfc3339(inner) if name.endswith("_ms") and isinstance(inner, int) else _renamed(inner)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_renamed(inner) for inner in value]
    return value


def rfc3339(at_ms: int) -> str:
    """The instant in UTC to the millisecond. One beyond all calendars keeps its year, roughly, so that it can be told."""
    try:
        at = datetime.fromtimestamp(at_ms // 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{1970 + at_ms // _MS_OF_A_YEAR:+05d}-01-01T00:00:00Z"
    return at.replace(microsecond=at_ms % 1000 * 1000).isoformat(timespec="milliseconds").replace("+00:00", "Z")
