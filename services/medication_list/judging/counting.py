"""What became of a fetch, or of a refold, for whoever counts it."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Judged:
    """The outcome of a fetch, for metrics: only what the store accepted, and the time by stage.

    `outcomes`, `parked` (by reason): records. `conflicts`: ids that belong to another patient. `conflicting`: events that say
    otherwise what was said before. `seconds`: by stage.

    The two last but one are alarms, and told once: by the live generation, and of what was judged before the view was lost
    as little as effects go out for it again.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    parked: Counter[str] = field(default_factory=Counter)
    conflicts: int = 0
    conflicting: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


def nobody_counts(_: Judged) -> None:
    """Where nothing is measured."""
