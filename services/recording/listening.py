"""Where a service accepts connections: one port, on which a busy loop accepts many at a time."""

from __future__ import annotations

import socket
from typing import Final

from services.health.listening import bound

AT_ONCE: Final = 16
"""uvloop takes one new connection from a listening socket in each turn of its loop (libuv does since 1.45). Under a flood
a turn takes many milliseconds, and more come: they waited unseen until their callers gave up, health checks among them,
and each caller that had given up came again on another connection. Looking in vain costs a microsecond a socket."""


def listening(host: str, port: int, at_once: int = AT_ONCE) -> list[socket.socket]:
    """The same socket `at_once` times, for as many connections a turn. Raises OSError where the port is taken."""
    first = bound(host, port)
    return [first, *(first.dup() for _ in range(at_once - 1))]
