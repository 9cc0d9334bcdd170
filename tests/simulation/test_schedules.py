"""Schedules by chance keep every promise, one seed tells one history, and the loss of each protection is caught."""

import gc
import os
import subprocess
import sys
from collections.abc import Sequence
from random import Random

import pytest

from deploy.local.layout import CHECKOUT
from tests.simulation.__main__ import explain, run_all
from tests.simulation.mutants import MUTANTS
from tests.simulation.schedule import run
from tests.simulation.world import World

pytestmark = pytest.mark.simulation
SAME = 80
"""Schedules that every run plays."""
DRAWN = 40
"""Schedules that a run draws for itself, and perhaps nobody has played before."""
TWICE = 8
"""Schedules that are played again: some that once came out otherwise the second time, and some that a run draws."""
TRIES = 120
"""Schedules that a mutant may survive at most; most are caught by one of the first ten."""
CAUGHT_BEFORE = {
    "comparison_of_unequal_positions": 11,
    "lost_view_begun_as_new": 77,
    "progress_without_what_is_unsent": 17,
    "refold_forgets_corrections": 27,
    "replay_offset_not_compared": 16,
    "reset_policy_earliest": 14,
    "state_read_apart_from_its_offset": 12,
    "switch_skips_effects": 57,
    "switch_to_what_is_behind": 31,
}
"""By which schedule those were that survive the first ten. It is tried first: a minute less for all; after a change of the
platform another one may be the first that catches them."""


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


@pytest.mark.parametrize("first", [71294, None], ids=["same", "drawn"])
def test_one_seed_tells_one_history_whatever_ran_before_and_in_every_process(first: int | None, seed: int) -> None:
    first = Random(seed).randrange(10**6, 10**9) if first is None else first
    seeds = range(first, first + TWICE)
    here = [run(each).history.digest() for each in seeds]
    again = [run(each).history.digest() for each in reversed(seeds)]
    assert here == again[::-1]
    assert here == _digests_elsewhere(seeds)
    assert len(set(here)) == TWICE


def test_whoever_follows_what_a_failing_schedule_prints_sees_the_same(seed: int) -> None:
    failed = next(result for each in range(seed, seed + TRIES) if (result := run(each, "errors_swallowed")).violations)
    told = explain(failed).splitlines()[-1]
    command = failed.again.split()[1:]
    assert told.endswith(failed.again)
    assert failed.history.digest() in told
    assert _played(command)[-2:] == [f"digest {failed.history.digest()}", "1 failed"]


def test_a_schedule_leaves_nothing_of_its_world_behind() -> None:
    for each in range(1, 9):
        run(each)
    gc.collect()
    assert not [each for each in gc.get_objects() if isinstance(each, World)]


def _digests_elsewhere(seeds: range) -> list[str]:
    """Of each, in a process where hashes come out otherwise."""
    arguments = ["--seed", str(seeds.start), "--schedules", str(len(seeds)), "--trace"]
    lines = _played(["-m", "tests.simulation", *arguments])
    return [line.removeprefix("digest ") for line in lines if line.startswith("digest ")]


def _played(arguments: Sequence[str]) -> list[str]:
    """What our own command line printed."""
    hashes = {"PYTHONHASHSEED": "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"}
    told = subprocess.run(  # noqa: S603  our own command line
        [sys.executable, *arguments],
        cwd=CHECKOUT,
        env=os.environ | hashes,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode in (0, 1), told.stderr
    return told.stdout.splitlines()


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_protection_that_is_taken_out_is_caught(name: str) -> None:
    seeds = (CAUGHT_BEFORE.get(name, 1), *range(1, TRIES + 1))
    caught = next((result for seed in seeds if (result := run(seed, name)).violations), None)
    assert caught is not None, f"{name} survived {TRIES} schedules"
    assert caught.violations[0].invariant != "crash", "it crashed: the loss of the protection was not what was caught"
    assert "again, from the beginning" in explain(caught)
