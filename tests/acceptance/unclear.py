"""What the runner has no translation for, told by scenario, place and words when the rest of a scenario has been looked at."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.acceptance.values import NotUnderstoodError


class Unclear:
    """What nobody understands: gathered, so that the rest of a scenario is looked at all the same."""

    def __init__(self, scenario: Mapping[str, Any]) -> None:
        self._id = scenario["id"]
        self._said: list[str] = []

    @contextmanager
    def noted(self, where: str) -> Iterator[None]:
        """Goes on after a sentence without a translation."""
        try:
            yield
        except NotUnderstoodError as error:
            self._said.append(f"{self._id}, {where}: {error}")

    def tell(self) -> None:
        """Raises NotUnderstoodError if there was any."""
        if self._said:
            raise NotUnderstoodError("; ".join(self._said))
