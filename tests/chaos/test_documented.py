"""docs/reliability.md names every fault, every mutant, and every demand of the checker, and none that is not there."""

import re
from typing import Final

from deploy.local.layout import CHECKOUT
from tests.chaos.caught_mutants import CAUGHT
from tests.chaos.faults import FAULTS
from tests.chaos.mutants import MUTANTS

DOCUMENT: Final = (CHECKOUT / "docs" / "reliability.md").read_text(encoding="utf-8")


def rows(heading: str) -> dict[str, str]:
    """The table rows under a heading, by what stands in code first."""
    section = DOCUMENT.split(f"### {heading}\n", 1)[1].split("\n### ", 1)[0]
    return {match[1]: match[0] for match in re.finditer(r"^\| `(\w+)` \|.*$", section, re.MULTILINE)}


def test_every_fault_is_in_the_table_with_what_it_does() -> None:
    told = rows("What was injected")
    assert told.keys() == FAULTS.keys()
    for name, row in told.items():
        assert FAULTS[name].about.rstrip(".") in row


def test_every_mutant_is_in_the_table_with_the_fault_that_catches_it() -> None:
    told = rows("The checker is checked")
    assert told.keys() == MUTANTS.keys()
    for name, row in told.items():
        assert f"`{CAUGHT[name].fault}`" in row
