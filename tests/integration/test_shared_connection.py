"""One connection for all readers: none waits for another, none gets another's answer, and it comes back when it broke."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import redis
from redis.exceptions import RedisError, ResponseError

from deploy.local.redis import RedisServer
from services.medication_list.store.link import command
from services.medication_list.store.shared_connection import SharedConnection

pytestmark = pytest.mark.integration
TIMEOUT_S = 1.0


@pytest_asyncio.fixture
async def connection(redis_url: str) -> AsyncIterator[SharedConnection]:
    made = SharedConnection(redis_url, timeout_s=TIMEOUT_S)
    yield made
    await made.close()


async def test_thousands_at_once_get_their_own_answers_over_one_connection(
    connection: SharedConnection, redis_url: str
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        before = client.info("stats")["total_connections_received"]
        asked = [[command("ECHO", f"{one}-{two}") for two in range(one % 4)] for one in range(3_000)]
        answers = await asyncio.gather(*map(connection.exchange, asked))
        opened = client.info("stats")["total_connections_received"] - before
    for one, answer in enumerate(answers):
        assert answer.replies == [b"%d-%d" % (one, two) for two in range(one % 4)]
    assert opened == 1


async def test_who_gives_up_leaves_the_others_in_step(connection: SharedConnection) -> None:
    tasks = [asyncio.create_task(connection.exchange([command("ECHO", str(each))])) for each in range(200)]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    for each, answer in enumerate(answers):
        if each % 3 == 0:
            assert isinstance(answer, asyncio.CancelledError)
        else:
            assert not isinstance(answer, BaseException)
            assert answer.replies == [b"%d" % each]


async def test_a_connection_that_came_after_all_had_given_up_is_the_next_ones(
    connection: SharedConnection, redis_url: str
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        before = client.info("stats")["total_connections_received"]
        gives_up = asyncio.create_task(connection.exchange([command("ECHO", "a")]))
        await asyncio.sleep(0)
        gives_up.cancel()
        await asyncio.sleep(TIMEOUT_S / 2)  # it opens meanwhile, and nobody waits for it
        assert (await connection.exchange([command("ECHO", "b")])).replies == [b"b"]
        assert client.info("stats")["total_connections_received"] - before == 1


async def test_an_error_of_one_is_no_error_of_its_neighbours(connection: SharedConnection) -> None:
    wrong, right = await asyncio.gather(
        connection.exchange([command("NONSENSE")]), connection.exchange([command("ECHO", "right")])
    )
    assert isinstance(wrong.replies[0], ResponseError)
    assert right.replies == [b"right"]


async def test_functions_that_are_gone_are_loaded_by_the_next_connection(
    connection: SharedConnection, redis_url: str
) -> None:
    await connection.exchange([command("PING")])
    with redis.Redis.from_url(redis_url) as client:
        client.function_flush()
        (reply,) = (await connection.exchange([command("FCALL_RO", "medchain_look", "0")])).replies
        assert "unction not found" in str(reply)
        await connection.exchange([command("PING")])
        assert client.function_list()


async def test_a_connection_that_the_server_ended_is_opened_again_unseen(
    connection: SharedConnection, redis_url: str
) -> None:
    await connection.exchange([command("PING")])
    with redis.Redis.from_url(redis_url) as client:
        client.client_kill_filter(_type="normal", skipme=True)
        async with asyncio.timeout(5):
            while len(client.client_list(_type="normal")) > 1:  # noqa: ASYNC110 - what ends is the server's end
                await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)  # the end travels to this side
    assert (await connection.exchange([command("PING")])).replies == [b"PONG"]


async def test_a_silent_server_keeps_nobody_longer_than_the_bound_and_is_asked_anew_when_it_wakes(
    scratch: Path,
) -> None:
    with RedisServer(scratch / "silent-redis") as server:
        connection = SharedConnection(server.address, timeout_s=TIMEOUT_S)
        await connection.exchange([command("PING")])
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            asked = [connection.exchange([command("ECHO", str(each))]) for each in range(50)]
            failed = await asyncio.gather(*asked, return_exceptions=True)
            assert all(isinstance(each, RedisError | OSError) for each in failed)
            assert time.monotonic() - began < 10 * TIMEOUT_S, "they waited one after the other"
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert (await connection.exchange([command("ECHO", "woken")])).replies == [b"woken"]
        await connection.close()
