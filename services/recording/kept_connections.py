"""HTTP to one server of ours over connections that are kept: what services ask one another, and no more of HTTP than that."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple, cast
from urllib.parse import urlsplit

import httptools

_IDLE_S: Final = 15.0
"""Less than our services keep an idle connection: none is asked on which they are just closing."""
_PORTS: Final = {"http": 80, "https": 443}


class Answered(NamedTuple):
    """What came back."""

    status: int
    content: bytes


class KeptConnections:
    """One request at a time on each; as many as are needed at once, up to a bound, and whoever comes then waits for one.

    By hand and not by a library: a request costs a quarter of what it does with aiohttp, and each write makes two. What our
    services answer says how long it is, redirects nowhere, and sets no cookies.
    """

    def __init__(self, url: str, at_most: int) -> None:
        """`url`: of the server, with the path that goes before every other, if there is one."""
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        self._is_secure = parts.scheme == "https"
        self._path, self._netloc = parts.path.rstrip("/"), parts.netloc.rpartition("@")[2]
        self._room = asyncio.Semaphore(at_most)
        self._idle: list[_Connection] = []
        """Those that were used last stand last."""
        self._is_closed = False

    async def ask(
        self, method: str, path: str, content: bytes = b"", headers: str = "", *, timeout_s: float
    ) -> Answered:
        """Send a request and return its answer. `headers`: whole lines, each with its end.

        Raises OSError: no connection, or it broke, or the answer cannot be read; TimeoutError among them. Whether the request
        came through is then unknown.
        """
        length = f"Content-Length: {len(content)}\r\n" if content else ""
        head = f"{method} {self._path}{path} HTTP/1.1\r\nHost: {self._netloc}\r\n{length}{headers}\r\n"
        async with asyncio.timeout(timeout_s), self._room:
            connection = self._waiting() or await self._made()
            try:
                answered = await connection.ask(head.encode("ascii") + content)
            except BaseException:
                connection.close()  # what comes on it yet belongs to nobody
                raise
            if self._is_closed:
                connection.close()
            elif connection.is_open:
                connection.idle_since = asyncio.get_running_loop().time()
                self._idle.append(connection)
        return answered

    def close(self) -> None:
        """Let the connections go, one that is in use once it was answered."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().close()

    def _waiting(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if asyncio.get_running_loop().time() - connection.idle_since > _IDLE_S:
                connection.close()
            elif connection.is_open:
                return connection
        return None

    async def _made(self) -> _Connection:
        _, connection = await asyncio.get_running_loop().create_connection(
            _Connection, self._host, self._port, ssl=self._is_secure or None
        )
        return connection


class _Connection(asyncio.Protocol):
    """One connection, and the request that is under way on it."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self.is_open = False
        self._parser = httptools.HttpResponseParser(self)
        self._content: list[bytes] = []
        self._asked: asyncio.Future[Answered] | None = None

    def ask(self, request: bytes) -> asyncio.Future[Answered]:
        """The answer to come. Fails with OSError."""
        asked = self._asked = asyncio.get_running_loop().create_future()
        self._content = []
        if self.is_open:
            self._transport.write(request)
        else:
            self._fail("closed")
        return asked

    def close(self) -> None:
        """Let it go."""
        self.is_open = False
        self._transport.close()

    # --- What the loop tells --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It stands."""
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """Some of an answer has come, or what is none."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()
            self._fail("no HTTP came")

    def connection_lost(self, error: Exception | None) -> None:
        """It is gone, and what was asked with it."""
        self.is_open = False
        self._fail("broke" if error is None else type(error).__name__)

    # --- What the parser tells ------------------------------------------------------------------------------------

    def on_body(self, body: bytes) -> None:
        """A piece of the content."""
        self._content.append(body)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        asked, self._asked = self._asked, None
        if not self._parser.should_keep_alive() or asked is None:
            self.close()
        if asked is not None and not asked.done():
            asked.set_result(Answered(self._parser.get_status_code(), b"".join(self._content)))

    def _fail(self, why: str) -> None:
        asked, self._asked = self._asked, None
        if asked is not None and not asked.done():
            asked.set_exception(ConnectionResetError(f"the connection is gone ({why})"))
