"""Readers that see a new server, or a view that went back, while the log is asked where it ends: one question for all."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

import pytest_asyncio

from services.medication_list.log.source_log import SourceLogUnavailableError
from services.medication_list.store.keys import GenerationKeys
from services.medication_list.store.memory_roles import MemoryRoles
from services.medication_list.store.memory_server import MemoryServer
from services.medication_list.store.memory_store import MemoryStore
from services.medication_list.store.memory_views import MemoryViews
from services.medication_list.store.port import PartitionWrite
from services.medication_list.store.reading import ViewReader
from services.medication_list.store.roles import Beginning

GENERATION: Final = "g1-aaaaaa"
PARTITIONS: Final = 2
READERS: Final = 1_000
SILENT: Final = SourceLogUnavailableError("the log does not answer")


class Log:
    """A log that answers when it is told to; `questions` wait in order, each for its answer."""

    def __init__(self) -> None:
        self.questions: list[asyncio.Future[Mapping[int, int]]] = []

    async def ends(self) -> Mapping[int, int]:
        """Where it ends."""
        self.questions.append(asyncio.get_running_loop().create_future())
        return await self.questions[-1]


async def all_wait() -> None:
    """Let everybody come to where nothing but an answer helps."""
    for _ in range(10):
        await asyncio.sleep(0)


async def told(asking: Sequence["asyncio.Task[int]"]) -> list[int | BaseException]:
    """What each was told, in the time of one answer."""
    await all_wait()
    assert all(each.done() for each in asking)
    return await asyncio.gather(*asking, return_exceptions=True)


class Place:
    """A view in memory with a reader, and the log that it asks."""

    def __init__(self) -> None:
        self.server, self.log = MemoryServer(), Log()
        self.begin()
        self.reader = ViewReader(MemoryViews(self.server), PARTITIONS, self.log.ends)

    def begin(self) -> None:
        """A generation in both partitions, at their beginning."""
        MemoryRoles(self.server).begin({each: Beginning(GENERATION, 1, 0, 0) for each in range(PARTITIONS)})

    def write(self, partition: int, until: int) -> None:
        """The view comes to there."""
        MemoryStore(self.server, GENERATION).write([PartitionWrite(partition, 0, 0, until)])

    def set_back(self, partition: int) -> None:
        """An operator's doing: the same server shows less."""
        with self.server.call() as content:
            content.hashes[GenerationKeys(GENERATION, partition).offset][b"offset"] = b"2"

    async def ask(self, partition: int, *, times: int = 1) -> list[asyncio.Task[int]]:
        """So many ask how far a partition has come; all of them have looked when this is over."""
        asking = [asyncio.create_task(self.reader.offset_of(partition)) for _ in range(times)]
        await all_wait()
        return asking


@pytest_asyncio.fixture
async def place() -> AsyncIterator[Place]:
    place = Place()
    yield place
    await place.reader.close()


async def test_all_are_told_at_once_that_the_log_does_not_answer_and_the_next_one_asks_again(place: Place) -> None:
    waiting = await place.ask(0, times=READERS)
    assert len(place.log.questions) == 1
    place.log.questions[0].set_exception(SILENT)
    assert {type(each) for each in await told(waiting)} == {SourceLogUnavailableError}
    (again,) = await place.ask(0)
    assert len(place.log.questions) == 2
    place.log.questions[1].set_result({0: 0, 1: 0})
    assert await told([again]) == [0]


async def test_one_answer_is_enough_for_all_who_saw_the_same_server(place: Place) -> None:
    waiting = [*await place.ask(0, times=3), *await place.ask(1, times=3)]
    place.log.questions[0].set_result({0: 0, 1: 5})
    answers = await told(waiting)
    assert answers[:3] == [0, 0, 0]
    assert [getattr(each, "until", None) for each in answers[3:]] == [5, 5, 5]
    assert len(place.log.questions) == 1


async def test_who_asked_first_may_leave_and_the_others_are_answered(place: Place) -> None:
    first, second = await place.ask(0, times=2)
    first.cancel()
    await all_wait()
    place.log.questions[0].set_result({0: 0, 1: 0})
    assert await told([second]) == [0]
    assert len(place.log.questions) == 1


async def test_a_loss_that_is_seen_while_the_log_is_asked_is_measured_by_a_later_answer(place: Place) -> None:
    for partition in range(PARTITIONS):
        place.write(partition, 5)
    shown = [*await place.ask(0), *await place.ask(1)]
    place.log.questions[0].set_result({0: 5, 1: 5})
    assert await told(shown) == [5, 5]
    place.set_back(0)
    (first,) = await place.ask(0)
    place.set_back(1)
    (second,) = await place.ask(1)
    place.log.questions[1].set_result({0: 5, 1: 5})
    assert [getattr(each, "until", None) for each in await told([first])] == [5]
    place.log.questions[2].set_result({0: 9, 1: 9})
    assert [getattr(each, "until", None) for each in await told([second])] == [9]
