"""How much of its time a replay works: a share of one core, lowered while the live view lags, zero while there is no room."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

_LONGEST_REST_S: Final = 0.2
_PAUSED_S: Final = 0.1
_LOWEST_SHARE: Final = 0.02
"""Where the live view lags because of something else, a replay that stood still would help nobody."""
_UP: Final = 0.05
_DOWN: Final = 0.5


class Pace:
    """A worker's duty cycle: after work it rests, so that its CPU time is at most `share` of all time.

    CPU time counts, not elapsed time: on a busy machine work takes longer, and resting for that too would be pointless.
    """

    def __init__(
        self,
        share: float,
        worked_s: Callable[[], float] = time.process_time,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`worked_s`: how much processor time was used so far, in seconds."""
        self.share = share
        self.is_paused = False
        self._worked_s = worked_s
        self._pause = pause
        self._rested_for_s = worked_s()

    async def rest(self) -> None:
        """Rest for what was worked since the last rest; while paused, until that is over.

        The share that counts is the one that holds while it rests: a reader that was started amid a lag of a second does
        not stand for half a minute.
        """
        while self.is_paused:
            await self._pause(_PAUSED_S)
        worked_s = self._worked_s()
        owed_s, self._rested_for_s = worked_s - self._rested_for_s, worked_s
        while owed_s > 0 and self.share < 1 and not self.is_paused:
            rest_for_each_s = (1 - self.share) / self.share
            part_s = min(owed_s * rest_for_each_s, _LONGEST_REST_S)
            await self._pause(part_s)
            owed_s -= part_s / rest_for_each_s
            if part_s < _LONGEST_REST_S:
                return


class Throttle:
    """What share the workers may take now: halved when the live view lags, raised a little when it does not."""

    def __init__(self, max_share: float, lag_tolerated: int) -> None:
        """`lag_tolerated`: how many records in the log at the previous look may still be unjudged."""
        self._max_share = max_share
        self._tolerated = lag_tolerated
        self._ends: Mapping[int, int] = {}
        self.share = max_share

    def look(self, ends: Mapping[int, int], live: Mapping[int, int | None]) -> float:
        """Take a look at the log's ends and the live view; returns the share from now on."""
        old = sum(max(0, end - (live.get(partition) or 0)) for partition, end in self._ends.items())
        self._ends = dict(ends)
        if old > self._tolerated:
            self.share = max(min(_LOWEST_SHARE, self._max_share), self.share * _DOWN)
        else:
            self.share = min(self._max_share, self.share + _UP)
        return self.share
