"""Remembers for two days where events that came over HTTP are in the log, so that a bare event id leads to its outcome."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from redis.exceptions import RedisError

from services.medication_list.log.positions import LogPlace, place_of, position_of
from services.medication_list.store.link import SOCKET_TIMEOUT_S, command
from services.medication_list.store.port import StoreUnavailableError
from services.medication_list.store.shared_connection import SharedConnection

KEPT_S: Final = 48 * 60 * 60
"""*Policy*: later requests have the position, which leads to the outcome for ever."""
_GATHERED_FOR_S: Final = 0.008


class EventPlaces:
    """Keys outside every generation; nothing else depends on them. `close` it."""

    def __init__(self, url: str, partitions: int) -> None:
        self._connection = SharedConnection(url, timeout_s=SOCKET_TIMEOUT_S)
        self._partitions = partitions
        self._gathered: list[bytes] = []
        self._remembering: asyncio.Task[None] | None = None

    async def remember(self, event_id: str, place: LogPlace) -> None:
        """Keep the first place of an event for two days. Raises StoreUnavailableError.

        It leaves with what else is to be remembered within a few milliseconds: its caller waits for longer, for an outcome.
        """
        self._gathered.append(command("SET", _key(event_id), position_of(*place), "EX", KEPT_S, "NX"))
        if self._remembering is None:
            self._remembering = asyncio.create_task(self._remember_all(), name="event-places")
            # All who waited may have given up: then nobody is left to hear why it failed, and nobody needs to.
            self._remembering.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.shield(self._remembering)

    async def _remember_all(self) -> None:
        await asyncio.sleep(_GATHERED_FOR_S)
        gathered, self._gathered, self._remembering = self._gathered, [], None
        await self._exchanged(gathered)

    async def find(self, event_id: str) -> LogPlace | None:
        """Where an event is, None if it did not come over HTTP recently. Raises StoreUnavailableError."""
        (found,) = await self._exchanged([command("GET", _key(event_id))])
        return None if found is None else place_of(found.decode(), self._partitions)

    async def close(self) -> None:
        """Let go of every connection, once what is to be remembered has left."""
        if self._remembering is not None:
            await asyncio.wait([self._remembering])
        await self._connection.close()

    async def _exchanged(self, commands: Sequence[bytes]) -> Sequence[Any]:
        try:
            return (await self._connection.exchange(commands)).checked()
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"redis does not answer: {type(error).__name__}") from error


def _key(event_id: str) -> str:
    return f"event:{event_id}"
