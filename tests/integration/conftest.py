"""What several files of integration tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.platform import Platform


@pytest.fixture(scope="session")
def watched(scratch: Path) -> Iterator[Platform]:
    """A platform that nothing has happened to, one for both files that need such a one, since a start costs so much.

    `test_operations.py` finds it well and leaves it so; then `test_operations_alerts.py` has alerts raised on it.
    """
    folder = scratch / "watched"
    with Platform(folder / "platform", run=folder / "run", usual_ports=False, workers=1) as platform:
        yield platform
