"""One suite for both kinds of view that readers look into: whole lists, readiness, and waiting for an offset."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
import redis

from services.medication_list.store.link import Link
from services.medication_list.store.memory_roles import MemoryRoles
from services.medication_list.store.memory_server import MemoryServer
from services.medication_list.store.memory_store import MemoryStore
from services.medication_list.store.memory_views import MemoryViews
from services.medication_list.store.port import PartitionWrite, PatientChange, Store, StoreUnavailableError
from services.medication_list.store.reading import NotReadyError, ViewReader, Views
from services.medication_list.store.redis_roles import RedisRoles
from services.medication_list.store.redis_store import RedisStore
from services.medication_list.store.redis_views import RedisViews
from services.medication_list.store.roles import Beginning, Role, Roles, RoleState

G1, G2 = "g1-aaaaaa", "g2-bbbbbb"
ANNA = "a" * 32
PARTITIONS = 2


@dataclass
class Place:
    """A view of either kind, its writers and its reader. `ends` is where the log ends, as the reader is told."""

    roles: Roles
    stores: Mapping[str, Store]
    reader: ViewReader
    views: Views
    ends: dict[int, int] = field(default_factory=dict)

    def begin(self, generation: str = G1, *, until: int = 0) -> Store:
        """Begin a generation in every partition, the first one as the live one, and return its store."""
        beside = int(any(self.roles.roles(range(PARTITIONS)).values()))
        beginning = Beginning(generation, 1, until, 0, beside=beside)
        assert not self.roles.begin(dict.fromkeys(range(PARTITIONS), beginning))
        return self.stores[generation]


@pytest_asyncio.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.integration)])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    ends: dict[int, int] = {}

    async def log_ends() -> Mapping[int, int]:
        await asyncio.sleep(0)
        return ends

    if request.param == "memory":
        server = MemoryServer()
        stores: dict[str, Store] = {name: MemoryStore(server, name) for name in (G1, G2)}
        views: Views = MemoryViews(server)
        reader = ViewReader(views, PARTITIONS, log_ends)
        yield Place(MemoryRoles(server), stores, reader, views, ends)
    else:
        url = request.getfixturevalue("redis_url")
        with redis.Redis.from_url(url) as client:
            client.flushall()
        link = Link(url)
        views = RedisViews(url)
        reader = ViewReader(views, PARTITIONS, log_ends)
        yield Place(RedisRoles(link), {name: RedisStore(link, name) for name in (G1, G2)}, reader, views, ends)
        link.close()
    await reader.close()


async def test_a_list_is_read_whole_with_the_offset_that_it_shows(place: Place) -> None:
    store = place.begin()
    partition = place.reader.partition_of(ANNA)
    change = PatientChange(ANNA, {"meta": b"1", "rx:1": b"\xff"}, (), {b"\x00e": b"x"})
    store.write([PartitionWrite(partition, 0, 0, 7, [change], opened=[("rx1", ANNA.encode())])])
    found = await place.reader.read_list(ANNA)
    assert found[:5] == (G1, partition, 7, 0, b"")
    store.write([PartitionWrite(partition, 7, 0, 8, [], last=b"7 a mark")])
    found = await place.reader.read_list(ANNA)
    assert found[:5] == (G1, partition, 8, 0, b"7 a mark")
    assert found.values == {b"meta": b"1", b"rx:1": b"\xff"}
    assert (await place.reader.remembered(ANNA, [b"none", b"\x00e"])).values == {b"\x00e": b"x"}
    listed, index = await place.reader.list_and_index(ANNA)
    assert (listed.values, index.values) == (found.values, {b"\x00e": b"x"})
    came = await place.reader.owners_of(["rx0", "rx1"])
    assert {name: set(whose) for name, whose in came.patients.items()} == {"rx1": {ANNA}}
    assert came.not_asked is None


async def test_who_has_a_number_is_told_with_the_partition_that_could_not_be_asked(place: Place) -> None:
    shown = place.reader.partition_of(ANNA)
    lost = 1 - shown
    assert not place.roles.begin({shown: Beginning(G1, 1, 0, 0)})
    place.stores[G1].write([PartitionWrite(shown, 0, 0, 1, opened=[("rx1", ANNA.encode())])])
    came = await place.reader.owners_of(["rx1"])
    assert set(came.patients["rx1"]) == {ANNA}
    assert came.not_asked is not None
    assert (came.not_asked.partition, came.not_asked.offset) == (lost, None)
    assert not place.roles.begin({lost: Beginning(G1, 1, 5, 0)})
    building = (await place.reader.owners_of(["rx1"])).not_asked
    assert building is not None
    assert (building.partition, building.offset, building.until) == (lost, 0, 5)


async def test_a_patient_without_a_list_is_told_apart_from_a_lost_view(place: Place) -> None:
    with pytest.raises(NotReadyError) as lost:
        await place.reader.read_list(ANNA)
    assert (lost.value.offset, lost.value.until) == (None, None)
    place.begin()
    assert (await place.reader.read_list(ANNA)).values == {}


async def test_a_view_that_is_being_built_is_not_shown_before_its_end(place: Place) -> None:
    store = place.begin(until=10)
    partition = place.reader.partition_of(ANNA)
    store.write([PartitionWrite(partition, 0, 0, 9, [PatientChange(ANNA, {"meta": b"1"})])])
    with pytest.raises(NotReadyError) as building:
        await place.reader.read_list(ANNA)
    assert (building.value.partition, building.value.offset, building.value.until) == (partition, 9, 10)
    store.write([PartitionWrite(partition, 9, 0, 10)])
    assert (await place.reader.read_list(ANNA)).values == {b"meta": b"1"}


async def test_a_server_seen_for_the_first_time_must_come_to_where_the_log_ended_then(place: Place) -> None:
    store = place.begin()
    partition = place.reader.partition_of(ANNA)
    place.ends[partition] = 5
    store.write([PartitionWrite(partition, 0, 0, 4)])
    with pytest.raises(NotReadyError) as behind:
        await place.reader.read_list(ANNA)
    assert (behind.value.offset, behind.value.until) == (4, 5)
    place.ends[partition] = 99  # ordinary lag from here on
    store.write([PartitionWrite(partition, 4, 0, 5)])
    assert (await place.reader.read_list(ANNA)).offset == 5


async def test_readers_follow_a_switch(place: Place) -> None:
    old, new = place.begin(), place.begin(G2)
    partition = place.reader.partition_of(ANNA)
    old.write([PartitionWrite(partition, 0, 0, 3, [PatientChange(ANNA, {"meta": b"old"})])])
    new.write([PartitionWrite(partition, 0, 0, 3, [PatientChange(ANNA, {"meta": b"new"})])])
    assert (await place.reader.read_list(ANNA)).values == {b"meta": b"old"}
    seen = place.roles.roles([partition])[partition]
    assert seen is not None
    assert place.roles.turn(partition, seen, Role(2, G2, RoleState.LIVE, "t", 0, 3))
    found = await place.reader.read_list(ANNA)
    assert (found.generation, found.values) == (G2, {b"meta": b"new"})


async def test_whoever_waits_for_an_offset_is_told_when_it_is_stored(place: Place) -> None:
    store = place.begin()
    assert not await place.reader.await_offset(1, 1, 0)
    waiting = [asyncio.create_task(place.reader.await_offset(1, each, 20_000)) for each in (1, 2, 3)]
    await asyncio.sleep(0)
    await asyncio.to_thread(store.write, [PartitionWrite(1, 0, 0, 2)])
    assert await asyncio.gather(*waiting[:2]) == [True, True]
    assert not waiting[2].done()
    await asyncio.to_thread(store.write, [PartitionWrite(1, 2, 0, 3)])
    assert await waiting[2]
    assert await place.reader.await_offset(1, 3, 0)
    assert await place.reader.offset_of(1) == 3


async def test_each_new_offset_of_the_live_generation_is_announced_and_no_other(place: Place) -> None:
    live, beside = place.begin(), place.begin(G2)
    announcements = place.views.announcements([0, 1])
    async with asyncio.timeout(20):
        assert await anext(announcements) is None
        await asyncio.to_thread(live.write, [PartitionWrite(1, 0, 0, 4)])
        await asyncio.to_thread(beside.write, [PartitionWrite(1, 0, 0, 3)])
        await asyncio.to_thread(live.write, [PartitionWrite(0, 0, 0, 7), PartitionWrite(1, 4, 0, 5)])
        assert [await anext(announcements) for _ in range(3)] == [(1, 4), (0, 7), (1, 5)]
    await announcements.aclose()


async def test_an_offset_that_does_not_come_is_given_up_at_the_deadline(place: Place) -> None:
    place.begin()
    assert not await place.reader.await_offset(0, 1, 30)


async def test_what_is_shown_from_an_offset_on_is_of_one_moment_that_has_it(place: Place) -> None:
    store, partition = place.begin(), place.reader.partition_of(ANNA)
    key = b"e1"
    waiting = asyncio.create_task(place.reader.shown_from(ANNA, [key, b"e2"], 2, 20_000))
    await asyncio.sleep(0)
    for offset in range(2):
        change = PatientChange(ANNA, {"meta": b"%d" % offset}, remember={key: b"%d" % offset})
        await asyncio.to_thread(store.write, [PartitionWrite(partition, offset, 0, offset + 1, [change])])
    for shown in (await waiting, await place.reader.shown_from(ANNA, [key, b"e2"], 2, 0)):
        assert shown is not None
        listed, index = shown
        assert (listed.values, index.values) == ({b"meta": b"1"}, {key: b"1"})
        assert (listed.offset, listed.epoch) == (index.offset, index.epoch) == (2, 0)


async def test_more_than_was_announced_is_not_shown(place: Place) -> None:
    store, partition = place.begin(), place.reader.partition_of(ANNA)
    assert await place.reader.shown_from(ANNA, [], 1, 0) is None
    waiting = asyncio.create_task(place.reader.shown_from(ANNA, [], 1, 20_000))
    await asyncio.sleep(0)
    await asyncio.to_thread(store.write, [PartitionWrite(partition, 0, 0, 1)])
    assert await waiting is not None
    # Announced up to 1; whoever asks for more looks, and is not told that it has come.
    assert await place.reader.shown_from(ANNA, [], 2, 50) is None


@pytest.mark.integration
async def test_a_redis_that_is_not_there_is_unavailable_and_not_empty() -> None:
    async def log_ends() -> Mapping[int, int]:
        return {}

    reader = ViewReader(RedisViews("redis://127.0.0.1:1/0"), PARTITIONS, log_ends)
    with pytest.raises(StoreUnavailableError):
        await reader.read_list(ANNA)
    await reader.close()
