"""What the platform holds, read from Redis through the production store and view: the side that the oracle checks."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import msgspec

from schemas.medication_list import MedicationList
from services.medication_list.fold.remembering import EVENT, event_key, recollect
from services.medication_list.fold.state import Remembered
from services.medication_list.judging import ParkedNote
from services.medication_list.packing import unpack_field, unpack_memory
from services.medication_list.read_api.view import show
from services.medication_list.store.keys import GenerationKeys
from services.medication_list.store.link import Link, command
from services.medication_list.store.port import WholePatient
from services.medication_list.store.redis_roles import RedisRoles
from services.medication_list.store.redis_store import RedisStore
from services.publishing.partitioning import partition_of
from tests.oracle.comparing import Outcome


class NothingHeldError(Exception):
    """There is no view in this Redis."""


class RedisHeld:
    """The live generation. One patient is asked several things in a row, so the last one read is kept."""

    def __init__(self, link: Link, generation: str, partitions: int) -> None:
        self._link = link
        self._generation = generation
        self._partitions = partitions
        self._store = RedisStore(link, generation)
        self._read: tuple[str, WholePatient] | None = None

    def offset(self, partition: int) -> int | None:
        """The next offset that the view will fold."""
        return self._store.next_offsets([partition])[partition]

    def list_of(self, patient: str, at_ms: int) -> MedicationList:
        """The patient's list for a reader's clock."""
        fields = self._whole(patient).fields
        return show({name: unpack_field(name, packed) for name, packed in fields.items()}, at_ms)

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
        return {int(offset): str(msgspec.msgpack.decode(note, type=ParkedNote).reason) for offset, note in notes}

    def _whole(self, patient: str) -> WholePatient:
        if self._read is None or self._read[0] != patient:
            partition = partition_of(patient.encode(), self._partitions)
            self._read = patient, self._store.read_whole(partition, patient, with_index=True)
        return self._read[1]


@contextmanager
def open_redis(url: str, partitions: int) -> Iterator[RedisHeld]:
    """What this Redis holds. Raises NothingHeldError when there is no view in it."""
    link = Link(url)
    try:
        pointer = RedisRoles(link).pointer()
        if pointer is None:
            raise NothingHeldError("there is no view in this Redis: has a processor run?")
        yield RedisHeld(link, pointer.generation, partitions)
    finally:
        link.close()
