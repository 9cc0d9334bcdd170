"""HTTP between our services: answers go to whoever asked, connections are used again, and what breaks is told as broken."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from services.recording import kept_connections
from services.recording.kept_connections import Answered, KeptConnections

Say = Callable[[bytes, bytes, asyncio.StreamWriter], Awaitable[None]]
SOON_S = 5.0


def whole(content: bytes, status: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n{more}\r\n".encode() + content


async def echo(_: bytes, content: bytes, answer: asyncio.StreamWriter) -> None:
    answer.write(whole(content))


class Server:
    """Answers each request as `say` does, and remembers what came."""

    def __init__(self) -> None:
        self.say: Say = echo
        self.opened = 0
        self.heads: list[bytes] = []
        self.open: set[asyncio.StreamWriter] = set()
        self.url = ""

    async def serve(self, requests: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        """One connection, until the other side ends it."""
        self.opened += 1
        self.open.add(answers)
        try:
            while True:
                head = await requests.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                length = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0] or 0)
                await self.say(head, await requests.readexactly(length), answers)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open.discard(answers)
            answers.close()


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    played = Server()
    listening = await asyncio.start_server(played.serve, "127.0.0.1", 0)
    played.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    yield played
    listening.close()
    for each in list(played.open):
        each.close()
    await listening.wait_closed()


@pytest_asyncio.fixture
async def connections(server: Server) -> AsyncIterator[KeptConnections]:
    made = KeptConnections(server.url + "/behind/", 20)
    yield made
    made.close()
    await asyncio.sleep(0.01)


async def asked(connections: KeptConnections, content: bytes = b"{}", timeout_s: float = SOON_S) -> Answered:
    return await connections.ask("POST", "/asked", content, "X-Said: yes\r\n", timeout_s=timeout_s)


async def test_a_request_says_what_it_is_to_say(server: Server, connections: KeptConnections) -> None:
    assert await asked(connections, b"abc") == (200, b"abc")
    host = server.url.removeprefix("http://")
    assert server.heads == [
        f"POST /behind/asked HTTP/1.1\r\nHost: {host}\r\nContent-Length: 3\r\nX-Said: yes\r\n\r\n".encode()
    ]


async def test_one_connection_does_for_all_that_is_asked_one_after_the_other(
    server: Server, connections: KeptConnections
) -> None:
    for each in range(5):
        assert await asked(connections, b"%d" % each) == (200, b"%d" % each)
    assert server.opened == 1


async def test_of_many_at_once_each_gets_its_own_answer_over_no_more_connections_than_may_be(
    server: Server, connections: KeptConnections
) -> None:
    async def late(_: bytes, content: bytes, answer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(int(content) % 7 / 1000)
        answer.write(whole(content))

    server.say = late
    answers = await asyncio.gather(*(asked(connections, b"%d" % each) for each in range(200)))
    assert [content for _, content in answers] == [b"%d" % each for each in range(200)]
    assert server.opened <= 20


async def test_an_answer_may_come_in_pieces(server: Server, connections: KeptConnections) -> None:
    async def in_pieces(_: bytes, content: bytes, answer: asyncio.StreamWriter) -> None:
        for each in whole(content, "404 Not Found"):
            answer.write(bytes([each]))
            await answer.drain()
            await asyncio.sleep(0)

    server.say = in_pieces
    assert await asked(connections, b"in pieces") == (404, b"in pieces")
    assert await asked(connections, b"again") == (404, b"again")


async def test_a_server_that_says_that_it_ends_the_connection_is_asked_on_another(
    server: Server, connections: KeptConnections
) -> None:
    async def last(_: bytes, content: bytes, answer: asyncio.StreamWriter) -> None:
        answer.write(whole(content, more="Connection: close\r\n"))

    server.say = last
    assert [await asked(connections) for _ in range(2)] == [(200, b"{}")] * 2
    assert server.opened == 2


async def test_a_connection_that_the_server_ended_meanwhile_is_not_used_again(
    server: Server, connections: KeptConnections
) -> None:
    await asked(connections)
    for each in list(server.open):
        each.close()
    await asyncio.sleep(0.05)
    assert await asked(connections) == (200, b"{}")
    assert server.opened == 2


async def test_a_connection_that_was_idle_for_long_is_not_used_again(
    server: Server, connections: KeptConnections, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asked(connections)
    monkeypatch.setattr(kept_connections, "_IDLE_S", -1.0)
    await asked(connections)
    assert server.opened == 2


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b"no HTTP at all\r\n\r\n"])
async def test_an_answer_that_does_not_come_whole_is_none(
    server: Server, connections: KeptConnections, said: bytes
) -> None:
    async def broken(_: bytes, __: bytes, answer: asyncio.StreamWriter) -> None:
        answer.write(said)
        answer.close()

    server.say = broken
    with pytest.raises(OSError):  # noqa: PT011 - whatever broke
        await asked(connections)
    server.say = echo
    assert await asked(connections) == (200, b"{}")


async def test_who_waits_too_long_is_told_and_the_late_answer_is_nobodys(
    server: Server, connections: KeptConnections
) -> None:
    is_time = asyncio.Event()

    async def late(_: bytes, content: bytes, answer: asyncio.StreamWriter) -> None:
        await is_time.wait()
        answer.write(whole(content))

    server.say = late
    with pytest.raises(TimeoutError):
        await asked(connections, b"late", timeout_s=0.05)
    is_time.set()
    assert await asked(connections, b"next") == (200, b"next")


async def test_what_was_not_asked_for_is_nobodys_answer(server: Server, connections: KeptConnections) -> None:
    async def twice(_: bytes, content: bytes, answer: asyncio.StreamWriter) -> None:
        answer.write(whole(content) + whole(b"another"))

    server.say = twice
    assert await asked(connections, b"one") == (200, b"one")
    await asyncio.sleep(0.05)
    server.say = echo
    assert await asked(connections, b"two") == (200, b"two")


async def test_nobody_there_is_told() -> None:
    nobody = KeptConnections("http://127.0.0.1:1", 2)
    with pytest.raises(OSError):  # noqa: PT011 - as the machine calls it
        await asked(nobody)
