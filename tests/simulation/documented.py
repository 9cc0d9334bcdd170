"""The table of promises in docs/reliability.md: its rows, and how often each promise was tried, counted from one place.

`python -m tests.simulation.documented <schedules> <rounds>` writes how many were played into "What was run" and every row.
"""

import re
import sys
from collections.abc import Mapping
from typing import Final

from deploy.local.layout import CHECKOUT

PATH: Final = CHECKOUT / "docs" / "reliability.md"
_HEADING: Final = "## Every promise, and what holds it\n"
_ROW: Final = re.compile(r"^\| (I\d+) \|.*\|$", re.MULTILINE)
_PLAYED: Final = re.compile(r"^(\| (Schedules|Rounds) \| )([\d,]+)( \|)", re.MULTILINE)
_TESTS: Final = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
_RUNS: Final = 3
"""The column."""


def section(document: str) -> str:
    """The part with the table."""
    return document.split(_HEADING, 1)[1].split("\n## ", 1)[0]


def rows(document: str) -> Mapping[str, str]:
    """Every row by the promise's number."""
    return {match[1]: match[0] for match in _ROW.finditer(section(document))}


def played(document: str) -> tuple[int, int]:
    """How many schedules and rounds were played, as "What was run" says."""
    found = {match[2]: int(match[3].replace(",", "")) for match in _PLAYED.finditer(document)}
    return found["Schedules"], found["Rounds"]


def named_in(row: str) -> list[tuple[str, str]]:
    """File and name of the tests that hold a promise."""
    return _TESTS.findall(row)


def runs_of(row: str, schedules: int, rounds: int) -> str:
    """How often the promise of a row was tried, as its column says it."""
    held_by, tests = _cells(row)[_RUNS - 1], len(named_in(row))
    said = [f"{schedules:,} *S*"] if "*S*" in held_by else []
    said += [f"{rounds:,} *C*"] if "*C*" in held_by else []
    return ", ".join([*said, f"{tests} test{'s' if tests > 1 else ''}"])


def told_runs(row: str) -> str:
    """What the column says."""
    return _cells(row)[_RUNS]


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def written(document: str, schedules: int, rounds: int) -> str:
    """The document with these figures."""
    figures = {"Schedules": schedules, "Rounds": rounds}
    document = _PLAYED.sub(lambda found: f"{found[1]}{figures[found[2]]:,}{found[4]}", document)
    for row in rows(document).values():
        cells = _cells(row)
        cells[_RUNS] = runs_of(row, schedules, rounds)
        document = document.replace(row, f"| {' | '.join(cells)} |")
    return document


def main() -> None:
    """Write the figures that are given."""
    schedules, rounds = (int(each) for each in sys.argv[1:])
    PATH.write_text(written(PATH.read_text(encoding="utf-8"), schedules, rounds), encoding="utf-8")


if __name__ == "__main__":
    main()
