"""A log that loses its newest records and goes on: the real worker and its driver stand still, whatever fills the hole."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from services.medication_list.driver.cursors import StopReason
from services.medication_list.fold import VERSION
from services.medication_list.generations import GenerationRecord, begin_beside
from services.medication_list.log.source_log import MemorySourceLog
from services.medication_list.store.keys import GenerationKeys, PartitionKeys
from services.medication_list.store.memory_roles import MemoryRoles
from services.medication_list.switch_protocol import flip, freeze
from services.topics.registry import EVENTS_TOPIC
from tests.simulation.broker import IDENTITY, Stored
from tests.simulation.loop import running
from tests.simulation.schedule import seeded_chance, silence
from tests.simulation.stories import Told, story
from tests.simulation.worker import Release, run_worker
from tests.simulation.world import World

pytestmark = pytest.mark.simulation

PLACE = EVENTS_TOPIC, 0
RETRIED_S = 31.0
FIRST, ANOTHER = (story(number) for number in (0, 1))


class Stage:
    """One worker on one partition."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._group = world.group("medication-list", 1)

    def start(self) -> None:
        """Start the worker."""
        process = self._world.process("worker-0")
        self._world.loop.spawn(process, run_worker(self._world, process, Release(), self._group), process.name)

    def kill(self) -> None:
        """End the worker at once."""
        self._world.loop.kill(self._world.processes["worker-0"])

    def append(self, told: Sequence[Told]) -> None:
        """Records come to the log."""
        for each in told:
            self._world.broker.append(EVENTS_TOPIC, each.key, each.value)

    def lose(self, records: int) -> Sequence[Stored]:
        """The broker comes back without its newest records; returns them."""
        broker = self._world.broker
        broker.connection = object()
        broker.ends[PLACE] -= records
        lost = broker.records[PLACE][-records:]
        broker.records[PLACE] = broker.records[PLACE][:-records]
        return lost

    def restore(self, lost: Sequence[Stored]) -> None:
        """The broker has them again, as they were."""
        self._world.broker.records[PLACE] += lost
        self._world.broker.ends[PLACE] += len(lost)

    def go(self, *, away: bool) -> None:
        """The partition has no leader, or has one again."""
        self._world.broker.is_available = not away

    def empty_store(self) -> None:
        """What the runbook says, once nobody has the lost records any more."""
        self._world.server.flush_all()

    def _judged(self) -> int | None:
        hashes = self._world.server.content_now.hashes
        live = hashes.get(PartitionKeys(0).role, {}).get(b"live", b"").decode()
        stands = hashes.get(GenerationKeys(live, 0).offset)
        return None if stands is None else int(stands[b"offset"])

    def begin_beside(self) -> str:
        """A replay begins a generation, and a worker of its own feeds it."""
        roles = MemoryRoles(self._world.server)
        log = MemorySourceLog(IDENTITY, {0: self._world.broker.ends[PLACE]})
        made = begin_beside(roles, log, GenerationRecord(VERSION, "replay", 0))
        group = self._world.group("replay", 1)
        process = self._world.process("replay")
        self._world.loop.spawn(process, run_worker(self._world, process, Release(generation=made), group), "replay")
        return made

    def switch_to(self, generation: str) -> bool:
        """An operator makes it live."""
        roles = MemoryRoles(self._world.server)
        return flip(roles, 1, freeze(roles, 1), generation)

    def stands(self) -> tuple[int | None, StopReason | None]:
        """How far the live view has come, and why the partition is not read."""
        return self._judged(), self._stopped()

    def _stopped(self) -> StopReason | None:
        (status,) = self._world.seats["worker-0"].plan.cursors.status()
        return None if status.stop is None else status.stop.reason


@contextmanager
def staged(seed: int = 1) -> Iterator[Callable[[Callable[[Stage], Awaitable[None]]], None]]:
    dice = random.Random(seed)
    with silence(), seeded_chance(dice), running(dice) as loop:
        stage = Stage(World(loop, dice, partitions=1))
        yield lambda tale: loop.run_until_complete(tale(stage))


def play(tale: Callable[[Stage], Awaitable[None]]) -> None:
    """A worker has judged six records when the tale begins."""

    async def whole(stage: Stage) -> None:
        stage.append(FIRST[:6])
        stage.start()
        await asyncio.sleep(5.0)
        assert stage.stands() == (6, None)
        await tale(stage)

    with staged() as run:
        run(whole)


def test_what_came_in_the_hole_is_not_skipped_by_a_worker_that_begins() -> None:
    async def tale(stage: Stage) -> None:
        stage.kill()
        stage.lose(3)
        stage.append(ANOTHER[:8])
        for _ in range(2):
            stage.start()
            await asyncio.sleep(RETRIED_S + 5.0)
            assert stage.stands() == (6, StopReason.LOG_REWRITTEN)
            stage.kill()
        stage.start()
        await asyncio.sleep(5.0)
        stage.empty_store()
        await asyncio.sleep(RETRIED_S + 5.0)
        assert stage.stands() == (11, None), "made again of the log as it is"

    play(tale)


def test_a_generation_that_a_replay_makes_of_the_log_as_it_is_ends_the_stop_once_it_is_live() -> None:
    async def tale(stage: Stage) -> None:
        stage.lose(3)
        stage.append(ANOTHER[:8])
        made = stage.begin_beside()
        await asyncio.sleep(10.0)
        assert stage.stands() == (6, StopReason.LOG_REWRITTEN)
        assert stage.switch_to(made)
        await asyncio.sleep(RETRIED_S)
        assert stage.stands() == (11, None)

    play(tale)


def test_a_stop_lasts_when_the_log_has_grown_past_the_hole() -> None:
    async def tale(stage: Stage) -> None:
        stage.lose(3)
        await asyncio.sleep(3.0)
        assert stage.stands() == (6, StopReason.OFFSET_OUT_OF_RANGE)
        stage.append(ANOTHER[:8])
        await asyncio.sleep(2 * RETRIED_S)
        assert stage.stands() == (6, StopReason.LOG_REWRITTEN)

    play(tale)


def test_a_worker_that_goes_on_does_not_read_past_a_hole_that_was_filled_before_it_looked() -> None:
    """The broker was back, and had more again than the worker had read of it, before it asked for more."""

    async def tale(stage: Stage) -> None:
        stage.lose(3)
        stage.append(ANOTHER[:8])
        await asyncio.sleep(10.0)
        assert stage.stands() == (6, StopReason.LOG_REWRITTEN)

    play(tale)


def test_a_log_that_lost_the_very_last_record_is_short_at_every_look() -> None:
    """It ends where that record must be: no error says so, and nothing comes."""

    async def tale(stage: Stage) -> None:
        stage.lose(1)
        await asyncio.sleep(3.0)
        assert stage.stands() == (6, StopReason.OFFSET_OUT_OF_RANGE)
        await asyncio.sleep(RETRIED_S)
        assert stage.stands() == (6, None), "it is looked at again"
        await asyncio.sleep(10.0)
        assert stage.stands() == (6, StopReason.OFFSET_OUT_OF_RANGE)

    play(tale)


def test_a_leader_has_its_five_seconds_from_its_own_first_answer_on() -> None:
    """However long there was none before it: it may not show for a moment what it has."""

    async def tale(stage: Stage) -> None:
        lost = stage.lose(1)
        await asyncio.sleep(3.0)
        assert stage.stands() == (6, StopReason.OFFSET_OUT_OF_RANGE)
        stage.go(away=True)
        await asyncio.sleep(RETRIED_S + 10.0)
        assert stage.stands() == (6, None), "looked for, and nobody answers"
        stage.go(away=False)
        await asyncio.sleep(3.0)
        assert stage.stands() == (6, None)
        stage.restore(lost)
        stage.append(ANOTHER[:4])
        await asyncio.sleep(5.0)
        assert stage.stands() == (10, None)

    play(tale)


def test_a_log_that_is_whole_again_is_read_on_where_it_was_left() -> None:
    async def tale(stage: Stage) -> None:
        lost = stage.lose(3)
        await asyncio.sleep(3.0)
        assert stage.stands() == (6, StopReason.OFFSET_OUT_OF_RANGE)
        stage.restore(lost)
        stage.append(ANOTHER[:4])
        await asyncio.sleep(RETRIED_S)
        assert stage.stands() == (10, None)

    play(tale)
