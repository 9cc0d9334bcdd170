"""What an operator's commands work with: the live view, the log, the relay's progress, and the access record."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from schemas.events import Event, ParkedRecordClosed
from schemas.framing import PLAIN, Framing
from services.canonical_log import configure
from services.casework.access_record import AccessRecord, record_path
from services.casework.appending import kafka_append
from services.clock import Clock, SystemClock
from services.command_line.named_platform import PSEUDONYM_KEY, named_platform, with_key
from services.identity.pseudonym import Pseudonymiser
from services.medication_list.fold import VERSION
from services.medication_list.generations import GenerationRefusedError, record_of, refuse_another_log
from services.medication_list.log.record_log import KafkaRecordLog, RecordLog
from services.medication_list.log.source_log import KafkaSourceLog, SourceLog
from services.medication_list.refolding.refolder import Refolder
from services.medication_list.store.link import Link
from services.medication_list.store.port import Store
from services.medication_list.store.reading import Views
from services.medication_list.store.redis_outbox import RedisOutbox
from services.medication_list.store.redis_roles import RedisRoles
from services.medication_list.store.redis_store import RedisStore
from services.medication_list.store.redis_views import RedisViews
from services.medication_list.store.roles import Roles, RoleState
from services.medication_list.store.waiting import Outbox
from services.publishing.kafka_access import KafkaAccess
from services.publishing.partitioning import partition_of
from services.schema_registry import framing_now
from services.topics.registry import EVENTS_TOPIC, load

_CURRENT_WITHIN_S: Final = 10.0
_STEP_S: Final = 0.05


class CaseRefusedError(Exception):
    """The command is refused; the text is the one sentence that the operator needs."""


class NotCurrentError(Exception):
    """The view is behind the log, so that it could show less than is known."""


class NotThereError(Exception):
    """What was asked for does not exist; it may yet arrive, like an event appended a moment ago."""


class NotNowError(Exception):
    """The command cannot be done at this moment; trying again may help."""


@dataclass(frozen=True, slots=True)
class Desk:
    """The live generation of the view, and the log that it is made from."""

    store: Store
    views: Callable[[], Views]
    """Where the read API's readers look; made anew for each event loop, and closed with it."""
    generation: str
    roles: Roles
    source: SourceLog
    records: RecordLog
    outbox: Outbox
    partitions: int
    clock: Clock
    accesses: AccessRecord
    pseudonymiser: Callable[[], Pseudonymiser] | None
    """Made only where a national id is asked with; None where the key is not known. Raises NoPlatformError."""
    append: Callable[[Event[ParkedRecordClosed]], int]
    """Appends an operator's own event to the log; gives its offset."""
    framing: Framing = PLAIN
    kafka: KafkaAccess | None = None
    topic: str = EVENTS_TOPIC

    def partition_of(self, patient: str) -> int:
        """Where a patient's records are."""
        return partition_of(patient.encode(), self.partitions)

    def refolder(self) -> Refolder:
        """What folds a patient anew. Raises CaseRefusedError where another version of the fold made the view."""
        pointer = self.roles.pointer()
        made_by = VERSION if pointer is None else record_of(pointer, self.generation).fold_version
        if made_by != VERSION:
            raise CaseRefusedError(
                f"Generation {self.generation} was made by version {made_by} of the fold, and this is version {VERSION}: "
                "use the release that made it, or replay into a new generation."
            )
        return Refolder(self.store, self.records, self.partitions, self.clock.now_ms, self.framing)

    def await_current(self, partition: int) -> None:
        """Return once the view shows all that the log holds now. Raises NotCurrentError after ten seconds.

        An operator must not take what was lost, or has not arrived yet, for something that does not exist.
        """
        end = self.source.ends()[partition]
        deadline = time.monotonic() + _CURRENT_WITHIN_S
        while True:
            role = self.roles.roles([partition])[partition]
            offset = self.store.next_offsets([partition])[partition]
            if role is not None and role.state != RoleState.BUILDING and offset >= end:
                return
            if time.monotonic() >= deadline:
                raise NotCurrentError(
                    f"The view of partition {partition} stands at offset {offset}, and the log ends at {end}: it could "
                    "show less than is known. See that the processor runs, and look again."
                )
            time.sleep(_STEP_S)


DeskOpened = Callable[[], AbstractContextManager[Desk]]
"""A way to open the desk, for as long as one command works at it."""


@contextmanager
def open_desk() -> Iterator[Desk]:
    """The platform of the environment, else the one that runs here.

    Raises NoPlatformError, CaseRefusedError, AccessNotRecordedError, NotThereError, StoreUnavailableError,
    SourceLogUnavailableError, RegistryUnavailableError, RegistryRefusedError.
    """
    configure("casework")
    platform = named_platform()
    accesses = record_path(platform.access_record, platform.folder)
    framing = framing_now(platform.schema_registry)
    link, source = Link(platform.redis), KafkaSourceLog(platform.kafka, framing=framing)
    with closing(link), closing(KafkaRecordLog(platform.kafka)) as records:
        roles = RedisRoles(link)
        try:
            refuse_another_log(roles, source)
        except GenerationRefusedError as refusal:
            raise CaseRefusedError(str(refusal)) from None
        pointer = roles.pointer()
        if pointer is None:
            raise NotThereError("There is no view yet: start a processor.")
        clock = SystemClock()
        yield Desk(
            store=RedisStore(link, pointer.generation),
            views=lambda: RedisViews(platform.redis),
            generation=pointer.generation,
            roles=roles,
            source=source,
            records=records,
            outbox=RedisOutbox(link),
            partitions=load().partitions(EVENTS_TOPIC),
            clock=clock,
            accesses=AccessRecord(accesses, clock),
            pseudonymiser=_pseudonymiser_of(platform.keys),
            append=kafka_append(platform.kafka, load().partitions, framing),
            framing=framing,
            kafka=platform.kafka,
        )


def _pseudonymiser_of(keys: Mapping[str, str | None]) -> Callable[[], Pseudonymiser] | None:
    return partial(with_key, keys, PSEUDONYM_KEY, Pseudonymiser) if keys.get(PSEUDONYM_KEY) else None
