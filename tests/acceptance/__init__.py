"""The acceptance scenarios, and what makes events of them: one set for the oracle, the fold and the black-box suite."""
