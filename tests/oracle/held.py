"""What the platform holds, read from Redis through the production store and view: the side that the oracle checks."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

from schemas.medication_list import MedicationList
from services.medication_list.fold.remembering import EVENT, event_key, recollect
from services.medication_list.fold.state import Remembered
from services.medication_list.log.record_log import KafkaRecordLog
from services.medication_list.read_api.log_lookup import LogLookup
from services.medication_list.read_api.number_conflicts import NumberConflicts, PatientView, numbers_of, others_too
from services.medication_list.read_api.view import Fields, show
from services.medication_list.store.keys import GenerationKeys, disputed_name
from services.medication_list.store.link import Link, command
from services.medication_list.store.port import WholePatient
from services.medication_list.store.reading import ViewReader, patients_in
from services.medication_list.store.redis_roles import RedisRoles
from services.medication_list.store.redis_store import RedisStore
from services.medication_list.store.redis_views import RedisViews
from services.medication_list.stored.packing import unpack_field, unpack_memory
from services.medication_list.stored.parked_note import unpack_note
from services.publishing.kafka_access import KafkaAccess
from services.publishing.partitioning import partition_of
from tests.oracle.comparing import Outcome

Settle = Callable[[str], PatientView]
"""What readers are shown of a patient with a number that is another's too."""


class NothingHeldError(Exception):
    """There is no view in this Redis."""


class RedisHeld:
    """The live generation. One patient is asked several things in a row, so the last one read is kept."""

    def __init__(self, link: Link, generation: str, partitions: int, settle: Settle) -> None:
        self._link = link
        self._settle = settle
        self._generation = generation
        self._partitions = partitions
        self._store = RedisStore(link, generation)
        self._read: tuple[str, WholePatient] | None = None

    def offset(self, partition: int) -> int | None:
        """The next offset that the view will fold."""
        return self._store.next_offsets([partition])[partition]

    def list_of(self, patient: str, at_ms: int) -> MedicationList:
        """The patient's list for a reader's clock."""
        whole = self._whole(patient).fields
        fields: Fields = {name: unpack_field(name, packed) for name, packed in whole.items()}
        if not others_too(patient, self._owners_of(list(numbers_of(fields)))):
            return show(fields, at_ms)
        view = self._settle(patient)
        return show(view.fields, at_ms, view.flagged)

    def outcomes_of(self, patient: str, events: Collection[str]) -> Mapping[str, Outcome]:
        """First outcome, its reason and its flags, of those of these events that were judged."""
        index = self._whole(patient).remembered
        found = {}
        for event_id in events:
            key = event_key(event_id)
            if key in index:
                memory = unpack_memory(key, index[key])
                assert isinstance(memory, Remembered), "an event is remembered with its outcome"
                verdict = recollect(memory)
                reason = str(verdict.reason) if verdict.reason else None
                found[event_id] = (verdict.outcome, reason, frozenset(str(flag) for flag in verdict.flags))
        return found

    def judged(self, patient: str) -> int:
        """How many events of the patient were judged."""
        return sum(key.startswith(EVENT) for key in self._whole(patient).remembered)

    def parked(self, partition: int) -> Mapping[int, str]:
        """Offset -> reason, of every record that was set aside."""
        flat = self._link.ask([command("HGETALL", GenerationKeys(self._generation, partition).parked)])[0]
        notes = zip(flat[::2], flat[1::2], strict=True)
        return {int(offset): str(unpack_note(note).reason) for offset, note in notes}

    def _owners_of(self, names: list[str]) -> Mapping[str, Collection[str]]:
        """Who has each of these prescription ids and reference numbers, in the index of every partition."""
        owners: defaultdict[str, set[str]] = defaultdict(set)
        keys = [GenerationKeys(self._generation, each).rx for each in range(self._partitions)]
        asked = (*names, *map(disputed_name, names))
        for values in self._link.ask([command("HMGET", key, *asked) for key in keys]) if names else ():
            for name, packed in zip(asked, values, strict=True):
                owners[name.removeprefix("!")] |= set(patients_in((packed or b"").decode()))
        return owners

    def _whole(self, patient: str) -> WholePatient:
        if self._read is None or self._read[0] != patient:
            partition = partition_of(patient.encode(), self._partitions)
            self._read = patient, self._store.read_whole(partition, patient, with_index=True)
        return self._read[1]


@contextmanager
def open_redis(url: str, partitions: int, kafka: KafkaAccess) -> Iterator[RedisHeld]:
    """What this Redis holds; `kafka` is the log that it was made from. Raises NothingHeldError where there is no view."""

    def settle(patient: str) -> PatientView:
        return asyncio.run(_settled(url, partitions, kafka, patient))

    link = Link(url)
    try:
        pointer = RedisRoles(link).pointer()
        if pointer is None:
            raise NothingHeldError("There is no view in this Redis: has a processor run?")
        yield RedisHeld(link, pointer.generation, partitions, settle)
    finally:
        link.close()


async def _settled(url: str, partitions: int, kafka: KafkaAccess, patient: str) -> PatientView:
    async def no_ends() -> Mapping[int, int]:
        return {}  # how far the view has come is the comparison's own affair

    reader, log = ViewReader(RedisViews(url), partitions, no_ends), LogLookup(KafkaRecordLog(kafka))
    try:
        return await NumberConflicts(reader, log).shown(patient)
    finally:
        await log.close()
        await reader.close()
