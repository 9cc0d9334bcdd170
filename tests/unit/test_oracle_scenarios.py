"""The oracle is held to the acceptance scenarios: every step's outcome, flags and status, and how each one ends."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest

from schemas import events as ev
from schemas import medication_list as ml
from schemas.reasons import ParkReason
from tests.acceptance.translate import ORGANISATIONS, Play, Step, instant, scenarios
from tests.oracle.history import LogRecord, Unreadable, Verdict
from tests.oracle.naive import judge, show

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
        return show(self.logs.get(self.step.patient, []), self.step.at_ms)

    def prescription(self, name: str) -> ml.ShownPrescription:
        """A prescription as the step's time shows it, also one that its entry's age hides."""
        assert self.step is not None
        for records in self.logs.values():
            for at_ms in (self.step.at_ms, self.play.sent[name].received_at_ms):
                for shown in prescriptions(show(records, at_ms)):
                    if shown.prescription == self.play.id_of(name):
                        return prescriptions_at(records, self.step.at_ms, shown) or shown
        raise AssertionError(f"{name} is nowhere in the list")

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


def is_outcome(run: Run, said: re.Match[str]) -> None:
    assert [verdict.outcome for verdict in run.verdicts] == [said[0]] * len(run.verdicts)
    assert run.verdicts


def is_refused(run: Run, said: re.Match[str]) -> None:
    (verdict,) = run.verdicts
    assert (verdict.outcome, verdict.reason) == ("refused", said["reason"])
    if said["whom"]:
        assert verdict.named == ORGANISATIONS[said["whom"]]
    if said["date"]:
        claimed = run.step.events[0].body if run.step else None
        assert isinstance(claimed, ev.ClaimRequested)
        earliest = next(
            s.body for s in run.play.sent.values() if getattr(s.body, "prescription", "") == claimed.prescription
        )
        assert isinstance(earliest, ev.PrescriptionIssued)
        assert earliest.earliest_dispense is not None
        assert verdict.named == earliest.earliest_dispense.isoformat()
    if said["moved"]:
        assert verdict.named == run.play.id_of(said["moved"])


def has_status(run: Run, said: re.Match[str]) -> None:
    shown = run.prescription(said["rx"])
    assert shown.status == said["status"]
    if said["holder"]:
        assert shown.holder == ORGANISATIONS.get(said["holder"])
    if said["left"]:
        assert shown.dispenses_left == int(said["left"])
    if said["flag"]:
        assert said["flag"] in shown.flags


def has_flags(run: Run, said: re.Match[str]) -> None:
    expected = {said["flag"]} if "flag" in said.groupdict() else set(re.findall(r"\w+_\w+", said[0]))
    (verdict,) = run.verdicts
    assert {str(flag) for flag in verdict.flags} == expected


def has_no_flags(run: Run, _said: re.Match[str]) -> None:
    assert [verdict.flags for verdict in run.verdicts] == [set()]


def has_refills_left(run: Run, said: re.Match[str]) -> None:
    assert run.prescription("R1").refills_left == int(said["left"])


def is_held(run: Run, said: re.Match[str]) -> None:
    assert run.prescription("R1").holder == ORGANISATIONS[said["whom"]]


def shows_treatment(run: Run, said: re.Match[str]) -> None:
    entry = run.treatment(said["t"])
    assert entry is not None
    assert entry.status == said["state"]


def hides_treatment(run: Run, said: re.Match[str]) -> None:
    assert run.treatment(said["t"]) is None


def shows_withdrawn(run: Run, _said: re.Match[str]) -> None:
    entry = run.treatment("T1")
    assert entry is not None
    assert "withdrawn" in entry.flags


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


def is_tied(run: Run, said: re.Match[str]) -> None:
    assert run.prescription("R1").dispatched_to == ORGANISATIONS[said["whom"]]


def has_one_order(run: Run, _said: re.Match[str]) -> None:
    orders = [order for verdict in judge(run.logs["X"]) for order in verdict.orders]
    assert [(order.pharmacy, order.prescription) for order in orders] == [(ORGANISATIONS["P"], run.play.id_of("R1"))]


def has_data_of(run: Run, _said: re.Match[str]) -> None:
    entry = run.treatment("T1")
    assert entry is not None
    assert (entry.status, entry.dosing.by.organisation) == ("active", ORGANISATIONS["OB"])


def is_a_version(_run: Run, _said: re.Match[str]) -> None:
    """Read when the step was taken."""


CHECKS: dict[str, Callable[[Run, re.Match[str]], None]] = {
    r"applied|duplicate|parked": is_outcome,
    r"refused\((?P<reason>\w+)\)(, naming (?P<whom>[PQ])|(?P<date>, naming the date)|, naming what moved: (?P<moved>R\d))?": is_refused,
    r"(?P<rx>R\d) status (?P<status>[EURTF])( held by (?P<holder>P|Q|nobody)|, dispenses left (?P<left>\d))?(, flag (?P<flag>\w+))?": has_status,
    r"flag (?P<flag>\w+)( on D2 only|, not dispensed_after_recall)?": has_flags,
    r"flags .*": has_flags,
    r"no flags": has_no_flags,
    r"refills left (?P<left>\d)": has_refills_left,
    r"held by (?P<whom>[PQ])": is_held,
    r"(?P<t>T\d) (shown as )?(?P<state>active|completed|discontinued)( \(.*\))?": shows_treatment,
    r"(?P<t>T\d) not shown.*": hides_treatment,
    r"T1 shown as discontinued, flag withdrawn": shows_withdrawn,
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
    r"tied to (?P<whom>[PQ])": is_tied,
    r"one order, .*": has_one_order,
    r"(version )?v\d": is_a_version,
}


def check(run: Run, expected: str) -> None:
    """Hold the run to one expectation; one that nobody understands fails."""
    for pattern, holds in CHECKS.items():
        said = re.fullmatch(pattern, expected)
        if said is not None:
            # "flag recalled" on a step is the event's, "expired" after a read is the prescription's: both are checked.
            holds(run, said)
            return
    assert any(words in expected for words in WORDS_OF_THE_ANSWER), f"nobody checks {expected!r}"


# --- How it ends ------------------------------------------------------------------------------------------------------


def check_final(run: Run, final: Mapping[str, Mapping[str, Any]]) -> None:
    for name, expected in final.items():
        if name == "list":
            check_final_list(run, expected)
            continue
        shown = run.prescription(name)
        for key, value in expected.items():
            check_final_value(shown, key, value)


def check_final_value(shown: ml.ShownPrescription, key: str, value: Any) -> None:
    match key:
        case "flags":
            assert set(value) <= set(shown.flags)
        case "holder":
            assert shown.holder == (ORGANISATIONS[value] if value else None)
        case "handed_out" | "returned":
            assert getattr(shown, key) == Decimal(value)
        case _:
            assert getattr(shown, key) == value


def check_final_list(run: Run, expected: Mapping[str, Any]) -> None:
    shown = entries(run.list_now())
    known = {"entries", "shows", "discontinued"}
    assert set(expected) <= known
    if "entries" in expected:
        assert len(shown) == expected["entries"]
    for name in expected.get("shows", ()):
        assert run.play.id_of(name) in {entry.treatment for entry in shown}
    for name in expected.get("discontinued", ()):
        entry = run.treatment(name)
        assert entry is not None
        assert entry.status == "discontinued"


def notices_of(run: Run) -> list[str]:
    """Every notice of a scenario as "kind to whom about what"."""
    whom = {number: name for name, number in ORGANISATIONS.items()}
    what = {run.play.id_of(name): name for name in [f"{letter}{n}" for letter in "RTDVX" for n in range(1, 9)]}
    told = [notice for records in run.logs.values() for verdict in judge(records) for notice in verdict.notices]
    return sorted(f"{n.kind} to {whom[n.organisation]} about {what.get(n.subject, n.subject)}" for n in told)


@pytest.mark.parametrize("name", scenarios())
def test_the_oracle_comes_to_what_the_scenario_says(name: str) -> None:
    scenario = scenarios()[name]
    run = Run(Play(scenario))
    for step in run.play:
        run.take(step)
        for expected in step.expect:
            check(run, expected)
    check_final(run, scenario.get("final") or {})
    assert notices_of(run) == sorted(scenario["notices"])


def test_there_are_fifty_scenarios() -> None:
    assert len(scenarios()) == 50


def test_a_date_without_a_time_lies_within_working_hours() -> None:
    assert instant("d0+10d") == instant("2026-03-12T09:00+01:00")
