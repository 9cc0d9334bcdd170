"""A small TCP proxy for each link between two processes: cut it, fall silent, slow it, lose answers, break it midway."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from deploy.local.ports import LOOPBACK, choose_port

_CHUNK: Final = 65_536
_ASKED_WITHIN_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """How a link is. Without arguments it is sound.

    refuses: standing connections are reset, new ones too. silent: nothing passes either way, and nothing is closed.
    delay_ms: later by this much, each way. bytes_per_s: no faster. loses_answers: what is sent arrives, what is answered
    does not; those connections are reset when the link changes. breaks_after_bytes: after so many, half of the next
    piece still passes and the connection is reset.
    """

    refuses: bool = False
    silent: bool = False
    delay_ms: int = 0
    bytes_per_s: int | None = None
    loses_answers: bool = False
    breaks_after_bytes: int | None = None


SOUND: Final = Condition()


@dataclass(slots=True)
class _Link:
    port: int
    target: int
    condition: Condition = SOUND
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    open: set[asyncio.StreamWriter] = field(default_factory=set)
    passed: int = 0


class Proxies:
    """The links by name, all in one thread of its own. Close it."""

    def __init__(self) -> None:
        self._links: dict[str, _Link] = {}
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._thread.start()

    def add(self, name: str, port: int, target: int) -> None:
        """Listen on `port` and pass everything to `target`, both on this machine."""
        self._links[name] = _Link(port, target)
        self._ask(self._listen(self._links[name]))

    def set(self, name: str, condition: Condition) -> None:
        """From the return on that link is so."""
        self._ask(self._change(self._links[name], condition))

    def lead(self, name: str, target: int) -> None:
        """From the return on new connections go to another port, as to another server of the same name; standing ones stay."""
        self._ask(self._turn(self._links[name], target))

    def names(self) -> list[str]:
        """Every link."""
        return list(self._links)

    def close(self) -> None:
        """Let go of every connection."""
        self._ask(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _ask(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(_ASKED_WITHIN_S)

    # In the proxies' thread.

    async def _listen(self, link: _Link) -> None:
        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _joined(link, reader, writer)

        self._servers.append(await asyncio.start_server(accepted, LOOPBACK, link.port))

    async def _change(self, link: _Link, condition: Condition) -> None:
        lost = link.condition.loses_answers
        link.condition, link.passed = condition, 0
        link.changed.set()
        link.changed = asyncio.Event()
        if condition.refuses or lost:
            _reset(link)

    async def _turn(self, link: _Link, target: int) -> None:
        link.target = target

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for link in self._links.values():
            link.condition = Condition(refuses=True)
            link.changed.set()
            _reset(link)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


def free_port() -> int:
    """A port for a link, to be told to those who come by it before the link is there."""
    return choose_port()


def _reset(link: _Link) -> None:
    for writer in link.open:
        writer.transport.abort()
    link.open.clear()


async def _joined(link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection from its accept to its end."""
    far: asyncio.StreamWriter | None = None
    try:
        if link.condition.refuses:
            return
        answers, far = await asyncio.open_connection(LOOPBACK, link.target)
        link.open |= {writer, far}
        await asyncio.gather(_pump(link, reader, far, answer=False), _pump(link, answers, writer, answer=True))
    except (OSError, asyncio.IncompleteReadError):
        return
    finally:
        for each in (writer, far):
            if each is not None:
                link.open.discard(each)
                each.transport.abort()


async def _pump(link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answer: bool) -> None:
    while piece := await reader.read(_CHUNK):
        condition = link.condition
        if condition.delay_ms:
            await asyncio.sleep(condition.delay_ms / 1000)
        if condition.bytes_per_s:
            await asyncio.sleep(len(piece) / condition.bytes_per_s)
        while link.condition.silent:
            await link.changed.wait()
        if answer and link.condition.loses_answers:
            continue
        link.passed += len(piece)
        limit = link.condition.breaks_after_bytes
        if limit is not None and link.passed > limit:
            link.passed = 0
            writer.write(piece[: len(piece) // 2])
            with contextlib.suppress(OSError):
                await writer.drain()
            raise ConnectionResetError
        writer.write(piece)
        await writer.drain()
    # One side has ended: the other is told at once, since nobody here half-closes.
    raise ConnectionResetError
