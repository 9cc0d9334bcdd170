"""Judges what is in the log: one record after the other, in one pass over a fetch."""
