"""What a replay tells its bulk readers, and what they tell it: lines of JSON, and the code with which one ends."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

DONE: Final = 0
"""A bulk reader ended because there is nothing left for it to feed."""
REFUSED: Final = 2
"""A bulk reader ended because it must not work; its last words say why."""


class Order(msgspec.Struct, frozen=True):
    """The work of one bulk reader. `share`: of one core. `until`: for some partitions, the offset before which to stop."""

    generation: str
    partitions: Sequence[int]
    share: float
    until: Mapping[int, int]


class Pacing(msgspec.Struct, frozen=True):
    """What holds from now on: the share of one core, or nothing at all while `is_paused`."""

    share: float
    is_paused: bool


class Told(msgspec.Struct, frozen=True):
    """A bulk reader's progress. `records`: judged since it was started; `cpu_s`: CPU time that it used."""

    records: int = 0
    cpu_s: float = 0.0
    generation: str | None = None
