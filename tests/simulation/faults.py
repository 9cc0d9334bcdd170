"""What goes wrong: one function a fault; each begins it, and `heal` ends whatever still lasts."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from services.medication_list.store.keys import LIVE
from services.medication_list.store.memory_server import Content
from services.topics.registry import EVENTS_TOPIC
from tests.simulation.stories import poison

if TYPE_CHECKING:
    from tests.simulation.schedule import Schedule

Fault = Callable[["Schedule"], Awaitable[None]]
FAULTS: dict[str, Fault] = {}


@dataclass
class Images:
    """Older files of the store."""

    kept: list[tuple[Content, dict[int, tuple[str, float]]]] = field(default_factory=list)


def fault(of: Fault) -> Fault:
    """List it by its name."""
    FAULTS[of.__name__] = of
    return of


@fault
async def kill(s: "Schedule") -> None:
    """F2: a process is killed, wherever it is, and started again after a while, or at once."""
    name = s.some_process()
    s.world.note(f"{name} is killed")
    s.kill(name)
    await asyncio.sleep(s.dice.choice((0.0, 0.1, 1.0, 7.0)))
    s.start(name)


@fault
async def stop(s: "Schedule") -> None:
    """F3: a process is stopped in its midst, for a moment or past its session and its lease, and goes on."""
    name = s.some_process()
    process = s.world.processes[name]
    if process.is_stopped or process.is_dead:
        return
    process.is_stopped = True
    s.world.note(f"{name} is stopped")
    await asyncio.sleep(s.dice.choice((0.01, 0.3, 3.0, 8.0, 14.0)))
    if process is s.world.processes[name] and not process.is_dead:
        s.world.note(f"{name} goes on")
        s.world.loop.go_on(process)


@fault
async def rebalance(s: "Schedule") -> None:
    """F16: partitions move."""
    for group in s.world.groups.values():
        group.rebalance()
    s.world.note("rebalance")


@fault
async def shared_partitions(s: "Schedule") -> None:
    """Every worker believes that all partitions are its own, for a while."""
    for group in s.world.groups.values():
        group.share()
    s.world.note("everybody has all partitions")
    await asyncio.sleep(s.dice.choice((1.0, 5.0)))
    for group in s.world.groups.values():
        group.rebalance()


@fault
async def store_away(s: "Schedule") -> None:
    """F5, F11: the store does not answer for a while, and then it does, with all that it had."""
    s.world.note("store away")
    s.world.server.is_available = False
    await asyncio.sleep(s.dice.choice((0.05, 0.5, 3.0)))
    s.world.server.is_available = True
    if s.dice.random() < 0.5:
        s.world.server.run += 1
    s.world.note("store back")


@fault
async def store_rolled_back(s: "Schedule") -> None:
    """F12, F21: the store comes back with an older file."""
    if not s.images.kept:
        return
    content, leases = s.dice.choice(s.images.kept[-6:])
    s.lose("store rolled back", is_set_back=True)
    s.world.server.roll_back(content)
    s.replays.set_back()
    s.world.server.leases = dict(leases)


@fault
async def store_flushed(s: "Schedule") -> None:
    """F11: the store restarts without a file: nothing is left."""
    s.lose("store flushed")
    s.world.server.flush()
    s.world.server.leases.clear()


@fault
async def store_emptied(s: "Schedule") -> None:
    """F11: an operator empties a store that goes on: nothing but what is missing tells that it is another one."""
    s.lose("store emptied")
    s.world.server.flush_all()


@fault
async def partition_lost(s: "Schedule") -> None:
    """Everything of one partition is gone, as when one node of a cluster loses its file."""
    partition = s.dice.randrange(s.world.partitions)
    s.lose(f"partition {partition} lost", partition)
    s.world.server.lose(lambda key: f"{{{partition}}}" in key)
    s.world.server.leases.pop(partition, None)


@fault
async def pointer_lost(s: "Schedule") -> None:
    """The pointer is gone while the partitions stand; an operator restores it: the last one that there was."""
    held = s.world.server.content_now.hashes.get(LIVE)
    if held is None:
        return
    s.world.note("pointer lost")
    s.world.lost_pointer = held
    s.world.server.lose(lambda key: key == LIVE)
    era = s.world.era
    await asyncio.sleep(s.dice.choice((0.1, 2.0, 5.0)))
    if s.world.era == era and LIVE not in s.world.server.content_now.hashes:
        s.world.note("pointer restored")
        s.world.server.content_now.hashes[LIVE] = s.world.lost_pointer
        s.start_all()


@fault
async def store_full(s: "Schedule") -> None:
    """F13: the store takes no write, and is read all the same."""
    s.world.note("store full")
    s.world.server.is_full = True
    await asyncio.sleep(s.dice.choice((0.2, 2.0)))
    s.world.server.is_full = False


@fault
async def log_away(s: "Schedule") -> None:
    """F4: the broker does not answer for a while."""
    s.world.note("log away")
    s.world.broker.is_available = False
    await asyncio.sleep(s.dice.choice((0.05, 1.0, 8.0)))
    s.world.broker.is_available = True
    s.world.broker.connection = object()
    s.world.note("log back")


@fault
async def markers(s: "Schedule") -> None:
    """Offsets that hold nothing: markers of transactions, and what was aborted."""
    s.world.broker.mark(EVENTS_TOPIC, s.dice.randrange(s.world.partitions), s.dice.choice((1, 1, 3)))


@fault
async def poisoned(s: "Schedule") -> None:
    """F9: somebody writes what nobody can read."""
    bad = poison(s.dice, s.patients, s.world.partitions)
    stored = s.world.broker.append(EVENTS_TOPIC, bad.key, bad.value, at=bad.partition)
    s.world.note(f"poison at {stored.partition}/{stored.offset}")


@fault
async def clock_jumps(s: "Schedule") -> None:
    """F15: a process has another time, an hour ahead or behind."""
    clocks = s.world.clocks
    clocks[s.dice.choice(sorted(clocks))].wrong_by_ms = s.dice.choice((-3_600_000, 0, 3_600_000))


@fault
async def beginning_deleted(s: "Schedule") -> None:
    """F18: the log's beginning is deleted past a consumer that is behind, and restored by an operator."""
    partition = s.dice.randrange(s.world.partitions)
    end = s.world.broker.ends[EVENTS_TOPIC, partition]
    s.world.note(f"log of p{partition} begins at {end}")
    s.world.broker.starts[EVENTS_TOPIC, partition] = end
    await asyncio.sleep(s.dice.choice((0.5, 3.0)))
    s.world.broker.starts.pop((EVENTS_TOPIC, partition), None)
    s.world.note(f"log of p{partition} is whole again")


@fault
async def topic_missing(s: "Schedule") -> None:
    """The topic of a party is not there for a while."""
    known = sorted({due.topic for due in s.checks.expected.due.values()} - s.topics.missing)
    if not known:
        return
    topic = s.dice.choice(known)
    s.topics.missing.add(topic)
    s.world.note(f"{topic} is missing")
    await asyncio.sleep(s.dice.choice((1.0, 5.0)))
    s.topics.missing.discard(topic)


SELDOM: Final[Mapping[str, float]] = {
    "store_flushed": 0.4,
    "store_emptied": 0.4,
    "partition_lost": 0.3,
    "beginning_deleted": 0.4,
    "pointer_lost": 0.3,
}
"""How often, compared with all others: what loses everything hides what others would find."""
