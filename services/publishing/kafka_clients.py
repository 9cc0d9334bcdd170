"""Makes every kafka-python client: one that cannot connect leaks nothing, and every handshake is bounded in time."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from typing import Any, Final

from kafka.net.compat import KafkaNetClient
from kafka.net.selector import NetworkSelector

from services.publishing.answer_classes import make_answer_classes
from services.publishing.kafka_access import KafkaAccess

_HANDSHAKE_MS: Final = 10_000
"""What the library gives a connection to come about, all but its handshake."""

# Here, since every client is made by this module, and modules are imported by one thread at a time.
make_answer_classes()


def connect(kind: Callable[..., Any], kafka: KafkaAccess, **settings: Any) -> Any:
    """A client of that kind: `KafkaAdminClient`, `KafkaConsumer` or `KafkaProducer`. Raises KafkaError, OSError.

    A constructor that fails keeps its thread, its selector and its sockets for good; here they are let go.
    """
    opened: list[tuple[NetworkSelector, KafkaNetClient]] = []

    def open_client(**told: Any) -> KafkaNetClient:
        net = _Net(**told)
        client = KafkaNetClient(net=net, **told)
        opened.append((net, client))
        return client

    try:
        return kind(**kafka.client_settings(), kafka_client=open_client, **settings)
    except BaseException:
        for net, client in opened:
            net.stop()  # first: then nothing is at work in what is closed
            client.close()
        raise


class _Net(NetworkSelector):  # type: ignore[misc]  # the library has no types
    """The library's loop, and a bound for the one wait that has none: a broker that says nothing in a TLS handshake."""

    def __init__(self, **told: Any) -> None:
        super().__init__(**told)
        self._handshake_s = min(told["bootstrap_timeout_ms"], _HANDSHAKE_MS) / 1000

    def wait_read(self, fileobj: Any, timeout_at: float | None = None) -> Any:
        """What a transport awaits until its socket has something."""
        if timeout_at is None and isinstance(fileobj, ssl.SSLSocket) and fileobj.version() is None:
            timeout_at = time.monotonic() + self._handshake_s
        return super().wait_read(fileobj, timeout_at)
