"""The table of promises in docs/reliability.md: each is there, and every test and mutant that it names, and no mutant is left out."""

import re
from typing import Final

import pytest

from deploy.local.layout import CHECKOUT
from tests import protections
from tests.chaos import mutants as chaos
from tests.simulation.documented import PATH, named_in, played, rows, runs_of, told_runs, written
from tests.simulation.mutants import MUTANTS

DOCUMENT: Final = PATH.read_text(encoding="utf-8")
ROWS: Final = rows(DOCUMENT)
ALL_MUTANTS: Final = MUTANTS.keys() | chaos.MUTANTS.keys() | protections.MUTANTS.keys()
PROMISES: Final = tuple(f"I{number}" for number in (*range(1, 14), 15, 17))


def mutants_in(row: str) -> set[str]:
    """What stands in code in the last column."""
    return set(re.findall(r"`(\w+)`", row.rstrip("| ").rsplit("|", 1)[1]))


def test_every_promise_has_its_row() -> None:
    assert tuple(ROWS) == PROMISES


@pytest.mark.parametrize("promise", PROMISES)
def test_every_test_that_is_named_is_there(promise: str) -> None:
    named = named_in(ROWS[promise])
    assert named, "a promise that no test holds"
    for file, test in named:
        assert re.search(rf"^(async )?def {test}\(", (CHECKOUT / file).read_text(encoding="utf-8"), re.MULTILINE), test


@pytest.mark.parametrize("promise", PROMISES)
def test_every_row_tells_how_often_its_promise_was_tried(promise: str) -> None:
    assert told_runs(ROWS[promise]) == runs_of(ROWS[promise], *played(DOCUMENT))


def test_figures_that_are_written_stand_in_every_row() -> None:
    document = written(DOCUMENT, 12_345, 67)
    assert played(document) == (12_345, 67)
    assert all(told_runs(row) == runs_of(row, 12_345, 67) for row in rows(document).values())
    assert written(document, *played(DOCUMENT)) == DOCUMENT


@pytest.mark.parametrize("promise", PROMISES)
def test_every_mutant_that_is_named_is_there(promise: str) -> None:
    assert mutants_in(ROWS[promise]) <= ALL_MUTANTS


@pytest.mark.parametrize("promise", PROMISES)
def test_every_promise_has_a_mutant_that_is_caught(promise: str) -> None:
    assert mutants_in(ROWS[promise])


@pytest.mark.parametrize("name", sorted(protections.MUTANTS))
def test_a_mutant_stands_beside_the_test_that_catches_it(name: str) -> None:
    mutant = protections.MUTANTS[name]
    row = ROWS[mutant.promise]
    assert name in mutants_in(row)
    assert mutant.caught_by in {"::".join(each) for each in named_in(row)}


def test_no_mutant_is_left_out() -> None:
    assert protections.MUTANTS.keys().isdisjoint(MUTANTS.keys() | chaos.MUTANTS.keys())
    assert set().union(*map(mutants_in, ROWS.values())) == ALL_MUTANTS
