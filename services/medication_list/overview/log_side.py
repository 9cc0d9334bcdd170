"""What the brokers say of the log, for the overview: ends, owners, and since when records wait; connections are kept.

At one look every five seconds, creating a client each time took two thirds of the look's cost, and work of the broker.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import OffsetSpec

from services.publishing.kafka_access import KafkaAccess
from services.publishing.kafka_clients import connect
from services.publishing.kept_admin import KeptAdmin
from services.topics.reading import described, places_of
from services.topics.registry import EVENTS_TOPIC

_ANSWERS_WITHIN_MS: Final = 5_000
_FIRST_RECORDS_WITHIN_S: Final = 2.0
_POLL_MS: Final = 200


class LogSide(msgspec.Struct, frozen=True):
    """By partition: the offset after the last record, and the consumer that works on it."""

    ends: Mapping[int, int] = {}
    owners: Mapping[int, str] = {}


class LogAsker:
    """Asks until something fails, and then over new connections. Blocking; used by one thread at a time."""

    def __init__(self, kafka: KafkaAccess) -> None:
        self.kafka = kafka
        self._admin = KeptAdmin(kafka, _ANSWERS_WITHIN_MS)
        self._consumer: Any = None

    def side(self, groups: Sequence[str]) -> LogSide:
        """`groups`: whose members may work on the log.

        Raises:
            TopicAuthorizationFailedError: this process may not see the log.
            KafkaError: the brokers do not answer; so does OSError tell.
        """
        was_kept = self._admin.is_open
        with self._kept_if_well():
            seen = _seen(self._admin.connected(), groups)
            if was_kept and len(seen.owners) < len(seen.ends):
                # Nobody works on some of them, or whoever leads the group has moved, which a kept client does not notice.
                self._let_go()
                seen = _seen(self._admin.connected(), groups)
        return seen

    def first_waiting(self, places: Mapping[int, int]) -> dict[int, int]:
        """When the broker took the record at each of these offsets, by partition, in milliseconds since the epoch.

        What cannot be read in two seconds is left out. Raises KafkaError.
        """
        if not places:
            return {}
        with self._kept_if_well():
            self._consumer = self._consumer or self._connect()
            found = _times_of_first(self._consumer, places)
            if len(found) < len(places):
                # It may have stopped to look where the partitions are, which this library does for good.
                self._let_go()
        return found

    def close(self) -> None:
        """Let the connections go. The next question makes others."""
        self._admin.close()
        self._let_go()

    def _connect(self) -> Any:
        return connect(
            KafkaConsumer,
            self.kafka,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            allow_auto_create_topics=False,
            # A broker gives at least one batch, however small this is.
            max_partition_fetch_bytes=1,
            fetch_max_bytes=1 << 20,
        )

    @contextmanager
    def _kept_if_well(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._let_go()
            raise

    def _let_go(self) -> None:
        self._admin.let_go()
        spent, self._consumer = self._consumer, None
        if spent is not None:
            spent.close()


def _seen(admin: Any, groups: Sequence[str]) -> LogSide:
    topic = described(admin, EVENTS_TOPIC)
    places = [] if topic is None else places_of(EVENTS_TOPIC, topic)
    found = admin.list_partition_offsets(dict.fromkeys(places, OffsetSpec.LATEST)) if places else {}
    return LogSide({each.partition: found[each].offset for each in places}, _owners(admin, groups))


def _owners(admin: Any, groups: Sequence[str]) -> dict[int, str]:
    """Who works on each partition of the log, by the groups' word."""
    owners: dict[int, str] = {}
    described = admin.describe_groups(list(groups))
    for member in (member for group in groups for member in described[group]["members"]):
        assignment = member["member_assignment"] or {}
        for assigned in assignment.get("assigned_partitions", ()):
            if assigned["topic"] == EVENTS_TOPIC:
                owners |= dict.fromkeys(assigned["partitions"], str(member["member_id"]))
    return owners


def _times_of_first(consumer: Any, places: Mapping[int, int]) -> dict[int, int]:
    """Of each partition the time of its first record from there on. It is paused then: nothing is read between two looks."""
    found: dict[int, int] = {}
    asked = [TopicPartition(EVENTS_TOPIC, each) for each in places]
    consumer.assign(asked)
    for each in asked:
        consumer.seek(each, places[each.partition])
        consumer.resume(each)
    deadline = time.monotonic() + _FIRST_RECORDS_WITHIN_S
    while len(found) < len(places) and time.monotonic() < deadline:
        for place, records in consumer.poll(timeout_ms=_POLL_MS).items():
            found.setdefault(place.partition, records[0].timestamp)
            consumer.pause(place)
    return found
