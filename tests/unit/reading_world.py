"""The read API before a view and a log in memory: what is said is judged at once, and asked for by a request."""

import json
import uuid
from collections.abc import Mapping
from typing import Any, Final

import httpx
from msgspec.structs import replace

from schemas.codec import decode, encode
from schemas.events import Body, Event
from services.admission.door import Door
from services.admission.read_token import ReadTokens
from services.clock import ManualClock
from services.health import Readiness
from services.identity.national_id import synthetic
from services.identity.pseudonym import Pseudonymiser
from services.medication_list.driver.batches import Applied, Fetch, PartitionBatch
from services.medication_list.judging.judge import Judge
from services.medication_list.log.positions import place_of
from services.medication_list.log.record_log import MemoryRecordLog
from services.medication_list.read_api.api import Parts
from services.medication_list.read_api.app import create_app
from services.medication_list.read_api.event_places import EventPlaces
from services.medication_list.read_api.log_lookup import LogLookup
from services.medication_list.read_api.number_conflicts import NumberConflicts
from services.medication_list.read_api.outcomes import Outcomes
from services.medication_list.read_api.presenting import to_json
from services.medication_list.read_api.read_metrics import ReadMetrics
from services.medication_list.read_api.requests import OutcomeAsked
from services.medication_list.store.memory_roles import MemoryRoles
from services.medication_list.store.memory_server import MemoryServer
from services.medication_list.store.memory_store import MemoryStore
from services.medication_list.store.memory_views import MemoryViews
from services.medication_list.store.reading import ViewReader
from services.medication_list.store.roles import Beginning
from services.publishing.partitioning import partition_of
from services.telemetry import new_registry
from services.topics.registry import EVENTS_TOPIC, load
from tests.unit.fold_world import ACTORS, MINUTE_MS, Said, at, id_of
from tests.unit.refold_world import GENERATION, UNKNOWN, Stored

PARTITIONS: Final = load().partitions(EVENTS_TOPIC)
TOKENS: Final = ReadTokens(b"r" * 32)
DOOR: Final = Door(Pseudonymiser(b"p" * 32), TOKENS)


class Citizen:
    """Somebody whose list is read."""

    def __init__(self, number: int) -> None:
        self._national_id = synthetic(number)
        self.key = DOOR.patient_key(self._national_id)
        self.partition = partition_of(self.key.encode(), PARTITIONS)

    def id_of(self, name: str) -> str:
        """The id of a prescription of this citizen: another's of the same name has another one."""
        return str(uuid.uuid5(uuid.UUID(id_of(name)), self.key))

    def body(self, **more: Any) -> dict[str, Any]:
        """The body of a request about this citizen."""
        return {"patient": {"national_id": self._national_id.digits}, **more}


class ReadingWorld:
    """`close` it. Positions are those of the declared number of partitions, as in the log itself."""

    def __init__(self) -> None:
        self.clock = ManualClock(at(0))
        self.server = MemoryServer()
        self.roles = MemoryRoles(self.server)
        self.store = MemoryStore(self.server, GENERATION)
        self.records: dict[tuple[int, int], Stored] = {}
        self._citizens = 0
        self.begin(range(PARTITIONS))
        reader = ViewReader(MemoryViews(self.server), PARTITIONS, self._log_ends)
        self._log = LogLookup(MemoryRecordLog(self.records))
        registry = new_registry()
        numbers = NumberConflicts(reader, self._log, ReadMetrics(registry).found_conflict)
        self._outcomes = Outcomes(reader, self._log, numbers)
        self._parts = Parts(
            reader,
            self._log,
            numbers,
            self._outcomes,
            EventPlaces("redis://127.0.0.1:1/0", PARTITIONS),  # nobody asks for an event by its id alone
            DOOR,
            TOKENS,
            self.clock,
            PARTITIONS,
            Readiness({}),
            registry,
        )

    async def close(self) -> None:
        """Let everything go."""
        await self._parts.reader.close()
        await self._parts.places.close()
        await self._log.close()

    # --- The log and the view -------------------------------------------------------------------------------------

    def citizens(self) -> tuple[Citizen, Citizen]:
        """Two whom nobody knows yet, of different partitions."""
        first = self._citizen()
        second = self._citizen()
        while second.partition == first.partition:
            second = self._citizen()
        return first, second

    def _citizen(self) -> Citizen:
        self._citizens += 1
        return Citizen(self._citizens)

    def say(self, citizen: Citizen, said: Said, *, event_id: str | None = None) -> str:
        """A minute later; returns its position."""
        self.clock.advance(MINUTE_MS)
        body, now_ms = said.body, self.clock.now_ms()
        if hasattr(body, "prescription"):
            body = replace(body, prescription=str(uuid.uuid5(uuid.UUID(body.prescription), citizen.key)))
        event: Event[Body] = Event(
            event_id=event_id or str(uuid.uuid4()),
            patient=citizen.key,
            occurred_at_ms=now_ms,
            received_at_ms=now_ms,
            source=ACTORS[said.by],
            body=body,
        )
        return self._append(citizen, encode(event))

    def say_what_nobody_can_read(self, citizen: Citizen) -> str:
        """A minute later; returns its position."""
        self.clock.advance(MINUTE_MS)
        return self._append(citizen, UNKNOWN)

    def _append(self, citizen: Citizen, value: bytes) -> str:
        offset = self._end(citizen.partition)
        record = Stored(offset, citizen.key.encode(), value, self.clock.now_ms())
        self.records[citizen.partition, offset] = record
        self._judge(citizen.partition, [record])
        return f"{citizen.partition}-{offset}"

    def _judge(self, partition: int, records: list[Stored]) -> None:
        first, end = records[0].offset, records[-1].offset + 1
        fetch = Fetch((PartitionBatch(partition, first, end, records, 0),))
        assert Judge(self.store, PARTITIONS).process(fetch) == {partition: Applied(end)}

    def lay_over(self, position: str, citizen: Citizen) -> None:
        """The log lost this record, and one of somebody else took its place."""
        partition, offset = map(int, position.split("-"))
        (theirs,) = [record for record in self.records.values() if record.key == citizen.key.encode()][:1]
        self.records[partition, offset] = theirs._replace(offset=offset)

    def lose(self, partition: int) -> None:
        """The server comes back without anything of this partition."""
        left = self.server.save()
        left.hashes = {key: value for key, value in left.hashes.items() if f"{{{partition}}}" not in key}
        self.server.roll_back(left)

    def begin(self, partitions: range) -> None:
        """Begin the generation here; where something was in the log, it is shown once it has come to the log's end."""
        beginnings = {each: Beginning(GENERATION, 1, self._end(each), 0) for each in partitions}
        assert not self.roles.begin(beginnings)

    def catch_up(self, partition: int) -> None:
        """Judge the whole log of a partition that was begun anew."""
        self._judge(partition, [self.records[partition, each] for each in range(self._end(partition))])

    def _end(self, partition: int) -> int:
        return sum(1 for each, _ in self.records if each == partition)

    async def _log_ends(self) -> Mapping[int, int]:
        return {each: self._end(each) for each in range(PARTITIONS)}

    # --- What is asked --------------------------------------------------------------------------------------------

    async def outcome(self, citizen: Citizen, position: str) -> dict[str, Any]:
        """What a service that appended the record there is answered."""
        place = place_of(position, PARTITIONS)
        record = self.records[place].value
        event: Event[Body] = decode(record)
        asked = OutcomeAsked(patient=citizen.key, event_id=event.event_id, **place._asdict(), record=record)
        told = await self._outcomes.awaited(asked, self.clock.now_ms)
        return dict(json.loads(to_json(told)))

    async def post(self, path: str, sent: object) -> httpx.Response:
        """A request with a body."""
        return await self._ask("POST", path, sent, "doctor")

    async def get(self, path: str, *, role: str = "doctor") -> httpx.Response:
        """A request without one."""
        return await self._ask("GET", path, None, role)

    async def _ask(self, method: str, path: str, sent: object, role: str) -> httpx.Response:
        app = create_app(_never_opened)
        app.state.parts = self._parts
        caller = {"Medchain-Caller": f"system=journal; organisation=974760673; role={role}; person=9144900"}
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://list") as http:
            return await http.request(method, path, json=sent, headers=caller)


def _never_opened() -> Any:
    raise AssertionError("the parts are there already")
