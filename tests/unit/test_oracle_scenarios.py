"""The oracle is held to the acceptance scenarios: every step's outcome, flags and status, and how each one ends."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from schemas import events as ev
from schemas import medication_list as ml
from schemas.reasons import ParkReason
from tests.acceptance.header_checks import check_sentence, needs_a_service
from tests.acceptance.not_built import each_to_be_played
from tests.acceptance.notices import WHOM, name_of
from tests.acceptance.translate import Play, Step, more_words, scenarios
from tests.acceptance.values import NotUnderstoodError, instant
from tests.oracle.history import LogRecord, Unreadable, Verdict
from tests.oracle.naive import fold, judge, show
from tests.oracle.showing import shown_prescription
from tests.unit.watched import Watched, play_through

WORDS_OF_THE_ANSWER = (
    "turned away at the door",
    "the answer ",
    "the first outcome is told",
    "and the identity that P needs",
)
"""What only the services can show: the black-box suite looks at these."""


@dataclass(slots=True)
class Run:
    """A scenario on its way through the oracle."""

    play: Play
    logs: dict[str, list[LogRecord]] = field(default_factory=dict)
    offset: int = -1
    step: Step | None = None
    verdicts: list[Verdict] = field(default_factory=list)
    """Of this step's events."""

    def take(self, step: Step) -> None:
        """Append what a step brings, unless the door turns it away, and judge it."""
        self.step, self.verdicts = step, []
        if step.door:
            return
        contents: list[ev.Event[ev.Body] | Unreadable] = list(step.events)
        for content in [*contents, *([Unreadable(ParkReason.UNREADABLE)] if step.unreadable else [])]:
            self.offset += 1
            records = self.logs.setdefault(step.patient, [])
            records.append(LogRecord(0, self.offset, step.at_ms, content))
            self.verdicts.append(judge(records)[-1])
        if step.token is not None:
            shown = self.list_now()
            self.play.saw(step.token, shown.version, step.at_ms, is_whole=shown.incomplete_since_ms is None)

    def list_now(self) -> ml.MedicationList:
        """The list of the step's patient at the step's time."""
        assert self.step is not None
        records, as_of_ms = self.logs.get(self.step.patient, []), self.step.as_of_ms
        if as_of_ms is not None:
            return show([record for record in records if record.broker_time_ms <= as_of_ms], as_of_ms)
        return show(records, self.step.at_ms)

    def prescription(self, name: str) -> ml.ShownPrescription:
        """A prescription as the step's time shows it, also one that its entry's age hides."""
        assert self.step is not None
        for records in self.logs.values():
            shown = shown_prescription(fold(records).chart, self.play.id_of(name), self.step.at_ms)
            if shown is not None:
                return shown
        raise AssertionError(f"{name} is nowhere in the list")

    def notices(self) -> list[str]:
        """Every notice so far, as "kind to whom about what"."""
        told = [notice for records in self.logs.values() for verdict in judge(records) for notice in verdict.notices]
        return [
            f"{each.kind} to {WHOM.get(each.organisation, each.organisation)} about {name_of(self.play, each.subject)}"
            for each in told
        ]

    def orders(self) -> list[str]:
        """Every dispense order so far, as "whom about what"."""
        sent = [order for records in self.logs.values() for verdict in judge(records) for order in verdict.orders]
        return [f"{WHOM[each.pharmacy]} about {name_of(self.play, each.prescription)}" for each in sent]

    def treatment(self, name: str) -> ml.ShownTreatment | None:
        """An entry of the list, None when it is not shown."""
        shown = entries(self.list_now())
        return next((entry for entry in shown if entry.treatment == self.play.id_of(name)), None)


def entries(shown: ml.MedicationList) -> tuple[ml.ShownTreatment, ...]:
    return shown.treatments + shown.other_prescriptions


# --- What a step expects ----------------------------------------------------------------------------------------------


def shows_incomplete(run: Run, _said: re.Match[str]) -> None:
    assert run.treatment("T1") is not None
    parked = next(record for record in run.logs["X"] if isinstance(record.event, Unreadable))
    assert run.list_now().incomplete_since_ms == parked.broker_time_ms


CHECKS: dict[str, Callable[[Run, re.Match[str]], None]] = {
    r"shows T1, says that it is incomplete.*": shows_incomplete,
}


def check_watched(watched: Watched, expected: str) -> None:
    """As this suite has a check of its own for it, or in the header's words; what only services can show is theirs."""
    run = watched.run
    assert isinstance(run, Run)
    for pattern, holds in CHECKS.items():
        said = re.fullmatch(pattern, expected)
        if said is not None:
            holds(run, said)
            return
    try:
        check_sentence(watched, expected)
    except NotUnderstoodError:
        if not (any(words in expected for words in WORDS_OF_THE_ANSWER) or needs_a_service(watched.step, expected)):
            raise


@pytest.mark.parametrize("name", each_to_be_played(scenarios() | more_words()))
def test_the_oracle_comes_to_what_the_scenario_says(name: str) -> None:
    scenario = (scenarios() | more_words())[name]
    run = Run(Play(scenario))
    play_through(scenario, run, check_watched)
    if "notices" in scenario:
        assert sorted(run.notices()) == sorted(scenario["notices"])


def test_there_are_fifty_scenarios_or_the_full_set() -> None:
    assert len(scenarios()) >= 50
    assert not set(scenarios()) & set(more_words())


def test_a_date_without_a_time_lies_within_working_hours() -> None:
    assert instant("d0+10d") == instant("2026-03-12T09:00+01:00")
