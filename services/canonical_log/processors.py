"""What happens to a log line before it is written: keys and values outside the allow-list are dropped, errors lose their texts."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from pathlib import PurePath
from types import TracebackType
from typing import Any, Final

from services.canonical_log.allowed_keys import ALLOWED, EVENT_NAME
from services.clock import Clock

_FRAMES: Final = 12
_CAUSES: Final = 5

EventDict = MutableMapping[str, Any]
Processor = Callable[[Any, str, EventDict], EventDict]

NO_NAME: Final = "event_name_dropped"
"""Stands where something other than a constant name was given as the event."""


class Trusted(str):
    """A text that this package itself made and knows to be constant (a place in the code, a literal of a library)."""

    __slots__ = ()


def stamp(service: str, clock: Clock) -> Processor:
    """Adds service, level and time (UTC)."""

    def add(_: Any, method: str, line: EventDict) -> EventDict:
        now = datetime.fromtimestamp(clock.now_ms() / 1000, UTC).isoformat(timespec="milliseconds")
        line["service"] = service
        line["level"] = "error" if method == "exception" else method
        line["timestamp"] = Trusted(now.replace("+00:00", "Z"))
        return line

    return add


def keep_allowed(_: Any, __: str, line: EventDict) -> EventDict:
    """Keeps what the allow-list knows in the form that it asks for, and counts the rest in `dropped_keys`."""
    error = _error_of(line.pop("exc_info", None))
    event = line.pop("event", None)
    kept: EventDict = {"event": event if EVENT_NAME(event) else NO_NAME}
    for key, value in line.items():
        if isinstance(value, Trusted) or (key in ALLOWED and ALLOWED[key](value)):
            kept[key] = str(value) if isinstance(value, str) else value
    if dropped := len(line) - (len(kept) - 1):
        kept["dropped_keys"] = dropped
    if error:
        kept["error"] = error
    return kept


def _error_of(exc_info: Any) -> list[dict[str, Any]]:
    """The exception and its causes as type and places in the code; no message, no values."""
    match exc_info:
        case BaseException():
            error: BaseException | None = exc_info
        case (_, BaseException() as given, _):
            error = given
        case True:
            # What is being handled where the line is written.
            error = sys.exc_info()[1]
        case _:
            return []
    chain: list[dict[str, Any]] = []
    while error is not None and len(chain) < _CAUSES:
        chain.append({"type": type(error).__qualname__, "at": _places(error.__traceback__)})
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return chain


def _places(tb: TracebackType | None) -> list[str]:
    frames = traceback.extract_tb(tb)[-_FRAMES:]
    return [place(frame.filename, frame.lineno or 0, frame.name) for frame in frames]


def place(filename: str, line: int, function: str) -> str:
    """file:line function, with the last two folders of the path."""
    return f"{'/'.join(PurePath(filename).parts[-3:])}:{line} {function}"
