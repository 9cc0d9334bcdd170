"""What was parked for want of a schema is refolded when the schema is there, bounded, by one worker or by several."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

from schemas import codec
from schemas.events import Body, Event
from schemas.framing import Framing
from services.canonical_log.allowed_keys import ALLOWED
from services.medication_list.driver.batches import Applied, Fetch, PartitionBatch
from services.medication_list.fold import VERSION
from services.medication_list.generations import RELEASE, GenerationRecord, GenerationState, begin_beside, mark
from services.medication_list.judging.judge import Judge
from services.medication_list.log.source_log import MemorySourceLog
from services.medication_list.processor.worker import LOOK_AROUND_EVERY_S, Patience, Worker
from services.medication_list.refolding import mending
from services.medication_list.refolding.mending import AGAIN_S, Held, Mender, mend_held
from services.medication_list.refolding.refolder import Refolder
from services.medication_list.store.memory_roles import MemoryRoles
from services.medication_list.store.memory_store import MemoryStore
from services.medication_list.store.port import Store, StoreUnavailableError
from services.medication_list.store.roles import RoleState
from services.medication_list.switch_protocol import flip, freeze
from tests.unit.fold_world import ACTORS, at, id_of, issued
from tests.unit.refold_world import RefoldWorld, Stored

SCHEMA_ID = 7


class Registry:
    """Knows the schema only once it is told."""

    def __init__(self) -> None:
        self.schemas: dict[int, Mapping[str, Any]] = {}

    def schema_of(self, schema_id: int) -> Mapping[str, Any] | None:
        """See `Registry.schema_of`."""
        return self.schemas.get(schema_id)

    def learn(self) -> None:
        """From now on it is there."""
        self.schemas[SCHEMA_ID] = codec.newest("PrescriptionIssued").schema


class Parked:
    """A partition in which prescriptions of so many patients were parked for want of a schema."""

    def __init__(self, patients: int) -> None:
        self.world = RefoldWorld()
        self.registry = Registry()
        self.patients = [f"{number:032x}" for number in range(patients)]
        for offset, patient in enumerate(self.patients):
            body = issued(f"R{offset}", f"T{offset}").body
            event: Event[Body] = Event(
                event_id=id_of(f"event {offset}"),
                patient=patient,
                occurred_at_ms=at(0),
                received_at_ms=at(0),
                source=ACTORS["A"],
                body=body,
            )
            framed = b"\x00" + SCHEMA_ID.to_bytes(4, "big") + codec.encode(event)[10:]
            self.world.records[0, offset] = Stored(offset, patient.encode(), framed, at(0))
        self.judge_in(self.world.store)

    def judge_in(self, store: Store) -> None:
        """As a worker does that feeds this one."""
        records = list(self.world.records.values())
        judge = Judge(store, 1, Framing(self.registry))
        assert judge.process(Fetch((PartitionBatch(0, 0, len(records), records, 0),))) == {0: Applied(len(records))}

    def mender(self) -> Mender:
        """A worker's, with what a process knows of the registry."""
        return self.mender_in(self.world.store)

    def mender_in(self, store: Store, *_: object) -> Mender:
        """One that mends there."""
        log, framing = self.world.log, Framing(self.registry)
        return Mender(Refolder(store, log, 1, lambda: at(1), framing), store, log, 1, framing, lambda _: None)

    def parked(self) -> int:
        """How many still are."""
        return len(self.world.store.parked(0))


def test_nothing_happens_before_the_schema_is_there() -> None:
    parked = Parked(3)
    before = parked.world.server.content()
    assert parked.mender().mend(0) == 0
    assert parked.world.server.content() == before


def test_each_patient_is_refolded_once_the_schema_is_there_and_then_never_again() -> None:
    parked = Parked(3)
    parked.registry.learn()
    mender, other = parked.mender(), parked.mender()
    assert (mender.mend(0), mender.mend(0), other.mend(0)) == (3, 0, 0)
    assert parked.parked() == 0
    assert all(
        f"t:{id_of(f'T{n}')}" in parked.world.store.read_whole(0, each).fields for n, each in enumerate(parked.patients)
    )


def not_refolded(parked: Parked) -> list[str]:
    with capture_logs() as lines:
        assert parked.mender().mend(0) == 0
    told = [each for each in lines if each["event"] == "patient_not_refolded"]
    assert all(ALLOWED["error_type"](each["error_type"]) for each in told)
    return [each["error_type"] for each in told]


def test_a_patient_that_is_not_refolded_is_told_with_whether_it_may_be_another_time() -> None:
    parked = Parked(1)
    parked.registry.learn()
    roles = MemoryRoles(parked.world.server)
    (live,) = roles.roles([0]).values()
    assert live is not None
    frozen = live._replace(state=RoleState.FROZEN)
    assert roles.turn(0, live, frozen)
    assert not_refolded(parked) == ["RefoldNotNowError"]
    assert roles.turn(0, frozen, live)
    # A later record of the patient, which the log lost.
    later: Event[Body] = Event(
        event_id=id_of("lost"),
        patient=parked.patients[0],
        occurred_at_ms=at(0),
        received_at_ms=at(0),
        source=ACTORS["A"],
        body=issued("R9", "T9").body,
    )
    parked.world.append(later, at(0))
    del parked.world.records[0, 1]
    assert not_refolded(parked) == ["RefoldRefusedError"]


def test_one_look_is_bounded_and_what_is_left_comes_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mending, "AT_MOST", 2)
    parked = Parked(5)
    mender = parked.mender()
    assert mender.mend(0) == 0
    parked.registry.learn()
    assert [mender.mend(0) for _ in range(4)] == [2, 1, 2, 0], "it goes on where it was, and begins anew"
    assert parked.parked() == 0


def test_a_partition_is_looked_at_when_it_comes_and_each_minute_while_it_is_held() -> None:
    now_s = 100.0
    held = Held(lambda: now_s)
    held.asked([0, 1])
    assert held.due() == [0, 1]
    assert held.due() == []
    now_s += AGAIN_S
    held.asked([0])
    assert held.due() == [0], "the other one went to another worker"
    now_s += 20
    held.asked([0, 1])
    assert held.due() == [0, 1], "both were away, and came back"


def test_a_look_that_fails_is_made_again() -> None:
    held, tries = Held(lambda: 100.0), list[int]()

    def mend(partition: int) -> int:
        tries.append(partition)
        if len(tries) == 1:
            raise StoreUnavailableError("away")
        return 0

    held.asked([4])
    for _ in range(3):
        mend_held(held, mend)
    assert tries == [4, 4]


def test_after_a_switch_a_worker_mends_in_the_generation_that_it_feeds_now() -> None:
    parked, now_s = Parked(2), 0.0
    parked.world.server.flush()
    roles, log = MemoryRoles(parked.world.server), MemorySourceLog(log_ends={0: 2})
    stores = partial(MemoryStore, parked.world.server)
    patience = Patience(monotonic=lambda: now_s)
    worker = Worker(roles, log, stores, 1, 0, mender_of=parked.mender_in, patience=patience)
    worker.enter()
    old, new = str(worker.generation), begin_beside(roles, log, GenerationRecord(VERSION, RELEASE, 0))
    for each in (old, new):
        parked.judge_in(stores(each))
    parked.registry.learn()
    mark(roles, new, GenerationState.WHOLE)
    assert flip(roles, 1, freeze(roles, 1), new)
    now_s += LOOK_AROUND_EVERY_S
    worker.standing([0])
    assert worker.generation == new
    assert worker.mend(0) == 2
    assert [len(stores(each).parked(0)) for each in (old, new)] == [2, 0]
