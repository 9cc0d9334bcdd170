"""A topic for a reader: its partitions, and whether they have been read to their ends."""

from collections.abc import Mapping
from contextlib import closing
from typing import Any, Final

from kafka import KafkaAdminClient, TopicPartition
from kafka.errors import TopicAuthorizationFailedError

from services.publishing.kafka_access import KafkaAccess
from services.publishing.kafka_clients import connect

_ANSWERS_WITHIN_MS: Final = 10_000


def places(kafka: KafkaAccess, topic: str, within_ms: int = _ANSWERS_WITHIN_MS) -> list[TopicPartition]:
    """Every partition of a topic; none where there is no such topic.

    A consumer's own `partitions_for_topic` waits without a bound for metadata, and for ever if its client has stopped
    looking for any, which a connection that ends at the wrong moment causes.

    Raises:
        TopicAuthorizationFailedError: see `described`.
        KafkaError: the cluster cannot be reached.
    """
    bounds = {"bootstrap_timeout_ms": within_ms, "request_timeout_ms": within_ms}
    with closing(connect(KafkaAdminClient, kafka, **bounds)) as admin:
        found = described(admin, topic)
        return [] if found is None else places_of(topic, found)


def described(admin: Any, topic: str) -> Mapping[str, Any] | None:
    """What the cluster says of a topic, `topic_id` and `partitions` among it; None where there is no such topic.

    Raises:
        TopicAuthorizationFailedError: the user has no right to see it. The cluster then names no partitions, as if
            there were no topic.
        KafkaError: the cluster cannot be reached.
    """
    found: Mapping[str, Any] | None = next(iter(admin.describe_topics([topic])), None)
    if found is not None and found["error_code"] == TopicAuthorizationFailedError.errno:
        raise TopicAuthorizationFailedError(topic)
    return found if found is not None and found["partitions"] else None


def places_of(topic: str, described: Mapping[str, Any]) -> list[TopicPartition]:
    """Every partition of a topic that was described."""
    return [TopicPartition(topic, each) for each in range(len(described["partitions"]))]


def is_behind(consumer: Any, ends: Mapping[TopicPartition, int], within_ms: int) -> bool:
    """Whether a consumer has yet to come to one of these ends. Where it stands is asked for so long at most, as above."""
    return any((consumer.position(place, timeout_ms=within_ms) or 0) < end for place, end in ends.items())
