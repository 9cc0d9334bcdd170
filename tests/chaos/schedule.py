"""Which faults a round injects, in which order: from its seed alone."""

import random
from collections.abc import Sequence
from typing import Final

from tests.chaos.faults import FAULTS, Fault

TOGETHER: Final = 0.25
"""The share of places in which a second fault begins while the first one stands."""
_EXCLUSIVE: Final = ("broker_", "redis_", "records_", "started_", "switch")
"""What stops the servers, or needs them there."""


def schedule(seed: int, places: int, only: Sequence[str] = ()) -> list[tuple[Fault, ...]]:
    """So many places with one fault, or two that stand together. `only`: of these, in this order, and no others."""
    dice = random.Random(f"schedule/{seed}")
    if only:
        return [(FAULTS[only[number % len(only)]],) for number in range(places)]
    drawn: list[tuple[Fault, ...]] = []
    used: set[str] = set()
    for _ in range(places):
        first = _draw(dice, used)
        used.add(first.name)
        second = _draw(dice, used) if dice.random() < TOGETHER else None
        if second is not None and _can_stand_together(first, second):
            used.add(second.name)
            drawn.append((first, second))
        else:
            drawn.append((first,))
    return drawn


def _draw(dice: random.Random, used: set[str]) -> Fault:
    """One of those that were not used in this round yet."""
    left = [each for each in FAULTS.values() if each.weight and each.name not in used] or list(FAULTS.values())
    return dice.choices(left, [each.weight or 1 for each in left])[0]


def _can_stand_together(first: Fault, second: Fault) -> bool:
    """Whether at most one of them has the servers stopped and started: the end of one must not be the other's."""
    return not (_is_exclusive(first) and _is_exclusive(second))


def _is_exclusive(fault: Fault) -> bool:
    return fault.name.startswith(_EXCLUSIVE)
