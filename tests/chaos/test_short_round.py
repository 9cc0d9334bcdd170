"""One short round on real processes: load, three faults drawn by the run's seed, and not one violation."""

import shutil
from random import Random
from typing import Final

import pytest

from tests.chaos.cli import FOLDER
from tests.chaos.rounds import Plan, play

QUICK: Final = (
    "link_breaks",
    "link_loses_answers",
    "processor_crash_point",
    "records_doubled",
    "records_unreadable",
    "redis_flushed",
    "redis_functions_flushed",
    "redis_out_of_memory",
    "redis_read_only",
    "redis_sigkill",
    "relay_crash_point",
)
"""Faults that are over within some seconds."""
EVENTS: Final = 1_500


@pytest.mark.integration
def test_nothing_is_lost_doubled_or_reordered_under_three_faults(seed: int) -> None:
    drawn = Random(seed).sample(QUICK, 3)
    plan = Plan(seed=seed, events=EVENTS, rate=150, faults=3, only=drawn, small=True)
    folder = FOLDER / f"short-{seed}"
    outcome = play(plan, folder, lambda _doing, _done: None)
    assert outcome.violations == [], drawn
    assert outcome.events == EVENTS
    assert [each.fault for each in outcome.injected] == drawn
    assert outcome.reads > outcome.reads_refused
    assert outcome.effects > 0
    shutil.rmtree(folder)  # where something is wrong it stays, with logs and what the clients saw
