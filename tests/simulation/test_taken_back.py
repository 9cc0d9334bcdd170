"""A decision that an older copy of the store took back while whoever made it went on: real workers come to rest all the same."""

import asyncio
import random

import pytest

from services.medication_list.fold import VERSION
from services.medication_list.generations import GenerationRecord, begin_beside
from services.medication_list.log.source_log import MemorySourceLog
from services.medication_list.store.memory_roles import MemoryRoles
from services.medication_list.store.roles import RoleState
from services.medication_list.switch_protocol import flip, freeze
from services.topics.registry import EVENTS_TOPIC
from tests.simulation.broker import IDENTITY
from tests.simulation.loop import running
from tests.simulation.schedule import seeded_chance, silence
from tests.simulation.stories import story
from tests.simulation.worker import Release, run_worker
from tests.simulation.world import World

pytestmark = pytest.mark.simulation


def start(world: World, name: str, generation: str | None = None) -> None:
    process = world.process(name)
    group = world.group(f"of {generation}", 1)
    world.loop.spawn(process, run_worker(world, process, Release(generation=generation), group), name)


def tell(world: World, number: int) -> None:
    for each in story(number)[:6]:
        world.broker.append(EVENTS_TOPIC, each.key, each.value)


def test_workers_come_to_rest_where_the_pointer_names_one_generation_and_another_is_live() -> None:
    async def tale(world: World) -> None:
        roles = MemoryRoles(world.server)
        tell(world, 0)
        start(world, "processor")
        await asyncio.sleep(5.0)
        beside = begin_beside(roles, MemorySourceLog(IDENTITY, {0: 6}), GenerationRecord(VERSION, "next", 0))
        start(world, "pinned", beside)
        await asyncio.sleep(5.0)
        # Whoever switches looks at its own decision, the store goes back, and a role follows that was not decided.
        announced = freeze(roles, 1)
        frozen = world.server.save()
        assert flip(roles, 1, announced, beside)
        thawed = roles.roles([0])[0]
        world.server.roll_back(frozen)
        role = roles.roles([0])[0]
        assert role is not None
        assert thawed is not None
        assert roles.turn(0, role, thawed)
        world.loop.kill(world.processes["pinned"])
        tell(world, 1)
        await asyncio.sleep(10.0)
        role = roles.roles([0])[0]
        assert role is not None
        assert (role.live, role.state) == (announced.generation, RoleState.LIVE)
        assert roles.offsets(role.live, [0]) == {0: 12}

    dice = random.Random(1)
    with silence(), seeded_chance(dice), running(dice) as loop:
        loop.run_until_complete(tale(World(loop, dice, partitions=1)))
