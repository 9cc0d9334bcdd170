"""Schedules by chance keep every promise, one seed tells one history, and each protection that is taken out is missed."""

import gc
import subprocess
import sys
from random import Random

import pytest

from deploy.local.layout import CHECKOUT
from tests.simulation.__main__ import explain, run_all
from tests.simulation.mutants import MUTANTS, kind_of
from tests.simulation.schedule import run
from tests.simulation.world import World

pytestmark = pytest.mark.simulation
SAME = 80
"""Schedules that every run plays."""
DRAWN = 40
"""Schedules that a run draws for itself, and perhaps nobody has played before."""
TRIES = 60
"""Schedules that a mutant may survive at most; most are caught by one of the first ten."""


def test_no_schedule_breaks_a_promise() -> None:
    """The same ones each time: one that a change breaks is the change's."""
    told = run_all(range(1, 1 + SAME))
    assert not told.failed, "\n\n".join(why for _, why in told.failed[:3])
    assert told.schedules == SAME
    assert all(told.counts[outcome] for outcome in ("applied", "duplicate", "refused", "parked"))


def test_no_schedule_drawn_by_the_runs_seed_breaks_a_promise(seed: int) -> None:
    """One that fails says its own seed, with which it is played again: it may have been broken for long."""
    first = Random(seed).randrange(10**6, 10**9)
    told = run_all(range(first, first + DRAWN))
    assert not told.failed, "\n\n".join(why for _, why in told.failed[:3])
    assert told.schedules == DRAWN


def test_one_seed_tells_one_history_in_every_process(seed: int) -> None:
    first, again, another = (_digest_of(each) for each in (seed, seed, seed + 1))
    assert first == again != another


def test_a_schedule_leaves_nothing_of_its_world_behind() -> None:
    for each in range(1, 9):
        run(each)
    gc.collect()
    assert not [each for each in gc.get_objects() if isinstance(each, World)]


def _digest_of(seed: int) -> str:
    arguments = ["--seed", str(seed), "--schedules", "1", "--trace"]
    told = subprocess.run(  # noqa: S603  our own command line
        [sys.executable, "-m", "tests.simulation", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    return next(line for line in told.stdout.splitlines() if line.startswith("digest "))


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_protection_that_is_taken_out_is_missed(name: str) -> None:
    kind = kind_of(name)
    caught = next((result for seed in range(1, TRIES + 1) if (result := run(seed, name, kind)).violations), None)
    assert caught is not None, f"{name} survived {TRIES} schedules"
    assert caught.violations[0].invariant != "crash", "it was not the protection that was missed"
    assert "again, from the beginning" in explain(caught)
