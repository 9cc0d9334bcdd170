"""What all tests share: the real servers, started when a test first asks for them, and seeds that failures print."""

import os
import random
import shutil
import uuid
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final, Protocol

import hypothesis
import pytest
import redis
from hypothesis.configuration import set_hypothesis_home_dir
from kafka import KafkaAdminClient
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from deploy.local.layout import BUILD, BYTE_CODE
from services.publishing.kafka_access import KafkaAccess
from services.topics import cluster
from services.topics.registry import load
from tests.acceptance.translate import PARTIES
from tests.chain import Chain, running_chain
from tests.collector import Collector, a_collector
from tests.servers import a_kafka, a_redis

# One seed for every test that rolls dice: MEDCHAIN_TEST_SEED=<seed> repeats a run. Both halves of a run (below) roll the
# same, so the second name hands it on; not the first, which the platform's processes would be told of.
_HANDED_ON: Final = "SEED_OF_THIS_TEST_RUN"
SEED: Final = int(
    os.environ.get("MEDCHAIN_TEST_SEED") or os.environ.get(_HANDED_ON) or random.SystemRandom().randrange(2**32)
)
os.environ[_HANDED_ON] = str(SEED)

# `make test` plays two halves side by side. What is named first starts many processes and mostly waits for them; the rest
# computes, and has of the former those whose platform is their own, so that both take as long (pytest --durations=0).
# A half stays in one process and in its order: what it has started once serves all of it.
WAIT_FOR_PROCESSES: Final = ("tests/acceptance/", "tests/chaos/", "tests/integration/", "tests/unit/test_docs.py")
WITH_A_PLATFORM_OF_THEIR_OWN: Final = tuple(
    f"tests/integration/test_{name}.py" for name in ("driver", "replay", "secured_kafka", "topics_cluster")
)

# For the processes that tests start by themselves.
os.environ |= BYTE_CODE
set_hypothesis_home_dir(BUILD / "hypothesis")
# No deadline: a busy machine is no defect. The blob repeats a failure anywhere (@reproduce_failure).
hypothesis.settings.register_profile("chain", deadline=None, print_blob=True)
hypothesis.settings.load_profile("chain")


def pytest_report_header() -> str:
    """Say the seed at the top of every run."""
    return f"seed: {SEED} (MEDCHAIN_TEST_SEED={SEED} repeats it)"


class Halves(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Which half a test belongs to. `xdist_group` would say it too, and does nothing with this release of pytest."""

    def _split_scope(self, nodeid: str) -> str:
        waits = nodeid.startswith(WAIT_FOR_PROCESSES) and not nodeid.startswith(WITH_A_PLATFORM_OF_THEIR_OWN)
        return "waiting" if waits else "computing"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Halves:
    """Have pytest-xdist give each half to one process."""
    return Halves(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Print the seed with every failure."""
    report = yield
    if report.failed:
        report.sections.append(("seed", f"MEDCHAIN_TEST_SEED={SEED} pytest {item.nodeid!r}"))
    return report


class FreshTopic(Protocol):
    """Makes a topic that nobody else uses, and gives its name."""

    def __call__(self, partitions: int = 1, settings: dict[str, str] | None = None) -> str:
        """`settings` are Kafka's topic settings; the name begins with `test-`."""


@pytest.fixture
def seed() -> int:
    """The run's seed, for a test's own random.Random."""
    return SEED


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A folder under build/ that is gone after the run."""
    folder = BUILD / "test" / f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def kafka(scratch: Path) -> Iterator[str]:
    """Bootstrap servers of a broker that has every declared topic."""
    with a_kafka(scratch / "kafka") as address:
        cluster.create(KafkaAccess(address), load(), one_broker=True)
        yield address


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Takes the traces of `chain`: of what a test samples, and of nothing else."""
    with a_collector() as collector:
        yield collector


@pytest.fixture(scope="session")
def chain(scratch: Path, collector: Collector) -> Iterator[Chain]:
    """The whole platform, every service a process of its own, with the parties of the acceptance scenarios."""
    with running_chain(scratch / "chain", PARTIES, traces=collector.url) as chain:
        yield chain


@pytest.fixture(scope="session")
def redis_server(scratch: Path) -> Iterator[str]:
    """The URL of a Redis that all tests share; ask for `redis_url` to find it empty."""
    with a_redis(scratch / "redis") as url:
        yield url


@pytest.fixture(scope="module")
def redis_url(redis_server: str) -> str:
    """The URL of a Redis that was emptied, of functions too, before this module's first test."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
        client.function_flush()
    return redis_server


@pytest.fixture
def fresh_topic(kafka: str) -> FreshTopic:
    """A factory of topics with names that were never used before."""

    def make(partitions: int = 1, settings: dict[str, str] | None = None) -> str:
        name = f"test-{uuid.uuid4().hex}"
        # Kept for ever, as the log is: of a test's clock that is long past, the broker would delete all after five minutes.
        configs = {"retention.ms": "-1"} | (settings or {})
        wanted = {"num_partitions": partitions, "replication_factor": 1, "configs": configs}
        with closing(KafkaAdminClient(bootstrap_servers=kafka)) as admin:
            admin.create_topics({name: wanted}, wait_for_metadata=True)
        return name

    return make
