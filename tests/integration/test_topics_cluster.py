"""`medchain topics` on a real broker: it makes exactly what is declared, and names every difference."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError
from typer.testing import CliRunner

from deploy.local.layout import CHECKOUT
from deploy.local.waiting import wait_until
from services.command_line.app import COMMAND
from services.publishing.kafka_access import KafkaAccess
from services.topics.cli import app
from services.topics.cluster import Difference, create, differences
from services.topics.reading import places
from services.topics.registry import EVENTS_TOPIC, Parties, load
from tests.servers import a_kafka

pytestmark = pytest.mark.integration
ANOTHER = Parties(systems=("newcomer",), pharmacies=("313000079",), organisations=("313000079",))


@pytest.fixture(scope="module")
def cluster(scratch: Path) -> Iterator[str]:
    """A broker of this module's own: other tests make topics of their own on the shared one."""
    with a_kafka(scratch / "kafka-for-topics") as address:
        create(KafkaAccess(address), load(), one_broker=True)
        yield address


@pytest.fixture
def admin(cluster: str) -> Iterator[KafkaAdminClient]:
    with closing(KafkaAdminClient(bootstrap_servers=cluster)) as client:
        yield client


def test_what_was_created_is_what_is_declared(cluster: str, admin: KafkaAdminClient) -> None:
    assert differences(KafkaAccess(cluster), load(), one_broker=True) == []
    there = {topic["name"] for topic in admin.describe_topics() if not topic["is_internal"]}
    assert there == {topic.name for topic in load().wanted()}


def test_a_topic_has_as_many_places_as_are_declared_and_one_that_is_not_there_has_none(cluster: str) -> None:
    partitions = load().partitions(EVENTS_TOPIC)
    assert places(KafkaAccess(cluster), EVENTS_TOPIC) == [
        TopicPartition(EVENTS_TOPIC, each) for each in range(partitions)
    ]
    assert places(KafkaAccess(cluster), "medication-rumours") == []


def test_creating_again_makes_nothing(cluster: str) -> None:
    assert create(KafkaAccess(cluster), load(), one_broker=True) == []


def test_one_copy_is_a_difference_where_production_is_expected(cluster: str) -> None:
    found = [each for each in differences(KafkaAccess(cluster), load()) if each.topic == "medication-events"]
    assert found == [
        Difference("medication-events", "min.insync.replicas", "2", "1"),
        Difference("medication-events", "replication", "3", "1"),
    ]


def test_a_changed_setting_is_named_with_both_values(cluster: str, admin: KafkaAdminClient) -> None:
    change(admin, "medication-events", {"retention.ms": "1000"})
    try:
        expect(cluster, ["medication-events: retention.ms is 1000, declared -1"])
    finally:
        change(admin, "medication-events", {"retention.ms": "-1"})
        expect(cluster, [])


def test_other_partitions_and_undeclared_topics_are_named(cluster: str, admin: KafkaAdminClient) -> None:
    # A topic of a party that nobody listed is compared with its pattern; one of no pattern is unexpected.
    strange = {"notices.stranger": {"num_partitions": 5}, "medication-event": {"num_partitions": 1}}
    admin.create_topics(strange, wait_for_metadata=True)
    try:
        found = differences(KafkaAccess(cluster), load(), one_broker=True)
        assert Difference("medication-event", "unexpected", "", "medication-event") in found
        assert Difference("notices.stranger", "partitions", "2", "5") in found
        assert {each.topic for each in found} == set(strange)
    finally:
        admin.delete_topics(list(strange))
        expect(cluster, [])


def test_a_party_without_its_topics_is_reported_until_they_are_created(cluster: str, admin: KafkaAdminClient) -> None:
    missing = differences(KafkaAccess(cluster), load(), ANOTHER, one_broker=True)
    assert {each.what for each in missing} == {"missing"}
    names = {each.topic for each in missing}
    assert "notices.313000079" in names
    try:
        assert set(create(KafkaAccess(cluster), load(), ANOTHER, one_broker=True)) == names
        assert differences(KafkaAccess(cluster), load(), ANOTHER, one_broker=True) == []
    finally:
        admin.delete_topics(list(names))
        expect(cluster, sorted(f"{name}: missing" for name in names), ANOTHER)


def test_production_settings_are_refused_by_a_cluster_of_one(cluster: str, admin: KafkaAdminClient) -> None:
    before = set(admin.list_topics())
    with pytest.raises(KafkaError):
        create(KafkaAccess(cluster), load(), ANOTHER)
    assert set(admin.list_topics()) == before


def test_no_topic_is_ever_made_by_writing_to_it(cluster: str, admin: KafkaAdminClient) -> None:
    with closing(KafkaProducer(bootstrap_servers=cluster, max_block_ms=1500)) as producer, pytest.raises(KafkaError):
        producer.send("medication-evnts", b"").get(timeout=5)
    assert "medication-evnts" not in admin.list_topics()


def test_the_command_exits_one_on_a_difference_and_nought_on_none(cluster: str) -> None:
    run = CliRunner()
    assert run.invoke(app, ["check", "--kafka", cluster, "--one-broker"]).exit_code == 0
    other = run.invoke(app, ["check", "--kafka", cluster, "--one-broker", "--system", "newcomer", "--json"])
    assert other.exit_code == 1
    assert {each["what"] for each in json.loads(other.stdout)} == {"missing"}


def test_the_command_tells_what_it_would_create_and_creates_it(cluster: str, admin: KafkaAdminClient) -> None:
    words = ["create", "--kafka", cluster, "--one-broker", "--system", "newcomer"]
    before = set(admin.list_topics())
    try:
        shown = CliRunner().invoke(app, [*words, "--dry-run"])
        assert shown.exit_code == 0
        assert "would create submission-receipts.newcomer" in shown.stdout
        assert "Nothing was done." in shown.stdout
        would = json.loads(CliRunner().invoke(app, [*words, "--dry-run", "--json"]).stdout)["would_create"]
        assert set(admin.list_topics()) == before
        done = CliRunner().invoke(app, [*words, "--json"])
        assert json.loads(done.stdout)["created"] == would
        assert set(admin.list_topics()) == before | set(would)
    finally:
        admin.delete_topics([name for name in admin.list_topics() if name not in before])
        expect(cluster, [])
    assert "0 created; every record is kept 1 time" in CliRunner().invoke(app, words[:4]).stdout


def test_a_cluster_that_is_away_is_told_in_json() -> None:
    """In a process of its own: the library drops sockets that were refused without closing them."""
    words = ("topics", "create", "--kafka", "127.0.0.1:1", "--one-broker", "--json")
    said = subprocess.run([*COMMAND, *words], cwd=CHECKOUT, capture_output=True, text=True, check=False)  # noqa: S603  ours
    found = json.loads(said.stdout)
    assert (said.returncode, found["exit"]) == (2, 2)
    assert "127.0.0.1:1" in found["error"]


def test_the_command_refuses_a_party_that_cannot_name_a_topic(cluster: str) -> None:
    said = CliRunner().invoke(app, ["create", "--kafka", cluster, "--one-broker", "--system", "No/Good"])
    assert said.exit_code == 2


def change(admin: KafkaAdminClient, topic: str, settings: dict[str, str]) -> None:
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, settings)])


def expect(cluster: str, said: list[str], parties: Parties | None = None) -> None:
    """Wait until these are the differences: a broker applies a change a moment after it has answered."""

    def as_said() -> bool:
        return [str(each) for each in differences(KafkaAccess(cluster), load(), parties, one_broker=True)] == said

    wait_until(as_said, within_s=10, what=f"the differences are {said}")
