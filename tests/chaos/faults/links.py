"""Links cut, silent, slow, broken midway, or deaf to answers."""

import random
from collections.abc import Iterator
from typing import Final

from tests.chaos.faults.registry import PROCESSOR_MS, fault
from tests.chaos.proxy import SOUND, Condition
from tests.chaos.stand import LINKS, Stand

LINK_S: Final = (2.0, 8.0)
"""Shorter and longer than what anybody waits for an answer."""


@fault(bound_ms=PROCESSOR_MS, weight=3, holds_s=LINK_S)
def link_cut(stand: Stand, dice: random.Random) -> Iterator[None]:
    """A process cannot reach Redis or the broker: open connections are reset, new ones refused."""
    yield from _link_is(stand, dice, Condition(refuses=True))


@fault(bound_ms=PROCESSOR_MS, weight=2, holds_s=LINK_S)
def link_silent(stand: Stand, dice: random.Random) -> Iterator[None]:
    """Nothing passes between a process and Redis or the broker, and neither side is told."""
    yield from _link_is(stand, dice, Condition(silent=True))


@fault(bound_ms=PROCESSOR_MS, weight=3, holds_s=LINK_S)
def link_loses_answers(stand: Stand, dice: random.Random) -> Iterator[None]:
    """Requests of a process arrive, their answers do not: writes happen that it takes for failed."""
    yield from _link_is(stand, dice, Condition(loses_answers=True))


@fault(bound_ms=PROCESSOR_MS, weight=2, holds_s=LINK_S)
def link_slow(stand: Stand, dice: random.Random) -> Iterator[None]:
    """The link has high latency and little bandwidth."""
    yield from _link_is(stand, dice, Condition(delay_ms=150, bytes_per_s=200_000))


@fault(bound_ms=PROCESSOR_MS, weight=2, holds_s=LINK_S)
def link_breaks(stand: Stand, dice: random.Random) -> Iterator[None]:
    """Every connection breaks in the middle of a message after some bytes."""
    yield from _link_is(stand, dice, Condition(breaks_after_bytes=dice.choice((2_000, 20_000, 100_000))))


def _link_is(stand: Stand, dice: random.Random, condition: Condition) -> Iterator[None]:
    name, to = dice.choice([(name, to) for name, links in LINKS.items() if name in stand.names() for to in links])
    stand.proxies.set(f"{name}.{to}", condition)
    try:
        yield
    finally:
        stand.proxies.set(f"{name}.{to}", SOUND)
