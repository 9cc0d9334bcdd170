"""The fold: what every event means to a patient's list. Pure: no clock, no randomness, no environment, no waiting."""

from services.medication_list.fold.evolve import Judgement, LogEntry, Memory, Patient, entry_of, evolve, park
from services.medication_list.fold.judgement import EVERYTHING, Draft, NotLoadedError, Verdict
from services.medication_list.fold.loading import named_by, pointed_at

VERSION = 6
"""Raised with every change of what an event means: a generation is made by one version alone."""

__all__ = [
    "EVERYTHING",
    "VERSION",
    "Draft",
    "Judgement",
    "LogEntry",
    "Memory",
    "NotLoadedError",
    "Patient",
    "Verdict",
    "entry_of",
    "evolve",
    "named_by",
    "park",
    "pointed_at",
]
