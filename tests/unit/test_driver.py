"""The driver without Kafka: its cursors, and the processing loop over a log in memory."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.medication_list.driver import (
    Applied,
    Cursors,
    Fetch,
    MemoryLogReader,
    PartitionBatch,
    Pauses,
    Rewind,
    Stop,
    StopReason,
    Verdict,
    app,
    check_codecs,
    pump,
)
from services.medication_list.driver.cursors import rolled_back
from services.medication_list.last_record import mark_of
from services.medication_list.store.port import Standing

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
        verdicts = {batch.partition: self._apply(batch) for batch in fetch.batches}
        if mishap == "fails_after":
            raise TimeoutError
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
mishaps = st.lists(st.sampled_from(["none", "fails_before", "fails_after", "silent", "emptied"]), max_size=12)


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
