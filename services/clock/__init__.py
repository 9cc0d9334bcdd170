"""The one place that processes take the time from, so that a test can set it.

Two environment variables are a test's hook into a running process, and nothing else reads them:
MEDCHAIN_CLOCK_OFFSET_MS is added to the machine's time; MEDCHAIN_CLOCK_FILE names a file that holds "now" in
milliseconds since the epoch and is read again when it changes (no file: the machine's time).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol

from pydantic_settings import BaseSettings, SettingsConfigDict


class Clock(Protocol):
    """Where a process takes its time from."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch, UTC: for what is recorded. May jump."""
        ...

    def monotonic_ms(self) -> int:
        """Milliseconds since some fixed point: for durations and deadlines. Never goes back."""
        ...


class ClockSettings(BaseSettings):
    """The test's hook, from the environment."""

    model_config = SettingsConfigDict(env_prefix="MEDCHAIN_CLOCK_", frozen=True)

    offset_ms: int = 0
    file: Path | None = None


class ClockFileUnreadable(Exception):  # noqa: N818 - named for what is wrong
    """The file that was to hold the time holds something else."""


class SystemClock:
    """The machine's time, unless a test says otherwise."""

    def __init__(self, settings: ClockSettings | None = None) -> None:
        self._settings = ClockSettings() if settings is None else settings
        self._seen: tuple[int, int, int] | None = None
        self._set_to_ms = 0

    def now_ms(self) -> int:
        """Milliseconds since the epoch, UTC. Raises ClockFileUnreadable when the test's file holds no number."""
        if self._settings.file is not None and self._read(self._settings.file):
            return self._set_to_ms + self._settings.offset_ms
        return time.time_ns() // 1_000_000 + self._settings.offset_ms

    def monotonic_ms(self) -> int:
        """Milliseconds since some fixed point; no test sets it."""
        return time.monotonic_ns() // 1_000_000

    def _read(self, file: Path) -> bool:
        """Take the time from the file if it changed since; False when there is no file."""
        try:
            stat = file.stat()
            seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if seen != self._seen:
                self._set_to_ms = int(file.read_text(encoding="ascii"))
                self._seen = seen
        except FileNotFoundError:
            return False
        except ValueError as error:
            raise ClockFileUnreadable("MEDCHAIN_CLOCK_FILE must hold one whole number: ms since the epoch") from error
        return True


class ManualClock:
    """A clock that moves only when told to."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms
        self._monotonic_ms = 0

    def now_ms(self) -> int:
        """Milliseconds since the epoch, as last set."""
        return self._now_ms

    def monotonic_ms(self) -> int:
        """Milliseconds that `advance` has gone in all."""
        return self._monotonic_ms

    def advance(self, by_ms: int) -> None:
        """Let time pass: both readings move. `by_ms` is not negative."""
        if by_ms < 0:
            raise ValueError("time passes forwards; use set() for a wall clock that jumps back")
        self._now_ms += by_ms
        self._monotonic_ms += by_ms

    def set(self, now_ms: int) -> None:
        """Set the wall clock, also backwards; durations are not touched."""
        self._now_ms = now_ms
