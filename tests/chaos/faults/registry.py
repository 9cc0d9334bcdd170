"""What a fault is, and the registry of all of them.

A fault is a context: entered it stands, left it is over (a kill is over at once). Register one with `@fault`; the
schedule and the report find it by its name. `bound_ms`: within what time partitions must move and reads answer again once
it is over; None where that depends on how much is to be made anew. `measured_inside`: it is survived while it stands, so
the time counts from its beginning.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from tests.chaos.stand import Stand

PROCESSOR_MS: Final = 8_000
"""A session of six seconds, and a rebalance."""
ALL_MS: Final = 15_000
"""A session, and the start of every process that joins the group anew."""
SERVICE_MS: Final = 10_000
"""The start of a service of which there is one."""
REDIS_MS: Final = 3_000
"""After it answers."""
BROKER_MS: Final = 10_000
RELAY_MS: Final = 20_000
"""A lease of twelve seconds; partitions and reads do not wait for it."""
PAST_THE_SESSION: Final = (8.5, 8.5)
"""Seconds; the session is six."""
HOUR_MS: Final = 3_600_000


class NotPossibleHereError(Exception):
    """This machine does not allow the fault; the text says why."""


class Inject(Protocol):
    """What a fault does: a generator that yields once, while the fault stands."""

    def __call__(self, stand: Stand, dice: random.Random, /) -> Iterator[None]:
        """Raises NotPossibleHereError."""
        ...


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `weight`: how often it is drawn beside others; 0: only when it is asked for by name.

    `holds_s`: for how long it stands, at least and at most.
    """

    name: str
    inject: Callable[[Stand, random.Random], AbstractContextManager[None]]
    bound_ms: int | None
    weight: int
    holds_s: tuple[float, float]
    measured_inside: bool
    about: str


FAULTS: dict[str, Fault] = {}
"""Every fault by its name."""


def fault(
    *,
    bound_ms: int | None,
    weight: int = 1,
    holds_s: tuple[float, float] = (0.0, 0.0),
    measured_inside: bool = False,
) -> Callable[[Inject], Inject]:
    """Register a fault under the name of its function."""

    def register(inject: Any) -> Any:
        name = inject.__name__
        about = (inject.__doc__ or "").strip().splitlines()[0]
        FAULTS[name] = Fault(name, contextmanager(inject), bound_ms, weight, holds_s, measured_inside, about)
        return inject

    return register


def let_pass(seconds: float) -> None:
    """How long a fault stands is part of the fault, not a wait for something."""
    if seconds > 0:
        time.sleep(seconds)
