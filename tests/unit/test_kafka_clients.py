"""Clients of Kafka that do not come about: nothing of them is left, and none is waited for without end."""

import gc
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import create_server
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError

from deploy.local.ports import LOOPBACK, choose_port
from deploy.local.waiting import wait_until
from services.medication_list.log.source_log import KafkaSourceLog, SourceLogUnavailableError
from services.publishing.kafka_access import KafkaAccess
from services.publishing.kafka_clients import connect
from services.publishing.kept_admin import KeptAdmin
from tests.certificates import Authority

# The library drops sockets that were refused, or are in a handshake, without closing them.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <(socket.socket|ssl.SSLSocket):ResourceWarning")

WITHIN_MS = 300
LET_GO_WITHIN_S = 5
TIMES = 2
CLIENTS: dict[str, tuple[Callable[..., Any], dict[str, object]]] = {
    "admin client": (KafkaAdminClient, {"request_timeout_ms": WITHIN_MS}),
    "consumer of a group": (KafkaConsumer, {"group_id": "somebody"}),
    "consumer without one": (KafkaConsumer, {"group_id": None}),
    "producer": (KafkaProducer, {"request_timeout_ms": WITHIN_MS}),
}


@pytest.fixture(autouse=True)
def unlogged(caplog: pytest.LogCaptureFixture) -> None:
    """Pytest keeps each line of a log, with the error in it, and with the socket that the error's frames hold."""
    caplog.set_level(logging.CRITICAL + 1, logger="kafka")


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of someone who takes every connection and says nothing on it: nobody but the kernel takes them."""
    with create_server((LOOPBACK, 0), backlog=100) as server:
        yield f"{LOOPBACK}:{server.getsockname()[1]}"


def held() -> tuple[int, int]:
    """How many threads and descriptors this process has."""
    gc.collect()
    return threading.active_count(), sum(1 for _ in Path("/proc/self/fd").iterdir())


def assert_no_more_than(before: tuple[int, int]) -> None:
    """Servers of other tests open and close files beside this one: it is waited for a moment without."""
    wait_until(
        lambda: all(now <= then for now, then in zip(held(), before, strict=True)),
        within_s=LET_GO_WITHIN_S,
        what="threads and descriptors are let go",
    )


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("secured", [False, True], ids=["plain text", "TLS"])
def test_a_client_that_a_silent_broker_keeps_waiting_is_given_up_and_leaves_nothing(
    silent: str, kind: str, *, secured: bool, tmp_path: Path
) -> None:
    access = KafkaAccess(silent, Authority(tmp_path, "ours").vouch("somebody") if secured else None)
    make, settings = CLIENTS[kind]
    before = held()
    for _ in range(TIMES):
        with pytest.raises(KafkaError):
            connect(make, access, bootstrap_timeout_ms=WITHIN_MS, **settings)
    assert_no_more_than(before)


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_client_of_nobody_leaves_nothing(kind: str) -> None:
    make, settings = CLIENTS[kind]
    before = held()
    for _ in range(TIMES):
        with pytest.raises(KafkaError):
            connect(make, KafkaAccess(f"{LOOPBACK}:{choose_port()}"), bootstrap_timeout_ms=WITHIN_MS, **settings)
    assert_no_more_than(before)


def test_who_asks_a_silent_broker_again_and_again_holds_no_more_than_before(silent: str) -> None:
    access = KafkaAccess(silent)
    log, admin = KafkaSourceLog(access, answers_within_ms=WITHIN_MS), KeptAdmin(access, WITHIN_MS)
    before = held()
    for ask in (log.identity, log.ends, log.relayed, admin.connected) * TIMES:
        with pytest.raises((SourceLogUnavailableError, KafkaError)):
            ask()
    admin.let_go()
    assert_no_more_than(before)
