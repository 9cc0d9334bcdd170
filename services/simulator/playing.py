"""Plays planned actions through channels: each patient always through the same one, paced or as fast as possible."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Final, Protocol

from msgspec import Struct

from services.simulator.diary import Planned

_TOGETHER: Final = 64
"""How many actions are taken before everybody else in the process gets a turn."""


class Channel(Protocol):
    """A way into the platform."""

    @property
    def name(self) -> str:
        """What the history calls it."""
        ...

    async def take(self, planned: Planned) -> None:
        """Accept an action behind the same patient's earlier ones; waits while too much is under way."""
        ...

    async def close(self) -> None:
        """Wait until everything is answered, then let go."""
        ...


class Played(Struct, frozen=True):
    """How a run went: how many actions were taken, and how long it took until all were answered."""

    actions: int
    seconds: float

    @property
    def events_per_second(self) -> float:
        """Actions by time."""
        return self.actions / self.seconds if self.seconds else 0.0


async def play(
    actions: Iterable[Planned],
    shares: Mapping[Channel, int],
    *,
    rate: float | None = None,
    told: Callable[[int], None] = lambda _: None,
) -> Played:
    """Play all actions. `shares`: how many of every so many patients go through a channel. `rate`: a second.

    `told` is called now and then with the number of actions taken so far. Channels are closed at the end.
    """
    order = [channel for channel, share in shares.items() for _ in range(share)]
    began = time.monotonic()
    number = 0
    async with AsyncExitStack() as stack:
        for channel in shares:
            stack.push_async_callback(channel.close)
        for number, planned in enumerate(actions, 1):
            if rate:
                await _until(began + number / rate)
            await order[planned.patient % len(order)].take(planned)
            if number % _TOGETHER == 0:
                told(number)
                await asyncio.sleep(0)
        told(number)
    return Played(number, time.monotonic() - began)


async def _until(when: float) -> None:
    ahead = when - time.monotonic()
    if ahead > 0:
        await asyncio.sleep(ahead)
