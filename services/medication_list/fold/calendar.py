"""Days in Norway as instants: dates are whole days in Europe/Oslo, the last one included."""

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

OSLO = ZoneInfo("Europe/Oslo")
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS


@lru_cache(maxsize=16384)
def starts_ms(day: date) -> int:
    """The first instant of a day in Oslo."""
    return int(datetime(day.year, day.month, day.day, tzinfo=OSLO).timestamp() * 1000)


@lru_cache(maxsize=16384)
def ended_ms(day: date) -> int:
    """The first instant after a day in Oslo."""
    return starts_ms(day + timedelta(days=1))


def is_later(at_ms: int | None, than_ms: int | None) -> bool:
    """Whether the one came after the other; None is never. An instant may be before 1970, and then it is below 0."""
    return at_ms is not None and (than_ms is None or at_ms > than_ms)


def day_of(instant_ms: int) -> date:
    """The day in Oslo of an instant."""
    return datetime.fromtimestamp(instant_ms / 1000, UTC).astimezone(OSLO).date()
