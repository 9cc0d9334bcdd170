"""The platform on this machine: real broker and Redis with a trivial service, kills and all."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
import redis
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from deploy.local.layout import CHECKOUT
from deploy.local.platform import Platform
from deploy.local.program import ProgramDiedError
from deploy.local.state import AlreadyRunsError, held, running
from deploy.local.waiting import wait_until
from deploy.services import OPTIONAL, Service
from services.publishing.kafka_access import KafkaAccess
from services.topics.cluster import differences
from services.topics.registry import load

pytestmark = pytest.mark.integration

TRIVIAL = Service(
    name="medication-list",
    module="tests.trivial_service",
    variables=("MEDCHAIN_PORT", "MEDCHAIN_REDIS", "MEDCHAIN_PSEUDONYM_KEY"),
    port=8803,
)
CRASHES = Service(name="crashes", module="tests.no_such_module", variables=(), port=1)


@pytest.fixture(scope="module")
def platform(scratch: Path) -> Iterator[Platform]:
    with Platform(scratch / "platform", run=scratch / "run", services=[TRIVIAL], usual_ports=False) as platform:
        yield platform


def test_the_platform_has_the_declared_topics(platform: Platform) -> None:
    assert differences(KafkaAccess(platform.kafka_address), load(), one_broker=True) == []


def test_a_service_is_told_its_own_variables_and_no_others(platform: Platform) -> None:
    assert httpx.get(f"{platform.url('medication-list')}/variables").json() == sorted((*TRIVIAL.variables, *OPTIONAL))


def test_others_find_the_platform_by_its_state(platform: Platform, scratch: Path) -> None:
    state = running(scratch / "run")
    assert state is not None
    assert state.ready
    assert (state.kafka, state.redis) == (platform.kafka_address, platform.redis_url)
    assert state.url("medication-list") == platform.url("medication-list")
    assert state.supervisor == os.getpid()
    assert {name: program.pid for name, program in state.programs.items()} == platform.supervisor.pids


def test_a_second_platform_from_the_same_folder_is_refused(platform: Platform, scratch: Path) -> None:
    with pytest.raises(AlreadyRunsError):
        Platform(scratch / "second", run=scratch / "run", services=[], usual_ports=False).start()
    assert httpx.get(f"{platform.url('medication-list')}/health/ready").is_success


def test_redis_is_durable_and_never_evicts(platform: Platform) -> None:
    with redis.Redis.from_url(platform.redis_url) as client:
        told = client.config_get("appendonly", "appendfsync", "maxmemory-policy", "bind")
    assert told == {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "bind": "127.0.0.1",
    }


def test_a_killed_redis_comes_back_with_what_it_had(platform: Platform) -> None:
    with redis.Redis.from_url(platform.redis_url) as client:
        client.set("kept", "yes")
    before = platform.supervisor.restarts["redis"]
    platform.child("redis").kill()
    wait_until(
        lambda: platform.supervisor.restarts["redis"] > before and platform.redis.answers(),
        within_s=20,
        what="Redis is back",
    )
    with redis.Redis.from_url(platform.redis_url) as client:
        assert client.get("kept") == b"yes"


def test_a_killed_broker_comes_back_with_what_it_had(platform: Platform) -> None:
    with closing(KafkaProducer(bootstrap_servers=platform.kafka_address)) as producer:
        sent = producer.send("relay-progress", value=b"kept", key=b"7").get(timeout=10)
    before = platform.supervisor.restarts["kafka"]
    platform.child("kafka").kill()
    wait_until(
        lambda: platform.supervisor.restarts["kafka"] > before and platform.broker.answers(),
        within_s=40,
        what="the broker is back",
    )
    partition = TopicPartition("relay-progress", sent.partition)
    with closing(KafkaConsumer(bootstrap_servers=platform.kafka_address, auto_offset_reset="earliest")) as consumer:
        consumer.assign([partition])
        consumer.seek(partition, sent.offset)
        assert next(iter(consumer)).value == b"kept"


def test_a_killed_service_is_started_again_and_the_state_says_so(platform: Platform, scratch: Path) -> None:
    url = f"{platform.url('medication-list')}/pid"
    first = httpx.get(url).json()
    os.kill(first, signal.SIGKILL)

    def another_answers() -> bool:
        try:
            return bool(httpx.get(url).json() != first)
        except httpx.TransportError:
            return False

    wait_until(another_answers, within_s=20, what="another process answers")
    state = running(scratch / "run")
    assert state is not None
    assert state.programs["medication-list"].pid == httpx.get(url).json()


def test_a_service_that_cannot_start_stops_all_and_shows_why(scratch: Path) -> None:
    run = scratch / "run-failed"
    platform = Platform(scratch / "failed", run=run, services=[CRASHES], usual_ports=False)
    with pytest.raises(ProgramDiedError, match="No module named"):
        platform.start()
    assert platform.supervisor.pids == {}
    assert not held(run)


def test_sigterm_ends_a_platform_with_everything_it_started(scratch: Path) -> None:
    run = scratch / "run-alone"
    code = (
        "import pathlib, signal; from deploy.local.platform import Platform; from deploy.local.supervisor import end_on_signals\n"
        f"end_on_signals(); folder, run = pathlib.Path({str(scratch / 'alone')!r}), pathlib.Path({str(run)!r})\n"
        "with Platform(folder, run=run, services=(), usual_ports=False): signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=CHECKOUT) as process:  # noqa: S603  ours
        wait_until(lambda: (state := running(run)) is not None and state.ready, within_s=60, what="the platform is up")
        state = running(run)
        assert state is not None
        process.terminate()
        assert process.wait(30) == 0
    for program in state.programs.values():
        assert program.pid is not None
        assert not Path(f"/proc/{program.pid}").exists()
    assert not held(run)
