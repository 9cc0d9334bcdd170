"""uvicorn's server without its ten checks a second whether to end: they were half the cost of an idle service."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import FrameType
from typing import Final

import uvicorn

_DATE_EVERY_S: Final = 1.0
"""How often the time in the `date` header of all answers moves on."""


class QuietServer(uvicorn.Server):
    """Ends at once when told to, by a signal or by `end`."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._told = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def end(self) -> None:
        """Have it end. From any thread; twice does no harm."""
        self.should_exit = True
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended, and its loop is closed
                self._loop.call_soon_threadsafe(self._told.set)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """What uvicorn calls on SIGTERM and SIGINT."""
        super().handle_exit(sig, frame)
        self.end()

    async def main_loop(self) -> None:
        """What uvicorn does between its start and its end."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), _DATE_EVERY_S)
