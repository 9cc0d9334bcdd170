"""Where readers look, in Redis: one read-only function call a look, and the channels of the announced offsets."""

import weakref
from collections.abc import AsyncGenerator, Collection, Sequence
from typing import Any, Final

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from services.medication_list.store.keys import GenerationKeys, PartitionKeys
from services.medication_list.store.library import CODE, LIBRARY, function
from services.medication_list.store.link import SOCKET_TIMEOUT_S, Word, packed
from services.medication_list.store.port import StoreUnavailableError
from services.medication_list.store.reading import Asked, Looked
from services.medication_list.store.roles import RoleState

_LOOK: Final = function("look")
_pack_counts = msgspec.msgpack.Encoder().encode
_CONNECTIONS: Final = 16


class RedisViews:
    """See `reading.Views` for what each method promises."""

    def __init__(self, url: str, *, timeout_s: float = SOCKET_TIMEOUT_S) -> None:
        self._pool: Any = BlockingConnectionPool.from_url(
            url,
            protocol=2,
            max_connections=_CONNECTIONS,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            redis_connect_func=self._prepare,
        )
        # The run id must be of the server that gave the answer, so it belongs to the connection and not to the pool.
        self._servers: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
        self._subscriber = Redis.from_url(
            url, protocol=2, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0), health_check_interval=0
        )

    async def look(self, asked: Sequence[Asked]) -> list[Looked]:
        """See `Views.look`."""
        try:
            connection = await self._pool.get_connection()
            try:
                await connection.send_packed_command(map(_pack_look, asked), check_health=False)
                replies = [await connection.read_response(disable_decoding=True) for _ in asked]
                server = self._servers[connection]
            except BaseException:  # interrupted between sending and reading: the connection is out of step
                # Also where a function was not found: the next connection loads it.
                await connection.disconnect(nowait=True)
                raise
            finally:
                await self._pool.release(connection)
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"redis does not answer: {type(error).__name__}") from error
        return [_looked(server, each.generation, reply) for each, reply in zip(asked, replies, strict=True)]

    async def announcements(self, partitions: Collection[int]) -> AsyncGenerator[tuple[int, int] | None, None]:
        """See `Views.announcements`."""
        channels = {PartitionKeys(each).announcements.encode(): each for each in partitions}
        subscription: Any = self._subscriber.pubsub(ignore_subscribe_messages=True)
        try:
            await subscription.ssubscribe(*channels)
            yield None
            while True:
                message = await subscription.get_message(timeout=None)
                if message is not None and message["type"] == "smessage":
                    yield channels[message["channel"]], int(message["data"])
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"redis does not answer: {type(error).__name__}") from error
        finally:
            await subscription.aclose()

    async def close(self) -> None:
        """See `Views.close`."""
        await self._pool.disconnect()
        await self._subscriber.aclose()

    async def _prepare(self, connection: Any) -> None:
        await connection.on_connect()
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
        self._servers[connection] = info.split(b"run_id:", 1)[1].split(b"\r\n", 1)[0].decode()


def _pack_look(asked: Asked) -> bytes:
    partition, generation, looks = asked
    keys = [PartitionKeys(partition).role, GenerationKeys(generation, partition).offset, *(each.key for each in looks)]
    counts = [-1 if each.fields is None else len(each.fields) for each in looks]
    names: list[Word] = [name for each in looks for name in each.fields or ()]
    return packed(("FCALL_RO", _LOOK, len(keys), *keys, generation, _pack_counts(counts), *names))


def _looked(server: str, generation: str, reply: Any) -> Looked:
    if reply[0] == b"lost":
        return Looked(server, generation, 0, 0, None, 0, ())
    if reply[0] == b"believed":
        return Looked(server, reply[1].decode(), 0, 0, RoleState.LIVE, 0, ())
    state = RoleState(reply[3].decode())
    return Looked(server, generation, int(reply[1]), int(reply[2]), state, int(reply[4]), reply[5:])
