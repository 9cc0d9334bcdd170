"""What a mutant is here: which promise it breaks, which test must catch it, and what it changes."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple


class Mutant(NamedTuple):
    """A protection taken out. `caught_by`: file and name of a test; `change`: changes this process for good."""

    promise: str
    caught_by: str
    change: Callable[[], None]


MUTANTS: Final[dict[str, Mutant]] = {}


def mutant(promise: str, caught_by: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """List a change by its name, which no other mutant may have."""

    def register(change: Callable[[], None]) -> Callable[[], None]:
        assert change.__name__ not in MUTANTS, "two mutants of one name"
        MUTANTS[change.__name__] = Mutant(promise, caught_by, change)
        return change

    return register


def instead(of: Any, name: str, other: Any) -> None:
    """Put another in the place of what a module or class has under this name."""
    assert hasattr(of, name), f"{name} is gone, and with it what this mutant takes out"
    setattr(of, name, other)
