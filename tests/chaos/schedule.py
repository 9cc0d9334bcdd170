"""Which faults a round injects, in which order: from its seed alone."""

import random
from collections.abc import Sequence
from typing import Final

from tests.chaos.faults import FAULTS, Fault

TOGETHER: Final = 0.25
"""The share of places in which a second fault begins while the first one stands."""
_SERVERS: Final = ("broker_", "redis_", "started_")
_NEEDS_SERVERS: Final = ("another_fold", "records_", "switch", "replayed", "refolded")


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
    """Not two of one server, since the end of one would be the other's; and none that needs what the other takes away."""
    servers = {_server(first), _server(second)}
    needs = any(each.name.startswith(_NEEDS_SERVERS) for each in (first, second))
    return _server(first) != _server(second) if None not in servers else not (needs and servers != {None})


def _server(fault: Fault) -> str | None:
    """The server that a fault stops, or takes its data or its room from."""
    if not fault.name.startswith(_SERVERS):
        return None
    return "redis" if fault.name.startswith("redis_") else "broker"
