"""What a generation must know of its log: which log it is, where it ends, and up to where effects were relayed."""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError, KafkaTimeoutError, TopicAuthorizationFailedError

from schemas.codec import decode
from schemas.events import RelayProgress
from schemas.framing import PLAIN, Framing, RegistryUnavailableError
from services.publishing.kafka_access import KafkaAccess, no_right_to, refusal
from services.publishing.kafka_clients import connect
from services.topics.reading import described, is_behind, places_of
from services.topics.registry import EVENTS_TOPIC

PROGRESS_TOPIC: Final = "relay-progress"
_POLL_MS: Final = 500
_ANSWERS_WITHIN_MS: Final = 10_000
"""A broker that is silent for so long counts as away: the caller says so and asks again, instead of waiting for minutes."""


class SourceLogUnavailableError(Exception):
    """The log does not answer, or lacks a topic."""


class LogIdentity(NamedTuple):
    """Which log it is: a topic deleted and created again has the same name and another id."""

    cluster: str
    topic: str


class SourceLog(Protocol):
    """The log of medication events, seen from outside. Blocking; raises SourceLogUnavailableError."""

    def identity(self) -> LogIdentity:
        """Cluster id and topic id."""
        ...

    def ends(self) -> Mapping[int, int]:
        """The offset after the last record, for every partition of the topic."""
        ...

    def relayed(self) -> Mapping[int, RelayProgress]:
        """What the relay noted last of each partition; one of which nothing was relayed is not there."""
        ...


class KafkaSourceLog:
    """The real one. It connects for each call: it is asked when a process starts."""

    def __init__(
        self,
        kafka: KafkaAccess,
        *,
        events: str = EVENTS_TOPIC,
        progress: str = PROGRESS_TOPIC,
        framing: Framing = PLAIN,
        answers_within_ms: int = _ANSWERS_WITHIN_MS,
    ) -> None:
        """`answers_within_ms`: a broker that is silent for longer does not answer."""
        self._answers_within_ms = answers_within_ms
        self._kafka = kafka
        self._events = events
        self._progress = progress
        self._framing = framing

    def identity(self) -> LogIdentity:
        """See `SourceLog.identity`."""
        try:
            with closing(self._admin()) as admin:
                return LogIdentity(
                    str(admin.describe_cluster()["cluster_id"]), str(_topic(admin, self._events)["topic_id"])
                )
        except KafkaError as error:
            raise self._unavailable(error) from error

    def ends(self) -> Mapping[int, int]:
        """See `SourceLog.ends`."""
        try:
            with closing(self._admin()) as admin:
                found = admin.list_partition_offsets(dict.fromkeys(_places(admin, self._events), OffsetSpec.LATEST))
                return {place.partition: each.offset for place, each in found.items()}
        except KafkaError as error:
            raise self._unavailable(error) from error

    def relayed(self) -> Mapping[int, RelayProgress]:
        """See `SourceLog.relayed`."""
        try:
            with closing(self._admin()) as admin:
                places = _places(admin, self._progress)
            with closing(
                connect(
                    KafkaConsumer,
                    self._kafka,
                    bootstrap_timeout_ms=self._answers_within_ms,
                    request_timeout_ms=self._answers_within_ms,
                    group_id=None,
                    enable_auto_commit=False,
                    auto_offset_reset="earliest",
                    allow_auto_create_topics=False,
                )
            ) as consumer:
                return self._read_progress(consumer, places)
        except KafkaError as error:
            raise self._unavailable(error) from error
        except RegistryUnavailableError as error:
            raise SourceLogUnavailableError("the progress cannot be read while the schema registry is away") from error

    def _read_progress(self, consumer: Any, places: Sequence[TopicPartition]) -> dict[int, RelayProgress]:
        """Compaction may not have come by: the last record of a key counts, and no other is decoded."""
        consumer.assign(places)
        ends = consumer.end_offsets(places)
        consumer.seek_to_beginning(*places)
        newest: dict[bytes, bytes] = {}
        heard_at_s = time.monotonic()
        while is_behind(consumer, ends, _POLL_MS):
            polled = consumer.poll(timeout_ms=_POLL_MS)
            if polled:
                heard_at_s = time.monotonic()
            elif time.monotonic() - heard_at_s > self._answers_within_ms / 1000:
                raise KafkaTimeoutError("nothing came of what is there")
            for records in polled.values():
                newest.update((record.key, record.value) for record in records if record.value is not None)
        return {noted.partition: noted for noted in map(self._progress_in, newest.values())}

    def _progress_in(self, value: bytes) -> RelayProgress:
        noted = decode(self._framing.from_topic(value))
        assert isinstance(noted, RelayProgress)
        return noted

    def _admin(self) -> Any:
        return connect(
            KafkaAdminClient,
            self._kafka,
            bootstrap_timeout_ms=self._answers_within_ms,
            request_timeout_ms=self._answers_within_ms,
        )

    def _unavailable(self, error: KafkaError) -> SourceLogUnavailableError:
        return SourceLogUnavailableError(
            refusal(self._kafka)
            or f"the log at {self._kafka} did not answer within {self._answers_within_ms / 1000:g} s "
            f"({type(error).__name__})"
        )


def _topic(admin: Any, name: str) -> Mapping[str, Any]:
    try:
        found = described(admin, name)
    except TopicAuthorizationFailedError:
        raise SourceLogUnavailableError(no_right_to(name)) from None
    if found is None:
        raise SourceLogUnavailableError(f"the log has no topic {name}")
    return found


def _places(admin: Any, topic: str) -> list[TopicPartition]:
    return places_of(topic, _topic(admin, topic))


@dataclass
class MemorySourceLog:
    """One in memory, to be set as a test wants it."""

    log_identity: LogIdentity = field(default_factory=lambda: LogIdentity("cluster", "topic"))
    log_ends: dict[int, int] = field(default_factory=dict)
    log_relayed: dict[int, RelayProgress] = field(default_factory=dict)

    def identity(self) -> LogIdentity:
        """See `SourceLog.identity`."""
        return self.log_identity

    def ends(self) -> Mapping[int, int]:
        """See `SourceLog.ends`."""
        return dict(self.log_ends)

    def relayed(self) -> Mapping[int, RelayProgress]:
        """See `SourceLog.relayed`."""
        return dict(self.log_relayed)
