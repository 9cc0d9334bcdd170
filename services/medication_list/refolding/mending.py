"""Refolds automatically what was parked for a schema that this release has: on getting a partition, and every minute.

The entry function is `Mender.mend`. Records parked for other reasons wait for an operator.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final

from schemas.codec import release_of
from schemas.framing import PLAIN, Framing, RegistryUnavailableError
from schemas.reasons import ParkReason
from services.canonical_log import get_logger
from services.medication_list.judging.items import Readable, item_of
from services.medication_list.log.record_log import LogLookupError, RecordLog
from services.medication_list.refolding.refolder import Refolder, RefoldRefusedError
from services.medication_list.store.port import Store, StoreUnavailableError
from services.medication_list.stored.parked_note import ParkedNote, unpack_note

AT_MOST: Final = 200
"""*Policy*: parked records that are looked at in one look at a partition; the next look goes on with what is left."""
AGAIN_S: Final = 60.0
"""*Policy*: how long until a partition is looked at again; what an older release has parked since is found then."""
_HELD_FOR_S: Final = 10.0
_LET_THROUGH_S: Final = 0.2
_STEP_S: Final = 0.02
_MARK_DIGITS: Final = 16
_log = get_logger()


class Mender:
    """Looks through parked records. Several may, of one release or of several: the epoch rule decides each refold."""

    def __init__(
        self,
        refolder: Refolder,
        store: Store,
        records: RecordLog,
        partitions: int,
        framing: Framing = PLAIN,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`store` is the one that `refolder` works in; `sleep`: how to wait between two patients, in seconds."""
        self._refolder = refolder
        self._store = store
        self._records = records
        self._partitions = partitions
        self._framing = framing
        self._sleep = sleep
        self._looked_at: dict[int, int] = {}
        """By partition, the last offset that was looked at: what cannot be read yet must not hide what comes after it."""

    def mend(self, partition: int) -> int:
        """Refold the patients of whose parked records one can be read now; returns how many were.

        Raises LogLookupError, StoreUnavailableError, RegistryUnavailableError: what was done stands, look again.
        """
        mended = 0
        for patient in self._mendable(partition):
            try:
                done = self._refolder.refold(patient)
            except RefoldRefusedError as error:
                # By its type: not now, which the next look tries again, or not at all, which is for a person.
                _log.warning("patient_not_refolded", partition=partition, error_type=type(error).__name__)
                continue
            if done is not None and done.is_needed:
                mended += 1
                self._let_through(partition)
        if mended:
            _log.info("parked_records_mended", partition=partition, patients=mended)
        return mended

    def _mendable(self, partition: int) -> Collection[str]:
        """The patients of those among the next parked records that can be read now, in log order."""
        notes = dict(self._awaiting_schema(partition))
        records = self._records.read(partition, list(notes))
        items = (item_of(records[offset], partition, self._partitions, self._framing) for offset in sorted(records))
        return dict.fromkeys(item.patient for item in items if isinstance(item, Readable))

    def _awaiting_schema(self, partition: int) -> Iterator[tuple[int, ParkedNote]]:
        parked = self._store.parked(partition)
        after = self._looked_at.pop(partition, -1)
        found = ((offset, unpack_note(parked[offset])) for offset in sorted(parked) if offset > after)
        for number, (offset, note) in enumerate((offset, note) for offset, note in found if _is_hopeful(note)):
            if number == AT_MOST:
                return
            if number == AT_MOST - 1:
                self._looked_at[partition] = offset
            yield offset, note

    def _let_through(self, partition: int) -> None:
        """Each refold has the partition's batch under way read again: let one come through before the next refold."""
        stood = self._store.next_offsets([partition])
        for _ in range(int(_LET_THROUGH_S / _STEP_S)):
            self._sleep(_STEP_S)
            if self._store.next_offsets([partition]) != stood:
                return


def _is_hopeful(note: ParkedNote) -> bool:
    """Whether it waits for a schema that may be there now; one of a registry can only be told by reading the record."""
    if note.reason != ParkReason.UNKNOWN_SCHEMA or note.patient is None:
        return False
    if note.schema is None:
        return True
    try:
        mark = bytes.fromhex(note.schema)
    except ValueError:
        return True
    return len(note.schema) != _MARK_DIGITS or release_of(mark) is not None


class Held:
    """The partitions that a worker was asked about recently, by the monotonic clock."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._asked_s: dict[int, float] = {}
        self._due_s: dict[int, float] = {}
        self._lock = threading.Lock()

    def asked(self, partitions: Collection[int]) -> None:
        """The driver holds these, or begins to."""
        now_s = self._now_s()
        with self._lock:
            for partition in partitions:
                if now_s - self._asked_s.get(partition, -_HELD_FOR_S) >= _HELD_FOR_S:
                    self._due_s[partition] = now_s
                self._asked_s[partition] = now_s

    def due(self) -> Collection[int]:
        """Those to look at now; each of them once a minute."""
        now_s = self._now_s()
        with self._lock:
            held: Mapping[int, float] = {
                partition: due_s
                for partition, due_s in self._due_s.items()
                if now_s - self._asked_s[partition] < _HELD_FOR_S
            }
            found = [partition for partition, due_s in held.items() if due_s <= now_s]
            self._due_s = {**held, **dict.fromkeys(found, now_s + AGAIN_S)}
            return found

    def again(self, partition: int) -> None:
        """Look at this one at the next occasion: there is more, or it did not come through."""
        with self._lock:
            if partition in self._due_s:
                self._due_s[partition] = self._now_s()


def mend_held(held: Held, mend: Callable[[int], int]) -> None:
    """One round over the partitions that are due. Whatever fails is looked at again in the next round."""
    for partition in held.due():
        try:
            if mend(partition):
                held.again(partition)
        except (LogLookupError, StoreUnavailableError, RegistryUnavailableError) as error:
            _log.warning("mending_failed", partition=partition, error_type=type(error).__name__)
            held.again(partition)
        except Exception as error:  # noqa: BLE001 - the thread must outlive it: what is parked stays parked, with an alarm
            _log.error("mending_failed", partition=partition, error_type=type(error).__name__)


def keep_mending(held: Held, mend: Callable[[int], int], every_s: float = 1.0) -> threading.Thread:
    """Look at what is held until the process ends, beside everything else that it does."""

    def run() -> None:
        while True:
            mend_held(held, mend)
            time.sleep(every_s)

    thread = threading.Thread(target=run, name="mending", daemon=True)
    thread.start()
    return thread
