"""Runs all checks of a process at once, within a bound, and logs when a trouble begins and when it ends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, NoReturn

from services.canonical_log import get_logger
from services.health.trouble import Trouble, TroubleReason

Check = Callable[[], Awaitable[Sequence[Trouble]]]
"""Finds out what is wrong with one thing that a process needs; nothing, where nothing is. It bounds its own waiting."""

ANSWER_WITHIN_S: Final = 3.0
"""A check that takes longer is not waited for: that it does not come back is a trouble too."""
LOOKS_EVERY_S: Final = 5.0
"""While all is well. Whoever asks meanwhile has the checks made at once; this is for metrics and the log, where alerts wait for
half a minute at least. Seven processes that ask the broker every two seconds took a tenth of what an idle platform costs."""
LOOKS_AGAIN_S: Final = 2.0
"""While something is wrong, so that its end is reported soon."""
_SPREAD: Final = 0.2
"""By how much of itself a pause is shorter or longer, by chance: processes that started together must not all look at once."""


class Readiness:
    """The checks of one process, by the name of what they look at. Used from one event loop."""

    def __init__(self, checks: Mapping[str, Check], answer_within_s: float = ANSWER_WITHIN_S) -> None:
        self._checks = checks
        self._answer_within_s = answer_within_s
        self._running: dict[str, asyncio.Task[Sequence[Trouble]]] = {}
        self._told: frozenset[TroubleReason] = frozenset()
        self._standing: frozenset[TroubleReason] = frozenset()

    @property
    def standing(self) -> frozenset[TroubleReason]:
        """What was wrong at the last look of `watch`. From any thread."""
        return self._standing

    async def troubles(self) -> tuple[Trouble, ...]:
        """Everything that is wrong now, those first that stop the process from its work. Never raises."""
        found = await asyncio.gather(*(self._ask(name, check) for name, check in self._checks.items()))
        return tuple(sorted((trouble for each in found for trouble in each), key=lambda trouble: not trouble.stops))

    async def watch(self, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> NoReturn:
        """Look every five seconds for as long as the process lives, and every two while something is wrong.

        So that the log tells what nobody asked for.
        """
        while True:
            self.tell(await self.troubles())
            await sleep(self._pause_s())

    def _pause_s(self) -> float:
        spread = random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311 - nobody gains by guessing it
        return spread * (LOOKS_AGAIN_S if self._standing else LOOKS_EVERY_S)

    def tell(self, troubles: Sequence[Trouble]) -> None:
        """Write down what has begun and what has ended since the last time."""
        self._standing = frozenset(trouble.reason for trouble in troubles)
        # That a process has not begun yet is said by its beginning.
        now = self._standing - {TroubleReason.NOT_STARTED}
        for reason in sorted(now - self._told):
            get_logger().warning("trouble_began", reason=reason.value)
        for reason in sorted(self._told - now):
            get_logger().info("trouble_ended", reason=reason.value)
        self._told = now

    async def _ask(self, name: str, check: Check) -> Sequence[Trouble]:
        task = self._running.get(name)
        if task is None:
            # One at a time, however many ask: requests to a silent broker must not pile up.
            task = self._running[name] = asyncio.create_task(_asked(name, check), name=f"check-{name}")
            task.add_done_callback(lambda _: self._running.pop(name, None))
        done, _ = await asyncio.wait({task}, timeout=self._answer_within_s)
        if done:
            return task.result()
        return (Trouble(TroubleReason.NOT_CHECKED, f"The check of the {name} does not come back."),)


async def _asked(name: str, check: Check) -> Sequence[Trouble]:
    try:
        return await check()
    except Exception as error:  # noqa: BLE001 - a check that fails must not hide what the others found
        get_logger().exception("check_failed")
        return (Trouble(TroubleReason.NOT_CHECKED, f"The check of the {name} failed ({type(error).__name__})."),)
