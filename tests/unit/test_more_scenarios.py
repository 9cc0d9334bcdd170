"""Our own scenarios, sentence by sentence of the rulings: on the fold, and on the oracle that knows nothing of it."""

import re
from typing import Any

import pytest

from tests.acceptance.plain_checks import check
from tests.acceptance.translate import Play, more_scenarios, scenarios
from tests.unit.test_fold_scenarios import FoldRun
from tests.unit.test_oracle_scenarios import Run
from tests.unit.watched import Watched


def _walk(scenario: dict[str, Any], run: Run, left_out: str = "nothing") -> None:
    """Every step, then who was told what: those notices, and no other."""
    watched, version = Watched(run), -1
    for step in run.play:
        run.take(step)
        check(watched, step, version, left_out)
        version = watched.whole()["version"]
    assert sorted(map(_in_short, run.notices())) == sorted(scenario.get("notices", ()))
    assert [order.partition(" about ")[0] for order in run.orders()] == scenario.get("orders", [])


def _in_short(notice: str) -> str:
    """Fold and oracle name what some kinds are about by different ids: of those, kind and recipient are compared."""
    return re.sub(
        r"^(multidose_\w+|prescribed_after_discontinuation|outcome_changed) to (\w+) about .*", r"\1 to \2", notice
    )


@pytest.mark.parametrize("name", more_scenarios())
def test_the_fold_comes_to_what_our_scenario_says(name: str) -> None:
    scenario = more_scenarios()[name]
    _walk(scenario, FoldRun(Play(scenario)))


@pytest.mark.parametrize("name", [name for name, each in more_scenarios().items() if not each.get("fold_alone")])
def test_the_oracle_comes_to_what_our_scenario_says(name: str) -> None:
    scenario = more_scenarios()[name]
    _walk(scenario, Run(Play(scenario)), "the answer says")


def test_our_scenarios_have_names_of_their_own() -> None:
    assert not set(more_scenarios()) & set(scenarios())
    assert len(more_scenarios()) >= 60
