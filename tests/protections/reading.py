"""I12: what keeps a reader from being told that there is nothing where something was lost."""

from typing import Final

from services.medication_list.read_api.number_conflicts import NumberConflicts, Owner
from tests.protections.registry import instead, mutant

_LOST: Final = "tests/unit/test_lost_view.py::"


@mutant("I12", f"{_LOST}test_a_reference_number_is_nobodys_only_where_every_partition_was_asked")
def lost_partition_taken_for_empty() -> None:
    """A number that is found nowhere is nobody's, whether or not every partition was asked."""
    original = NumberConflicts.owner_of

    async def owner_of(self: NumberConflicts, name: str) -> Owner:
        return (await original(self, name))._replace(not_asked=None)

    instead(NumberConflicts, "owner_of", owner_of)
