"""The store in memory as the read API sees it."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence

from services.medication_list.store.keys import GenerationKeys
from services.medication_list.store.memory_server import Hash, MemoryServer, role_at
from services.medication_list.store.reading import Asked, Look, Looked
from services.medication_list.store.roles import RoleState


class MemoryViews:
    """Where readers look, in memory. See `reading.Views` for what each method promises."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    async def look(self, asked: Sequence[Asked]) -> list[Looked]:
        """See `Views.look`."""
        return [self._look(*each) for each in asked]

    def _look(self, partition: int, generation: str, looks: Sequence[Look]) -> Looked:
        server = str(self._server.run)
        with self._server.call() as content:
            role = role_at(content, partition)
            if role is None:
                return Looked(server, generation, 0, 0, None, 0, b"", ())
            if role.live != generation:
                return Looked(server, role.live, 0, 0, RoleState.LIVE, 0, b"", ())
            stands = content.hashes.get(GenerationKeys(generation, partition).offset)
            if stands is None:
                return Looked(server, generation, 0, 0, None, 0, b"", ())
            values = [_values(content.hashes.get(each.key, {}), each) for each in looks]
            offset, epoch, last = int(stands[b"offset"]), int(stands[b"epoch"]), stands.get(b"last", b"")
            return Looked(server, generation, offset, epoch, role.state, role.until, last, values)

    async def announcements(self, partitions: Collection[int]) -> AsyncGenerator[tuple[int, int] | None, None]:
        """See `Views.announcements`."""
        heard: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def hear(partition: int, offset: int) -> None:
            # The writer may be in another thread.
            loop.call_soon_threadsafe(heard.put_nowait, (partition, offset))

        self._server.listeners.append(hear)
        try:
            yield None
            while True:
                partition, offset = await heard.get()
                if partition in partitions:
                    yield partition, offset
        finally:
            self._server.listeners.remove(hear)

    async def close(self) -> None:
        """See `Views.close`."""


def _values(held: Hash, look: Look) -> Sequence[bytes | None]:
    if look.fields is None:
        return [each for pair in held.items() for each in pair]
    return [held.get(each.encode() if isinstance(each, str) else each) for each in look.fields]
