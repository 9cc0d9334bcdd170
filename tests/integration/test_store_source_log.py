"""What a generation learns of the real log, and the relay as the process that an operator starts."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager

import httpx
import pytest
import redis
from kafka import KafkaAdminClient, KafkaProducer

from deploy.local.ports import choose_port
from deploy.local.waiting import wait_until
from schemas.codec import encode
from schemas.events import RelayProgress
from services.medication_list.generations import GenerationRecord, GenerationRefusedError, enter
from services.medication_list.log.source_log import KafkaSourceLog, SourceLogUnavailableError
from services.medication_list.store.link import Link
from services.medication_list.store.redis_roles import RedisRoles
from services.publishing.kafka_access import KafkaAccess
from tests.conftest import FreshTopic

pytestmark = pytest.mark.integration


def test_a_topic_that_was_made_again_has_another_identity_and_its_view_is_refused(
    kafka: str, redis_url: str, fresh_topic: FreshTopic
) -> None:
    events = fresh_topic(partitions=2)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    log, record = KafkaSourceLog(KafkaAccess(kafka), events=events), GenerationRecord(1, "test", 0)
    with closing(Link(redis_url)) as link:
        enter(RedisRoles(link), log, record)
        before = log.identity()
        assert before.cluster
        assert before == log.identity()
        with closing(KafkaAdminClient(bootstrap_servers=kafka)) as admin:
            admin.delete_topics([events])
            with pytest.raises(SourceLogUnavailableError):
                log.ends()
            admin.create_topics({events: {"num_partitions": 2, "replication_factor": 1}}, wait_for_metadata=True)
        assert log.identity().topic != before.topic
        with pytest.raises(GenerationRefusedError, match="view of another log"):
            enter(RedisRoles(link), log, record)


def test_ends_and_progress_are_read_as_they_stand_in_the_log(kafka: str, fresh_topic: FreshTopic) -> None:
    events, progress = fresh_topic(partitions=3), fresh_topic(partitions=2, settings={"cleanup.policy": "compact"})
    with closing(KafkaProducer(bootstrap_servers=kafka)) as producer:
        for partition, count in ((0, 3), (2, 1)):
            for _ in range(count):
                producer.send(events, b"x", partition=partition)
        for offset in (4, 9):
            noted = RelayProgress(partition=2, source_offset=offset, effect_id="00000000-0000-4000-8000-000000000000")
            producer.send(progress, encode(noted), key=b"2", partition=1)
        producer.flush()
    log = KafkaSourceLog(KafkaAccess(kafka), events=events, progress=progress)
    assert log.ends() == {0: 3, 1: 0, 2: 1}
    assert log.relayed() == {2: noted}


@contextmanager
def a_relay(kafka: str, redis_url: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    told = {
        "MEDCHAIN_KAFKA": kafka,
        "MEDCHAIN_REDIS": redis_url,
        "MEDCHAIN_SEALING_KEY": "00" * 32,
        "MEDCHAIN_PORT": str(port),
    }
    argv = (sys.executable, "-m", "services.medication_list.relay.app")
    process = subprocess.Popen(argv, env=os.environ | told)  # noqa: S603  our own module
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_the_relay_process_becomes_ready_and_ends_cleanly(kafka: str, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()  # the view that the test before left is of another log, and a relay rightly refuses it
    port = choose_port()
    with a_relay(kafka, redis_url, port) as process:
        wait_until(lambda: process.poll() is not None or _is_ready(port), within_s=60, what="the relay is ready")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/ready", timeout=1).is_success
    except httpx.HTTPError:
        return False
