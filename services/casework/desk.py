"""What an operator's commands work with: the live view, the log, the relay's progress, and the access record."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.events import Event, ParkedRecordClosed
from schemas.framing import PLAIN, Framing
from services.canonical_log import configure
from services.casework.access_record import AccessRecord, record_path
from services.casework.appending import kafka_append
from services.clock import Clock, SystemClock
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
from services.publishing.kafka_access import KafkaAccess, KafkaSetting
from services.publishing.partitioning import partition_of
from services.schema_registry import framing_at_start
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


class CaseworkSettings(BaseSettings):
    """Where the platform is, if it is not the one that `make up` started."""

    model_config = SettingsConfigDict(env_prefix="MEDCHAIN_", frozen=True)

    kafka: KafkaSetting | None = None
    redis: str | None = None
    schema_registry: str | None = None
    pseudonym_key: SecretStr | None = None
    access_record: Path | None = None
    """The file that says who looked at what, and why."""


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
    pseudonymiser: Pseudonymiser | None
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

    Raises CaseRefusedError, AccessNotRecordedError, NotThereError, StoreUnavailableError, SourceLogUnavailableError.
    """
    configure("casework")
    settings = _completed(CaseworkSettings())
    assert settings.kafka is not None
    assert settings.redis is not None
    assert settings.access_record is not None
    framing, redis = framing_at_start(settings.schema_registry), settings.redis
    link, source = Link(redis), KafkaSourceLog(settings.kafka, framing=framing)
    with closing(link), closing(KafkaRecordLog(settings.kafka)) as records:
        roles = RedisRoles(link)
        try:
            refuse_another_log(roles, source)
        except GenerationRefusedError as refusal:
            raise CaseRefusedError(str(refusal)) from None
        pointer = roles.pointer()
        if pointer is None:
            raise NotThereError("There is no view yet: start a processor.")
        clock, key = SystemClock(), settings.pseudonym_key
        yield Desk(
            store=RedisStore(link, pointer.generation),
            views=lambda: RedisViews(redis),
            generation=pointer.generation,
            roles=roles,
            source=source,
            records=records,
            outbox=RedisOutbox(link),
            partitions=load().partitions(EVENTS_TOPIC),
            clock=clock,
            accesses=AccessRecord(settings.access_record, clock),
            pseudonymiser=None if key is None else Pseudonymiser(bytes.fromhex(key.get_secret_value())),
            append=kafka_append(settings.kafka, load().partitions, framing),
            framing=framing,
            kafka=settings.kafka,
        )


def _completed(settings: CaseworkSettings) -> CaseworkSettings:
    """With what the platform that runs here says, where the environment names none."""
    from deploy.local.keys import keys_of  # noqa: PLC0415  costs time that a call with an address need not spend
    from deploy.local.state import running  # noqa: PLC0415  as above

    if settings.kafka is not None and settings.redis is not None:
        return settings.model_copy(update={"access_record": record_path(settings.access_record, None)})
    state = running()
    if state is None:
        raise CaseRefusedError("No platform: `make up` starts one here, or set MEDCHAIN_KAFKA and MEDCHAIN_REDIS.")
    directory = Path(state.directory)
    own: Mapping[str, object] = {
        "kafka": KafkaAccess(state.kafka),
        "redis": state.redis,
        "schema_registry": state.schema_registry,
        "pseudonym_key": SecretStr(keys_of(directory)["MEDCHAIN_PSEUDONYM_KEY"]),
        "access_record": record_path(settings.access_record, directory),
    }
    return settings.model_copy(update=dict(own))
