"""A broker that falls silent without closing its connections: every append is answered, and writing goes on after it."""

import asyncio
import gc
import os
import signal
import socket
from pathlib import Path

import pytest

from deploy.local.broker import Broker
from deploy.local.ports import choose_port
from services.health import TroubleReason
from services.publishing.broker_check import BrokerCheck
from services.publishing.kafka_access import KafkaAccess
from services.publishing.kafka_log import KafkaLog
from services.publishing.log import LogOverloaded, LogRecord, LogUnavailable, Position
from services.topics import cluster
from services.topics.registry import load

TOPIC, OTHER_TOPIC = "medication-events", "relay-progress"
KEY = b"0" * 32


async def test_each_append_to_a_silent_broker_is_answered_and_a_woken_one_takes_them_again(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "kafka", port=choose_port(None))
    broker.start()
    log = KafkaLog(KafkaAccess(broker.address), load().partitions, tells_callers=True)
    check = BrokerCheck(KafkaAccess(broker.address), load().partitions, [TOPIC])
    try:
        cluster.create(KafkaAccess(broker.address), load(), one_broker=True)
        await log.start([TOPIC])
        assert isinstance(await log.append(TOPIC, KEY, b"before"), Position)
        assert [*await check(), *await log.check()] == []
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGSTOP)
        await check_silence(log, check)
        os.kill(broker.pid, signal.SIGCONT)
        assert isinstance(await log.append(TOPIC, KEY, b"after"), Position)
        assert [*await check(), *await log.check()] == []
    finally:
        await log.close()
        check.close()
        broker.stop()


async def test_of_records_appended_together_none_lies_in_the_log_after_one_that_was_not_confirmed(
    tmp_path: Path,
) -> None:
    """Those of one call are not all of one age, since what stands between them can wait for the broker.

    Then one is given up, and the broker is back in time for the next one.
    """
    known = set(map(id, open_sockets()))
    broker = Broker(tmp_path / "kafka", port=choose_port(None))
    broker.start()
    access = KafkaAccess(broker.address)
    log = KafkaLog(access, load().partitions)
    try:
        cluster.create(access, load(), one_broker=True)
        await log.start([TOPIC])
        broker.kill()
        # So large that each leaves the producer in a batch of its own. After two seconds the one between them fails.
        together = [
            LogRecord(TOPIC, KEY, b"1" * 15_000),
            LogRecord(OTHER_TOPIC, KEY, b"waits for the broker to tell of its topic"),
            LogRecord(TOPIC, KEY, b"2" * 15_000),
        ]
        answers = asyncio.create_task(log.append_many(together))
        # After five seconds the first one is given up, after seven the last one would be: the broker is back in between.
        await asyncio.sleep(1.9)
        await asyncio.to_thread(broker.start)
        assert [type(each) for each in await answers] == [LogUnavailable] * 3
        assert (await log.append(TOPIC, KEY, b"1 once more")).offset == 0, "nothing lies before it"
    finally:
        await log.close()
        broker.stop()
        # The library leaves every socket open that a broker which is away refuses.
        for each in open_sockets():
            if id(each) not in known:
                each.close()


def open_sockets() -> list[socket.socket]:
    """All of this process that somebody still holds."""
    return [each for each in gc.get_objects() if type(each) is socket.socket and each.fileno() >= 0]


async def check_silence(log: KafkaLog, check: BrokerCheck) -> None:
    """The first append is answered in the end; who comes when it has waited for seconds is answered at once."""
    first = asyncio.create_task(log.append(TOPIC, KEY, b"while it is silent"))
    while not await log.check():  # noqa: ASYNC110  silence is no event that could be waited for
        await asyncio.sleep(0.05)
    assert [trouble.reason for trouble in await log.check()] == [TroubleReason.LOG_OVERLOADED]
    with pytest.raises(LogOverloaded):
        await log.append(TOPIC, KEY, b"when it has been silent for long")
    assert not first.done(), "at once, and not when the first one was given up"
    with pytest.raises(LogUnavailable):
        await first
    assert [trouble.reason for trouble in await check()] == [TroubleReason.BROKER_UNREACHABLE]
    assert [trouble.reason for trouble in await log.check()] == [TroubleReason.LOG_UNCONFIRMED]
    # From then on one at a time finds out whether it is back, and the others need not wait for that.
    second = asyncio.create_task(log.append(TOPIC, KEY, b"to find out"))
    await asyncio.sleep(0)
    with pytest.raises(LogOverloaded):
        await log.append(TOPIC, KEY, b"beside it")
    with pytest.raises(LogUnavailable):
        await second


async def test_a_broker_whose_disk_was_nearly_full_when_it_last_answered_has_ended_of_it(tmp_path: Path) -> None:
    with Broker(tmp_path / "kafka") as broker:
        cluster.create(KafkaAccess(broker.address), load(), one_broker=True)
        every_disk_is_low = BrokerCheck(
            KafkaAccess(broker.address), load().partitions, [TOPIC], low_bytes=1 << 60, low_share=1
        )
        (low,) = await every_disk_is_low()
        assert (low.reason, low.stops) == (TroubleReason.BROKER_DISK_LOW, False)
        every_disk_is_low.close()  # the library leaves each refused socket open until it is collected
    (full,) = await every_disk_is_low()
    assert (full.reason, full.stops) == (TroubleReason.BROKER_DISK_FULL, True)
    assert "MB left" in full.text
