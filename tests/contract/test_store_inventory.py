"""What operators see of generations, how they are told apart and cleared away, and who works on them; on both stores."""

from collections.abc import Iterator

import pytest
import redis

from deploy.local.waiting import wait_until
from services.medication_list.generations import (
    GenerationGoneError,
    GenerationRecord,
    GenerationRefusedError,
    GenerationState,
    begin_beside,
    enter,
    generation_for,
    mark,
    record_of,
)
from services.medication_list.log.source_log import MemorySourceLog
from services.medication_list.store.inventory import Inventory, PatientPlace
from services.medication_list.store.link import Link
from services.medication_list.store.memory_inventory import MemoryInventory
from services.medication_list.store.memory_roles import MemoryRoles
from services.medication_list.store.memory_server import MemoryServer
from services.medication_list.store.memory_store import MemoryStore
from services.medication_list.store.port import (
    PartitionWrite,
    PatientChange,
    Store,
    StoreUnavailableError,
    ViewLostError,
)
from services.medication_list.store.redis_inventory import RedisInventory
from services.medication_list.store.redis_roles import RedisRoles
from services.medication_list.store.redis_store import RedisStore
from services.medication_list.store.roles import Attending, Pointer, Roles, WorkerKind
from services.medication_list.switch_protocol import flip, freeze, left_last

ANNA, BERIT, KARI = "a" * 32, "b" * 32, "c" * 32
OLD, NEW = GenerationRecord(3, "0.1.0", 0), GenerationRecord(4, "0.2.0", 0)
WORKER = Attending(WorkerKind.PROCESSOR, "here-1")


class Shelf:
    """A store of either kind with two generations in it, `old` (live) and `new`, in one partition."""

    def __init__(self, url: str | None) -> None:
        self._link = None if url is None else Link(url)
        self._server = MemoryServer()
        self.roles: Roles = MemoryRoles(self._server) if self._link is None else RedisRoles(self._link)
        self.inventory: Inventory = MemoryInventory(self._server) if self._link is None else RedisInventory(self._link)
        self.log = MemorySourceLog(log_ends={0: 0})
        self.old = enter(self.roles, self.log, OLD)
        self.new = begin_beside(self.roles, self.log, NEW)

    def store(self, generation: str) -> Store:
        """The store of one generation."""
        return MemoryStore(self._server, generation) if self._link is None else RedisStore(self._link, generation)

    def write(self, generation: str, start: int, *changes: PatientChange, parked: str = "", number: str = "") -> None:
        """One record of the log, in one generation."""
        written = PartitionWrite(
            0,
            start,
            0,
            start + 1,
            changes,
            parked={start: parked.encode()} if parked else {},
            opened=[(number, ANNA.encode())] if number else [],
        )
        self.store(generation).write([written])

    def pointer(self) -> Pointer:
        """The commit point."""
        pointer = self.roles.pointer()
        assert pointer is not None
        return pointer

    def close(self) -> None:
        """Let go of the connections."""
        if self._link is not None:
            self._link.close()


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.integration)])
def shelf(request: pytest.FixtureRequest) -> Iterator[Shelf]:
    url = None
    if request.param == "redis":
        url = request.getfixturevalue("redis_url")
        with redis.Redis.from_url(url) as client:
            client.flushall()
    made = Shelf(url)
    yield made
    made.close()


def one(patient: str, value: bytes, event: bytes = b"e1") -> PatientChange:
    return PatientChange(patient, {"meta": value, "t:x": b"y"}, (), {event: value})


def test_patients_are_found_in_slices_and_in_every_generation(shelf: Shelf) -> None:
    shelf.write(shelf.old, 0, one(ANNA, b"1"), one(BERIT, b"1"))
    shelf.write(shelf.new, 0, one(ANNA, b"1"))
    found, cursor = set[PatientPlace](), 0
    while True:
        cursor, some = shelf.inventory.patients(cursor, 2)
        found.update(some)
        if cursor == 0:
            break
    assert found == {
        PatientPlace(shelf.old, 0, ANNA),
        PatientPlace(shelf.old, 0, BERIT),
        PatientPlace(shelf.new, 0, ANNA),
    }


def test_equal_patients_are_not_told_and_different_ones_whole(shelf: Shelf) -> None:
    shelf.write(shelf.old, 0, one(ANNA, b"1"), one(BERIT, b"1"))
    shelf.write(shelf.new, 0, one(ANNA, b"1"), one(BERIT, b"2"))
    compared = shelf.inventory.compare(0, shelf.old, shelf.new, [KARI, ANNA, BERIT])
    assert (compared.one_offset, compared.other_offset) == (1, 1)
    (berit,) = compared.differing
    assert berit.patient == BERIT
    assert (berit.one[b"meta"], berit.other[b"meta"]) == (b"1", b"2")
    assert (berit.one_index, berit.other_index) == ({b"e1": b"1"}, {b"e1": b"2"})


def test_a_patient_whom_one_generation_does_not_know_differs(shelf: Shelf) -> None:
    shelf.write(shelf.old, 0, one(ANNA, b"1"))
    (anna,) = shelf.inventory.compare(0, shelf.old, shelf.new, [ANNA]).differing
    assert (dict(anna.other), dict(anna.other_index)) == ({}, {})
    assert shelf.inventory.strangers(0, shelf.new, [ANNA, BERIT]) == [ANNA, BERIT]
    assert shelf.inventory.strangers(0, shelf.old, [ANNA, BERIT]) == [BERIT]


def test_numbers_and_parked_records_that_differ_are_named(shelf: Shelf) -> None:
    shelf.write(shelf.old, 0, parked="why", number="rx-1")
    shelf.write(shelf.new, 0, parked="otherwise")
    assert set(shelf.inventory.differing_notes(0, shelf.old, shelf.new)) == {("rx", "rx-1"), ("parked", "0")}


def test_sizes_tell_the_larger_generation(shelf: Shelf) -> None:
    shelf.write(shelf.old, 0, one(ANNA, b"1" * 500), one(BERIT, b"1" * 500))
    shelf.write(shelf.new, 0, one(ANNA, b"1"))
    sizes = shelf.inventory.sizes(1000)
    assert sizes[shelf.old] > sizes[shelf.new] > 0
    memory = shelf.inventory.memory()
    assert 0 < memory.used < memory.limit


def test_a_generation_without_its_offset_is_read_and_written_by_nobody_and_swept_away(shelf: Shelf) -> None:
    shelf.write(shelf.old, 0, one(ANNA, b"1"))
    shelf.write(shelf.new, 0, one(ANNA, b"1"))
    assert not shelf.inventory.forget(0, shelf.old)
    assert shelf.inventory.forget(0, shelf.new)
    with pytest.raises(ViewLostError):
        shelf.write(shelf.new, 1, one(ANNA, b"2"))
    cursor = deleted = 0
    while True:
        cursor, some = shelf.inventory.sweep(shelf.new, cursor, 1)
        deleted += some
        if cursor == 0:
            break
    assert deleted >= 2
    assert shelf.inventory.strangers(0, shelf.new, [ANNA]) == [ANNA]
    shelf.write(shelf.old, 1, one(ANNA, b"2"))


def test_a_worker_counts_until_its_time_is_over_or_it_leaves(shelf: Shelf) -> None:
    other = Attending(WorkerKind.REPLAY, "here-2")
    shelf.roles.attend(shelf.old, WORKER, 60_000)
    shelf.roles.attend(shelf.old, other, 60_000)
    assert set(shelf.roles.attending(shelf.old)) == {WORKER, other}
    assert list(shelf.roles.attending(shelf.new)) == []
    shelf.roles.attend(shelf.old, other, 0)
    assert list(shelf.roles.attending(shelf.old)) == [WORKER]
    shelf.roles.attend(shelf.old, WORKER, 1)
    wait_until(lambda: not shelf.roles.attending(shelf.old), within_s=10, what="the worker's time is over")


def test_each_release_finds_its_own_generation_before_a_switch_and_after_it(shelf: Shelf) -> None:
    for _ in range(2):
        assert generation_for(shelf.pointer(), 3) == shelf.old
        assert generation_for(shelf.pointer(), 4) == shelf.new
        assert generation_for(shelf.pointer(), 5) is None
        assert flip(shelf.roles, 1, freeze(shelf.roles, 1), shelf.new)


def test_the_processors_of_one_fold_go_to_whichever_of_its_generations_is_live(shelf: Shelf) -> None:
    same = begin_beside(shelf.roles, shelf.log, OLD)
    assert generation_for(shelf.pointer(), 3) == shelf.old
    assert flip(shelf.roles, 1, freeze(shelf.roles, 1), same)
    assert generation_for(shelf.pointer(), 3) == same
    assert left_last(shelf.pointer()) == shelf.old


def test_what_a_replay_fills_is_fed_by_no_processor_and_does_not_become_live(shelf: Shelf) -> None:
    mark(shelf.roles, shelf.new, GenerationState.FILLING)
    assert generation_for(shelf.pointer(), 4) is None
    with pytest.raises(GenerationRefusedError, match="not whole"):
        flip(shelf.roles, 1, freeze(shelf.roles, 1), shelf.new)


def test_the_live_one_is_not_retired_and_nothing_is_while_a_switch_is_under_way(shelf: Shelf) -> None:
    with pytest.raises(GenerationRefusedError, match="the live one"):
        mark(shelf.roles, shelf.old, GenerationState.RETIRED)
    freeze(shelf.roles, 1)
    with pytest.raises(GenerationRefusedError, match="switch is under way"):
        mark(shelf.roles, shelf.new, GenerationState.RETIRED)


def test_a_retired_generation_turns_its_workers_away_and_its_name_is_not_used_again(shelf: Shelf) -> None:
    mark(shelf.roles, shelf.new, GenerationState.RETIRED)
    with pytest.raises(GenerationGoneError, match="was retired"):
        enter(shelf.roles, shelf.log, NEW, shelf.new)
    next_one = begin_beside(shelf.roles, shelf.log, NEW)
    assert next_one.startswith("g3-")
    assert record_of(shelf.pointer(), shelf.new).state is GenerationState.RETIRED


def test_a_worker_that_chased_waits_in_an_empty_store_for_one_that_was_live(shelf: Shelf) -> None:
    fresh = MemoryRoles(MemoryServer())
    with pytest.raises(StoreUnavailableError, match="waits for the live view"):
        enter(fresh, shelf.log, OLD, may_begin=False)
    live = enter(fresh, shelf.log, OLD)
    assert enter(fresh, shelf.log, OLD, may_begin=False) == live
