"""What is laid over the processes fits them: every crash point, release and mutant names something that is there."""

import importlib
import os
import subprocess
import sys

import pytest

from deploy.local.layout import CHECKOUT
from deploy.services import SERVICES
from tests.chaos.under_test import POINTS, kinds_of


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, points in POINTS.items() for name in points])
def test_a_crash_point_names_a_method_that_a_process_has(kind: str, name: str) -> None:
    point = POINTS[kind][name]
    assert callable(getattr(getattr(importlib.import_module(point.module), point.owner), point.method))


def test_every_kind_of_crash_point_is_some_process() -> None:
    assert {kind for service in SERVICES for kind in kinds_of(service.module)} == set(POINTS)


def test_every_release_and_mutant_can_be_laid_over() -> None:
    """Each in a process of its own, for it changes the code for good: forked, so that the code is loaded once."""
    code = """
import os
from tests.chaos.mutants import MUTANTS, RELEASES, apply
for chosen in [(name, "") for name in RELEASES] + [("", name) for name in MUTANTS]:
    child = os.fork()
    if child == 0:
        apply(*chosen)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, chosen
"""
    said = subprocess.run(  # noqa: S603  our own command line
        [sys.executable, "-c", code], cwd=CHECKOUT, env=dict(os.environ), capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
