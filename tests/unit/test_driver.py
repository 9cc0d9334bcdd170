"""The driver without Kafka: its cursors, and the processing loop over a log in memory."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from services.canonical_log.allowed_keys import ALLOWED
from services.medication_list.driver import app
from services.medication_list.driver.app import check_codecs
from services.medication_list.driver.batches import Applied, Fetch, PartitionBatch, Rewind, Verdict
from services.medication_list.driver.cursors import Cursors, Stop, StopReason, rolled_back
from services.medication_list.driver.memory import MemoryLogReader
from services.medication_list.driver.pump import OF_ALL, Pauses, pump
from services.medication_list.log.last_record import mark_of
from services.medication_list.store.port import Standing, StoreUnavailableError, WrongTypeError

PAUSE = Pauses(first_s=0.0, longest_s=0.0)


@dataclass(frozen=True)
class LogRecord:
    """A record of the log in memory."""

    offset: int
    key: bytes | None = None
    value: bytes | None = b""
    timestamp: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass
class MemoryLog:
    """Offsets of each partition; those left out are transaction markers."""

    offsets: Mapping[int, list[int]]

    def read(self, partition: int, offset: int, limit: int) -> list[LogRecord]:
        """Return the records at and after the offset."""
        return [LogRecord(o) for o in self.offsets[partition] if o >= offset][:limit]


@dataclass
class MemoryStore:
    """Takes a batch only where it stands; fails and rolls back when told to."""

    stored: dict[int, int] = field(default_factory=dict)
    last: dict[int, bytes] = field(default_factory=dict)
    counts: Counter[tuple[int, int]] = field(default_factory=Counter)
    mishaps: list[str] = field(default_factory=list)
    poisoned: set[int] = field(default_factory=set)
    """Partitions of which nothing can be written; what is written with them is."""
    refusals: int = 0

    def standing(self, partitions: Collection[int]) -> Mapping[int, Standing]:
        """Return where the store stands."""
        return {p: Standing(self.stored.get(p, 0), self.last.get(p, b"")) for p in partitions}

    def process(self, fetch: Fetch) -> Mapping[int, Verdict]:
        """Count each record, or meet with the next mishap."""
        mishap = self.mishaps.pop() if self.mishaps else "none"
        if mishap == "emptied":
            self.stored.clear()
            self.last.clear()
            self.counts.clear()
        if mishap == "fails_before":
            raise ConnectionError
        sound = [batch for batch in fetch.batches if batch.partition not in self.poisoned]
        verdicts = {batch.partition: self._apply(batch) for batch in sound}
        if mishap == "fails_after":
            raise TimeoutError
        if mishap == "stumbles" or len(sound) < len(fetch.batches):
            raise ArithmeticError
        return {} if mishap == "silent" else verdicts

    def _apply(self, batch: PartitionBatch) -> Verdict:
        stored = self.stored.get(batch.partition, 0)
        if stored != batch.first_offset:
            self.refusals += 1
            return Rewind(stored)
        self.counts.update((batch.partition, record.offset) for record in batch.records)
        self.stored[batch.partition] = batch.next_offset
        if batch.records:
            self.last[batch.partition] = mark_of(batch.records[-1])
        return Applied(batch.next_offset)


def placed(partition: int = 0, offset: int = 0) -> tuple[Cursors, int]:
    cursors = Cursors()
    cursors.assign([partition], 0.0)
    turn = cursors.unplaced([partition])[partition]
    cursors.place(partition, turn, Standing(offset))
    assert cursors.take_seeks([partition]) == {partition: offset}
    return cursors, turn


Disturbance = Callable[[MemoryLogReader], None]

DISTURBANCES: tuple[Disturbance, ...] = (
    lambda _: None,
    lambda reader: reader.assign((0, 1)),
    lambda reader: reader.rewind(0, 0),
    MemoryLogReader.check_store,
)

offsets = st.sets(st.integers(0, 60)).map(sorted)
mishaps = st.lists(
    st.sampled_from(["none", "fails_before", "fails_after", "stumbles", "silent", "emptied"]), max_size=12
)


@given(st.tuples(offsets, offsets), mishaps, st.integers(1, 5), st.lists(st.sampled_from(DISTURBANCES), max_size=12))
def test_every_record_counts_once_whatever_fails(
    logs: tuple[list[int], list[int]], mishaps: list[str], max_records: int, disturbances: list[Disturbance]
) -> None:
    log, store = MemoryLog(dict(enumerate(logs))), MemoryStore(mishaps=mishaps)

    async def disturb() -> None:
        await asyncio.sleep(0)
        if disturbances:
            disturbances.pop()(reader)

    reader = MemoryLogReader(log.read, store, max_records=max_records, yielding=disturb)
    reader.assign(log.offsets)

    async def run() -> None:
        reader.close()
        async with asyncio.timeout(20):  # a driver that is wrong may ask for the same batch for ever
            await pump(reader, store.process, PAUSE)
            disturbances.clear()
            store.mishaps.clear()
            # What the timer does in a worker: a store that was emptied after its last write refuses nothing.
            reader.check_store()
            await pump(reader, store.process, PAUSE)

    asyncio.run(run())
    assert store.counts == Counter((p, o) for p, partition in log.offsets.items() for o in partition)


class ReadingAhead(MemoryLogReader):
    """Keeps fetches in a queue before the loop, as Faust does."""

    async def fetches(self) -> AsyncIterator[Fetch]:
        """Yield fetches, three of them read before the first is processed."""
        fetches = aiter(super().fetches())
        for fetch in [await anext(fetches) for _ in range(3)]:
            yield fetch
        async for fetch in fetches:
            yield fetch


async def test_queued_batches_ask_for_one_rewind_only() -> None:
    store = MemoryStore(mishaps=["emptied", "none"])
    reader = ReadingAhead(MemoryLog({0: list(range(30))}).read, store, max_records=10)
    reader.assign([0])
    reader.close()
    await pump(reader, store.process, PAUSE)
    assert store.refusals == 1
    assert store.counts == Counter((0, offset) for offset in range(30))


async def test_failures_in_a_row_wait_longer_each_time_and_success_starts_over() -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    store = MemoryStore(mishaps=["fails_before", "none", "none", "fails_after", "fails_before", "fails_before"])
    reader = MemoryLogReader(MemoryLog({0: [0, 1, 2]}).read, store, max_records=1)
    reader.assign([0])
    reader.close()
    await pump(reader, store.process, Pauses(first_s=1.0, longest_s=3.0), sleep)
    # Three failures, a refusal (the third had reached the store), then one more failure after a success.
    assert waited == [1.0, 2.0, 3.0, 3.0, 1.0]
    assert set(store.counts.values()) == {1}


def test_a_store_that_is_back_never_waits_longer_than_a_second_for_a_worker() -> None:
    pauses = [Pauses().after(failures) for failures in range(1, 40)]
    assert pauses == sorted(pauses)
    assert pauses[0] == 0.1
    assert pauses[-1] <= 1.0


async def test_an_idle_store_that_was_emptied_is_read_again_and_a_busy_one_is_not_mistaken_for_it() -> None:
    cursors, turn = placed(offset=5)
    batch = cursors.take(0, turn, [LogRecord(5)], 6, 6)
    assert batch is not None
    believed = cursors.believed()
    cursors.applied(batch, 0.0)
    assert rolled_back(cursors, believed, {0: 6}) == []
    assert rolled_back(cursors, cursors.believed(), {0: 2}) == [0]
    assert cursors.take_seeks([0]) == {0: 2}
    assert not cursors.is_current(batch)


def test_an_answer_that_is_older_than_the_last_batch_is_no_rollback() -> None:
    cursors, turn = placed(offset=5)
    batch = cursors.take(0, turn, [LogRecord(5)], 6, 6)
    assert batch is not None
    believed, answered = cursors.believed(), {0: 5}
    cursors.applied(batch, 0.0)
    assert rolled_back(cursors, believed, answered) == []
    assert cursors.is_current(batch)


def test_markers_alone_move_the_offset_with_an_empty_batch() -> None:
    cursors, turn = placed()
    assert cursors.take(0, turn, [], 0, 2) is None
    assert cursors.take(0, turn, [], 2, 2) == PartitionBatch(0, 0, 2, [], turn)


def test_records_read_before_a_rewind_are_dropped() -> None:
    cursors, turn = placed()
    cursors.rewind(0, 0)
    assert cursors.take(0, turn, [LogRecord(0)], 1, 1) is None


def test_an_assignment_makes_all_that_was_read_before_it_stale() -> None:
    cursors, turn = placed()
    batch = cursors.take(0, turn, [LogRecord(0)], 1, 1)
    assert batch is not None
    cursors.assign([0], 0.0)
    assert not cursors.is_current(batch)
    assert cursors.unplaced([0]).keys() == {0}


def test_a_corrupt_batch_stops_the_partition_only_after_what_lies_before_it() -> None:
    cursors, turn = placed()
    assert cursors.suspect(0, turn, within=10)
    assert cursors.room(0, 1000) == 1
    cursors.take_seeks([0])
    assert cursors.take(0, turn, [LogRecord(0)], 1, 20) is not None
    assert not cursors.suspect(0, turn, within=10)
    assert cursors.stop(0, turn, StopReason.CORRUPT_BATCH, retry_at_s=30.0) == Stop(StopReason.CORRUPT_BATCH, 0, 1)
    assert cursors.readable([0]) == {}
    assert cursors.status()[0].stop == Stop(StopReason.CORRUPT_BATCH, 0, 1)
    cursors.retry_stopped(29.0)
    assert cursors.unplaced([0]) == {}
    cursors.retry_stopped(30.0)
    assert cursors.unplaced([0]).keys() == {0}


def test_a_partition_that_was_found_sound_is_read_at_full_width_again() -> None:
    cursors, turn = placed()
    cursors.suspect(0, turn, within=2)
    cursors.take_seeks([0])
    for offset in range(2):
        assert cursors.room(0, 1000) == 1
        cursors.take(0, turn, [LogRecord(offset)], offset + 1, 20)
    assert cursors.room(0, 1000) == 1000


def test_a_partition_that_does_not_advance_is_told_once() -> None:
    cursors, turn = placed()
    batch = cursors.take(0, turn, [LogRecord(0)], 1, 5)
    assert batch is not None
    assert cursors.stuck(now_s=50.0, after_s=60.0) == []
    assert [status.partition for status in cursors.stuck(now_s=60.0, after_s=60.0)] == [0]
    assert cursors.stuck(now_s=61.0, after_s=60.0) == []
    cursors.applied(batch, now_s=62.0)
    assert cursors.stuck(now_s=100.0, after_s=60.0) == []
    assert cursors.stuck(now_s=130.0, after_s=60.0) != []


def test_a_partition_that_rests_again_and_again_is_told_and_no_other_one() -> None:
    cursors = Cursors()
    cursors.assign([0, 1], 0.0)
    for partition, turn in cursors.unplaced([0, 1]).items():
        cursors.place(partition, turn, Standing(0))
    cursors.take_seeks([0, 1])
    for now_s in range(61):
        for partition, turn in cursors.readable({0, 1} - cursors.resting(now_s)).items():
            batch = cursors.take(partition, turn, [LogRecord(now_s)], now_s + 1, 100)
            if batch is not None and partition == 1:
                cursors.applied(batch, now_s)
        cursors.rewind(0, 0, rest_s=3.0)
    assert [status.partition for status in cursors.stuck(now_s=60.0, after_s=60.0)] == [0]
    assert [status.is_stuck for status in cursors.status()] == [True, False]


def test_a_partition_rests_from_when_the_reader_looks_and_is_read_at_once_where_the_store_went_back() -> None:
    cursors, _ = placed()
    cursors.rewind(0, 0, rest_s=2.0)
    assert cursors.resting(10.0) == {0}
    assert cursors.resting(11.9) == {0}
    assert cursors.resting(12.0) == set()
    cursors.rewind(0, 5, rest_s=2.0)
    assert rolled_back(cursors, cursors.believed(), {0: 3}) == [0]
    assert cursors.resting(20.0) == set()


def test_a_missing_codec_is_named_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    check_codecs()
    monkeypatch.setattr("aiokafka.codec.cramjam", None)
    with pytest.raises(app.CodecMissingError, match="snappy, lz4, zstd"):
        check_codecs()


# --- A log that lost its newest records --------------------------------------------------------------------------


class Begun:
    """One reader after the other over one log and one store, as workers that are killed and started."""

    def __init__(self, records: list[LogRecord]) -> None:
        self.records = records
        self.store = MemoryStore()

    def _read(self, _partition: int, offset: int, limit: int) -> list[LogRecord]:
        return [each for each in self.records if each.offset >= offset][:limit]

    async def run(self, max_records: int = 1000) -> None:
        """A worker begins, and reads what there is."""
        reader = MemoryLogReader(self._read, self.store, max_records=max_records)
        reader.assign([0])
        reader.close()
        await pump(reader, self.store.process, PAUSE)


@pytest.mark.parametrize("max_records", [1, 1000])
async def test_a_worker_that_begins_goes_on_after_the_record_that_was_judged_last(max_records: int) -> None:
    begun = Begun([LogRecord(0), LogRecord(1), LogRecord(4)])  # markers between them, and after them
    await begun.run(max_records)
    begun.store.stored[0] = 7
    begun.records += [LogRecord(7), LogRecord(8)]
    await begun.run(max_records)
    assert begun.store.counts == Counter((0, offset) for offset in (0, 1, 4, 7, 8))
    assert begun.store.refusals == 0


@pytest.mark.parametrize(
    "instead", [LogRecord(4, key=b"another"), LogRecord(4, value=b"another"), LogRecord(4, timestamp=1), LogRecord(5)]
)
async def test_nothing_is_read_past_a_hole_that_others_records_have_filled(instead: LogRecord) -> None:
    """The log lost its newest records, and went on: its end has passed the store's offset before anybody looked."""
    begun = Begun([LogRecord(offset) for offset in range(5)])
    await begun.run()
    begun.records = [*begun.records[:4], instead, *(LogRecord(offset) for offset in range(6, 20))]
    for _ in range(3):  # however often a worker is started
        await begun.run()
    assert begun.store.stored == {0: 5}
    assert begun.store.counts == Counter((0, offset) for offset in range(5))
    begun.store.stored.clear()  # an operator has the view made again from the log as it is
    begun.store.last.clear()
    await begun.run()
    assert begun.store.stored == {0: 20}


def test_no_batch_from_before_sends_a_partition_on_that_has_yet_to_find_what_was_judged_last() -> None:
    cursors = Cursors()
    cursors.assign([0], 0.0)
    turn = cursors.unplaced([0])[0]
    cursors.rewind(0, 3)
    assert cursors.unplaced([0]) == {0: turn}, "where it begins only the store says"
    cursors.place(0, turn, Standing(5, mark_of(LogRecord(4))))
    cursors.rewind(0, 3)
    assert cursors.take_seeks([0]) == {0: 4}
    assert cursors.is_another(0, turn, [LogRecord(4, key=b"another")], 5)
    assert cursors.stop(0, turn, StopReason.LOG_REWRITTEN, retry_at_s=30.0) == Stop(StopReason.LOG_REWRITTEN, 0, 5)
    cursors.rewind(0, 5)
    assert cursors.readable([0]) == {}
    assert cursors.status()[0].stop is not None
    assert rolled_back(cursors, cursors.believed(), {0: 0}) == [0], "an operator emptied the store"
    assert cursors.take_seeks([0]) == {0: 0}
    assert cursors.readable([0]).keys() == {0}


# --- What one partition fails on is that partition's alone -------------------------------------------------------


class Worked:
    """A worker of three partitions; each step of the reader takes a tenth of a second."""

    def __init__(self, poisoned: Collection[int] = ()) -> None:
        self.store = MemoryStore(poisoned=set(poisoned))
        self.now_s = 0.0
        self.asked: list[tuple[float, tuple[int, ...]]] = []
        self.waited: list[float] = []
        self.heals: Callable[[], bool] = lambda: True
        self.reader: MemoryLogReader

    def process(self, fetch: Fetch) -> Mapping[int, Verdict]:
        """As the store does."""
        self.asked.append((self.now_s, tuple(batch.partition for batch in fetch.batches)))
        return self.store.process(fetch)

    async def run(self, process: Callable[[Fetch], Mapping[int, Verdict]] | None = None) -> list[Any]:
        """Read six records of each partition, two at a time; returns what was logged."""

        async def step() -> None:
            await asyncio.sleep(0)
            self.now_s += 0.1
            if self.heals():
                self.store.poisoned.clear()

        async def sleep(seconds: float) -> None:
            self.waited.append(seconds)

        log = MemoryLog({partition: list(range(6)) for partition in range(3)})
        reader = MemoryLogReader(log.read, self.store, max_records=2, now_s=lambda: self.now_s, yielding=step)
        reader.assign(log.offsets)
        reader.close()
        self.reader = reader
        with capture_logs() as lines:
            async with asyncio.timeout(20):
                await pump(reader, process or self.process, sleep=sleep)
        assert self.store.counts == Counter((p, o) for p, offsets in log.offsets.items() for o in offsets)
        return [line for line in lines if line["event"] == "batch_failed"]


async def test_a_partition_that_fails_keeps_no_other_one_from_being_read() -> None:
    worked = Worked(poisoned=[1])
    worked.heals = lambda: worked.store.stored == {0: 6, 2: 6}
    await worked.run()
    assert worked.waited == [0.1], "for what was written beside it the first time, and then no more"


async def test_what_fails_is_told_with_its_partition_and_where_it_stands() -> None:
    worked = Worked(poisoned=[1])
    worked.heals = lambda: len(worked.asked) > 20
    lines = await worked.run()
    assert len(lines) > 2
    for number, line in enumerate(lines, 1):
        assert line == {
            "event": "batch_failed",
            "log_level": "error",
            "partition": 1,
            "offset": 0,
            "error_type": "ArithmeticError",
            "failures": number,
        }
        assert all(ALLOWED[key](value) for key, value in line.items() if key not in ("event", "log_level"))


async def test_a_partition_that_fails_rests_longer_each_time_and_up_to_a_second() -> None:
    worked = Worked(poisoned=[1])
    worked.heals = lambda: worked.now_s > 30.0
    await worked.run()
    alone = [at_s for at_s, partitions in worked.asked if partitions == (1,)]
    gaps = [round(later - earlier, 1) for earlier, later in pairwise(alone)]
    assert gaps[:4] == sorted(gaps[:4])
    assert all(1.0 <= gap < 1.5 for gap in gaps[5:-3])


async def test_what_was_written_beside_a_failure_is_refused_once_and_the_one_that_fails_is_asked_for_apart_then() -> (
    None
):
    """Refused each time, the others would be fetched anew each time, and never count as having come further."""
    worked = Worked(poisoned=[1])
    worked.heals = lambda: worked.now_s > 5.0
    await worked.run()
    assert [partitions for _, partitions in worked.asked][:5] == [(0, 1, 2), (0,), (1,), (2,), (0, 2)]
    assert worked.store.refusals == 2
    assert (0, 1, 2) not in [partitions for _, partitions in worked.asked[1:-3]]


@pytest.mark.parametrize("error", [StoreUnavailableError("away"), TimeoutError(), PermissionError()])
async def test_a_store_that_is_away_is_asked_once_for_all_partitions(error: Exception) -> None:
    worked = Worked()
    errors = [error] * 3

    def process(fetch: Fetch) -> Mapping[int, Verdict]:
        verdicts = worked.process(fetch)
        if errors:
            worked.store.stored.clear()
            worked.store.counts.clear()
            raise errors.pop()
        return verdicts

    lines = await worked.run(process)
    assert [partitions for _, partitions in worked.asked][:4] == [(0, 1, 2)] * 4
    assert [(line["partitions"], line["failures"]) for line in lines] == [(3, 1), (3, 2), (3, 3)]
    assert worked.waited == [0.1, 0.2, 0.4]


async def test_a_store_that_goes_away_while_each_is_asked_for_alone_is_asked_no_more() -> None:
    worked = Worked()
    errors = [StoreUnavailableError("away"), ArithmeticError()]

    def process(fetch: Fetch) -> Mapping[int, Verdict]:
        if errors:
            worked.asked.append((worked.now_s, tuple(batch.partition for batch in fetch.batches)))
            raise errors.pop()
        return worked.process(fetch)

    (line,) = await worked.run(process)
    assert [partitions for _, partitions in worked.asked][:3] == [(0, 1, 2), (0,), (0, 1, 2)]
    assert (line["error_type"], line["partitions"]) == ("StoreUnavailableError", 3)
    assert worked.waited == [0.1]


async def test_what_a_new_assignment_overtakes_while_each_is_asked_for_alone_is_asked_for_no_more() -> None:
    """Schedule 144510: asking takes time, and partitions move meanwhile."""
    worked = Worked()
    errors = [ArithmeticError()]

    def process(fetch: Fetch) -> Mapping[int, Verdict]:
        assert all(worked.reader.is_current(batch) for batch in fetch.batches)
        if errors:
            worked.asked.append((worked.now_s, (0, 1, 2)))
            raise errors.pop()
        verdicts = worked.process(fetch)
        if len(worked.asked) == 2:
            worked.reader.assign([0, 1, 2])
        return verdicts

    assert await worked.run(process) == []
    assert [partitions for _, partitions in worked.asked][:3] == [(0, 1, 2), (0,), (0, 1, 2)]


def test_a_key_of_another_type_is_an_answer_and_no_store_that_is_away() -> None:
    """As a StoreUnavailableError it is what readers and the relay take it for; here it is one partition's."""
    worked = Worked()

    def process(fetch: Fetch) -> Mapping[int, Verdict]:
        if worked.now_s < 3.0 and any(batch.partition == 2 for batch in fetch.batches):
            raise WrongTypeError("WRONGTYPE")
        return worked.process(fetch)

    lines = asyncio.run(worked.run(process))
    assert issubclass(WrongTypeError, OF_ALL)
    assert {(line["partition"], line["error_type"]) for line in lines} == {(2, "WrongTypeError")}
    assert worked.waited == []
