"""The Kafka and the Redis that tests run against: containers where there is an engine, else the embedded ones."""

import functools
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.local.broker import Broker
from deploy.local.redis import RedisServer


@functools.cache
def container_engine_answers() -> bool:
    """Whether `docker info` succeeds: a client without an engine is common."""
    docker = shutil.which("docker")
    return docker is not None and subprocess.run([docker, "info"], capture_output=True, check=False).returncode == 0  # noqa: S603  found on PATH


@contextmanager
def a_kafka(directory: Path) -> Iterator[str]:
    """A running broker; gives its bootstrap servers."""
    if not container_engine_answers():
        with Broker(directory) as broker:
            yield broker.address
        return
    from testcontainers.community.kafka import KafkaContainer  # noqa: PLC0415  slow to import, and seldom wanted

    container = KafkaContainer("confluentinc/cp-kafka:8.2.0").with_kraft()
    container.with_env("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false")
    container.with_env("KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR", "1")
    container.with_env("KAFKA_TRANSACTION_STATE_LOG_MIN_ISR", "1")
    with container as started:
        yield started.get_bootstrap_server()


@contextmanager
def a_redis(directory: Path) -> Iterator[str]:
    """A running Redis with the settings that the view relies on; gives the URL of its database 0."""
    if not container_engine_answers():
        with RedisServer(directory) as server:
            yield server.address
        return
    from testcontainers.community.redis import RedisContainer  # noqa: PLC0415  slow to import, and seldom wanted

    container = RedisContainer("redis:7").with_command("redis-server --appendonly yes --maxmemory-policy noeviction")
    with container as started:
        yield f"redis://{started.get_container_host_ip()}:{started.get_exposed_port(6379)}/0"
