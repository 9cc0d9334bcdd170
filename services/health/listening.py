"""The port of a process, bound by the process itself."""

import socket


def bound(host: str, port: int) -> socket.socket:
    """A port that is taken ends the process here (OSError), and not in a thread that nobody watches.

    The server listens on it once it can answer.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    own = socket.socket(family, socket.SOCK_STREAM)
    try:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        own.bind((host, port))
    except OSError:
        own.close()
        raise
    return own
