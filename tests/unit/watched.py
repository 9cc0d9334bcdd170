"""A scenario on its way through a judge that runs in the test itself, as the checks of the header's words look at it."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from schemas import medication_list as ml
from services.medication_list.read_api.presenting import to_json
from tests.acceptance.final_checks import check_final
from tests.acceptance.header_checks import check_sentence, check_unsaid_flags
from tests.acceptance.notices import check_told, due_to_issuers
from tests.acceptance.plain_checks import Judged
from tests.acceptance.translate import AnyEvent, Play, Step
from tests.acceptance.unclear import Unclear
from tests.acceptance.values import NotUnderstoodError
from tests.oracle.history import Verdict


class Run(Protocol):
    """A scenario on its way through the oracle or the fold."""

    play: Play
    step: Step | None
    verdicts: list[Verdict]

    def take(self, step: Step) -> None:
        """Judge what a step brings."""

    def list_now(self) -> ml.MedicationList:
        """As the step's time shows it."""

    def prescription(self, name: str) -> ml.ShownPrescription:
        """One of it, also one that its entry's age hides."""

    def notices(self) -> list[str]:
        """Every notice so far, as "kind to whom about what"."""

    def orders(self) -> list[str]:
        """Every dispense order so far, as "whom about what"."""


class Watched:
    """A run as `plain_checks` and `header_checks` look at it."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.version_before = -1

    @property
    def play(self) -> Play:
        """Of the run."""
        return self.run.play

    @property
    def step(self) -> Step:
        """The present one."""
        assert self.run.step is not None
        return self.run.step

    def judged(self) -> list[Judged]:
        """As the run came to it."""
        return [
            Judged(each.outcome, each.reason, frozenset(map(str, each.flags)), each.named) for each in self.run.verdicts
        ]

    def whole(self) -> dict[str, Any]:
        """As JSON."""
        shown: dict[str, Any] = json.loads(to_json(self.run.list_now()))
        return shown

    def prescription(self, name: str) -> dict[str, Any]:
        """As JSON; of a past list, as it was then."""
        if self.step.as_of_ms is not None:
            return next(each for each in self._listed() if each["prescription"] == self.play.id_of(name))
        shown: dict[str, Any] = json.loads(to_json(self.run.prescription(name)))
        return shown

    def found(self) -> list[dict[str, Any]]:
        """What a search would find in the list: only what is open, unless all; what is locked by its number alone."""
        number = self.step.reference_number
        found = [each for each in self._listed() if self.step.every or each["status"] in "EU"]
        if number is not None:
            return [each for each in found if each["issued"].get("reference_number") == number]
        return [each for each in found if not each["issued"].get("locked")]

    def _listed(self) -> list[dict[str, Any]]:
        whole = self.whole()
        shown = [*whole.get("treatments", ()), *whole.get("other_prescriptions", ())]
        return [each for entry in shown for each in entry.get("prescriptions", ())]

    def told(self) -> list[str] | None:
        """So far."""
        return self.run.notices()

    def orders(self) -> list[str] | None:
        """So far."""
        return self.run.orders()

    def defer(self, sentence: str) -> None:
        """Never: all is known at once."""
        raise AssertionError(sentence)

    def documents(self) -> list[tuple[int, dict[str, Any]]]:
        """No service answers."""
        return []

    def has_in_history(self, natural: str) -> bool:
        """Whatever was sent is in the log."""
        bodies = [event.body for step in self.play.taken if not step.door for event in step.events]
        return any(natural in [getattr(body, field) for field in body.__struct_fields__] for body in bodies)

    def has_raised_an_alarm(self) -> bool:
        """The log has it where services run; here, what it is raised for."""
        return any(each.reason == "conflicting_duplicate" for each in self.judged())

    def is_unchanged(self) -> bool:
        """Nothing was applied, and the list has not moved."""
        is_still = self.whole()["version"] == self.version_before
        return is_still and all(each.outcome != "applied" for each in self.judged())


def play_through(scenario: Mapping[str, Any], run: Run, check: Callable[[Watched, str], None]) -> list[str]:
    """Every step held to what it expects, and the end to what it is to be; returns the notices that are always due."""
    watched, unclear, versions = Watched(run), Unclear(scenario), dict[str, int]()
    judged: list[tuple[AnyEvent, Judged]] = []
    for step in run.play:
        run.take(step)
        watched.version_before = versions.get(step.patient, -1)
        for expected in step.expect:
            with unclear.noted(f"step {step.n}"):
                check(watched, expected)
        check_unsaid_flags(watched, scenario)
        if step.as_of_ms is None:
            versions[step.patient] = watched.whole()["version"]
        judged += zip(step.events, watched.judged(), strict=False)
    with unclear.noted("final"):
        check_final(watched, scenario.get("final") or {})
    for sentence in scenario["then"]:
        # In the header's words alone: what a scenario says in its own is held to by the suite over HTTP.
        with suppress(NotUnderstoodError):
            check_sentence(watched, sentence)
    due = due_to_issuers(run.play, judged)
    if "notices" not in scenario:
        check_told(scenario, run.notices(), due)
    unclear.tell()
    return due
