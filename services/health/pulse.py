"""Whether the work of a process still makes progress: a beat from its own loop, checked from another thread."""

from __future__ import annotations

import asyncio
import time
from typing import Final, NoReturn

BEATS_EVERY_S: Final = 1.0
SILENT_AFTER_S: Final = 60.0
"""Longer than anything that may rightly hold up a loop: a fetch of a thousand events, a store that answers after its
timeout again and again, a broker that lets a starting process wait."""


class Pulse:
    """Beats while the loop that does the work runs. It begins with the process."""

    def __init__(self, silent_after_s: float = SILENT_AFTER_S) -> None:
        self._silent_after_s = silent_after_s
        self._beat_at_s = time.monotonic()

    def beat(self) -> None:
        """The work moves."""
        self._beat_at_s = time.monotonic()

    async def keep(self) -> NoReturn:
        """Beat for as long as this loop runs; as a task beside the work."""
        while True:
            self.beat()
            await asyncio.sleep(BEATS_EVERY_S)

    def is_beating(self) -> bool:
        """Whether the last beat is not too long ago."""
        return time.monotonic() - self._beat_at_s < self._silent_after_s
