"""What the scenarios have a word for and the platform does not have yet: such a scenario is expected to fail, for this reason."""

from collections.abc import Mapping
from typing import Any, Final

import pytest

NOT_BUILT: Final[Mapping[str, str]] = {
    "block": "not built yet: a citizen who hides an entry or keeps a clinician out (it needs access control)",
    "unblock": "not built yet: a citizen who takes a block back (it needs access control)",
    "read_access_log": "not built yet: the log of who looked, shown to the citizen (it needs access control)",
}
"""By the action; `/v1` has no resource for any of them."""


class NotBuiltError(Exception):
    """A step asks for a capability of the table."""


def each_to_be_played(scenarios: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    """The ids of all scenarios as parameters of a test; those that need what is not built must fail for want of it."""
    return [pytest.param(name, marks=_marks(scenario), id=name) for name, scenario in scenarios.items()]


def _marks(scenario: Mapping[str, Any]) -> list[pytest.MarkDecorator]:
    wanted = [NOT_BUILT[step["action"]] for step in scenario["steps"] if step.get("action") in NOT_BUILT]
    return [pytest.mark.xfail(strict=True, raises=NotBuiltError, reason=reason) for reason in wanted[:1]]
