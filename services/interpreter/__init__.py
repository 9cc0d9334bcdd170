"""Python's settings in a long-running process: when garbage is collected, and how long a thread may keep the interpreter."""

import gc
import sys
from typing import Final

_COLLECTED_AFTER: Final = (70_000, 10, 10)
_SWITCH_INTERVAL_S: Final = 0.0005


def collect_seldom() -> None:
    """Leave what was imported out of every garbage collection, and look for cycles a hundred times less often.

    A fetch makes many thousand objects that live until it is written and form no cycles: counting references frees
    them; so it is with a request. The collector walked them over and over meanwhile, for a twentieth of the processor's
    time, and a whole collection holds up every request that is under way in a service.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTED_AFTER)


def switch_often() -> None:
    """Let waiting threads in after half a millisecond instead of five.

    Each append needs the log's thread and the producer's for a moment, and under a flood the loop would let them in
    every 5 ms only: 300 writes at once then waited seconds for their turn to be sent.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
