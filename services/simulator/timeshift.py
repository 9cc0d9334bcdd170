"""Moves a planned action to the present: its dates and times move with it, as services accept nothing from the future."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec

from schemas.events import Body
from services.simulator.diary import DAY_MS, Planned

_NATIVE: Final = (date, Decimal)
_ON_TIME_MS: Final = 5_000
"""What arrives within this time is sent as it happens; more is a late report and says so."""


def happened_ms(planned: Planned, now_ms: int) -> int:
    """When something that arrives now happened: now, or as long ago as it was planned to be late.

    A repetition is not late: it is what the sender sent before, or as near to it as a sender remembers.
    """
    late = 0 if planned.irregularity == "duplicate" else planned.received_at_ms - planned.occurred_at_ms
    return now_ms - (late if late > _ON_TIME_MS else 0)


def plain(body: Body, by_ms: int) -> dict[str, Any]:
    """The body's fields as plain values, its dates and instants later by `by_ms`; dates move by whole days.

    The day from which something may be dispensed is left out: the town's months pass in seconds here.
    """
    moved: dict[str, Any] = _moved(msgspec.to_builtins(body, builtin_types=_NATIVE), by_ms)
    moved.pop("earliest_dispense", None)
    return moved


def moved(body: Body, by_ms: int) -> Body:
    """The body, its dates and instants later by `by_ms`, as `plain` has them."""
    return msgspec.convert(plain(body, by_ms), type(body))


def outside(value: Any) -> Any:
    """Plain values as the HTTP edge wants them: `*_at_ms` are RFC 3339 under the name without `_ms`."""
    if isinstance(value, dict):
        return {
            name.removesuffix("_ms") if name.endswith("at_ms") else name: rfc3339(each)
            if name.endswith("at_ms")
            else outside(each)
            for name, each in value.items()
        }
    return [outside(each) for each in value] if isinstance(value, list | tuple) else value


def rfc3339(at_ms: int) -> str:
    """An instant in milliseconds since the epoch as text, in UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")


def _moved(value: Any, by_ms: int) -> Any:
    if isinstance(value, dict):
        return {name: each + by_ms if name.endswith("at_ms") else _moved(each, by_ms) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_moved(each, by_ms) for each in value]
    return value + timedelta(days=by_ms // DAY_MS) if isinstance(value, date) else value
