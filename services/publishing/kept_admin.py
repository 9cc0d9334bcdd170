"""A client with which a process asks the brokers about themselves, kept open from one request to the next."""

from __future__ import annotations

import socket
from threading import Thread
from typing import Any

from kafka import KafkaAdminClient

from services.publishing.kafka_access import KafkaAccess
from services.publishing.kafka_clients import connect


class KeptAdmin:
    """Made when first needed. Blocking; used by one thread at a time."""

    def __init__(self, kafka: KafkaAccess, answers_within_ms: int) -> None:
        """`answers_within_ms`: how long to connect may take, and each answer."""
        self._kafka = kafka
        self._answers_within_ms = answers_within_ms
        self._admin: Any = None

    @property
    def is_open(self) -> bool:
        """Whether the next question goes to the client of the one before."""
        return self._admin is not None

    def connected(self) -> Any:
        """The client; connects if it has to. Raises KafkaError, OSError."""
        if not (self._admin is not None and _stands(self._admin)) and not self._somebody_listens():
            # The library would try for all that time, and leave every refused socket open behind it.
            raise ConnectionRefusedError
        if self._admin is None:
            self._admin = connect(
                KafkaAdminClient,
                self._kafka,
                request_timeout_ms=self._answers_within_ms,
                bootstrap_timeout_ms=self._answers_within_ms,
            )
        return self._admin

    def let_go(self) -> None:
        """After a failure: where a broker fell silent a connection stays silent for long after, so the next one is new."""
        spent, self._admin = self._admin, None
        if spent is not None:
            # It may wait for what is still under way.
            Thread(target=spent.close, name="admin-spent", daemon=True).start()

    def close(self) -> None:
        """Let the connection go in order. The next question makes another."""
        spent, self._admin = self._admin, None
        if spent is not None:
            spent.close()

    def _somebody_listens(self) -> bool:
        return any(listens(address, self._answers_within_ms / 1000) for address in self._kafka.addresses)


def listens(address: str, within_s: float) -> bool:
    """Whether anything listens at host:port."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=within_s).close()
    except OSError:
        return False
    return True


def _stands(admin: Any) -> bool:
    """Whether this client has an open connection, as far as its own thread knows. No request is made."""
    connections = tuple(admin._manager._conns.values())  # noqa: SLF001 - nothing public says it without asking the broker
    return any(each.connected for each in connections)
