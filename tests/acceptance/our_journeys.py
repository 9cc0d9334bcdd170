"""One of our own scenarios through the running chain: what the services answered and show, as `plain_checks` looks at it."""

from typing import Any, Final

from tests.acceptance.journey import CLINICIAN, Journey, Told
from tests.acceptance.plain_checks import Judged, check
from tests.acceptance.step_checks import NAMED
from tests.acceptance.translate import Play, more_scenarios
from tests.chain import Chain

NAMED_TOO: Final = {**NAMED, "multidose_elsewhere": "pharmacy"}
FIRST_PATIENT: Final = 500
"""Apart from those of the given scenarios."""


def walk(name: str, chain: Chain) -> None:
    """Every step, each held to what it expects."""
    number = FIRST_PATIENT + list(more_scenarios()).index(name)
    journey = Journey(Play(more_scenarios()[name]), chain, number)
    version = -1
    for step in journey.steps():
        check(Answered(journey), step, version)
        version = journey.now.whole["version"]


class Answered:
    """A journey after one of its steps."""

    def __init__(self, journey: Journey) -> None:
        self._journey = journey

    @property
    def play(self) -> Play:
        """Of the journey."""
        return self._journey.play

    def judged(self) -> list[Judged]:
        """As the services answered; a record that nobody could read, as the history shows it."""
        journey = self._journey
        if journey.step is not None and journey.step.unreadable:
            last = journey.chain.history(journey.patient("X").digits, CLINICIAN)[-1]
            return [Judged(last["outcome"], last["reason"], frozenset(), None)]
        return [_judged(told) for told in journey.told]

    def whole(self) -> dict[str, Any]:
        """As the read API answers."""
        return self._journey.now.whole

    def prescription(self, name: str) -> dict[str, Any]:
        """As the pharmacy's search finds it; a locked one, which no search by patient finds, as the list shows it."""
        natural, journey = self.play.id_of(name), self._journey
        in_list = [shown for entry in journey.now.entries for shown in entry.get("prescriptions", ())]
        locked = (shown for shown in in_list if shown["prescription"] == natural and shown["issued"].get("locked"))
        return next(locked, None) or journey.prescription(name)


def _judged(told: Told) -> Judged:
    if told.outcome == "refused":
        named = told.document.get(NAMED_TOO.get(told.reason, ""))
        return Judged("refused", told.reason, frozenset(), named)
    answer = told.document.get("named") or {}
    return Judged(told.outcome, None, frozenset(told.document.get("flags", ())), answer.get("answer"))
