"""How much of its time a replay works: a share of one core, lowered while the live view lags, nothing while there is no room."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

_LONGEST_REST_S: Final = 0.2
_PAUSED_S: Final = 0.1
_LOWEST_SHARE: Final = 0.02
_UP: Final = 0.05
_DOWN: Final = 0.5


class Pace:
    """A worker's duty cycle: after work that took so long it rests, so that work is at most `share` of the time.

    Waiting for leave to write (`sleep`) is no work.
    """

    def __init__(
        self,
        share: float,
        monotonic: Callable[[], float] = time.monotonic,
        block: Callable[[float], None] = time.sleep,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.share = share
        self.is_paused = False
        self.monotonic = monotonic
        self._block = block
        self._pause = pause
        self._began_s: float | None = None
        self._slept_s = 0.0
        self._owed_s = 0.0

    def begin(self) -> None:
        """Work begins."""
        self._began_s = self.monotonic()
        self._slept_s = 0.0

    def end(self) -> None:
        """Work ends: what it took is to be rested for."""
        if self._began_s is not None:
            worked_s = max(0.0, self.monotonic() - self._began_s - self._slept_s)
            self._owed_s += worked_s * (1 - self.share) / self.share
            self._began_s = None

    def sleep(self, seconds: float) -> None:
        """Wait inside of work, as `processor.Patience` does."""
        self._block(seconds)
        self._slept_s += seconds

    async def rest(self) -> None:
        """Rest for what was worked; while paused, until that is over."""
        while self.is_paused:
            await self._pause(_PAUSED_S)
        while self._owed_s > 0:
            part_s = min(self._owed_s, _LONGEST_REST_S)
            await self._pause(part_s)
            self._owed_s -= part_s


class Throttle:
    """What share the workers may take now: halved when the live view lags, raised a little when it does not."""

    def __init__(self, max_share: float, lag_tolerated: int) -> None:
        """`lag_tolerated`: so many records may be unjudged that were in the log at the look before."""
        self._max_share = max_share
        self._tolerated = lag_tolerated
        self._ends: Mapping[int, int] = {}
        self.share = max_share

    def look(self, ends: Mapping[int, int], live: Mapping[int, int | None]) -> float:
        """Take a look at the log's ends and the live view; returns the share from now on."""
        old = sum(max(0, end - (live.get(partition) or 0)) for partition, end in self._ends.items())
        self._ends = dict(ends)
        if old > self._tolerated:
            self.share = max(_LOWEST_SHARE, self.share * _DOWN)
        else:
            self.share = min(self._max_share, self.share + _UP)
        return self.share
