"""Wait for something to come true by asking again and again until a deadline, never by sleeping and hoping."""

import time
from collections.abc import Callable
from typing import Final

FIRST_PAUSE_S: Final = 0.01
LONGEST_PAUSE_S: Final = 0.1


class NeverCameTrueError(TimeoutError):
    """The deadline passed; the text says what was waited for."""


def wait_until(condition: Callable[[], bool], *, within_s: float, what: str) -> None:
    """Return as soon as `condition()` is true.

    Raises:
        NeverCameTrueError: it was still false after `within_s` seconds. What `condition` raises goes through.
    """
    deadline = time.monotonic() + within_s
    pause_s = FIRST_PAUSE_S
    while not condition():
        if time.monotonic() > deadline:
            raise NeverCameTrueError(f"{what}: not within {within_s:g} s")
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)
