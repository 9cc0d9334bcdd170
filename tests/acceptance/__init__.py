"""The acceptance scenarios, and what makes events of them: one set for the oracle, the fold and the black-box suite."""

import pytest

# Their assertions say what was there, like those of a test.
pytest.register_assert_rewrite(
    "tests.acceptance.journey", "tests.acceptance.step_checks", "tests.acceptance.end_checks", "tests.chain"
)
