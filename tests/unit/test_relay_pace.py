"""The relay's pace: rounds that bring little keep apart, and neither what comes after a pause nor a backlog waits for that."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from schemas.reasons import NoticeKind
from services.clock import Clock
from services.identity.sealing import Sealer
from services.medication_list.fold.judgement import NoticeDue
from services.medication_list.relay.party_topics import MemoryPartyTopics
from services.medication_list.relay.relay import Relay
from services.medication_list.store.memory_outbox import MemoryOutbox
from services.medication_list.store.memory_roles import MemoryRoles
from services.medication_list.store.memory_server import MemoryServer
from services.medication_list.store.memory_store import MemoryStore
from services.medication_list.store.port import PartitionWrite
from services.medication_list.store.roles import Beginning
from services.medication_list.store.waiting import WaitingEntry
from services.medication_list.stored.packing import pack_effect
from services.publishing.log import Headers, Position
from services.publishing.memory_log import MemoryLog
from services.topics.registry import load
from tests.simulation.loop import Scheduler, running

CLINIC = "313000044"
NOTICES = f"notices.{CLINIC}"
APART_MS = 100
LITTLE = 50


class LoopClock(Clock):
    """The loop's own time, which passes only where everybody waits."""

    def __init__(self, loop: Scheduler) -> None:
        self._loop = loop

    def now_ms(self) -> int:
        """See `Clock.now_ms`."""
        return round(self._loop.time() * 1000)

    def monotonic_ms(self) -> int:
        """See `Clock.monotonic_ms`."""
        return self.now_ms()


class WaitingOutbox(MemoryOutbox):
    """Waits as the real one does, and answers within a millisecond of what comes meanwhile."""

    def __init__(self, server: MemoryServer, pause: Callable[[float], None]) -> None:
        super().__init__(server)
        self._pause = pause

    def waiting(self, after: Mapping[int, str], at_most: int, wait_ms: int) -> Mapping[int, Sequence[WaitingEntry]]:
        """See `Outbox.waiting`."""
        for _ in range(wait_ms):
            if found := super().waiting(after, at_most, wait_ms):
                return found
            self._pause(0.001)
        return {}


class SlowLog(MemoryLog):
    """A log whose acks take their time."""

    ack_s = 0.0

    async def append(self, topic: str, key: bytes, value: bytes, headers: Headers = ()) -> Position:
        """See `Log.append`. `append_many` comes by here too."""
        position = await super().append(topic, key, value, headers)
        await asyncio.sleep(self.ack_s)
        return position


class Place:
    """A relay on an outbox in memory, in a time that the test alone lets pass."""

    def __init__(self, loop: Scheduler) -> None:
        server, clock = MemoryServer(), LoopClock(loop)
        server.now_ms = clock.now_ms
        MemoryRoles(server).begin({0: Beginning("g1-aaaaaa", 1, 0, 0)})
        self._loop = loop
        self._store = MemoryStore(server, "g1-aaaaaa")
        self.log = SlowLog(load().partitions, clock)
        topics, outbox = MemoryPartyTopics({NOTICES}), WaitingOutbox(server, loop.pause)
        self._relay = Relay(outbox, self.log, topics, Sealer(b"k" * 32), clock, 1, dict)

    def play(self, story: Coroutine[Any, Any, None]) -> list[int]:
        """Relay while that happens and for a second more; returns when each effect was sent, in ms."""

        async def play() -> None:
            relaying = asyncio.create_task(self._relay.run())
            await story
            await asyncio.sleep(1)
            relaying.cancel()
            with suppress(asyncio.CancelledError):
                await relaying

        self._loop.run_until_complete(play())
        sent = self.log.records(NOTICES)
        assert sorted(int(each.key) for each in sent) == list(range(len(sent)))
        return sorted(each.position.broker_time_ms for each in sent)

    def put(self, count: int = 1) -> None:
        """So many effects more."""
        start = self._store.next_offsets([0])[0]
        due = (NoticeDue(NoticeKind.ORDER_VOID, CLINIC, f"e{n}", 0, str(n)) for n in range(start, start + count))
        effects = [pack_effect(start + n, "a" * 32, each) for n, each in enumerate(due)]
        self._store.write([PartitionWrite(0, start, 0, start + count, [], effects)])


@pytest.fixture
def place() -> Iterator[Place]:
    with running(Random(1)) as loop:
        yield Place(loop)


def test_what_comes_one_by_one_leaves_ten_times_a_second_and_none_waits_longer(place: Place) -> None:
    async def one_each_10_ms() -> None:
        for _ in range(100):
            place.put()
            await asyncio.sleep(0.01)

    sent = place.play(one_each_10_ms())
    rounds = sorted(set(sent))
    assert len(sent) == 100
    assert all(later - earlier >= APART_MS for earlier, later in pairwise(rounds))
    assert all(0 <= at_ms - 10 * number <= APART_MS + 1 for number, at_ms in enumerate(sent))


def test_what_comes_after_a_pause_leaves_at_once_and_what_follows_it_with_the_next_round_at_the_latest(
    place: Place,
) -> None:
    async def two_after_a_pause() -> None:
        for after_s in (3.3, 0.03):
            await asyncio.sleep(after_s)
            place.put()

    first, second = place.play(two_after_a_pause())
    assert 3_300 <= first <= 3_301
    assert second - first <= APART_MS + 1


def test_a_backlog_leaves_round_after_round_without_a_pause(place: Place) -> None:
    async def much() -> None:
        place.put(2_000)

    sent = place.play(much())
    assert len(sent) == 2_000
    assert sent[-1] - sent[0] <= 1


@pytest.mark.parametrize(("count", "apart_ms"), [(LITTLE, APART_MS), (LITTLE + 1, 0)], ids=["little", "more"])
def test_how_much_a_round_brought_decides_when_the_next_begins(place: Place, count: int, apart_ms: int) -> None:
    async def one_more_soon() -> None:
        place.put(count)
        await asyncio.sleep(0.005)
        place.put()

    sent = place.play(one_more_soon())
    assert max(apart_ms, 5) <= sent[-1] - sent[0] <= max(apart_ms, 5) + 1


def test_what_a_round_took_is_not_waited_for_once_more(place: Place) -> None:
    async def one_during_a_slow_round() -> None:
        place.put()
        await asyncio.sleep(0.001)
        place.put()

    place.log.ack_s = 0.045  # the effect's, and that of the progress
    first, second = place.play(one_during_a_slow_round())
    assert APART_MS - 1 <= second - first <= APART_MS + 1
