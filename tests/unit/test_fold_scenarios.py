"""Every acceptance scenario on the fold itself: outcomes, flags, statuses, notices, and how each one ends.

What a step expects is read by the checks that the oracle is held to; what only the services can show is theirs to test.
"""

from dataclasses import dataclass, field

import pytest

from schemas import medication_list as ml
from schemas.reasons import ParkReason
from services.medication_list.fold.judgement import NoticeDue, OrderDue
from services.medication_list.read_api.view import show, show_prescription
from tests.acceptance.translate import ORGANISATIONS, Play, Step, scenarios
from tests.oracle.history import LogRecord, Unreadable, Verdict
from tests.unit import test_oracle_scenarios as checks
from tests.unit.fold_world import Then, World


@dataclass(slots=True)
class FoldRun(checks.Run):
    """A scenario on its way through the fold: one world for each patient, over one log."""

    worlds: dict[str, World] = field(default_factory=dict)
    thens: list[Then] = field(default_factory=list)

    def take(self, step: Step) -> None:
        """Judge what a step brings, unless the door turns it away."""
        self.step, self.verdicts = step, []
        if step.door:
            return
        for event in step.events:
            world = self._world(step.patient)
            self._keep(step, world.feed(event))
        if step.unreadable:
            self._keep(step, self._world(step.patient).park(step.at_ms))
        if step.token is not None:
            shown = self.list_now()
            self.play.saw(step.token, shown.version, step.at_ms, is_whole=shown.incomplete_since_ms is None)

    def _world(self, patient: str) -> World:
        """The patient's world, at the next offset of the log."""
        self.offset += 1
        world = self.worlds.setdefault(patient, World(patient=self.play.pseudonym(patient), now_ms=0))
        world.offset = self.offset
        return world

    def _keep(self, step: Step, then: Then) -> None:
        self.thens.append(then)
        judged = then.judgement.verdict
        event = step.events[-1] if step.events else Unreadable(ParkReason.UNREADABLE)
        record = LogRecord(0, self.offset, step.at_ms, event)
        reason = str(judged.reason) if judged.reason else None
        self.verdicts.append(
            Verdict(record, judged.outcome, reason, set(judged.flags), judged.named[1] if judged.named else None)
        )

    def list_now(self) -> ml.MedicationList:
        """The list of the step's patient at the step's time."""
        assert self.step is not None
        world = self.worlds.get(self.step.patient, World())
        return show(world.everything(), self.step.at_ms)

    def prescription(self, name: str) -> ml.ShownPrescription:
        """A prescription as the step's time shows it, also one that its entry's age hides."""
        assert self.step is not None
        for world in self.worlds.values():
            shown = show_prescription(world.everything(), self.play.id_of(name), self.step.at_ms)
            if shown is not None:
                return shown
        raise AssertionError(f"{name} is nowhere in the list")


def _has_one_order(run: FoldRun) -> None:
    orders = [effect for then in run.thens for effect in then.judgement.effects if isinstance(effect, OrderDue)]
    assert [(order.pharmacy, order.prescription) for order in orders] == [(ORGANISATIONS["P"], run.play.id_of("R1"))]


def _shows_incomplete(run: FoldRun) -> None:
    parked_at_ms = next(step.at_ms for step in Play(run.play.scenario) if step.unreadable)
    assert run.treatment("T1") is not None
    assert run.list_now().incomplete_since_ms == parked_at_ms


def _check(run: FoldRun, expected: str) -> None:
    """As the oracle is held to it, but for what the oracle's own log is asked for."""
    if expected.startswith("one order, "):
        _has_one_order(run)
    elif expected.startswith("shows T1, says that it is incomplete"):
        _shows_incomplete(run)
    else:
        checks.check(run, expected)


def _notices(run: FoldRun) -> list[str]:
    """Every notice of a scenario as "kind to whom about what"."""
    whom = {number: name for name, number in ORGANISATIONS.items()}
    what = {run.play.id_of(name): name for name in [f"{letter}{n}" for letter in "RTDVX" for n in range(1, 9)]}
    due = [effect for then in run.thens for effect in then.judgement.effects if isinstance(effect, NoticeDue)]
    return sorted(f"{n.kind} to {whom[n.organisation]} about {_subject(n, what)}" for n in due)


def _about_prescriptions(notice: str) -> str:
    """The scenarios name the treatment that goes on; the notice names the prescription by which it does."""
    return notice.replace("about T1", "about R2")


def _subject(notice: NoticeDue, what: dict[str, str]) -> str:
    """What it is about: the hand-out where there is one, else the prescription."""
    return what.get(notice.subject or "") or what.get(notice.prescription or "") or str(notice.subject)


@pytest.mark.parametrize("name", scenarios())
def test_the_fold_comes_to_what_the_scenario_says(name: str) -> None:
    scenario = scenarios()[name]
    run = FoldRun(Play(scenario))
    for step in run.play:
        run.take(step)
        for expected in step.expect:
            _check(run, expected)
    checks.check_final(run, scenario.get("final") or {})
    assert _notices(run) == sorted(_about_prescriptions(each) for each in scenario["notices"])
