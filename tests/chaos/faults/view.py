"""Redis killed, emptied, set back, read-only, full, slow, loading."""

import contextlib
import random
import shutil
from collections.abc import Iterator

import redis

from tests.chaos.faults.registry import (
    REDIS_MS,
    fault,
    let_pass,
)
from tests.chaos.stand import Stand
from tests.chaos.under_test import POINTS


@fault(bound_ms=REDIS_MS, weight=3, holds_s=(0.0, 4.0))
def redis_sigkill(stand: Stand, _dice: random.Random) -> Iterator[None]:
    """SIGKILL of Redis, which reads its append-only file when it starts again."""
    stand.redis.kill()
    try:
        yield
    finally:
        stand.redis.start()


@fault(bound_ms=None)
def redis_aof_truncated(stand: Stand, dice: random.Random) -> Iterator[None]:
    """SIGKILL of Redis, and the end of its append-only file is lost: offset and state go back together."""
    stand.redis.kill()
    file = max((stand.redis.directory / "appendonlydir").glob("*.incr.aof"), key=lambda path: path.stat().st_mtime)
    with file.open("r+b") as open_file:
        open_file.truncate(max(0, file.stat().st_size - dice.randrange(1, 400_000)))
    stand.redis.start()
    yield


@fault(bound_ms=None, weight=2)
def redis_flushed(stand: Stand, dice: random.Random) -> Iterator[None]:
    """FLUSHALL, now and then with the functions."""
    stand.view.flushall()
    if dice.random() < 0.5:
        stand.tell_redis("FUNCTION", "FLUSH")
    yield


@fault(bound_ms=None, weight=2)
def redis_flushed_and_a_worker_dies(stand: Stand, dice: random.Random) -> Iterator[None]:
    """FLUSHALL, and a processor is killed as it begins anew: its partitions stay half built until another takes over."""
    name = dice.choice(stand.names("processor"))
    point = dice.choice((*POINTS["beginning"], "after_store_write"))
    stand.order(name, point)
    stand.view.flushall()
    let_pass(4.0)
    stand.withdraw_order(name, point)
    yield


@fault(bound_ms=REDIS_MS)
def redis_functions_flushed(stand: Stand, _dice: random.Random) -> Iterator[None]:
    """The store's functions are gone, its data are not."""
    stand.tell_redis("FUNCTION", "FLUSH")
    yield


@fault(bound_ms=None, weight=2)
def redis_restored_older(stand: Stand, dice: random.Random) -> Iterator[None]:
    """Redis comes back with a copy some seconds old, older than Kafka's committed offsets."""
    data, copy = stand.redis.directory / "appendonlydir", stand.folder / "redis-copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(data, copy)
    let_pass(dice.uniform(2, 6))
    stand.redis.kill()
    shutil.rmtree(data)
    shutil.move(copy, data)
    stand.redis.start()
    yield


@fault(bound_ms=REDIS_MS, holds_s=(2.0, 5.0))
def redis_read_only(stand: Stand, _dice: random.Random) -> Iterator[None]:
    """Redis is a replica without a master: it answers reads and refuses writes."""
    stand.tell_redis("REPLICAOF", "127.0.0.1", "1")
    try:
        yield
    finally:
        stand.tell_redis("REPLICAOF", "NO", "ONE")


@fault(bound_ms=REDIS_MS, holds_s=(2.0, 5.0))
def redis_out_of_memory(stand: Stand, _dice: random.Random) -> Iterator[None]:
    """Redis is at its memory limit and, as configured, refuses writes instead of evicting."""
    used = int(stand.view.info("memory")["used_memory"])
    stand.view.config_set("maxmemory", used // 2)
    try:
        yield
    finally:
        stand.view.config_set("maxmemory", 0)


@fault(bound_ms=REDIS_MS)
def redis_slow(stand: Stand, _dice: random.Random) -> Iterator[None]:
    """Redis answers nobody for longer than any client waits."""
    for _ in range(3):
        with contextlib.suppress(redis.RedisError):
            stand.tell_redis("CLIENT", "PAUSE", "2500", "ALL")
        let_pass(2.6)
    yield


@fault(bound_ms=REDIS_MS)
def redis_loading(stand: Stand, _dice: random.Random) -> Iterator[None]:
    """Redis reads its file slowly: connections are accepted and every command is answered that it is loading."""
    stand.redis.kill()
    stand.redis_settings.write_text("key-load-delay 100\nloading-process-events-interval-bytes 1024\n")
    try:
        stand.redis.start()
    finally:
        stand.redis_settings.write_text("")
    yield
