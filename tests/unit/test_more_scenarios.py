"""Our own scenarios, sentence by sentence of the rulings: on the fold, and on the oracle that knows nothing of it."""

import json
import re
from collections.abc import Callable
from typing import Any, Final

import pytest

from services.medication_list.fold.judgement import OrderDue
from services.medication_list.read_api.presenting import to_json
from tests.acceptance.plain_checks import Judged, check
from tests.acceptance.translate import ORGANISATIONS, Play, more_scenarios, scenarios
from tests.oracle.naive import judge
from tests.unit.test_fold_scenarios import FoldRun, _notices
from tests.unit.test_oracle_scenarios import Run, notices_of

WHOM: Final = {number: name for name, number in ORGANISATIONS.items()}


class Watched:
    """A run as `plain_checks` looks at it."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @property
    def play(self) -> Play:
        """Of the run."""
        return self.run.play

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
        """As JSON."""
        shown: dict[str, Any] = json.loads(to_json(self.run.prescription(name)))
        return shown


def _orders_of_fold(run: FoldRun) -> list[str]:
    orders = [effect for then in run.thens for effect in then.judgement.effects if isinstance(effect, OrderDue)]
    return [WHOM[order.pharmacy] for order in orders]


def _orders_of_oracle(run: Run) -> list[str]:
    verdicts = [verdict for records in run.logs.values() for verdict in judge(records)]
    return [WHOM[order.pharmacy] for verdict in verdicts for order in verdict.orders]


def _walk(scenario: dict[str, Any], run: Run, notices: Callable[[Any], list[str]], left_out: str = "nothing") -> None:
    """Every step, then who was told what: those notices, and no other."""
    watched, version = Watched(run), -1
    for step in run.play:
        run.take(step)
        check(watched, step, version, left_out)
        version = watched.whole()["version"]
    assert sorted(map(_in_short, notices(run))) == sorted(scenario.get("notices", ()))


def _in_short(notice: str) -> str:
    """Fold and oracle name what some kinds are about by different ids: of those, kind and recipient are compared."""
    return re.sub(
        r"^(multidose_\w+|prescribed_after_discontinuation|outcome_changed) to (\w+) about .*", r"\1 to \2", notice
    )


@pytest.mark.parametrize("name", more_scenarios())
def test_the_fold_comes_to_what_our_scenario_says(name: str) -> None:
    scenario = more_scenarios()[name]
    run = FoldRun(Play(scenario))
    _walk(scenario, run, _notices)
    assert _orders_of_fold(run) == scenario.get("orders", [])


@pytest.mark.parametrize("name", [name for name, each in more_scenarios().items() if not each.get("fold_alone")])
def test_the_oracle_comes_to_what_our_scenario_says(name: str) -> None:
    scenario = more_scenarios()[name]
    run = Run(Play(scenario))
    _walk(scenario, run, notices_of, "the answer says")
    assert _orders_of_oracle(run) == scenario.get("orders", [])


def test_our_scenarios_have_names_of_their_own() -> None:
    assert not set(more_scenarios()) & set(scenarios())
    assert len(more_scenarios()) >= 60
