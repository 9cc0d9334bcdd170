"""A log and a view in memory whose log can be mended: records that could not be read become readable, at their offsets."""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from schemas.codec import encode, name_of
from schemas.events import Body, Event
from schemas.reasons import ParkReason
from services.medication_list.driver.batches import Applied, Fetch, PartitionBatch
from services.medication_list.fold.remembering import recollect
from services.medication_list.judging.counting import Judged
from services.medication_list.judging.judge import Judge
from services.medication_list.log.record_log import MemoryRecordLog
from services.medication_list.refolding.refolder import Refold, Refolder
from services.medication_list.store.keys import GenerationKeys, PartitionKeys
from services.medication_list.store.memory_roles import MemoryRoles
from services.medication_list.store.memory_server import MemoryServer
from services.medication_list.store.memory_store import MemoryStore
from services.medication_list.store.roles import Beginning
from services.medication_list.stored.event_index import is_parked, places_of
from services.medication_list.stored.packing import WaitingEffect, unpack_effect, unpack_field
from services.publishing.log import SUBMISSION_HEADER, cloud_event_headers
from tests.unit.fold_world import ACTORS, MINUTE_MS, PATIENT, Said, at, id_of

GENERATION: Final = "g1-000000"
UNKNOWN: Final = b"\xc3\x01" + b"unknown!"
"""The mark of a schema that no release has."""


class Stored(NamedTuple):
    """A record of the log."""

    offset: int
    key: bytes
    value: bytes
    timestamp: int
    headers: tuple[tuple[str, bytes], ...] = ()


class RefoldWorld:
    """One partition. `append` judges as it goes; `damaged` records are good again once they are mended."""

    def __init__(self) -> None:
        self.server = MemoryServer()
        MemoryRoles(self.server).begin({0: Beginning(GENERATION, 1, 0, 0)})
        self.store = MemoryStore(self.server, GENERATION)
        self.records: dict[tuple[int, int], Stored] = {}
        self.log = MemoryRecordLog(self.records)
        self.good: dict[int, Stored] = {}
        self.told: list[Judged] = []
        self.now_ms = 0

    def append(self, event: Event[Body], at_ms: int, *, damaged: bool = False, submission: bool = False) -> int:
        """Append and judge one event; returns its offset."""
        offset = len(self.records)
        headers = tuple(
            cloud_event_headers(
                event_id=event.event_id, event_type=name_of(event), source=event.source.system, time_ms=at_ms
            )
        )
        if submission:
            headers += ((SUBMISSION_HEADER, f"message-{offset}".encode()),)
        good = Stored(offset, event.patient.encode(), encode(event), at_ms, headers)
        self.records[0, offset] = good._replace(value=UNKNOWN + good.value[10:]) if damaged else good
        if damaged:
            self.good[offset] = good
        self.now_ms = max(self.now_ms, at_ms)
        self.judge([self.records[0, offset]])
        return offset

    def add(self, record: Stored) -> None:
        """Append and judge a record as it is."""
        self.records[0, record.offset] = record
        self.judge([record])

    def judge(self, records: Iterable[Stored]) -> None:
        """As the processor does."""
        batch = list(records)
        if not batch:
            return
        first, last = batch[0].offset, batch[-1].offset
        verdicts = Judge(self.store, 1, told=self.told.append).process(
            Fetch((PartitionBatch(0, first, last + 1, batch, 0),))
        )
        assert verdicts == {0: Applied(last + 1)}

    def mend(self, offsets: Iterable[int]) -> None:
        """From now on these can be read."""
        for offset in offsets:
            self.records[0, offset] = self.good.pop(offset)

    @property
    def refolder(self) -> Refolder:
        """The thing under test."""
        return Refolder(self.store, self.log, 1, lambda: self.now_ms, told=self.told.append)

    def afresh(self) -> "RefoldWorld":
        """Another view, made of the log as it is now."""
        other = RefoldWorld()
        other.records.update(self.records)
        other.judge(self.records.values())
        return other

    def alarms(self) -> tuple[int, int]:
        """How many were counted: numbers under a second patient, and events that say otherwise what was said before."""
        return sum(each.conflicts for each in self.told), sum(each.conflicting for each in self.told)

    # --- What stands ---------------------------------------------------------------------------------------------

    def effects(self) -> list[WaitingEffect]:
        """Everything that ever went into the outbox."""
        packed = self.server.content().get(PartitionKeys(0).outbox, [])
        assert isinstance(packed, list)
        return [unpack_effect(each) for each in packed]

    def view(self, patient: str) -> dict[str, object]:
        """All that a generation is compared by: the patient's hash and index, who is found by what, what is parked."""
        keys, content = GenerationKeys(GENERATION, 0), self.server.content()
        named = (keys.list_key(patient), keys.events_key(patient), keys.rx, keys.parked)
        return {name: content.get(name, {}) for name in named}


class Story:
    """Small histories by name, a minute between events."""

    def __init__(self) -> None:
        self.world = RefoldWorld()
        self.now_ms = at(0)

    def say(
        self,
        said: Said,
        *,
        patient: str = PATIENT,
        damaged: bool = False,
        event_id: str | None = None,
        submission: bool = False,
    ) -> int:
        """Append it; returns its offset."""
        self.now_ms += MINUTE_MS
        event: Event[Body] = Event(
            event_id=event_id or said.event_id or id_of(f"event {len(self.world.records)}"),
            patient=patient,
            occurred_at_ms=said.at_ms if said.at_ms is not None else self.now_ms,
            received_at_ms=self.now_ms,
            source=ACTORS[said.by],
            body=said.body,
        )
        return self.world.append(event, self.now_ms, damaged=damaged, submission=submission)

    def refold(self) -> Refold:
        """Mend everything and refold."""
        self.world.mend(list(self.world.good))
        done = self.world.refolder.refold(PATIENT)
        assert done is not None
        return done

    def field(self, name: str) -> Any:
        """A field of the patient's hash."""
        return unpack_field(name, self.world.store.read_whole(0, PATIENT).fields[name])

    def outcome(self, offset: int = -1) -> str:
        """What is remembered of the record at an offset, the last one unless said."""
        whole = self.world.store.read_whole(0, PATIENT, with_index=True)
        known = places_of(whole.fields, whole.remembered)[offset if offset >= 0 else len(self.world.records) - 1]
        assert known is not None
        if is_parked(known):
            return f"parked({ParkReason.from_code(known.reason)})"
        verdict = recollect(known)
        return f"refused({verdict.reason})" if verdict.reason else verdict.outcome
