"""What one partition fails on is that partition's alone: the real worker and its driver go on with all others."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import pytest
from structlog.testing import capture_logs

from services.medication_list.fold.state import META
from services.medication_list.store.keys import GenerationKeys, PartitionKeys
from services.topics.registry import EVENTS_TOPIC
from tests.simulation.loop import running
from tests.simulation.schedule import seeded_chance
from tests.simulation.stories import story
from tests.simulation.worker import Release, run_worker
from tests.simulation.world import World

pytestmark = pytest.mark.simulation

PARTITIONS = 3
UNREADABLE = b"\xc1"
"""No msgpack begins with it."""


class Stage:
    """One worker on three partitions, and what it has been told."""

    def __init__(self, world: World, lines: Sequence[Mapping[str, Any]]) -> None:
        self.world = world
        self.lines = lines
        stories = [story(number) for number in range(20)]
        self._told = [each for events in zip_longest(*stories) for each in events if each is not None]
        process = world.process("worker-0")
        world.loop.spawn(
            process, run_worker(world, process, Release(), world.group("medication-list", PARTITIONS)), "w"
        )

    def append(self, events: int) -> None:
        """The next events of all patients come to the log."""
        now, self._told = self._told[:events], self._told[events:]
        for each in now:
            self.world.broker.append(EVENTS_TOPIC, each.key, each.value)

    def ends(self) -> Mapping[int, int]:
        """Where the log ends."""
        return {each: self.world.broker.ends[EVENTS_TOPIC, each] for each in range(PARTITIONS)}

    def stand(self) -> Mapping[int, int]:
        """How far each partition has come."""
        hashes = self.world.server.content_now.hashes
        return {each: int(hashes[self._keys(each).offset][b"offset"]) for each in range(PARTITIONS)}

    def stuck(self) -> list[int]:
        """Those that the driver calls stuck a minute after they came further."""
        cursors = self.world.seats["worker-0"].plan.cursors
        return [each.partition for each in cursors.stuck(self.world.loop.time(), 60.0)]

    def spoil(self, partition: int) -> Callable[[], None]:
        """Something that no release wrote takes the place of a field of each patient; returns what takes it back."""
        lists = self._keys(partition).list_of
        hashes = self.world.server.content_now.hashes
        was = {key: dict(held) for key, held in hashes.items() if key.startswith(lists)}
        assert was, "nobody lives in this partition"
        for key, held in was.items():
            hashes[key] = {**held, **dict.fromkeys((META.encode(), *held), UNREADABLE)}
        return lambda: hashes.update(was)

    def _keys(self, partition: int) -> GenerationKeys:
        live = self.world.server.content_now.hashes[PartitionKeys(partition).role][b"live"]
        return GenerationKeys(live.decode(), partition)


def play(tale: Callable[[Stage], Awaitable[None]]) -> None:
    """A worker has judged sixty records when the tale begins."""

    async def whole(stage: Stage) -> None:
        stage.append(60)
        await asyncio.sleep(10.0)
        assert stage.stand() == stage.ends()
        await tale(stage)

    dice = random.Random(1)
    with capture_logs() as lines, seeded_chance(dice), running(dice) as loop:
        loop.run_until_complete(whole(Stage(World(loop, dice, partitions=PARTITIONS), lines)))


def test_a_field_that_nobody_can_read_stops_its_partition_alone_and_is_told_with_it() -> None:
    async def tale(stage: Stage) -> None:
        mended = stage.spoil(1)
        before = stage.stand()[1]
        for _ in range(7):
            stage.append(20)
            await asyncio.sleep(10.0)
            assert stage.stand() == {**stage.ends(), 1: stage.stand()[1]}
        failed = [line for line in stage.lines if line["event"] == "batch_failed"]
        assert {line["partition"] for line in failed} == {1}
        stands = stage.stand()[1]
        assert before <= stands < stage.ends()[1]
        assert failed[-1]["offset"] == stands
        assert stage.stuck() == [1]
        mended()
        await asyncio.sleep(5.0)
        assert stage.stand() == stage.ends()

    play(tale)
