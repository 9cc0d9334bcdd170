"""The store against a Redis that loses its functions, its memory, its connections or its right to write."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing

import pytest
import redis

from schemas.codec import decode
from schemas.events import RelayProgress
from schemas.reasons import NoticeKind
from services.clock import SystemClock
from services.identity.sealing import Sealer
from services.medication_list.fold.judgement import NoticeDue
from services.medication_list.generations import (
    GenerationRecord,
    GenerationState,
    begin_beside,
    enter,
    mark,
    refuse_another_log,
)
from services.medication_list.log.source_log import MemorySourceLog
from services.medication_list.relay.party_topics import MemoryPartyTopics
from services.medication_list.relay.relay import Relay
from services.medication_list.store.library import CODE, LIBRARY, RELEASE
from services.medication_list.store.link import Link
from services.medication_list.store.memory_roles import MemoryRoles
from services.medication_list.store.memory_server import MemoryServer
from services.medication_list.store.memory_store import MemoryStore
from services.medication_list.store.memory_views import MemoryViews
from services.medication_list.store.port import (
    PartitionWrite,
    PatientChange,
    StoreUnavailableError,
    Wanted,
    Written,
    WrongTypeError,
)
from services.medication_list.store.reading import NotReadyError, ViewReader
from services.medication_list.store.redis_inventory import RedisInventory
from services.medication_list.store.redis_outbox import RedisOutbox
from services.medication_list.store.redis_roles import RedisRoles
from services.medication_list.store.redis_store import RedisStore
from services.medication_list.store.redis_views import RedisViews
from services.medication_list.store.roles import Attending, Beginning, WorkerKind
from services.medication_list.stored.packing import pack_effect
from services.medication_list.switch_protocol import freeze, give_up
from services.publishing.memory_log import MemoryLog
from services.topics.registry import load

pytestmark = pytest.mark.integration
G1 = "g1-aaaaaa"
ANNA = "a" * 32


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as made:
        made.flushall()
        yield made


@pytest.fixture
def link(redis_url: str) -> Iterator[Link]:
    with closing(Link(redis_url)) as made:
        yield made


@pytest.fixture
def store(client: redis.Redis, link: Link) -> RedisStore:
    assert client.ping()
    RedisRoles(link).begin({0: Beginning(G1, 1, 0, 0)})
    return RedisStore(link, G1)


def write(start: int) -> PartitionWrite:
    change = PatientChange(ANNA, {"meta": b"%d" % start}, (), {b"e%d" % start: b"x"})
    return PartitionWrite(0, start, 0, start + 1, [change])


@contextlib.contextmanager
def full(client: redis.Redis) -> Iterator[None]:
    """It has more than it may hold."""
    client.config_set("maxmemory", "1")
    try:
        yield
    finally:
        client.config_set("maxmemory", "0")


def after_one_failure(call: Callable[[], object]) -> object:
    """What the call answers the second time; the first time it must say that the store is unavailable."""
    with pytest.raises(StoreUnavailableError):
        call()
    return call()


def test_functions_that_are_gone_are_loaded_again(store: RedisStore, client: redis.Redis) -> None:
    client.function_flush()
    assert after_one_failure(lambda: store.write([write(0)])) == {0: Written(1, {}, 0)}


def test_a_connection_that_broke_is_made_again(store: RedisStore, client: redis.Redis) -> None:
    client.client_kill_filter(_type="normal", skipme=True)
    assert after_one_failure(lambda: store.next_offsets([0])) == {0: 0}


async def test_a_full_redis_takes_nothing_and_still_answers_readers(
    store: RedisStore, client: redis.Redis, redis_url: str
) -> None:
    store.write([write(0)])
    reader = ViewReader(RedisViews(redis_url), 1, no_ends)
    with full(client):
        with pytest.raises(StoreUnavailableError, match=r"OOM|OutOfMemory"):
            store.write([write(1)])
        # Redis 7 refuses every transaction then, so that the fold does not even begin; Redis 8 lets one in that only reads.
        with contextlib.suppress(StoreUnavailableError):
            assert store.read({0: [Wanted(ANNA, ["meta"], [])]})[0][:4] == (1, 0, None, [[b"0"]])
        assert (await reader.read_list(ANNA)).values == {b"meta": b"0"}
    assert store.read({0: [Wanted(ANNA, ["meta"], [])]})[0][:4] == (1, 0, None, [[b"0"]])
    assert store.write([write(1)]) == {0: Written(2, {}, 0)}
    await reader.close()


async def test_a_full_redis_has_its_outbox_sent_while_it_refuses_every_write(
    store: RedisStore, client: redis.Redis, link: Link
) -> None:
    due = (NoticeDue(NoticeKind.ORDER_VOID, "313000044", f"event-{each}", 0, f"{each}") for each in range(600))
    effects = [pack_effect(0, ANNA, each) for each in due]
    store.write([PartitionWrite(0, 0, 0, 1, [], effects)])
    log = MemoryLog(load().partitions, SystemClock())

    def relayed() -> Mapping[int, RelayProgress]:
        refuse_another_log(RedisRoles(link), MemorySourceLog())
        return {}

    topics = MemoryPartyTopics({"notices.313000044"})
    relay = Relay(RedisOutbox(link), log, topics, Sealer(b"k" * 32), SystemClock(), 1, relayed)
    with full(client):
        sent = sum([await relay.step() for _ in range(3)])
        await relay.hand_over()
        with pytest.raises(StoreUnavailableError, match=r"OOM|OutOfMemory"):
            store.write([write(1)])
    assert sent == 600
    assert sorted(int(record.key) for record in log.records("notices.313000044")) == list(range(600))
    assert [decode(record.value).source_offset for record in log.records("relay-progress")] == [0, 0, 0]
    assert client.xlen("{0}:outbox") == 0


def test_a_generation_that_nobody_needs_is_taken_out_of_a_full_redis(client: redis.Redis, link: Link) -> None:
    roles, inventory, log = RedisRoles(link), RedisInventory(link), MemorySourceLog(log_ends={0: 0})
    live = enter(roles, log, GenerationRecord(3, "0.1.0", 0))
    spare = begin_beside(roles, log, GenerationRecord(4, "0.2.0", 0))
    for generation in (live, spare):
        RedisStore(link, generation).write([write(0)])
    with full(client):
        roles.attend(live, worker := Attending(WorkerKind.PROCESSOR, "here-1"), 60_000)
        assert (roles.attending(live), roles.attending(spare)) == ([worker], [])
        assert give_up(roles, 1, freeze(roles, 1))
        mark(roles, spare, GenerationState.RETIRED)
        assert inventory.forget(0, spare)
        assert inventory.sweep(spare, 0, 1_000)[1] > 0
        with pytest.raises(StoreUnavailableError, match=r"OOM|OutOfMemory"):
            RedisStore(link, live).write([write(1)])
    assert list(client.scan_iter(match=f"{spare}:*")) == []
    assert isinstance(RedisStore(link, live).write([write(1)])[0], Written)


def test_a_redis_that_became_a_replica_takes_nothing(store: RedisStore, client: redis.Redis) -> None:
    client.replicaof("127.0.0.1", "1")
    try:
        with pytest.raises(StoreUnavailableError, match="ReadOnly"):
            store.write([write(0)])
    finally:
        client.replicaof("NO", "ONE")
    assert store.write([write(0)]) == {0: Written(1, {}, 0)}


def test_a_key_that_somebody_else_wrote_is_an_error_and_not_an_empty_patient(
    store: RedisStore, client: redis.Redis, link: Link
) -> None:
    """And no store that is away: what was written with it to another partition stands."""
    RedisRoles(link).begin({1: Beginning(G1, 1, 0, 0)})
    client.set(f"{G1}:{{0}}:p:{ANNA}", "not ours")
    with pytest.raises(WrongTypeError, match="WRONGTYPE"):
        store.read({0: [Wanted(ANNA, ["meta"], [])]})
    with pytest.raises(WrongTypeError, match="WRONGTYPE"):
        store.write([write(0), PartitionWrite(1, 0, 0, 1)])
    assert store.next_offsets([0, 1]) == {0: 0, 1: 1}


def test_two_releases_run_beside_one_another(store: RedisStore, client: redis.Redis) -> None:
    client.function_load(CODE.replace(RELEASE, "0123456789ab"))
    store.write([write(0)])
    libraries = {entry[1].decode() for entry in client.function_list()}
    assert libraries == {LIBRARY, "medchain_0123456789ab"}


def test_a_worker_in_several_threads_keeps_replies_apart(store: RedisStore) -> None:
    async def ask_all() -> list[Mapping[int, int]]:
        return await asyncio.gather(*(asyncio.to_thread(store.next_offsets, [0]) for _ in range(40)))

    store.write([write(0)])
    assert asyncio.run(ask_all()) == [{0: 1}] * 40


async def no_ends() -> Mapping[int, int]:
    return {}


async def test_a_reader_hears_of_offsets_again_after_its_connections_were_cut(
    store: RedisStore, redis_url: str, client: redis.Redis
) -> None:
    reader = ViewReader(RedisViews(redis_url), 1, no_ends)
    assert not await reader.await_offset(0, 1, 0)
    for kind in ("normal", "pubsub"):
        client.client_kill_filter(_type=kind, skipme=True)
    with pytest.raises(StoreUnavailableError):
        await reader.read_list(ANNA)
    waiting = asyncio.create_task(reader.await_offset(0, 1, 20_000))
    with pytest.raises(StoreUnavailableError):
        await asyncio.to_thread(store.write, [write(0)])
    await asyncio.to_thread(store.write, [write(0)])
    assert await waiting
    assert (await reader.read_list(ANNA)).values == {b"meta": b"0"}
    await reader.close()


async def test_a_reader_whose_request_is_cancelled_never_gets_another_ones_answer(
    store: RedisStore, redis_url: str
) -> None:
    store.write([write(0)])
    reader = ViewReader(RedisViews(redis_url), 1, no_ends)
    await reader.read_list(ANNA)
    for _ in range(30):
        cancelled = asyncio.create_task(reader.remembered(ANNA, [b"e"]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        cancelled.cancel()
        assert (await reader.read_list(ANNA)).values == {b"meta": b"0"}
    await reader.close()


async def test_a_server_restored_from_an_older_file_is_not_shown_before_it_has_come_back() -> None:
    server, ends = MemoryServer(), {0: 0}

    async def log_ends() -> Mapping[int, int]:
        return ends

    MemoryRoles(server).begin({0: Beginning(G1, 1, 0, 0)})
    store, reader = MemoryStore(server, G1), ViewReader(MemoryViews(server), 1, log_ends)
    older = server.save()
    store.write([write(0)])
    ends[0] = 1
    assert (await reader.read_list(ANNA)).offset == 1
    server.roll_back(older)
    with pytest.raises(NotReadyError):
        await reader.read_list(ANNA)
    store.write([write(0)])
    assert (await reader.read_list(ANNA)).values == {b"meta": b"0"}
    await reader.close()
