"""Remembers for two days where the events lie that came over HTTP, so that a bare event id leads to its outcome."""

from typing import Any, Final

from redis.exceptions import RedisError

from services.medication_list.read_api.positions import Place, place_of, position_of
from services.medication_list.store.link import SOCKET_TIMEOUT_S, Word, command
from services.medication_list.store.port import StoreUnavailableError
from services.medication_list.store.shared_connection import SharedConnection

KEPT_S: Final = 48 * 60 * 60
"""*Policy*: who asks later has the position, which leads to the outcome for ever."""


class EventPlaces:
    """Keys outside every generation; nothing else depends on them. `close` it."""

    def __init__(self, url: str, partitions: int) -> None:
        self._connection = SharedConnection(url, timeout_s=SOCKET_TIMEOUT_S)
        self._partitions = partitions

    async def remember(self, event_id: str, place: Place) -> None:
        """Keep the first place of an event for two days. Raises StoreUnavailableError."""
        await self._asked("SET", _key(event_id), position_of(*place), "EX", KEPT_S, "NX")

    async def find(self, event_id: str) -> Place | None:
        """Where an event lies, None if it did not come over HTTP of late. Raises StoreUnavailableError."""
        found: bytes | None = await self._asked("GET", _key(event_id))
        return None if found is None else place_of(found.decode(), self._partitions)

    async def close(self) -> None:
        """Let go of every connection."""
        await self._connection.close()

    async def _asked(self, *words: Word) -> Any:
        try:
            return (await self._connection.exchange([command(*words)])).checked()[0]
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"redis does not answer: {type(error).__name__}") from error


def _key(event_id: str) -> str:
    return f"event:{event_id}"
