"""One worker: judges fetches into the store, and follows its release's generation through losses and switches.

What a fetch means is in `services/medication_list/judging/judge.py`.
"""

import os
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from schemas.framing import PLAIN, Framing
from services.canonical_log import get_logger
from services.medication_list.driver.batches import Applied, Fetch, PartitionBatch, Rewind, Verdict
from services.medication_list.driver.pump import OF_ALL
from services.medication_list.fold import VERSION
from services.medication_list.generations import (
    RELEASE,
    GenerationGoneError,
    GenerationRecord,
    GenerationRefusedError,
    GenerationState,
    enter,
    generation_for,
    is_announced,
    partitions_to_begin,
    record_of,
)
from services.medication_list.judging.counting import Judged
from services.medication_list.judging.event_spans import EventSpans
from services.medication_list.judging.judge import Judge
from services.medication_list.log.source_log import SourceLog, SourceLogUnavailableError
from services.medication_list.processor.metrics import ProcessorMetrics
from services.medication_list.refolding.mending import Held, Mender
from services.medication_list.store.port import Standing, Store, StoreUnavailableError, ViewLostError
from services.medication_list.store.roles import Attending, Pointer, Roles, WorkerKind
from services.medication_list.switch_protocol import follow, give_up
from services.telemetry import new_registry
from services.telemetry.exposition import with_process
from services.telemetry.traces import Traces

_TOLD_EVERY_S: Final = 10.0

LOOK_AROUND_EVERY_S: Final = 1.0
"""How often a worker looks which generation it is to feed, and says that it works."""
ATTENDS_FOR_MS: Final = 6_000
"""How long it counts as working after it said so: the driver asks at least every two seconds while it has partitions."""
SWITCH_WITHIN_S: Final = 1.0
"""A switch that a worker has seen undecided for so long is given up: its command is gone, and writes wait."""
OF_EVERY_BATCH: Final = (*OF_ALL, SourceLogUnavailableError, GenerationRefusedError)
"""What `Worker.process` raises before it looks at any batch, too: it enters the generation, and looks around."""
_log = get_logger()


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a worker waits inside `process` for permission to write, in seconds; by default not at all.

    It blocks: the driver's heartbeats have a thread of their own. Shorter than any timeout of the driver.
    """

    for_s: float = 0.0
    first_pause_s: float = 0.002
    longest_pause_s: float = 0.02
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic


_NO_PATIENCE: Final = Patience()
"""Whatever may not be written yet is given back at once, to be read again."""
MenderOf = Callable[[Store, EventSpans | None, Callable[[Judged], None]], Mender]
"""Makes who mends in a store; with what makes the spans of sampled events, if any, and what counts the alarms."""


class Worker:
    """One worker: feeds the generation of its release, judges what the driver brings, enters again when the view is lost.

    Which generation that is can change while it runs, by a switch; every batch is written to the one that it was read
    from, or refused. `attending` is who it says that it is.
    """

    def __init__(  # noqa: PLR0913 - the ports, and what a process or a simulation gives by name
        self,
        roles: Roles,
        log: SourceLog,
        store_of: Callable[[str], Store],
        partitions: int,
        made_at_ms: int,
        generation: str | None = None,
        framing: Framing = PLAIN,
        *,
        mender_of: MenderOf | None = None,
        held: Held | None = None,
        patience: Patience = _NO_PATIENCE,
        traces: Traces | None = None,
    ) -> None:
        """`store_of` gives the store of a generation; `generation` is the one to work on, None: that of this release.

        `mender_of` is asked with each store that this worker begins to feed; None: it mends nothing.
        """
        self._roles = roles
        self._log = log
        self._store_of = store_of
        self._partitions = partitions
        self._record = GenerationRecord(VERSION, RELEASE, made_at_ms)
        self._wanted = generation
        self._framing = framing
        self.registry = with_process(new_registry())
        self.metrics = ProcessorMetrics(self.registry)
        self._mender_of = mender_of
        self._mender: Mender | None = None
        self.held = Held() if held is None else held
        self._patience = patience
        self._traces = traces
        self._tally = Tally()
        self._turning = threading.RLock()
        self._store: Store | None = None
        self._judge: Judge | None = None
        self._generation: str | None = None
        self._is_live = True
        self._must_enter = True
        self._epoch = -1
        self._look_at_s = 0.0
        self._switch: tuple[str, float] | None = None
        kind = WorkerKind.PINNED if generation else WorkerKind.PROCESSOR
        self.attending = Attending(kind, f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}")

    @property
    def generation(self) -> str | None:
        """What it feeds now; None before it entered."""
        return self._generation

    def enter(self) -> None:
        """Begin or join the generation. Raises GenerationRefusedError where this worker must not work."""
        with self._turning:
            # A worker that fed a non-live generation does not decide what comes after a loss.
            self._feed(enter(self._roles, self._log, self._record, self._wanted, may_begin=self._is_live))
            self._must_enter = False
            self._look_around()

    def standing(self, partitions: Collection[int]) -> Mapping[int, Standing]:
        """The store's word on how far each partition has come (see `driver.batches.Positions`)."""
        self.held.asked(partitions)
        self._look_around_now_and_then()
        try:
            return self._standing_store().standing(partitions)
        except ViewLostError:
            self._must_enter = True
            return self._standing_store().standing(partitions)

    def process(self, fetch: Fetch) -> Mapping[int, Verdict]:
        """Judge one fetch (see `driver.batches.Process`); permission to write is waited for briefly."""
        self._look_around_now_and_then()
        verdicts = dict(self._judged(fetch))
        patience = self._patience
        until_s, pause_s = patience.monotonic() + patience.for_s, patience.first_pause_s
        while (left := _waiting(fetch, verdicts)) and patience.monotonic() < until_s:
            # A switch is under way, or the live generation has yet to come as far.
            self._look_around()
            patience.sleep(pause_s)
            pause_s = min(2 * pause_s, patience.longest_pause_s)
            verdicts |= self._judged(Fetch(left, fetch.fetched_ns))
        if left:
            self._look_around()
        self._tally.count(fetch, verdicts)
        self.metrics.settled(fetch, verdicts)
        return verdicts

    def mend(self, partition: int) -> int:
        """Refold what was parked in a partition for a schema that is here now (see `Mender.mend`)."""
        return 0 if self._mender is None else self._mender.mend(partition)

    def leave(self) -> None:
        """Tell that it works no more. Raises nothing: its time runs out anyway."""
        with self._turning:
            if self._generation is not None:
                self._attend(self._generation, 0)

    def mine(self, pointer: Pointer) -> str | None:
        """What this worker is to feed as things stand; None: nothing that there is."""
        return self._wanted or generation_for(pointer, self._record.fold_version)

    # --- Which generation ----------------------------------------------------------------------------------------

    def _look_around_now_and_then(self) -> None:
        if self._patience.monotonic() >= self._look_at_s:
            self._look_around()

    def _look_around(self) -> None:
        """Feed what is to be fed now, help a switch to its end, and say that this worker works.

        Where a partition has no role, or one with which nobody can go on, the live generation is entered once more.
        Raises GenerationGoneError when there is nothing to feed any more, StoreUnavailableError.
        """
        with self._turning:
            self._look_at_s = self._patience.monotonic() + LOOK_AROUND_EVERY_S
            pointer = self._roles.pointer()
            if pointer is None or self._generation is None:
                return
            self._help(pointer)
            mine = self.mine(pointer)
            if mine is None or mine not in pointer.records or record_of(pointer, mine).state == GenerationState.RETIRED:
                raise GenerationGoneError(f"Generation {self._generation} is gone, and there is no other one to feed.")
            if mine != self._generation:
                self._attend(self._generation, 0)
                self._feed(mine)
            self._is_live = mine == pointer.generation
            if self._is_live and partitions_to_begin(self._roles.roles(range(self._partitions)), pointer):
                self._must_enter = True
            self._attend(mine, ATTENDS_FOR_MS)

    def _help(self, pointer: Pointer) -> None:
        """A switch ends even if its command is gone: undecided for too long, it is given up; decided, it is followed."""
        if is_announced(pointer.token):
            now_s = self._patience.monotonic()
            if self._switch is None or self._switch[0] != pointer.token:
                self._switch = pointer.token, now_s
            elif now_s - self._switch[1] >= SWITCH_WITHIN_S and give_up(self._roles, self._partitions, pointer):
                _log.warning("switch_given_up")
        elif pointer.epoch != self._epoch or pointer.generation == self._generation:
            follow(self._roles, self._partitions)
            self._epoch = pointer.epoch

    def _feed(self, generation: str) -> None:
        store = self._store_of(generation)
        spans = None if self._traces is None else EventSpans(self._traces, generation)
        self._judge = Judge(store, self._partitions, self._framing, self.metrics.judged, spans)
        self.metrics.entered(generation)
        if self._mender_of is not None:
            self._mender = self._mender_of(store, spans, self.metrics.judged)
        self._store, self._generation = store, generation
        _log.info("generation_entered", generation=generation)

    def _attend(self, generation: str, for_ms: int) -> None:
        # A Redis that is full, or away, does not take it; that is no reason to stop.
        with suppress(StoreUnavailableError):
            self._roles.attend(generation, self.attending, for_ms)

    # --- Judging -------------------------------------------------------------------------------------------------

    def _judged(self, fetch: Fetch) -> Mapping[int, Verdict]:
        self._standing_store()
        assert self._judge is not None, "a worker that has entered has a judge"
        try:
            return self._judge.process(fetch)
        except Exception as error:
            self.metrics.failed()
            if isinstance(error, ViewLostError):
                self._must_enter = True
            raise

    def _standing_store(self) -> Store:
        with self._turning:
            if self._must_enter:
                self.enter()
            assert self._store is not None, "entering gives a store"
            return self._store


def _waiting(fetch: Fetch, verdicts: Mapping[int, Verdict]) -> tuple[PartitionBatch, ...]:
    """What is left of the batches that may not be written yet: refused where they begin, or cut."""
    left = []
    for batch in fetch.batches:
        match verdicts[batch.partition]:
            case Applied(offset) if offset < batch.next_offset:
                left.append(_rest(batch, offset))
            case Rewind(offset) if batch.first_offset <= offset < batch.next_offset:
                left.append(_rest(batch, offset))
            case _:
                pass
    return tuple(left)


def _rest(batch: PartitionBatch, offset: int) -> PartitionBatch:
    if offset == batch.first_offset:
        return batch
    records = [record for record in batch.records if record.offset >= offset]
    return PartitionBatch(batch.partition, offset, batch.next_offset, records, batch.turn)


class Tally:
    """Counts what was done, and logs it in one line every ten seconds."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._told_at_s = time.monotonic()

    def count(self, fetch: Fetch, verdicts: Mapping[int, Verdict]) -> None:
        """Take one fetch into account."""
        for batch in fetch.batches:
            is_applied = isinstance(verdicts[batch.partition], Applied)
            self._counts["events" if is_applied else "refused"] += len(batch.records)
            self._counts["batches"] += 1
        now_s = time.monotonic()
        if now_s - self._told_at_s >= _TOLD_EVERY_S:
            _log.info("events_processed", **self._counts)
            self._counts.clear()
            self._told_at_s = now_s


class LeavingWhenGone:
    """Ends the process in order, as an operator would, when there is nothing left to feed."""

    def __init__(self, worker: Worker, leave: Callable[[], None]) -> None:
        """`leave`: how the process is asked to end."""
        self._worker = worker
        self._leave = leave

    def standing(self, partitions: Collection[int]) -> Mapping[int, Standing]:
        """See `Worker.standing`."""
        with self._ending():
            return self._worker.standing(partitions)

    def process(self, fetch: Fetch) -> Mapping[int, Verdict]:
        """See `Worker.process`."""
        with self._ending():
            return self._worker.process(fetch)

    @contextmanager
    def _ending(self) -> Iterator[None]:
        try:
            yield
        except GenerationGoneError:
            _log.warning("generation_gone", generation=self._worker.generation)
            self._leave()
            raise
