"""A broker that falls silent without closing its connections: every append is answered, and writing goes on after it."""

import os
import signal
from pathlib import Path

import pytest

from deploy.local.broker import Broker
from deploy.local.ports import choose_port
from services.publishing.kafka_log import KafkaLog
from services.publishing.log import LogUnavailable, Position
from services.topics import cluster
from services.topics.registry import load

TOPIC = "medication-events"
KEY = b"0" * 32


async def test_each_append_to_a_silent_broker_is_answered_and_a_woken_one_takes_them_again(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "kafka", port=choose_port(None))
    broker.start()
    log = KafkaLog(broker.address, load().partitions)
    try:
        cluster.create(broker.address, load(), one_broker=True)
        await log.start([TOPIC])
        assert isinstance(await log.append(TOPIC, KEY, b"before"), Position)
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGSTOP)
        for _ in range(2):
            with pytest.raises(LogUnavailable):
                await log.append(TOPIC, KEY, b"while it is silent")
        os.kill(broker.pid, signal.SIGCONT)
        assert isinstance(await log.append(TOPIC, KEY, b"after"), Position)
    finally:
        await log.close()
        broker.stop()
