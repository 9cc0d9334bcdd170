"""Ports on 127.0.0.1: the preferred one where it is free, another one where somebody already listens."""

import random
import socket
from typing import Final

LOOPBACK: Final = "127.0.0.1"
# Below the range from which systems take the ports of outgoing connections, which could take one before it is used.
FIRST, LAST = 20_000, 32_000

_given: set[int] = set()
_dice = random.SystemRandom()


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do, so that a port which only lingers in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def is_listening(port: int) -> bool:
    """Whether something accepts connections on this port of the loopback address."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1):
            return True
    except OSError:
        return False


def choose_port(preferred: int | None = None) -> int:
    """The preferred port if it is free, else another free one; never one that this process was given before."""
    port = preferred
    while port is None or port in _given or not is_free(port):
        port = _dice.randrange(FIRST, LAST)
    _given.add(port)
    return port
