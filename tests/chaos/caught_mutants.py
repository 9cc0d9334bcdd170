"""Processes with a protection taken out, one after the other, each under the fault that it protects from: all are caught.

Not part of `make test`, for each takes a minute: `make mutants` runs them.
"""

from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.chaos.checker import Kind
from tests.chaos.mutants import MUTANTS
from tests.chaos.rounds import Plan, play


class Caught(NamedTuple):
    """Whose protection is out, under which fault it shows, and as what."""

    service: str
    fault: str
    kind: Kind


CAUGHT: Final = {
    "no_compare_and_set": Caught("processor", "processor_sigstop_at_a_point", Kind.DIFFERS),
    "no_event_index": Caught("processor", "records_doubled", Kind.DIFFERS),
    "errors_swallowed": Caught("processor", "records_unreadable", Kind.LOST),
    "deletes_before_the_ack": Caught("relay", "relay_sigkill", Kind.LOST),
    "offset_before_state": Caught("replay", "replayed_under_load", Kind.DIFFERS),
    "next_live_one_is_silent": Caught("switch", "replayed_under_load", Kind.LOST),
    "no_barrier": Caught("medication-list", "redis_flushed_and_a_worker_dies", Kind.EMPTY),
}


LONG: Final = ("replayed_under_load",)
"""Those that are injected once in a round, which goes on for long enough that there is load afterwards."""


def test_every_mutant_has_its_fault() -> None:
    assert CAUGHT.keys() == MUTANTS.keys()


@pytest.mark.integration
@pytest.mark.parametrize("mutant", CAUGHT)
def test_a_process_without_its_protection_is_caught(mutant: str, seed: int, scratch: Path) -> None:
    caught = CAUGHT[mutant]
    plan = Plan(
        seed=seed,
        events=10_000 if caught.fault in LONG else 4_000,
        rate=150,
        faults=1 if caught.fault in LONG else 3,
        only=(caught.fault,),
        mutants={caught.service: mutant},
        small=True,
    )
    outcome = play(plan, scratch / mutant, lambda _doing, _done: None)
    assert caught.kind in {each.kind for each in outcome.violations}, outcome.violations
