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
from tests.acceptance.translate import ORGANISATIONS, Play, Step, more_words, scenarios
from tests.acceptance.values import NotUnderstoodError, instant
from tests.oracle.history import LogRecord, Unreadable, Verdict
from tests.oracle.naive import judge, show
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
            for at_ms in (self.step.at_ms, self.play.sent[name].received_at_ms):
                for shown in prescriptions(show(records, at_ms)):
                    if shown.prescription == self.play.id_of(name):
                        return prescriptions_at(records, self.step.at_ms, shown) or shown
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


def prescriptions(shown: ml.MedicationList) -> list[ml.ShownPrescription]:
    return [prescription for entry in entries(shown) for prescription in entry.prescriptions]


def prescriptions_at(records: list[LogRecord], at_ms: int, known: ml.ShownPrescription) -> ml.ShownPrescription | None:
    return next((p for p in prescriptions(show(records, at_ms)) if p.prescription == known.prescription), None)


# --- What a step expects ----------------------------------------------------------------------------------------------


def shows_incomplete(run: Run, _said: re.Match[str]) -> None:
    assert run.treatment("T1") is not None
    parked = next(record for record in run.logs["X"] if isinstance(record.event, Unreadable))
    assert run.list_now().incomplete_since_ms == parked.broker_time_ms


def shows_unseen(run: Run, _said: re.Match[str]) -> None:
    assert [handed.dispense for handed in run.list_now().unseen_hand_outs] == [run.play.id_of("D1")]


def shows_no_entry(run: Run, _said: re.Match[str]) -> None:
    assert not entries(run.list_now())


def has_joined(run: Run, _said: re.Match[str]) -> None:
    (handed,) = run.prescription("R1").hand_outs
    assert handed.dispense == run.play.id_of("D1")
    assert "prescription_unknown" not in handed.flags
    assert not run.list_now().unseen_hand_outs


def shows_last_dispense(run: Run, _said: re.Match[str]) -> None:
    (entry,) = run.list_now().treatments
    assert entry.last_dispense is not None
    assert entry.last_dispense.dispense == run.play.id_of("D1")


def shows_conflict(run: Run, _said: re.Match[str]) -> None:
    (entry,) = run.list_now().treatments
    assert [conflict.dispense for conflict in entry.conflicting_reports] == [run.play.id_of("D1")]
    assert "conflicting_report" in entry.flags


def shows_recall(run: Run, _said: re.Match[str]) -> None:
    shown = run.prescription("R1")
    assert shown.status == "U"
    assert "recalled" in shown.flags
    assert [recall.reason for recall in shown.recalls] == ["other"]


def shows_stop(run: Run, _said: re.Match[str]) -> None:
    entry = run.treatment("T1")
    assert entry is not None
    assert entry.stopped is not None
    assert (entry.status, entry.stopped.reason) == ("discontinued", "treatment_finished")
    assert entry.stopped.by.organisation == ORGANISATIONS["OA"]


def shows_other(run: Run, _said: re.Match[str]) -> None:
    assert not run.list_now().treatments
    assert len(run.list_now().other_prescriptions) == 2


def shows_allergy(run: Run, _said: re.Match[str]) -> None:
    assert [shown.recorded.allergy for shown in run.list_now().allergies] == [run.play.id_of("A1")]
    assert run.list_now().allergy_status == "recorded"


def shows_no_allergy(run: Run, _said: re.Match[str]) -> None:
    assert not run.list_now().allergies


def shows_earliest(run: Run, _said: re.Match[str]) -> None:
    assert run.prescription("R1").issued.earliest_dispense is not None


def finds(run: Run, _said: re.Match[str]) -> None:
    open_now = {(p.prescription, p.status) for p in prescriptions(run.list_now()) if p.status in "EU"}
    assert open_now == {(run.play.id_of("R1"), "E"), (run.play.id_of("R2"), "U")}


def has_one_order(run: Run, _said: re.Match[str]) -> None:
    orders = [order for verdict in judge(run.logs["X"]) for order in verdict.orders]
    assert [(order.pharmacy, order.prescription) for order in orders] == [(ORGANISATIONS["P"], run.play.id_of("R1"))]


def has_data_of(run: Run, _said: re.Match[str]) -> None:
    entry = run.treatment("T1")
    assert entry is not None
    assert (entry.status, entry.dosing.by.organisation) == ("active", ORGANISATIONS["OB"])


CHECKS: dict[str, Callable[[Run, re.Match[str]], None]] = {
    r"T1 discontinued, by A, with date and reason": shows_stop,
    r"T1 active, same entry id, data of R2": has_data_of,
    r"shows T1, says that it is incomplete.*": shows_incomplete,
    r"shows D1 under .*": shows_unseen,
    r"no list entry": shows_no_entry,
    r"D1 has joined the treatment.*": has_joined,
    r"shows the treatment of R1 with last dispense D1": shows_last_dispense,
    r"the treatment shows the conflicting report": shows_conflict,
    r"R1 (is|shows) U and .*": shows_recall,
    r"both shown under .*": shows_other,
    r"shows A1": shows_allergy,
    r"A1 not shown as a warning": shows_no_allergy,
    r"the list shows R1 with its earliest date": shows_earliest,
    r"returns R1 \(E\) and R2 \(U, held by P\)|not R3, R4, R5": finds,
    r"one order, .*": has_one_order,
}


def check(run: Run, expected: str) -> None:
    """Hold the run to one expectation. Raises NotUnderstoodError for one that nobody understands."""
    check_watched(Watched(run), expected)


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
