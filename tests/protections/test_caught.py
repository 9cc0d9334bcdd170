"""The loss of each protection is caught by the test that is said to hold it, which passes with every protection in."""

import re
import subprocess
import sys
from collections.abc import Mapping

import pytest

from deploy.local.layout import CHECKOUT
from tests.protections import MUTANTS
from tests.protections.__main__ import SOUND


@pytest.fixture(scope="module")
def ended() -> Mapping[str, str]:
    """How it ended without each of them."""
    said = subprocess.run(
        [sys.executable, "-m", "tests.protections"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    found = dict(re.findall(r"^(\w+): (passed|caught|broken)$", said.stdout, re.MULTILINE))
    assert found.keys() == {SOUND, *MUTANTS}, said.stdout + said.stderr
    return found


def test_with_every_protection_nothing_is_caught(ended: Mapping[str, str]) -> None:
    assert ended[SOUND] == "passed"


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_protection_that_is_taken_out_is_caught(name: str, ended: Mapping[str, str]) -> None:
    assert ended[name] == "caught", f"`python -m tests.protections {name}` says more"
