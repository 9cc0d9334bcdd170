"""A broker that falls silent without closing its connections: every append is answered, and writing goes on after it."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from deploy.local.broker import Broker
from deploy.local.ports import choose_port
from services.health import TroubleReason
from services.publishing.broker_check import BrokerCheck
from services.publishing.kafka_access import KafkaAccess
from services.publishing.kafka_log import KafkaLog
from services.publishing.log import LogOverloaded, LogUnavailable, Position
from services.topics import cluster
from services.topics.registry import load

TOPIC = "medication-events"
KEY = b"0" * 32


async def test_each_append_to_a_silent_broker_is_answered_and_a_woken_one_takes_them_again(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "kafka", port=choose_port(None), brief=True)
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
    with Broker(tmp_path / "kafka", brief=True) as broker:
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
