"""A fictitious town: its people, their medicines and what happens to them, from a seed, sent through real channels."""
