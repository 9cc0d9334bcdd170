"""Converts log lines of libraries to the canonical form: with the place in their code, without values, and limited in number."""

from __future__ import annotations

import ast
import logging
from functools import cache
from pathlib import Path
from typing import Any, Final

from services.canonical_log.processors import Trusted, place
from services.clock import Clock

LINES_PER_WINDOW: Final = 5
WINDOW_MS: Final = 10_000


class LibraryHandler(logging.Handler):
    """Writes each record of the standard library's logging as an event `library_message`.

    The record's text is shown only where it is a literal of the library's source (before any value is put into it),
    since only then can it hold nothing from a sender. A logger has at most LINES_PER_WINDOW lines in WINDOW_MS; the
    next line after that tells how many were left out (`suppressed`): a broker that is away would flood the log.
    """

    def __init__(self, log: Any, clock: Clock) -> None:
        super().__init__()
        self._log = log
        self._clock = clock
        self._windows: dict[str, _Window] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write it, or count it as left out."""
        window = self._windows.setdefault(record.name, _Window())
        if not window.admits(self._clock.monotonic_ms()):
            return
        line: dict[str, Any] = {
            "logger": Trusted(record.name),
            "at": Trusted(place(record.pathname, record.lineno, record.funcName)),
        }
        if isinstance(record.msg, str) and record.msg in _literals(record.pathname):
            line["text"] = Trusted(record.msg)
        if suppressed := window.take_suppressed():
            line["suppressed"] = Trusted(str(suppressed))
        # A level of the library's own counts as the standard one below it.
        level = max(logging.DEBUG, min(record.levelno // 10 * 10, logging.CRITICAL))
        self._log.log(level, "library_message", exc_info=record.exc_info, **line)


class _Window:
    """How many lines of one logger were written since the window began, and how many were left out."""

    def __init__(self) -> None:
        self._began_ms: int | None = None
        self._written = 0
        self._suppressed = 0

    def admits(self, now_ms: int) -> bool:
        if self._began_ms is None or now_ms - self._began_ms >= WINDOW_MS:
            self._began_ms, self._written = now_ms, 0
        if self._written == LINES_PER_WINDOW:
            self._suppressed += 1
            return False
        self._written += 1
        return True

    def take_suppressed(self) -> int:
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed


@cache
def _literals(path: str) -> frozenset[str]:
    """All string literals of a source file, parts of f-strings left out; none when there is no source."""
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return frozenset()
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    return frozenset(
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside
    )
