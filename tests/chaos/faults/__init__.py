"""Every fault that a round can inject, each registered by the module that holds it."""

from tests.chaos.faults import broker, disks, generations, links, processes, refolds, view, world
from tests.chaos.faults.registry import FAULTS, Fault, NotPossibleHereError

__all__ = [
    "FAULTS",
    "Fault",
    "NotPossibleHereError",
    "broker",
    "disks",
    "generations",
    "links",
    "processes",
    "refolds",
    "view",
    "world",
]
