"""Topics on a cluster: create the missing ones, and name every difference from the declaration."""

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any, Final, NamedTuple

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError

from services.publishing.kafka_access import KafkaAccess, refusal
from services.publishing.kafka_clients import connect
from services.topics.registry import Parties, Topic, Topics, UndeclaredTopicError

_ANSWERS_WITHIN_MS: Final = 10_000


class ClusterAwayError(Exception):
    """The cluster does not do what was requested; the text is the one sentence that says why."""


@contextmanager
def asked(kafka: KafkaAccess) -> Iterator[None]:
    """Say in one sentence what a broker's error, or its silence, comes to. Raises ClusterAwayError."""
    try:
        yield
    except KafkaError as error:
        raise ClusterAwayError(refusal(kafka) or f"{kafka}: {error}") from error


class Difference(NamedTuple):
    """One difference of a cluster: in which topic, in what, what is declared and what exists ("" = nothing)."""

    topic: str
    what: str
    declared: str
    found: str

    def __str__(self) -> str:
        match self.what:
            case "missing":
                return f"{self.topic}: missing"
            case "unexpected":
                return f"{self.topic}: there, and not declared"
            case _:
                return f"{self.topic}: {self.what} is {self.found}, declared {self.declared}"


def create(
    kafka: KafkaAccess, topics: Topics, parties: Parties | None = None, *, one_broker: bool = False
) -> list[str]:
    """Make every declared topic that is missing, wait until they have leaders, and return their names.

    Topics that are there already are left as they are: `differences` tells where they are wrong.

    Raises:
        KafkaError: the cluster cannot be reached, or does not take a setting (too few brokers for the replication, say).
    """
    with closing(connect(KafkaAdminClient, kafka, bootstrap_timeout_ms=_ANSWERS_WITHIN_MS)) as admin:
        wanted = _missing(admin, topics, parties, one_broker=one_broker)
        if wanted:
            admin.create_topics({each.name: _as_request(each) for each in wanted}, wait_for_metadata=True)
        return [each.name for each in wanted]


def missing(
    kafka: KafkaAccess, topics: Topics, parties: Parties | None = None, *, one_broker: bool = False
) -> list[str]:
    """The names of what `create` would make. Raises KafkaError where the cluster cannot be reached."""
    with closing(connect(KafkaAdminClient, kafka, bootstrap_timeout_ms=_ANSWERS_WITHIN_MS)) as admin:
        return [each.name for each in _missing(admin, topics, parties, one_broker=one_broker)]


def _missing(admin: KafkaAdminClient, topics: Topics, parties: Parties | None, *, one_broker: bool) -> list[Topic]:
    there = set(admin.list_topics())
    return [each for each in topics.wanted(parties, one_broker=one_broker) if each.name not in there]


def differences(
    kafka: KafkaAccess, topics: Topics, parties: Parties | None = None, *, one_broker: bool = False
) -> list[Difference]:
    """Every difference between the cluster and what is declared, by topic.

    A party's topic that is there is compared even if the party is not known here. Kafka's internal topics do not count.

    Raises:
        KafkaError: the cluster cannot be reached.
    """
    wanted = {topic.name: topic for topic in topics.wanted(parties, one_broker=one_broker)}
    with closing(connect(KafkaAdminClient, kafka, bootstrap_timeout_ms=_ANSWERS_WITHIN_MS)) as admin:
        there = {each["name"]: each for each in admin.describe_topics() if not each["is_internal"]}
        found: list[Difference] = [Difference(name, "missing", name, "") for name in wanted if name not in there]
        for name in there:
            try:
                wanted.setdefault(name, topics.topic(name, one_broker=one_broker))
            except UndeclaredTopicError:
                found.append(Difference(name, "unexpected", "", name))
        present = [wanted[name] for name in there if name in wanted]
        settings = _settings(admin, [topic.name for topic in present])
    for topic in present:
        found.extend(_compare(topic, there[topic.name]["partitions"], settings[topic.name]))
    return sorted(found)


def _compare(topic: Topic, partitions: list[dict[str, Any]], settings: dict[str, str]) -> Iterator[Difference]:
    if len(partitions) != topic.partitions:
        yield Difference(topic.name, "partitions", str(topic.partitions), str(len(partitions)))
    for replicas in sorted({len(partition["replica_nodes"]) for partition in partitions} - {topic.replication}):
        yield Difference(topic.name, "replication", str(topic.replication), str(replicas))
    for setting, declared in topic.settings.items():
        if settings.get(setting) != declared:
            yield Difference(topic.name, setting, declared, settings.get(setting, ""))


def _settings(admin: KafkaAdminClient, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Every setting of these topics as it is in force, defaults included."""
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    if not resources:
        return {}
    described = admin.describe_configs(resources, config_filter="all")["topic"]
    return {name: {key: value["value"] for key, value in settings.items()} for name, settings in described.items()}


def _as_request(topic: Topic) -> dict[str, Any]:
    return {
        "num_partitions": topic.partitions,
        "replication_factor": topic.replication,
        "configs": topic.settings,
    }
