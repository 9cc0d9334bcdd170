"""Whether Redis can be read and takes writes: asked of Redis itself, without writing anything."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from redis import ConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, OutOfMemoryError, ReadOnlyError, RedisError, ResponseError
from redis.retry import Retry

from services.health import Trouble, TroubleReason

_ANSWERS_WITHIN_S: Final = 2.0
_SAID: Final = {
    "LOADING": (TroubleReason.REDIS_LOADING, "Redis still reads its file; it answers when it has."),
    "OOM": (
        TroubleReason.REDIS_OUT_OF_MEMORY,
        "Redis has reached its maxmemory and takes no writes. It never forgets: give it more memory.",
    ),
    "READONLY": (TroubleReason.REDIS_READ_ONLY, "Redis is a replica and takes no writes: the primary is elsewhere."),
    "NOREPLICAS": (
        TroubleReason.REDIS_READ_ONLY,
        "Redis takes no writes, for it has fewer replicas than it must have (min-replicas-to-write).",
    ),
    "MISCONF": (TroubleReason.REDIS_DISK_FULL, "Redis cannot write its file and takes no writes: is its disk full?"),
}
"""What Redis says to a write that it does not take, by the first word of its error."""


class RedisCheck:
    """The check of the Redis that holds the view (see `services.health`)."""

    def __init__(self, url: str, *, writes: bool) -> None:
        """`writes`: whether the process writes there; if it only reads, a refused write does not stop it."""
        self._writes = writes
        self._pool = ConnectionPool.from_url(
            url,
            protocol=2,
            socket_timeout=_ANSWERS_WITHIN_S,
            socket_connect_timeout=_ANSWERS_WITHIN_S,
            retry=Retry(NoBackoff(), 0),
        )
        self._connection: Any = None

    async def __call__(self) -> Sequence[Trouble]:
        """What is wrong with Redis, within some two seconds."""
        return await asyncio.to_thread(self._look)

    def close(self) -> None:
        """Let the connection go. The next question makes another."""
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None

    def _look(self) -> Sequence[Trouble]:
        try:
            said = self._try_write()
        except BusyLoadingError:
            said = "LOADING"
        except (RedisError, OSError) as error:
            self.close()
            text = f"Redis does not answer ({type(error).__name__}): no list can be read, and no event judged."
            return (Trouble(TroubleReason.REDIS_UNREACHABLE, text),)
        if said is None:
            return ()
        if said == "READONLY":
            self.close()  # the next question asks the name anew, which may stand for the new primary by now
        reason, text = _SAID.get(said, (TroubleReason.REDIS_REFUSES, f"Redis takes no writes; it says {said}."))
        return (Trouble(reason, text, stops=self._writes or reason is TroubleReason.REDIS_LOADING),)

    def _try_write(self) -> str | None:
        """The first word of what Redis says against a write, None if it would take one.

        A write within a transaction is judged as it is queued, and the transaction is thrown away.
        """
        if self._connection is None:
            self._connection = self._pool.make_connection()
            self._connection.connect()
        said = None
        for words in (("MULTI",), ("SET", "medchain:health", "1"), ("DISCARD",)):
            self._connection.send_command(*words)
            try:
                self._connection.read_response()
            except ResponseError as error:
                said = said or _first_word(error)
        return said


def _first_word(error: ResponseError) -> str:
    """As Redis said it; of the words that redis-py knows it makes types instead."""
    match error:
        case OutOfMemoryError():
            return "OOM"
        case ReadOnlyError():
            return "READONLY"
        case _:
            return str(error).split(" ", 1)[0]
