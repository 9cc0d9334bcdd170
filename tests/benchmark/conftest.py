"""What measurements have instead of what tests have: a broker that may become as fast as it can."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.publishing.kafka_access import KafkaAccess
from services.topics import cluster
from services.topics.registry import load
from tests.servers import a_kafka


@pytest.fixture(scope="session")
def kafka(scratch: Path) -> Iterator[str]:
    """Bootstrap servers of a broker that has every declared topic."""
    with a_kafka(scratch / "measured-kafka") as address:
        cluster.create(KafkaAccess(address), load(), one_broker=True)
        yield address
