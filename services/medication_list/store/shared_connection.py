"""One connection to Redis for all readers of a process: their commands leave together, replies come back in that order.

A pool hands connections out one at a time. Under a flood its waiters queued for the pool's own lock, those who had a
connection to give back behind those who wanted one, and looks of a millisecond took seconds.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import hiredis
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from services.medication_list.store.library import CODE, LIBRARY
from services.medication_list.store.link import connection_settings

_FUNCTION_MISSING: Final = "unction not found"
_NOT_YET: Final = object()


def pool_of(url: str, timeout_s: float) -> Any:
    """Makes connections for the event loop; nothing is retried."""
    return ConnectionPool.from_url(url, **connection_settings(timeout_s), retry=Retry(NoBackoff(), 0))


class Answers(NamedTuple):
    """One reply for each command, error replies included, and the run id of the server that gave them."""

    server: str
    replies: Sequence[Any]

    def checked(self) -> Sequence[Any]:
        """The replies. Raises ResponseError, the first of them that is one."""
        for reply in self.replies:
            if isinstance(reply, ResponseError):
                raise reply
        return self.replies


class SharedConnection:
    """Opened when first needed, and again after it broke. Used by one event loop; `close` it.

    redis-py makes the connection (addresses, passwords, TLS). The function library is loaded where it is missing.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._pool = pool_of(url, timeout_s)
        self._timeout_s = timeout_s
        self._line: _Line | None = None
        self._opening: asyncio.Task[_Line] | None = None

    async def exchange(self, commands: Sequence[bytes]) -> Answers:
        """Send these and return their replies. Raises RedisError, OSError (TimeoutError too); what was asked may repeat."""
        async with asyncio.timeout(self._timeout_s):
            line = await self._open()
            try:
                replies = await line.ask(commands) if commands else []
            except asyncio.CancelledError:
                # One of many gave up: the connection is closed only if the server itself is silent.
                if line.is_silent(self._timeout_s / 2):
                    line.end(ConnectionError("redis is silent"))
                raise
        if any(isinstance(each, ResponseError) and _FUNCTION_MISSING in str(each) for each in replies):
            line.end_when_answered()  # the next one loads it
        return Answers(line.server, replies)

    async def close(self) -> None:
        """Let go of the connection; those still waiting on it are told that it broke."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        if self._line is not None:
            self._line.end(ConnectionError("the connection was closed"))
            await self._line.ended()

    async def _open(self) -> "_Line":
        """The open connection; or a new one, for which all wait together, and whose failure all get."""
        if self._line is not None and self._line.is_open:
            return self._line
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._opened(), name="redis-opening")
            # All who waited may have given up: then nobody retrieves its exception, and nobody needs to.
            self._opening.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(self._opening)

    async def _opened(self) -> "_Line":
        connection = self._pool.make_connection()
        try:
            await connection.connect()
            # Kept here, not by those who wait: all of them may have given up since, and the next one must find it.
            self._line = _Line(connection, await _prepared(connection))
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return self._line


class _Line(asyncio.Protocol):
    """One open connection, and who waits for replies on it.

    What comes is read here and not by redis-py, whose reading is three coroutines a reply and a task that must be woken: the
    look for a number in all partitions is eight replies.
    """

    def __init__(self, connection: Any, server: str) -> None:
        self.server = server
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=ResponseError, notEnoughData=_NOT_YET)
        self._outgoing: list[bytes] = []
        self._replies: list[Any] = []
        self._expected: deque[tuple[asyncio.Future[list[Any]], int, float]] = deque()
        self._is_leaving = False
        self._failure: Exception | None = None
        self._ending: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport = connection._writer.transport  # noqa: SLF001 - redis-py keeps it to itself
        self._transport.set_protocol(self)

    @property
    def is_open(self) -> bool:
        """Whether more may be asked of it."""
        return self._failure is None and not self._is_leaving

    def ask(self, commands: Sequence[bytes]) -> asyncio.Future[list[Any]]:
        """The replies to come. Fails with what ended the line."""
        answered: asyncio.Future[list[Any]] = self._loop.create_future()
        if self._failure is not None:
            answered.set_exception(self._failure)
            return answered
        self._expected.append((answered, len(commands), self._loop.time()))
        if not self._outgoing:
            self._loop.call_soon(self._send)  # with all that is asked in the same turn of the loop
        self._outgoing += commands
        return answered

    def is_silent(self, timeout_s: float) -> bool:
        """Whether the oldest request has waited this long."""
        return bool(self._expected) and self._loop.time() - self._expected[0][2] >= timeout_s

    def end_when_answered(self) -> None:
        """Take nothing more on, and end when the last reply has come."""
        self._is_leaving = True
        if not self._expected:
            self.end(ConnectionError("the connection was given up"))

    def end(self, failure: Exception) -> None:
        """Tell all who wait, and let go of the connection."""
        if self._failure is not None:
            return
        self._failure = failure
        for answered, _, _ in self._expected:
            if not answered.done():
                answered.set_exception(failure)
        self._expected.clear()
        self._ending = asyncio.create_task(self._connection.disconnect(nowait=True), name="redis-line-end")

    async def ended(self) -> None:
        """Wait until nothing of it runs."""
        if self._ending is not None:
            await asyncio.wait([self._ending])

    def data_received(self, data: bytes) -> None:
        """Hand out what has come whole."""
        try:
            self._reader.feed(data)
            while self._failure is None and (reply := self._reader.gets(False)) is not _NOT_YET:  # noqa: FBT003 - as bytes
                self._take(reply)
        except hiredis.ProtocolError:
            self.end(ConnectionError("redis answered in another form"))

    def connection_lost(self, error: Exception | None) -> None:
        """Also while nothing is expected: so a server that goes away is noticed before the next one asks."""
        self.end(ConnectionError(f"the connection broke ({type(error).__name__})"))

    def _send(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if self._failure is None:
            self._transport.write(b"".join(outgoing))

    def _take(self, reply: Any) -> None:
        if not self._expected:
            self.end(ConnectionError("redis said what nobody asked for"))
            return
        answered, count, _ = self._expected[0]
        self._replies.append(reply)
        if len(self._replies) < count:
            return
        self._expected.popleft()
        replies, self._replies = self._replies, []
        if not answered.done():  # who asked may have gone
            answered.set_result(replies)
        if self._is_leaving and not self._expected:
            self.end(ConnectionError("the connection was given up"))


async def _prepared(connection: Any) -> str:
    """Load the functions where they are missing, and return the run id of the server."""
    await connection.send_command("FUNCTION", "LIST", "LIBRARYNAME", LIBRARY)
    if not await connection.read_response(disable_decoding=True):
        await connection.send_command("FUNCTION", "LOAD", CODE)
        try:
            await connection.read_response(disable_decoding=True)
        except ResponseError as error:
            if "already exists" not in str(error):
                raise
    await connection.send_command("INFO", "server")
    info: bytes = await connection.read_response(disable_decoding=True)
    return info.split(b"run_id:", 1)[1].split(b"\r\n", 1)[0].decode()
