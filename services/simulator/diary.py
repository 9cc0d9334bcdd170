"""The town's diary: what is to happen when, what was sent by then, and in what order it arrives."""

import heapq
from collections.abc import Callable, Iterator
from datetime import date
from random import Random
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from schemas.events import Body
from services.simulator.contradictions import contradict
from services.simulator.population import Actor, Patient, Town
from services.simulator.rates import Rates

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS
YEAR_MS: Final = 365 * DAY_MS
DAMAGES: Final = ("truncated", "unknown_schema", "wrong_magic", "left_over", "empty")


class Planned(Struct, frozen=True, gc=False):
    """One action of somebody in the town, as the log would hold it.

    together: sent in the same moment as the action before it. irregularity: the rate that caused it, or empty.
    damage: one of DAMAGES if the record is to be unreadable, otherwise empty.
    """

    event_id: str
    patient: int
    occurred_at_ms: int
    received_at_ms: int
    actor: Actor
    body: Body
    together: bool = False
    irregularity: str = ""
    damage: str = ""


Step = Callable[..., None]


class Diary:
    """The town's clock and diary: what is to happen when, and what was sent by then."""

    def __init__(self, town: Town, seed: int, rates: Rates) -> None:
        self.town = town
        self.rates = rates
        self.random = Random(seed)  # noqa: S311  a seeded town is the point
        self._diary: list[tuple[int, int, Any, tuple[Any, ...]]] = []
        self._written = 0

    def at(self, when_ms: int, step: Step, *about: Any) -> None:
        """Have a step happen at that time: it is called with the time and what it is about."""
        self._written += 1
        heapq.heappush(self._diary, (when_ms, self._written, step, about))

    def chance(self, share: float) -> bool:
        """True this often."""
        return self.random.random() < share

    def id(self) -> str:
        """A new UUID."""
        digits = f"{self.random.getrandbits(128):032x}"
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"

    def send(
        self,
        when_ms: int,
        patient: Patient,
        actor: Actor,
        body: Body,
        *,
        late_ms: int = 0,
        together: bool = False,
        why: str = "",
        event_id: str = "",
    ) -> Planned:
        """Somebody sends something that happened at that time; it arrives a moment, or `late_ms`, later."""
        received = when_ms + (late_ms or 200 + int(self.random.random() * 1800))
        planned = Planned(event_id or self.id(), patient.index, when_ms, received, actor, body, together, why)
        self._arrives(received, planned)
        self._something_goes_wrong(planned)
        return planned

    def arrivals(self) -> Iterator[Planned]:
        """What arrives, in order, for ever (or until nobody has anything left to do)."""
        while self._diary:
            when_ms, _, step, about = heapq.heappop(self._diary)
            if step is None:
                yield about[0]
            else:
                step(when_ms, *about)

    def _arrives(self, when_ms: int, planned: Planned) -> None:
        self._written += 1
        heapq.heappush(self._diary, (when_ms, self._written, None, (planned,)))

    def _something_goes_wrong(self, planned: Planned) -> None:
        """Now and then a message comes twice, contradicts itself, or cannot be read."""
        draw = self.random.random()
        rates = self.rates
        if draw < rates.duplicate:
            again = planned.received_at_ms + self.random.choice((500, 5_000, HOUR_MS, 2 * DAY_MS))
            self._arrives(again, replace(planned, received_at_ms=again, together=False, irregularity="duplicate"))
        elif draw < rates.duplicate + rates.conflicting:
            other = contradict(planned.body)
            if other is not None:
                at = planned.received_at_ms + HOUR_MS
                changed = replace(planned, event_id=self.id(), body=other, occurred_at_ms=at - 500, received_at_ms=at)
                self._arrives(at, replace(changed, together=False, irregularity="conflicting"))
        elif draw < rates.duplicate + rates.conflicting + rates.unreadable:
            at = planned.received_at_ms + MINUTE_MS
            damaged = replace(planned, event_id=self.id(), received_at_ms=at, occurred_at_ms=at - 500, together=False)
            self._arrives(at, replace(damaged, irregularity="unreadable", damage=self.random.choice(DAMAGES)))


def day_of(when_ms: int) -> date:
    """The day, near enough to Oslo's for made data: nobody in the town works around midnight."""
    return date.fromordinal(_EPOCH + (when_ms + HOUR_MS) // DAY_MS)


_EPOCH: Final = date(1970, 1, 1).toordinal()
