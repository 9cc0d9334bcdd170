"""What happens in the town: a pure generator of planned actions, the same for the same seed, in the order of arrival.

The entry function is `events`. It is independent of channels: an action says who does what to whom and when, and a channel sends it.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Final

from services.simulator.diary import Diary, Planned
from services.simulator.lives import settle
from services.simulator.population import Town
from services.simulator.rates import Rates

START: Final = datetime(2021, 1, 4, 6, tzinfo=UTC)
EVENTS_PER_PATIENT: Final = 100
"""About two years of a life, so that prescriptions are renewed and run out."""
FEWEST_PATIENTS: Final = 20


def events(seed: int, n: int | None, *, town: Town | None = None, rates: Rates | None = None) -> Iterator[Planned]:
    """The first `n` planned actions (None: as long as anybody lives) in the town with this seed, in order of arrival."""
    diary = Diary(town or Town(patients_for(n or 0)), seed, rates or Rates())
    settle(diary, int(START.timestamp() * 1000))
    return islice(diary.arrivals(), n)


def patients_for(n: int) -> int:
    """How many people a town of `n` events has when nobody says."""
    return max(FEWEST_PATIENTS, n // EVENTS_PER_PATIENT)
