"""Those around the processor: relays, readers, and clients that write, each a process that may die at any await."""

import asyncio
from collections.abc import Collection, Sequence
from typing import Final

from services.identity.sealing import Sealer
from services.medication_list.log.record_log import LogLookupError
from services.medication_list.log.source_log import SourceLogUnavailableError
from services.medication_list.refolding.refolder import Refolder, RefoldRefusedError
from services.medication_list.relay.party_topics import MemoryPartyTopics, PartyTopics
from services.medication_list.relay.relay import Relay
from services.medication_list.store.port import StoreUnavailableError
from services.medication_list.store.reading import Found, NotReadyError, ViewReader
from services.publishing.log import LogUnavailable, Position
from services.publishing.partitioning import partition_of
from services.topics.registry import EVENTS_TOPIC
from tests.simulation.checks import Checks
from tests.simulation.loop import Process
from tests.simulation.ports import (
    SimulatedLog,
    SimulatedOutbox,
    SimulatedRecordLog,
    SimulatedRoles,
    SimulatedSourceLog,
    SimulatedStore,
    SimulatedViews,
    StoreLink,
    log_ends,
)
from tests.simulation.stories import Told
from tests.simulation.world import World

SEALER: Final = Sealer(b"s" * 32)


class EveryTopic(MemoryPartyTopics):
    """Every topic of a party is there, but for those that are missing for a while."""

    def __init__(self) -> None:
        super().__init__(())
        self.missing: set[str] = set()

    async def existing(self, topics: Collection[str]) -> Collection[str]:
        """See `PartyTopics.existing`."""
        return set(topics) - self.missing

    def is_listed(self, system: str) -> bool:  # noqa: ARG002 - the port's signature
        """See `PartyTopics.is_listed`."""
        return True


async def run_relay(world: World, process: Process, topics: PartyTopics) -> None:
    """One relay."""
    link = StoreLink(world, process)
    relay = Relay(
        SimulatedOutbox(link),
        SimulatedLog(world),
        topics,
        SEALER,
        world.clocks[process.name],
        world.partitions,
        SimulatedSourceLog(world).relayed,
        owner=f"{process.name}-{world.dice.randrange(10**6)}",
    )
    await relay.run()


async def run_reader(world: World, process: Process, checks: Checks, patients: Sequence[str], every_s: float) -> None:
    """Reads one patient after the other, and looks whether anything goes back or was never so."""
    reader = ViewReader(SimulatedViews(StoreLink(world, process)), world.partitions, lambda: log_ends(world))
    seen: dict[int, int] = {}
    while True:
        await asyncio.sleep(every_s * (0.5 + world.dice.random()))
        patient = world.dice.choice(patients)
        era = world.era
        try:
            if world.dice.random() < 0.3:
                await reader.await_offset(
                    partition_of(patient.encode(), world.partitions), world.dice.randrange(20), 800
                )
            listed, index = await reader.list_and_index(patient)
        except (NotReadyError, StoreUnavailableError, SourceLogUnavailableError):
            continue
        _look_at(world, process.name, listed, seen, era)
        checks.check_read(process.name, patient, listed, is_index=False)
        checks.check_read(process.name, patient, index, is_index=True)


def _look_at(world: World, who: str, found: Found, seen: dict[int, int], era: int) -> None:
    """I12: a position never goes back, and nothing is shown below where the log ended when something was lost."""
    before = seen.get(found.partition, -1)
    if found.offset < before:
        world.history.broken("I12", f"{who} saw p{found.partition} go back from {before} to {found.offset}")
    seen[found.partition] = max(before, found.offset)
    lost_at = world.lost_at[found.partition]
    if era == world.era and found.offset < lost_at:
        world.history.broken(
            "I12", f"{who} was shown p{found.partition} at {found.offset}, and it was lost at {lost_at}"
        )


async def run_caseworker(
    world: World, process: Process, patients: Sequence[str], every_s: float, beside: float
) -> None:
    """Folds one patient after the other anew, as an operator may, while their events keep coming.

    `beside`: how often in a generation beside the live one, as a worker does that mends there.
    """
    link = StoreLink(world, process)
    while True:
        await asyncio.sleep(every_s * 2 * world.dice.random())
        # Rather one whose state somebody has in hand: between a read and a write a refold does the most harm.
        patient = world.dice.choice(world.read_now if world.read_now and world.dice.random() < 0.7 else patients)
        try:
            pointer = await asyncio.to_thread(SimulatedRoles(link).pointer)
            if pointer is None:
                continue
            others = [each for each in pointer.records if each != pointer.generation]
            is_beside = others and world.dice.random() < beside
            store = SimulatedStore(link, world.dice.choice(others) if is_beside else pointer.generation)
            refolder = Refolder(store, SimulatedRecordLog(world), world.partitions, world.now_ms)
            await asyncio.to_thread(refolder.refold, patient)
        except (StoreUnavailableError, LogLookupError, RefoldRefusedError):
            continue


class Acknowledged:
    """What was answered: the writes that the log must have, and in which order each sender sent them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.writes: list[tuple[str, Told, Position]] = []

    def check(self) -> None:
        """I1, I6: each of them lies where it was said to lie, and a sender's own in the order in which they were sent."""
        last: dict[tuple[str, bytes], int] = {}
        for who, told, at in self.writes:
            records = self._world.broker.read(EVENTS_TOPIC, at.partition, at.offset, 1)
            if not records or records[0].offset != at.offset or records[0].value != told.value:
                self._world.history.broken("I1", f"{who} was told that {at} holds its event, and it does not")
            if at.offset < last.get((who, told.key), -1):
                self._world.history.broken("I6", f"{who}: {at} was sent after {last[who, told.key]}")
            last[who, told.key] = at.offset


async def run_client(
    world: World, process: Process, acknowledged: Acknowledged, writes: Sequence[Told], every_s: float
) -> None:
    """Writes one event after the other, each until it is acknowledged; a lost ack makes a duplicate."""
    log = SimulatedLog(world)
    for told in writes:
        await asyncio.sleep(every_s * 2 * world.dice.random())
        while True:
            try:
                at = await log.append(EVENTS_TOPIC, told.key, told.value)
            except LogUnavailable:
                await asyncio.sleep(0.2 * world.dice.random())
            else:
                acknowledged.writes.append((process.name, told, at))
                world.note(f"wrote {at.partition}/{at.offset}")
                break
