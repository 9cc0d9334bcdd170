"""Remembers for two days where the events lie that came over HTTP, so that a bare event id leads to its outcome."""

from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from services.medication_list.read_api.positions import Place, place_of, position_of
from services.medication_list.store.link import SOCKET_TIMEOUT_S
from services.medication_list.store.port import StoreUnavailableError

KEPT_S: Final = 48 * 60 * 60
"""*Policy*: who asks later has the position, which leads to the outcome for ever."""


class EventPlaces:
    """Keys outside every generation; nothing else depends on them. `close` it."""

    def __init__(self, url: str, partitions: int) -> None:
        self._redis: Any = Redis.from_url(
            url,
            protocol=2,
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=SOCKET_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        self._partitions = partitions

    async def remember(self, event_id: str, place: Place) -> None:
        """Keep the first place of an event for two days. Raises StoreUnavailableError."""
        try:
            await self._redis.set(_key(event_id), position_of(*place), ex=KEPT_S, nx=True)
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"redis does not answer: {type(error).__name__}") from error

    async def find(self, event_id: str) -> Place | None:
        """Where an event lies, None if it did not come over HTTP of late. Raises StoreUnavailableError."""
        try:
            found: bytes | None = await self._redis.get(_key(event_id))
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"redis does not answer: {type(error).__name__}") from error
        return None if found is None else place_of(found.decode(), self._partitions)

    async def close(self) -> None:
        """Let go of every connection."""
        await self._redis.aclose()


def _key(event_id: str) -> str:
    return f"event:{event_id}"
