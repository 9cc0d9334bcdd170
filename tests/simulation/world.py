"""One simulated world: broker, store, clock and dice, and the processes that share them; the checks look at all of it."""

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from services.clock import Clock
from services.medication_list.log.source_log import PROGRESS_TOPIC
from services.medication_list.store.memory_server import Content, Hash, MemoryServer
from services.topics.registry import EVENTS_TOPIC
from tests.simulation.broker import Broker, Group
from tests.simulation.history import History
from tests.simulation.loop import Process, Scheduler, current_process

BEGIN_MS: Final = 1_772_442_000_000
"""When a schedule begins, by every clock."""


@dataclass
class Mishaps:
    """What can go wrong with a call, as shares of all calls; nothing once `are_over`."""

    fails_before: float = 0.0
    fails_after: float = 0.0
    is_slow: float = 0.0
    lingers: float = 0.0
    """Of those who have read state and are about to write: so often one is held up for long enough that others write."""
    are_over: bool = False


class ProcessClock(Clock):
    """The clock of one process: virtual time, and as wrong as somebody set it."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.wrong_by_ms = 0

    def now_ms(self) -> int:
        """See `Clock.now_ms`."""
        return self._world.now_ms() + self.wrong_by_ms

    def monotonic_ms(self) -> int:
        """See `Clock.monotonic_ms`."""
        return int(self._world.loop.time() * 1000)


@dataclass
class World:
    """What all share. `store` and `log` are what may go wrong with a call of each."""

    loop: Scheduler
    dice: random.Random
    partitions: int
    store: Mishaps = field(default_factory=Mishaps)
    log: Mishaps = field(default_factory=Mishaps)

    def __post_init__(self) -> None:
        self.history = History(self.loop.time)
        self.server = Server(self.loop.time)
        self.broker = Broker(self.partitions_of, self.now_ms)
        self.groups: dict[str, Group] = {}
        self.processes: dict[str, Process] = {}
        self.clocks: dict[str, ProcessClock] = {}
        self.after_store: list[Callable[[str, int | None], None]] = []
        self.on_rewrite: Callable[[str, int, str, Hash], None] = lambda *_: None
        """Told the generation, the partition, the patient, and the patient's index as it stood before."""
        self.read_now: list[str] = []
        """Patients whose state somebody has read and is about to write."""
        self.fetch_waiters: list[asyncio.Future[None]] = []
        self.seats: dict[str, Any] = {}
        self.on_belief: Callable[[str, Mapping[int, tuple[int, int]]], None] = lambda *_: None
        self.on_whole: Callable[[str], None] = lambda _: None
        """Told which generation was marked whole that was not."""
        self.lost_at: dict[int, int] = dict.fromkeys(range(self.partitions), 0)
        self.era = 0
        self.lost_pointer: Hash = {}
        """The last pointer that was lost."""

    def now_ms(self) -> int:
        """What time it is, by a clock that is right."""
        return BEGIN_MS + int(self.loop.time() * 1000)

    def partitions_of(self, topic: str) -> int:
        """How many partitions a topic has."""
        return self.partitions if topic in (EVENTS_TOPIC, PROGRESS_TOPIC) else 1

    def group(self, name: str, partitions: int) -> Group:
        """A consumer group."""
        if name not in self.groups:
            self.groups[name] = Group(partitions, self.loop.time)
        return self.groups[name]

    def process(self, name: str) -> Process:
        """A new process, in the place of one that has died."""
        self.processes[name] = Process(name)
        self.clocks[name] = ProcessClock(self)
        return self.processes[name]

    def note(self, what: str) -> None:
        """The process that runs did something."""
        process = current_process()
        self.history.note("world" if process is None else process.name, what)

    def linger(self) -> None:
        """Hold up whoever has read state, now and then, for a moment."""
        if not self.store.are_over and self.dice.random() < self.store.lingers:
            self.loop.pause(self.dice.choice((0.01, 0.03, 0.05, 0.1, 0.3)) * (0.5 + self.dice.random()))

    def delay_s(self, mishaps: Mishaps) -> float:
        """How long half a round trip takes."""
        roll = self.dice.random()
        if not mishaps.are_over and roll < mishaps.is_slow:
            return 0.05 + self.dice.random()
        return 0.0002 + 0.002 * roll


class Server(MemoryServer):
    """The store's server; its leases run out by virtual time, and go back with an older image as all else does."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        super().__init__(lambda: int(now_s() * 1000))
        self.now_s = now_s
        self.is_full = False
        """It answers readers, and takes no write."""
        self.leases: dict[int, tuple[str, float]] = {}

    @property
    def content_now(self) -> Content:
        """All that it holds, for checks."""
        return self._content

    def lose(self, is_lost: Callable[[str], bool]) -> None:
        """Lose some keys."""
        for key in [each for each in self._content.hashes if is_lost(each)]:
            del self._content.hashes[key]
        for key in [each for each in self._content.outboxes if is_lost(each)]:
            del self._content.outboxes[key]

    def flush_all(self) -> None:
        """Lose everything, as an operator may, without a restart: it is the same server that answers."""
        self.lose(lambda _: True)
        self.leases.clear()
