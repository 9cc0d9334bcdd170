"""What happened, step by step, in one line each: printed when a schedule fails, and one digest to compare runs by."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken: its number, and how."""

    invariant: str
    what: str


class History:
    """Steps in the order in which they happened, and what was broken on the way."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._steps: list[tuple[float, str, str]] = []
        self.violations: list[Violation] = []
        self._is_over = False

    def note(self, who: str, what: str) -> None:
        """Somebody did something, or something was done to them."""
        if not self._is_over:
            self._steps.append((self._now_s(), who, what))

    def broken(self, invariant: str, what: str) -> None:
        """A promise does not hold."""
        if not self._is_over:
            self.violations.append(Violation(invariant, what))
            self.note("CHECK", f"{invariant}: {what}")

    def end(self, what: str) -> None:
        """The last step. From now on the world is only taken apart, one task after the other in whatever order."""
        self.note("world", what)
        self._is_over = True

    def digest(self) -> str:
        """The same for the same history, in any process."""
        return hashlib.blake2b(repr(self._steps).encode(), digest_size=8).hexdigest()

    def lines(self) -> list[str]:
        """The history, as a person reads it."""
        return [f"{at_s:9.3f} {who:<14} {what}" for at_s, who, what in self._steps]

    def __len__(self) -> int:
        return len(self._steps)
