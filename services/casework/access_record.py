"""Who looked at whose data, and why: one line for each look, written and on disk before anything is shown."""

import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog

from services.casework.numbers import holds_a_number
from services.clock import Clock

_LONGEST_REASON: Final = 300
_SHORTEST_REASON: Final = 3


class AccessNotRecordedError(Exception):
    """The record cannot be written, so nothing is shown. The text names why, without the path's content."""


class ReasonRefusedError(ValueError):
    """A reason that says nothing, or holds what a record must not hold."""


def record_path(named: Path | None, local: Path | None) -> Path:
    """The file that looks stand in: the one that MEDCHAIN_ACCESS_RECORD names, else that of the platform that runs here.

    `local` is the folder of that one, None where another is looked at. Raises AccessNotRecordedError where there is neither.
    """
    if named is not None:
        return named
    if local is None:
        raise AccessNotRecordedError(
            "Set MEDCHAIN_ACCESS_RECORD to the file that records who looks: without it nobody looks."
        )
    return local / "access-record.jsonl"


def _form(pattern: str) -> Callable[[object], bool]:
    """An id or a place of ours: its digits are no identity number, however many they are."""
    compiled = re.compile(pattern)
    return lambda value: isinstance(value, str) and bool(compiled.fullmatch(value))


def _text(pattern: str) -> Callable[[object], bool]:
    """What people write: it must not hold an identity number."""
    fits = _form(pattern)
    return lambda value: fits(value) and not holds_a_number(str(value))


def _words(pattern: str, *, least: int) -> Callable[[object], bool]:
    """What says something: so many of its characters at least are letters or digits."""
    fits = _text(pattern)
    return lambda value: fits(value) and sum(map(str.isalnum, str(value))) >= least


ALLOWED: Final[Mapping[str, Callable[[object], bool]]] = {
    "timestamp": _text(r"[0-9T:.\-]{10,30}Z"),
    "action": _text(r"[a-z]+( [a-z]+)?"),
    "patient": _form(r"[0-9a-f]{32}"),
    "position": _form(r"[0-9]{1,5}-[0-9]{1,18}"),
    "event_id": _form(r"[0-9a-f-]{36}"),
    "operator": _words(r"[^\x00-\x1f]{1,80}", least=1),
    "account": _text(r"[^\x00-\x1f]{1,80}"),
    "reason": _words(rf"[^\x00-\x1f]{{{_SHORTEST_REASON},{_LONGEST_REASON}}}", least=_SHORTEST_REASON),
    "changes": lambda value: isinstance(value, bool),
}
"""The keys of a line, each with its form. A look whose facts do not fit is not made."""


class AccessRecord:
    """A file that is only ever appended to, readable by its owner alone."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock

    def note(self, **facts: str | bool | None) -> None:
        """Write one line and have it on disk. Raises ReasonRefusedError, AccessNotRecordedError."""
        said = {key: value for key, value in facts.items() if value is not None}
        for key, value in said.items():
            if key not in ALLOWED or not ALLOWED[key](value):
                raise ReasonRefusedError(_why_not(key, value))
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "a", encoding="utf-8") as file:
                self._logger(file).info("looked", **said)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise AccessNotRecordedError(f"the access record cannot be written ({type(error).__name__})") from None

    def _logger(self, file: object) -> structlog.typing.FilteringBoundLogger:
        now_ms = self._clock.now_ms()

        def stamped(_: object, __: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
            return {"timestamp": _instant(now_ms), **line}

        logger: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
            structlog.WriteLogger(file),  # type: ignore[arg-type]  # any text file
            processors=[stamped, structlog.processors.JSONRenderer(ensure_ascii=False)],
            wrapper_class=structlog.make_filtering_bound_logger(0),
        )
        return logger


def _why_not(key: str, value: object) -> str:
    if isinstance(value, str) and holds_a_number(value):
        return f"{key}: it must hold no identity number"
    if key == "reason":
        return f"reason: say in words, in {_SHORTEST_REASON} to {_LONGEST_REASON} characters, why you look"
    if key == "operator":
        return "operator: a name of at most 80 characters"
    return f"{key}: not of its form"


def _instant(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
