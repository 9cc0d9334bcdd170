"""Where the operator works: the log, the store, and their contents."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from schemas.framing import PLAIN, Framing
from services.clock import Clock, SystemClock
from services.command_line.named_platform import named_platform
from services.medication_list.generations import GenerationRefusedError, refuse_another_log
from services.medication_list.log.source_log import KafkaSourceLog, SourceLog, SourceLogUnavailableError
from services.medication_list.store.inventory import Inventory
from services.medication_list.store.link import Link
from services.medication_list.store.port import Store
from services.medication_list.store.redis_inventory import RedisInventory
from services.medication_list.store.redis_roles import RedisRoles
from services.medication_list.store.redis_store import RedisStore
from services.medication_list.store.roles import Pointer, Roles
from services.publishing.kafka_access import KafkaAccess
from services.publishing.kafka_clients import connect
from services.schema_registry import framing_now
from services.topics.registry import EVENTS_TOPIC, load


@dataclass(frozen=True, slots=True)
class Place:
    """Ports of one platform. `settings` is what child processes are told."""

    roles: Roles
    log: SourceLog
    inventory: Inventory
    store_of: Callable[[str], Store]
    partitions: int
    framing: Framing = PLAIN
    clock: Clock = field(default_factory=SystemClock)
    kafka: KafkaAccess | None = None
    settings: Mapping[str, str] | None = None
    folder: Path | None = None
    """Of the platform that runs here, if it is that one."""

    def pointer(self) -> Pointer:
        """The commit point. Raises GenerationRefusedError in an empty store."""
        pointer = self.roles.pointer()
        if pointer is None:
            raise GenerationRefusedError("There is no view in this store yet: start a processor, or `replay start`.")
        return pointer

    def offsets(self, generation: str) -> Mapping[int, int | None]:
        """How far a generation has come, by partition."""
        return self.roles.offsets(generation, range(self.partitions))


@contextmanager
def open_place() -> Iterator[Place]:
    """The platform of the environment, else the one that runs here.

    Raises NoPlatformError, GenerationRefusedError (Redis holds the view of another log), StoreUnavailableError,
    SourceLogUnavailableError, RegistryUnavailableError, RegistryRefusedError.
    """
    platform = named_platform()
    framing = framing_now(platform.schema_registry)
    with closing(Link(platform.redis)) as link:
        roles, log = RedisRoles(link), KafkaSourceLog(platform.kafka, framing=framing)
        refuse_another_log(roles, log)
        told = platform.kafka.as_environment() | {"MEDCHAIN_REDIS": platform.redis}
        yield Place(
            roles=roles,
            log=log,
            inventory=RedisInventory(link),
            store_of=lambda generation: RedisStore(link, generation),
            partitions=load().partitions(EVENTS_TOPIC),
            framing=framing,
            kafka=platform.kafka,
            settings=told | {"MEDCHAIN_SCHEMA_REGISTRY": platform.schema_registry or ""},
            folder=platform.folder,
        )


class LogTail:
    """Asks the log where it ends, and where it was at some time, again and again over one connection."""

    def __init__(self, kafka: KafkaAccess, partitions: int, topic: str = EVENTS_TOPIC) -> None:
        self._places = [TopicPartition(topic, each) for each in range(partitions)]
        self._consumer: Any = connect(
            KafkaConsumer,
            kafka,
            group_id=None,
            enable_auto_commit=False,
            allow_auto_create_topics=False,
        )

    def ends(self) -> Mapping[int, int]:
        """The offset after the last record of each partition. Raises SourceLogUnavailableError."""
        try:
            return {place.partition: end for place, end in self._consumer.end_offsets(self._places).items()}
        except KafkaError as error:
            raise SourceLogUnavailableError(f"the log does not answer ({type(error).__name__})") from error

    def at(self, time_ms: int) -> Mapping[int, int]:
        """The first offset of each partition whose record the broker took at that time or later."""
        ends = self.ends()
        try:
            found = self._consumer.offsets_for_times(dict.fromkeys(self._places, time_ms))
        except KafkaError as error:
            raise SourceLogUnavailableError(f"the log does not answer ({type(error).__name__})") from error
        return {
            place.partition: ends[place.partition] if found.get(place) is None else found[place].offset
            for place in self._places
        }

    def time_of(self, partition: int, offset: int) -> int:
        """When the broker took a record. Raises GenerationRefusedError where there is none."""
        place = self._places[partition]
        if not 0 <= offset < self.ends()[partition]:
            raise GenerationRefusedError(f"There is no record {partition}-{offset} in the log.")
        self._consumer.assign([place])
        self._consumer.seek(place, offset)
        records: Collection[Any] = ()
        for _ in range(20):
            records = self._consumer.poll(timeout_ms=500, max_records=1).get(place, ())
            if records:
                break
        if not records:
            raise SourceLogUnavailableError(f"the log does not give record {partition}-{offset}")
        return int(next(iter(records)).timestamp)

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close()
