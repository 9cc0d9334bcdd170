"""topics.yaml: complete, typed, and the same everywhere but for what one broker cannot give."""

from pathlib import Path

import msgspec
import pytest

from services.topics.registry import DECLARED, InvalidPartyError, Parties, UndeclaredTopicError, load

ONE_PARTY_EACH = Parties(systems=("s",), pharmacies=("p",), organisations=("o",))


def test_medication_events_has_eight_partitions_and_is_kept_for_ever() -> None:
    topic = load().topic("medication-events")
    assert load().partitions("medication-events") == 8
    assert topic.partitions == 8
    assert topic.replication == 3
    assert topic.settings == {
        "cleanup.policy": "delete",
        "max.message.bytes": "1048588",
        "message.timestamp.type": "LogAppendTime",
        "min.insync.replicas": "2",
        "retention.bytes": "-1",
        "retention.ms": "-1",
        "unclean.leader.election.enable": "false",
    }


def test_one_broker_differs_in_nothing_but_the_number_of_copies() -> None:
    production = {topic.name: topic for topic in load().wanted()}
    single = {topic.name: topic for topic in load().wanted(one_broker=True)}
    assert production.keys() == single.keys()
    for name, topic in single.items():
        assert topic.replication == 1
        changed = {key for key in topic.settings if topic.settings[key] != production[name].settings[key]}
        assert changed == {"min.insync.replicas"}


def test_every_schema_lies_on_a_topic_and_every_topic_names_real_schemas() -> None:
    released = {folder.name for folder in (DECLARED.parent / "avro").iterdir()}
    on_a_topic = {schema for declared in load().topics.values() for schema in declared.schemas}
    assert on_a_topic == released


@pytest.mark.parametrize("pattern", load().topics)
def test_a_topics_example_is_one_of_its_own_records(pattern: str) -> None:
    declared = load().topics[pattern]
    assert declared.example in declared.schemas


def test_each_party_gets_its_own_topics_and_no_others() -> None:
    known = {topic.name for topic in load().wanted()}
    more = {topic.name for topic in load().wanted(ONE_PARTY_EACH)}
    assert more - known == {
        "prescription-submissions.s",
        "dispense-submissions.s",
        "submission-receipts.s",
        "dispense-orders.p",
        "notices.o",
    }
    assert known < more


def test_a_party_that_is_known_already_is_not_asked_for_twice() -> None:
    names = [topic.name for topic in load().wanted(load().parties)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", ["", "Upper", "a/b", "a.b", "a_b", "-a", "a-", "x" * 65, "é", "a b"])
def test_a_party_that_cannot_be_part_of_a_topics_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidPartyError, match="cannot name a topic"):
        Parties(systems=(name,))


@pytest.mark.parametrize(
    "name", ["medication-event", "medication-events.x", "notices", "notices.", "notices.a.b", "notices.A"]
)
def test_a_topic_that_is_not_declared_is_told_apart(name: str) -> None:
    with pytest.raises(UndeclaredTopicError):
        load().topic(name)


def test_the_topic_of_a_party_that_is_not_listed_follows_its_pattern() -> None:
    assert load().partitions("notices.313000079") == load().partitions("notices.<organisation>")


def test_a_field_that_the_loader_does_not_know_is_refused(tmp_path: Path) -> None:
    mistyped = tmp_path / "topics.yaml"
    mistyped.write_text(
        DECLARED.read_text(encoding="utf-8").replace("    kept: for ever", "    kep: for ever"), encoding="utf-8"
    )
    with pytest.raises(msgspec.ValidationError, match="kep"):
        load(mistyped)
