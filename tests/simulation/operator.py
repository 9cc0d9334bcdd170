"""An operator in the simulation: begins a generation beside the live one, has it fed, and switches to it and back."""

import asyncio
from typing import TYPE_CHECKING, cast

from services.medication_list.fold import VERSION
from services.medication_list.generations import GenerationRecord, GenerationRefusedError, begin_beside
from services.medication_list.log.source_log import SourceLogUnavailableError
from services.medication_list.store.inventory import Inventory
from services.medication_list.store.memory_inventory import MemoryInventory
from services.medication_list.store.port import StoreUnavailableError
from services.medication_list.switch_protocol import left_last
from services.replay.place import Place
from services.replay.switching import switch, way_back
from tests.simulation.loop import Process
from tests.simulation.ports import SimulatedRoles, SimulatedSourceLog, SimulatedStore, StoreLink

if TYPE_CHECKING:
    from tests.simulation.schedule import Schedule


async def run_operator(schedule: "Schedule", process: Process) -> None:
    """Makes a generation, switches to it, perhaps back, and again; whatever is refused is tried again later."""
    world = schedule.world
    link = StoreLink(world, process)
    roles, log = SimulatedRoles(link), SimulatedSourceLog(world)
    place = Place(
        roles=roles,
        log=log,
        inventory=cast("Inventory", MemoryInventory(world.server)),
        store_of=lambda generation: SimulatedStore(link, generation),
        partitions=world.partitions,
    )
    record = GenerationRecord(VERSION, "next", world.now_ms())

    def make() -> None:
        made = begin_beside(roles, log, record)
        world.note(f"made {made}")
        schedule.feed(made)

    def change() -> None:
        pointer = place.pointer()
        others = [each for each in pointer.records if each != pointer.generation]
        if not others:
            raise GenerationRefusedError("There is nothing to switch to.")
        goal = way_back(place) if left_last(pointer) and world.dice.random() < 0.4 else others[-1]
        switched = switch(place, goal, 0.8, world.loop.pause, world.loop.time)
        world.note(f"switched from {switched.before} to {switched.live}")

    every_s = world.dice.choice(schedule.profile.switches_every_s)
    while True:
        await asyncio.sleep(every_s * (0.3 + 1.4 * world.dice.random()))
        try:
            pointer = await asyncio.to_thread(roles.pointer)
            if pointer is None:
                continue
            await asyncio.to_thread(make if len(pointer.records) < 2 else change)
        except (GenerationRefusedError, StoreUnavailableError, SourceLogUnavailableError) as error:
            world.note(f"not done: {type(error).__name__}: {error}"[:90])
