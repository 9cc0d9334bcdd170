"""One of our own scenarios through the running chain: what the services answered and show, as `plain_checks` looks at it."""

from typing import Final

from tests.acceptance.answered import Answered
from tests.acceptance.journey import Journey
from tests.acceptance.plain_checks import check
from tests.acceptance.translate import Play, more_scenarios
from tests.chain import Chain

FIRST_PATIENT: Final = 500
"""Apart from those of the given scenarios."""


def walk(name: str, chain: Chain) -> None:
    """Every step, each held to what it expects."""
    number = FIRST_PATIENT + list(more_scenarios()).index(name)
    journey = Journey(Play(more_scenarios()[name]), chain, number)
    version = -1
    for step in journey.steps():
        check(Answered(journey), step, version)
        version = journey.now.whole["version"]
