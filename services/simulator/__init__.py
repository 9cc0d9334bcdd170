"""A town that never was: its people, their medicines and what happens to them, from a seed, sent through real channels."""
