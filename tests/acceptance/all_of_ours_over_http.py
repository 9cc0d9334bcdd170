"""Every scenario of our own, black-box. Some minutes, and so apart: pytest tests/acceptance -o python_files='all_*.py'."""

import pytest

from tests.acceptance.our_journeys import walk
from tests.acceptance.translate import more_scenarios
from tests.chain import Chain

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("name", more_scenarios())
def test_the_chain_comes_to_what_our_scenario_says(name: str, chain: Chain) -> None:
    walk(name, chain)
