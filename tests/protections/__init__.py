"""Protections that neither schedule nor round needs, taken out one at a time: the test that holds each must catch it."""

from tests.protections import fold, privacy, reading, recording  # noqa: F401 - each lists its own
from tests.protections.registry import MUTANTS, Mutant

__all__ = ["MUTANTS", "Mutant"]
