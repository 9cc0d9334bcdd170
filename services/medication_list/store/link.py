"""Blocking connections to Redis for whole pipelines of packed commands; nothing is retried here."""

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Protocol, cast

import hiredis
from redis import ConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError, RedisError, ResponseError
from redis.retry import Retry

from services.medication_list.store.library import CODE, LIBRARY
from services.medication_list.store.port import StoreUnavailableError, WrongTypeError

SOCKET_TIMEOUT_S: Final = 2.0
"""A longer wait would hold up a rebalance of the consumer group."""


Word = str | bytes | int


def connection_settings(timeout_s: float) -> dict[str, Any]:
    """What every connection to Redis is made with, blocking or not; each kind of redis-py's clients has its own class of retries."""
    return {
        "protocol": 2,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "socket_keepalive": True,
    }


def command(*words: Word) -> bytes:
    """One command as it goes over the wire."""
    return packed(words)


def packed(words: tuple[Word, ...]) -> bytes:
    """As `command`, for words that are in a tuple already."""
    return cast("bytes", hiredis.pack_command(words))  # type: ignore[arg-type]  # its stub knows tuples of one only


_MULTI: Final = command("MULTI")
_EXEC: Final = command("EXEC")


def hash_of(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """A hash, of the flat list that is answered for it: name, value, name, value."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


class _Parser(Protocol):
    """Reads the replies of one connection, an error reply as a value."""

    def read_response(self, *, disable_decoding: bool) -> Any: ...


class _Wire(Protocol):
    """What is used of a connection of redis-py, which has no types of its own."""

    _parser: _Parser

    def connect(self) -> None: ...

    def disconnect(self) -> None: ...

    def send_command(self, *words: str) -> None: ...

    def send_packed_command(self, command: Iterable[bytes], *, check_health: bool) -> None: ...

    def read_response(self, *, disable_decoding: bool) -> Any: ...


class Link:
    """A handful of connections, as many as threads use it at once.

    redis-py makes them (addresses, passwords, TLS); commands go out packed and whole pipelines come back in one read,
    because its client costs more than Redis does for a small call. The function library is loaded on each new
    connection where it is missing, so a server that restarted empty is healed by reconnecting.
    """

    def __init__(self, url: str, *, timeout_s: float = SOCKET_TIMEOUT_S) -> None:
        self._pool = ConnectionPool.from_url(url, **connection_settings(timeout_s), retry=Retry(NoBackoff(), 0))
        self._idle: deque[_Wire] = deque()

    def exchange(self, commands: Iterable[bytes]) -> list[Any]:
        """Send all commands, then return one reply each; an error reply of one command is an element too.

        Each is sent as soon as the iterable yields it, so that Redis works on it while the caller packs the next.

        Raises StoreUnavailableError: no connection, or it broke; what the commands did is then unknown.
        """
        connection = self._take()
        with self._kept_in_step(connection):
            sent = 0
            for each in commands:
                connection.send_packed_command((each,), check_health=False)
                sent += 1
            return _replies(connection, sent)

    def ask(self, commands: Iterable[bytes]) -> list[Any]:
        """As `exchange`, where an error reply is an exception.

        Raises:
            StoreUnavailableError: also when Redis cannot take the command now (loading, read-only, out of memory).
            ValueError: Redis found that the arguments contradict each other; nothing was written.
        """
        return self._checked(self.exchange(commands))

    def transact(self, transactions: Iterable[Sequence[bytes]]) -> list[Any]:
        """Carry out each sequence of commands atomically and return the list of its replies; raises as `ask`.

        All are sent before the first reply is read, each as soon as the iterable yields it.
        """
        lengths: list[int] = []

        def packed_whole() -> Iterator[bytes]:
            for commands in transactions:
                lengths.append(len(commands))
                yield b"".join((_MULTI, *commands, _EXEC))

        connection = self._take()
        with self._kept_in_step(connection):
            for each in packed_whole():
                connection.send_packed_command((each,), check_health=False)
            # MULTI is answered, every command is said to be queued, and then all of them are answered at once.
            whole = [_replies(connection, length + 2)[-1] for length in lengths]
        for replies in self._checked(whole):
            self._checked(replies)
        return whole

    def close(self) -> None:
        """Close the idle connections; the link can be used again."""
        while self._idle:
            with contextlib.suppress(IndexError, RedisError, OSError):
                self._idle.pop().disconnect()

    def _checked(self, replies: list[Any]) -> list[Any]:
        for reply in replies:
            if isinstance(reply, ResponseError):
                raise self._refusal(reply)
        return replies

    @contextlib.contextmanager
    def _kept_in_step(self, connection: _Wire) -> Iterator[None]:
        """Keep the connection for the next caller only if everything that was sent was answered."""
        try:
            yield
        except (RedisError, OSError) as error:
            self.close()
            with contextlib.suppress(RedisError, OSError):
                connection.disconnect()
            raise StoreUnavailableError(f"redis does not answer: {type(error).__name__}") from error
        except BaseException:  # interrupted between sending and reading
            connection.disconnect()
            raise
        self._idle.append(connection)

    def _refusal(self, reply: ResponseError) -> Exception:
        text = str(reply)
        if "BADARGUMENT" in text:
            return ValueError("the store function refused arguments that contradict each other")
        if "unction not found" in text:
            self.close()  # the next connection loads it
        if isinstance(reply, ReadOnlyError):
            # A server that was made a replica lets its clients stay. The next connection asks the name anew, which may stand
            # for the new primary by now.
            self.close()
        # The error's first word only: what follows may quote an argument.
        first = text.split(" ", 1)[0]
        kind = WrongTypeError if first == "WRONGTYPE" else StoreUnavailableError
        return kind(f"redis refused: {type(reply).__name__} {first}")

    def _take(self) -> _Wire:
        try:
            return self._idle.pop()
        except IndexError:
            return self._open()

    def _open(self) -> _Wire:
        connection = cast("_Wire", self._pool.make_connection())
        try:
            connection.connect()
            connection.send_command("FUNCTION", "LIST", "LIBRARYNAME", LIBRARY)
            if not connection.read_response(disable_decoding=True):
                connection.send_command("FUNCTION", "LOAD", CODE)
                self._loaded(_replies(connection, 1)[0])
        except (RedisError, OSError) as error:
            with contextlib.suppress(RedisError, OSError):
                connection.disconnect()
            raise StoreUnavailableError(f"redis does not answer: {type(error).__name__}") from error
        return connection

    @staticmethod
    def _loaded(reply: Any) -> None:
        if isinstance(reply, ResponseError) and "already exists" not in str(reply):
            raise reply


def _replies(connection: _Wire, count: int) -> list[Any]:
    """The next replies, past the connection, whose own work on each costs more than to read it.

    Raises RedisError when the connection breaks, or the server lets nobody in; then it must be given up.
    """
    read = connection._parser.read_response  # noqa: SLF001 - redis-py has no public way past its own work
    return [read(disable_decoding=True) for _ in range(count)]
