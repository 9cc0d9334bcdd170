"""Every acceptance scenario on the fold itself: outcomes, flags, statuses, notices, and how each one ends.

What a step expects is read by the checks that the oracle is held to; what only the services can show is theirs to test.
"""

from dataclasses import dataclass, field

import pytest

from schemas import medication_list as ml
from schemas.reasons import ParkReason
from services.medication_list.fold.judgement import NoticeDue, OrderDue
from services.medication_list.read_api.view import show, show_prescription
from tests.acceptance.not_built import each_to_be_played
from tests.acceptance.notices import WHOM, name_of
from tests.acceptance.translate import AnyEvent, Play, Step, more_words, scenarios
from tests.oracle.history import LogRecord, Unreadable, Verdict
from tests.unit import test_oracle_scenarios as checks
from tests.unit.fold_world import Then, World
from tests.unit.watched import Watched, play_through


@dataclass(slots=True)
class FoldRun(checks.Run):
    """A scenario on its way through the fold: one world for each patient, over one log."""

    worlds: dict[str, World] = field(default_factory=dict)
    thens: list[Then] = field(default_factory=list)
    taken: dict[str, list[tuple[int, int, AnyEvent | None]]] = field(default_factory=dict)
    """Of each patient, when each record came, at which offset, and what it held; None for what cannot be read."""

    def take(self, step: Step) -> None:
        """Judge what a step brings, unless the door turns it away."""
        self.step, self.verdicts = step, []
        if step.door:
            return
        for event in step.events:
            world = self._world(step.patient)
            self._note(step, event)
            self._keep(step, world.feed(event))
        if step.unreadable:
            world = self._world(step.patient)
            self._note(step, None)
            self._keep(step, world.park(step.at_ms))
        if step.token is not None:
            shown = self.list_now()
            self.play.saw(step.token, shown.version, step.at_ms, is_whole=shown.incomplete_since_ms is None)

    def _world(self, patient: str) -> World:
        """The patient's world, at the next offset of the log."""
        self.offset += 1
        world = self.worlds.setdefault(patient, World(patient=self.play.pseudonym(patient), now_ms=0))
        world.offset = self.offset
        return world

    def _note(self, step: Step, event: AnyEvent | None) -> None:
        self.taken.setdefault(step.patient, []).append((step.at_ms, self.offset, event))

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
        if self.step.as_of_ms is not None:
            return show(self._past(self.step.as_of_ms).everything(), self.step.as_of_ms)
        world = self.worlds.get(self.step.patient, World())
        return show(world.everything(), self.step.at_ms)

    def _past(self, as_of_ms: int) -> World:
        """The step's patient as the records tell that had come by then."""
        assert self.step is not None
        world = World(patient=self.play.pseudonym(self.step.patient), now_ms=0)
        for at_ms, offset, event in self.taken.get(self.step.patient, ()):
            world.offset = offset
            if at_ms <= as_of_ms:
                _ = world.park(at_ms) if event is None else world.feed(event)
        return world

    def notices(self) -> list[str]:
        """Every notice so far, as "kind to whom about what": the hand-out where there is one, else the prescription."""
        due = [effect for then in self.thens for effect in then.judgement.effects if isinstance(effect, NoticeDue)]
        return [f"{n.kind} to {WHOM.get(n.organisation, n.organisation)} about {self._subject(n)}" for n in due]

    def _subject(self, notice: NoticeDue) -> str:
        known = [name_of(self.play, each) for each in (notice.subject, notice.prescription) if each]
        return next((each for each in known if len(each) < 9), str(notice.subject))

    def orders(self) -> list[str]:
        """Every dispense order so far, as "whom about what"."""
        due = [effect for then in self.thens for effect in then.judgement.effects if isinstance(effect, OrderDue)]
        return [f"{WHOM[each.pharmacy]} about {name_of(self.play, each.prescription)}" for each in due]

    def prescription(self, name: str) -> ml.ShownPrescription:
        """A prescription as the step's time shows it, also one that its entry's age hides."""
        assert self.step is not None
        for world in self.worlds.values():
            shown = show_prescription(world.everything(), self.play.id_of(name), self.step.at_ms)
            if shown is not None:
                return shown
        raise AssertionError(f"{name} is nowhere in the list")


def _shows_incomplete(run: FoldRun) -> None:
    parked_at_ms = next(step.at_ms for step in Play(run.play.scenario) if step.unreadable)
    assert run.treatment("T1") is not None
    assert run.list_now().incomplete_since_ms == parked_at_ms


def _check(watched: Watched, expected: str) -> None:
    """As the oracle is held to it, but for what the oracle's own log is asked for."""
    run = watched.run
    assert isinstance(run, FoldRun)
    if expected.startswith("shows T1, says that it is incomplete"):
        _shows_incomplete(run)
    else:
        checks.check_watched(watched, expected)


def _about_prescriptions(notice: str) -> str:
    """The scenarios name the treatment that goes on; the notice names the prescription by which it does."""
    return notice.replace("about T1", "about R2")


@pytest.mark.parametrize("name", each_to_be_played(scenarios() | more_words()))
def test_the_fold_comes_to_what_the_scenario_says(name: str) -> None:
    scenario = (scenarios() | more_words())[name]
    run = FoldRun(Play(scenario))
    play_through(scenario, run, _check)
    if "notices" in scenario:
        assert sorted(run.notices()) == sorted(map(_about_prescriptions, scenario["notices"]))


@pytest.mark.parametrize("name", scenarios())
def test_a_scenario_that_does_not_list_its_notices_is_held_to_the_rule_of_the_header(name: str) -> None:
    scenario = {key: value for key, value in scenarios()[name].items() if key != "notices"}
    play_through(scenario, FoldRun(Play(scenario)), _check)
