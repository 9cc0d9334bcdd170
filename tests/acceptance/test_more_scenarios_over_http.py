"""Some of our own scenarios, black-box: events and answers that the given ones never ask the services for."""

from typing import Final

import pytest

from tests.acceptance.our_journeys import walk
from tests.chain import Chain

pytestmark = pytest.mark.integration
AT_EACH_RUN: Final = ("DU-02", "CL-03", "DP-04", "SP-03", "LI-05", "LI-08")
"""Between them every resource that only `all_of_ours_over_http.py` uses otherwise."""


@pytest.mark.parametrize("name", AT_EACH_RUN)
def test_the_chain_comes_to_what_our_scenario_says(name: str, chain: Chain) -> None:
    walk(name, chain)
