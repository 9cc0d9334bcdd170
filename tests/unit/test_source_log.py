"""A broker that takes connections and says nothing is told of in one sentence, and not waited for without end."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from services.medication_list.log.source_log import KafkaSourceLog, SourceLogUnavailableError
from services.publishing.kafka_access import KafkaAccess


@pytest.fixture
def silent() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        yield f"{host}:{port}"


@pytest.mark.parametrize("ask", [KafkaSourceLog.identity, KafkaSourceLog.ends, KafkaSourceLog.relayed])
def test_a_silent_broker_does_not_answer_within_the_time(silent: str, ask: Callable[[KafkaSourceLog], Any]) -> None:
    log = KafkaSourceLog(KafkaAccess(silent), answers_within_ms=300)
    with pytest.raises(SourceLogUnavailableError, match=rf"the log at {silent} did not answer within 0\.3 s"):
        ask(log)
