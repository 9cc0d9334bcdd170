"""Redis that takes no writes, for every reason that it has: said in words, nothing lost, and all goes on by itself after it."""

import os
import resource
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import Any, Final, NamedTuple

import httpx
import pytest
import redis

from deploy.local.ports import LOOPBACK, choose_port
from deploy.local.program import Child, Program
from deploy.local.redis import RedisServer
from deploy.local.waiting import wait_until
from services.health import TroubleReason
from services.identity.national_id import synthetic
from services.medication_list.store.link import Link, command
from services.medication_list.store.port import PartitionWrite, PatientChange, StoreUnavailableError, Written
from services.medication_list.store.redis_check import RedisCheck
from services.medication_list.store.redis_roles import RedisRoles
from services.medication_list.store.redis_store import RedisStore
from services.medication_list.store.roles import Beginning
from tests.acceptance.translate import ACTORS
from tests.acceptance.values import instant
from tests.chain import Chain
from tests.chaos.proxy import Proxies
from tests.integration.services_stand import a_prescription

pytestmark = pytest.mark.integration

WITHIN_S: Final = 60
WRITERS: Final = ("processor-1", "relay")


def ready(chain: Chain, name: str) -> httpx.Response:
    return chain.http.get(f"{chain.platform.url(name)}/health/ready")


def reasons(chain: Chain, name: str) -> set[str]:
    return {each["reason"] for each in ready(chain, name).json().get("troubles", ())}


def is_told(chain: Chain, name: str, status: int, reason: str) -> bool:
    return ready(chain, name).status_code == status and reason in reasons(chain, name)


def is_ready_again(chain: Chain) -> bool:
    return all(ready(chain, each).json() == {"status": "ready"} for each in (*WRITERS, "medication-list", "pharmacy"))


@contextmanager
def maxmemory_reached(client: "redis.Redis") -> Iterator[None]:
    client.config_set("maxmemory", "1mb")
    yield
    client.config_set("maxmemory", "0")


@contextmanager
def made_a_replica(client: "redis.Redis") -> Iterator[None]:
    client.replicaof(LOOPBACK, choose_port())
    yield
    client.replicaof("NO", "ONE")


@contextmanager
def without_its_replicas(client: "redis.Redis") -> Iterator[None]:
    client.config_set("min-replicas-to-write", "1")
    yield
    client.config_set("min-replicas-to-write", "0")


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (maxmemory_reached, "redis_out_of_memory"),
        (made_a_replica, "redis_read_only"),
        (without_its_replicas, "redis_read_only"),
    ],
)
def test_while_redis_takes_no_writes_lists_are_read_events_wait_and_every_process_says_why(
    chain: Chain, trouble: Any, reason: str
) -> None:
    chain.set_clock(instant("d0 12:00"))
    number, doctor = 61_000 + len(reason) + (trouble is made_a_replica), ACTORS["prescriber A"]
    patient = {"national_id": synthetic(number).digits}
    write = partial(chain.post, "prescriber", "/v1/prescriptions", who=doctor)
    before = write(sent=a_prescription(patient=patient))
    assert before.status_code == 201, before.text
    with redis.Redis.from_url(chain.platform.redis_url) as client, trouble(client):
        for name in WRITERS:
            wait_until(partial(is_told, chain, name, 503, reason), within_s=WITHIN_S, what=f"{name}: {reason}")
        # It shows what it has, and says that it cannot be told more.
        assert is_told(chain, "medication-list", 200, reason)
        assert len(chain.read_list(patient["national_id"], doctor)["treatments"]) == 1
        waits = write(sent=a_prescription(patient=patient))
        assert (waits.status_code, waits.json()["outcome"]) == (202, "pending"), waits.text
    wait_until(partial(is_ready_again, chain), within_s=WITHIN_S, what="all are ready again")
    shown = chain.read_list(patient["national_id"], doctor, waits.json()["position"])
    assert len(shown["treatments"]) == 2, "it was judged when Redis took writes again"


async def test_redis_that_still_reads_its_file_is_said_to_be_loading(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis")
    with server, redis.Redis.from_url(server.address) as client:
        client.mset({f"key-{number}": "x" * 100 for number in range(5_000)})
        client.execute_command("BGREWRITEAOF")
        wait_until(lambda: not client.info("persistence")["aof_rewrite_in_progress"], within_s=WITHIN_S, what="a file")
    slow = RedisServer(
        tmp_path / "redis",
        port=server.port,
        settings={"key-load-delay": "500", "loading-process-events-interval-bytes": "1024"},
    )
    check = RedisCheck(server.address, writes=True)
    with Child(program_of(slow)):
        seen = set()
        for _ in range(1_000):
            seen |= {trouble.reason for trouble in await check()}
            if TroubleReason.REDIS_LOADING in seen:
                break
        assert TroubleReason.REDIS_LOADING in seen
        wait_until(slow.answers, within_s=WITHIN_S, what="Redis has read its file")
        assert await check() == ()


def program_of(server: RedisServer, *before: str) -> Program:
    """The server without a wait for its file; `before`: what starts it."""
    program = server.program()
    return Program(name="redis", argv=(*before, *program.argv), log=program.log, ready=lambda: True)


SMALL_DISK: Final = """\
import os, resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, resource.RLIM_INFINITY))
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""A file of this process grows to 64 KiB and no further, as on a full disk, and without the right to make one."""


async def test_redis_whose_disk_is_full_says_so_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis", settings={"logfile": "/dev/null"})
    server.prepare()
    with (
        Child(program_of(server, sys.executable, "-c", SMALL_DISK)) as child,
        redis.Redis.from_url(server.address) as client,
    ):
        wait_until(server.answers, within_s=WITHIN_S, what="Redis answers")
        check = RedisCheck(server.address, writes=True)
        assert await check() == ()
        with pytest.raises(redis.ResponseError, match="MISCONF"):
            fill(client)
        (trouble,) = await check()
        assert trouble.reason is TroubleReason.REDIS_DISK_FULL
        assert child.pid is not None
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        wait_until(lambda: takes_writes(client), within_s=WITHIN_S, what="Redis takes writes again")
        assert await check() == ()


def fill(client: "redis.Redis") -> None:
    for number in range(10_000):
        client.set(f"key-{number}", os.urandom(1_000))


def takes_writes(client: "redis.Redis") -> bool:
    try:
        return bool(client.set("there is room", 1))
    except redis.ResponseError:
        return False


async def test_redis_that_is_silent_or_gone_is_said_to_be_unreachable_and_is_found_again(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        check = RedisCheck(server.address, writes=True)
        assert await check() == ()
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        assert [trouble.reason for trouble in await check()] == [TroubleReason.REDIS_UNREACHABLE]
        os.kill(server.pid, signal.SIGCONT)
        assert await check() == ()
        server.kill()
        assert [trouble.reason for trouble in await check()] == [TroubleReason.REDIS_UNREACHABLE]
        server.start()
        assert await check() == ()


class Pair(NamedTuple):
    """A primary and its replica, and the name by which clients are led to one of them."""

    name: str
    link: Proxies
    first: RedisServer
    second: RedisServer

    def fail_over(self) -> None:
        """The replica is the primary from now on, by the same name; nobody's connection is closed for it."""
        with redis.Redis.from_url(self.first.address) as first, redis.Redis.from_url(self.second.address) as second:
            wait_until(lambda: has_all(first, second), within_s=WITHIN_S, what="the replica has everything")
            second.replicaof("NO", "ONE")
            first.replicaof(LOOPBACK, self.second.port)
        self.link.lead("redis", self.second.port)


def has_all(first: "redis.Redis", second: "redis.Redis") -> bool:
    told = second.info("replication")
    is_up = told["role"] == "slave" and told["master_link_status"] == "up"
    return is_up and bool(told["slave_repl_offset"] >= first.info("replication")["master_repl_offset"])


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with (
        RedisServer(tmp_path / "first") as first,
        RedisServer(tmp_path / "second") as second,
        closing(Proxies()) as link,
    ):
        with redis.Redis.from_url(second.address) as client:
            client.replicaof(LOOPBACK, first.port)
        port = choose_port()
        link.add("redis", port, first.port)
        yield Pair(f"redis://{LOOPBACK}:{port}/0", link, first, second)


def hold_open(link: Link, connections: int) -> None:
    """Have so many connections in use at once; they are idle afterwards."""
    together = Barrier(connections)

    def commands() -> Iterator[bytes]:
        together.wait(WITHIN_S)
        yield command("PING")

    with ThreadPoolExecutor(connections) as threads:
        for asked in [threads.submit(link.exchange, commands()) for _ in range(connections)]:
            assert asked.result(WITHIN_S)


def test_what_writes_follows_its_name_to_the_new_primary_after_one_failure(pair: Pair) -> None:
    with closing(Link(pair.name)) as link:
        RedisRoles(link).begin({0: Beginning("g1-aaaaaa", 1, 0, 0)})
        store = RedisStore(link, "g1-aaaaaa")
        writes = [
            PartitionWrite(0, at, 0, at + 1, [PatientChange("a" * 32, {"meta": b"%d" % at}, (), {})]) for at in (0, 1)
        ]
        assert isinstance(store.write(writes[:1])[0], Written)
        hold_open(link, 3)
        pair.fail_over()
        with pytest.raises(StoreUnavailableError, match="ReadOnly"):
            store.write(writes[1:])
        assert isinstance(store.write(writes[1:])[0], Written)
    with redis.Redis.from_url(pair.second.address) as client:
        assert client.info("replication")["role"] == "master"
        assert client.hget("g1-aaaaaa:{0}:offset", "offset") == b"2"


async def test_readiness_tells_of_a_demoted_server_once_and_asks_the_new_primary_then(pair: Pair) -> None:
    check = RedisCheck(pair.name, writes=True)
    assert await check() == ()
    pair.fail_over()
    assert [trouble.reason for trouble in await check()] == [TroubleReason.REDIS_READ_ONLY]
    assert await check() == ()
    check.close()
