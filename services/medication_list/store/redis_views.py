"""The readers' side of Redis: one read-only function call a look, and the channels of the announced offsets."""

import math
from collections.abc import AsyncGenerator, Collection, Sequence
from typing import Any, Final

import msgspec
from redis.exceptions import RedisError

from services.medication_list.store.keys import GenerationKeys, PartitionKeys
from services.medication_list.store.library import function
from services.medication_list.store.link import SOCKET_TIMEOUT_S, Word, packed
from services.medication_list.store.port import StoreUnavailableError
from services.medication_list.store.reading import Asked, Looked
from services.medication_list.store.roles import RoleState
from services.medication_list.store.shared_connection import SharedConnection, pool_of

_LOOK: Final = function("look")
_pack_counts = msgspec.msgpack.Encoder().encode


class RedisViews:
    """See `reading.Views` for what each method promises."""

    def __init__(self, url: str, *, timeout_s: float = SOCKET_TIMEOUT_S) -> None:
        self._connection = SharedConnection(url, timeout_s=timeout_s)
        self._subscriber = pool_of(url, timeout_s)

    async def look(self, asked: Sequence[Asked]) -> list[Looked]:
        """See `Views.look`."""
        try:
            answers = await self._connection.exchange([_pack_look(each) for each in asked])
            replies = answers.checked()
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"redis does not answer: {type(error).__name__}") from error
        return [_looked(answers.server, each.generation, reply) for each, reply in zip(asked, replies, strict=True)]

    async def announcements(self, partitions: Collection[int]) -> AsyncGenerator[tuple[int, int] | None, None]:
        """See `Views.announcements`. Without redis-py's subscriptions, which spend more on a message than its writer does."""
        channels = {PartitionKeys(each).announcements.encode(): each for each in partitions}
        connection: Any = self._subscriber.make_connection()
        try:
            await connection.connect()
            await connection.send_command("SSUBSCRIBE", *channels)
            for _ in channels:
                await connection.read_response(disable_decoding=True)
            yield None
            while True:
                kind, channel, said = await connection.read_response(disable_decoding=True, timeout=math.inf)
                if kind == b"smessage":
                    yield channels[channel], int(said)
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"redis does not answer: {type(error).__name__}") from error
        finally:
            await connection.disconnect(nowait=True)

    async def close(self) -> None:
        """See `Views.close`."""
        await self._connection.close()


def _pack_look(asked: Asked) -> bytes:
    partition, generation, looks = asked
    keys = [PartitionKeys(partition).role, GenerationKeys(generation, partition).offset, *(each.key for each in looks)]
    counts = [-1 if each.fields is None else len(each.fields) for each in looks]
    names: list[Word] = [name for each in looks for name in each.fields or ()]
    return packed(("FCALL_RO", _LOOK, len(keys), *keys, generation, _pack_counts(counts), *names))


def _looked(server: str, generation: str, reply: Any) -> Looked:
    if reply[0] == b"lost":
        return Looked(server, generation, 0, 0, None, 0, b"", ())
    if reply[0] == b"believed":
        return Looked(server, reply[1].decode(), 0, 0, RoleState.LIVE, 0, b"", ())
    state = RoleState(reply[3].decode())
    return Looked(server, generation, int(reply[1]), int(reply[2]), state, int(reply[4]), reply[5], reply[6:])
